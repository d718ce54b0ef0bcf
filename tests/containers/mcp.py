"""The smallest MCP client that these tests need: one connection a request, the answer read from JSON or from SSE."""

import http.client
import itertools
import json

TIMEOUT = 20


class Refused(Exception):
    """The bridge or the server said no."""

    def __init__(self, reply):
        super().__init__(f"HTTP {reply.status}: {reply.message}")
        self.status, self.headers = reply.status, reply.headers
        self.error = (reply.message or {}).get("error") or {}
        self.reason = (self.error.get("data") or {}).get("reason")


class Reply:
    """A reply whose head is here; `answer` waits for the rest."""

    def __init__(self, response, id=None):
        self.response, self.id = response, id
        self.status, self.headers, self.message = response.status, response.headers, None

    @property
    def streams(self):
        return self.headers.get_content_type() == "text/event-stream"

    def answer(self):
        messages = self._events() if self.streams else self._body()
        for message in messages:
            if not self.streams or message.get("id") == self.id and "method" not in message:
                self.message = message
                break
        return self

    def _body(self):
        text = self.response.read()
        if text and self.headers.get_content_type() == "application/json":
            yield json.loads(text)

    def _events(self):
        data = []
        for line in self.response:
            line = line.decode().rstrip("\n")
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield json.loads("\n".join(data))
                data = []
        raise AssertionError("the stream ended before the answer")


class Client:
    """One session. `dial` opens a connection to the bridge."""

    def __init__(self, dial):
        self.dial, self.session, self.ids = dial, None, itertools.count(1)

    def http(self, method, path, body=None, id=None):
        connection = http.client.HTTPConnection("bridge", timeout=TIMEOUT)
        connection.sock = self.dial()
        headers = {"Host": "127.0.0.1:8080", "Accept": "application/json, text/event-stream"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        connection.request(method, path, body, headers)
        return Reply(connection.getresponse(), id)

    def begin(self, method, params):
        """Sends a request; returns once the head of the reply is here, for a slow call that is while it runs."""
        id = next(self.ids)
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        return self.http("POST", "/mcp", message, id)

    def begin_call(self, tool, **arguments):
        return self.begin("tools/call", {"name": tool, "arguments": arguments})

    def initialize(self):
        client = {"name": "containers", "version": "0"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        reply = self.begin("initialize", params)
        checked(reply)
        self.session = reply.headers["Mcp-Session-Id"]
        assert self.session, "an initialize that succeeds must name its session"
        said = self.http("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert said.answer().status == 202, f"notifications/initialized must get 202, got {said.status}"
        return self

    def call(self, tool, **arguments):
        """The text of a tool's result."""
        return text(self.begin_call(tool, **arguments))

    def delete(self):
        return self.http("DELETE", "/mcp").answer().status


def checked(reply):
    """The result of a reply, or `Refused`."""
    message = reply.answer().message
    if reply.status != 200 or not message or "result" not in message:
        raise Refused(reply)
    return message["result"]


def text(reply):
    result = checked(reply)
    assert not result.get("isError"), f"the tool failed: {result}"
    return result["content"][0]["text"]


def refusal(do):
    """What `do` was refused with."""
    try:
        got = do()
    except Refused as refused:
        return refused
    raise AssertionError(f"must be refused, got {got!r}")
