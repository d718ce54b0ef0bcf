"""Clients of both eras that hide no byte: what they send is written down here, and what they get is looked at."""

import collections
import json
import pathlib
import socket
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "gateways"))

from wire import Pool, encode, events, notification, request  # noqa: E402

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
EVERYTHING = {"elicitation": {}, "sampling": {}, "roots": {}}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri", "resources/subscribe": "uri"}

Claim = collections.namedtuple("Claim", "subject text check")
ALL = []


def claim(subject, text):
    def add(check):
        ALL.append(Claim(subject, text, check))
        return check

    return add


def expect(found, wanted, what=""):
    assert found == wanted, f"{what} {str(found)[:300]!r} instead of {str(wanted)[:300]!r}".strip()


def side_by_side(work, clients):
    """`work(number, client)` of all, at the same moment; their results in order."""
    start = threading.Barrier(len(clients), timeout=20)
    results, wrong = [None] * len(clients), []

    def run(number, client):
        try:
            start.wait()
            results[number] = work(number, client)
        except BaseException as reason:
            wrong.append(reason)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(clients)}, such as {wrong[0]!r}") from wrong[0]
    return results


class Modern:
    """A client of 2026-07-28: each request says all there is to know."""

    def __init__(self, address, *headers, capabilities=EVERYTHING, name="modern"):
        self.pool, self.headers, self.capabilities, self.name = Pool(address), list(headers), capabilities, name
        self.replies = []

    def ask(self, method, params=None, id=1, token=None, level=None, timeout=20, meta=None):
        about = {
            META + "protocolVersion": MODERN,
            META + "clientInfo": {"name": self.name, "version": "1"},
            META + "clientCapabilities": self.capabilities,
            **({"progressToken": token} if token is not None else {}),
            **({META + "logLevel": level} if level else {}),
            **(meta or {}),
        }
        message = request(id, method, {**(params or {}), "_meta": about})
        reply = self.pool.exchange("POST", "/mcp", *self.encoded(message), timeout)
        self.replies.append(reply)
        return reply

    def encoded(self, message):
        """The header lines of a message, and its body."""
        method, params, body = message["method"], message["params"], encode(message)
        lines = [
            ("Host", "127.0.0.1"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Accept", "application/json, text/event-stream"),
            ("MCP-Protocol-Version", MODERN),
            ("Mcp-Method", method),
        ]
        if method in NAMED:
            lines.append(("Mcp-Name", params[NAMED[method]]))
        return lines + self.headers, body

    def call(self, tool, id=1, token=None, level=None, retry=None, timeout=20, meta=None, **arguments):
        """`retry`: the answers to what an earlier call asked, and its state."""
        params = {"name": tool, "arguments": arguments, **(retry or {})}
        return self.ask("tools/call", params, id, token, level, timeout, meta)

    def notify(self, method, params):
        message = notification(method, {**params, "_meta": {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}})
        return self.pool.exchange("POST", "/mcp", *self.encoded(message))

    def raw(self, method, params, *headers):
        """The answer's bytes, and its head."""
        about = {META + "protocolVersion": MODERN, META + "clientCapabilities": self.capabilities, "progressToken": 1}
        lines, body = self.encoded(request(1, method, {**params, "_meta": about}))
        connection, response = self.pool.send("POST", "/mcp", [*lines, *headers], body)
        text = response.read().decode()
        self.pool.give_back(connection, response)
        return response, text

    def listen(self, id, **notifications):
        return Listening(self, id, notifications)


class Listening:
    """An open `subscriptions/listen`: `messages` grows."""

    def __init__(self, client, id, notifications):
        self.messages, self.arrived, self.failed = [], threading.Condition(), None
        self.client, self.id, self.notifications = client, id, notifications
        self.connection, self.open = None, threading.Event()
        threading.Thread(target=self.run, daemon=True).start()
        self.opened()

    def opened(self):
        self.wait(1)  # the acknowledgement

    def run(self):
        try:
            self.connection, response = self.begin()
            kind = response.getheader("content-type", "")
            if "event-stream" not in kind:
                raise AssertionError(f"HTTP {response.status} {kind} {response.read()[:200]}")
            self.open.set()
            for _, data in events(response):
                self.take(json.loads(data))
        except Exception as reason:  # noqa: BLE001 — whoever waits is told
            with self.arrived:
                self.failed = reason
                self.arrived.notify_all()

    def begin(self):
        body = request(self.id, "subscriptions/listen", {
            "notifications": self.notifications,
            "_meta": {META + "protocolVersion": MODERN, META + "clientCapabilities": self.client.capabilities},
        })
        return self.client.pool.send("POST", "/mcp", *self.client.encoded(body), 60)

    def take(self, message):
        with self.arrived:
            self.messages.append(message)
            self.arrived.notify_all()

    def wait(self, count, timeout=10):
        """Until as many messages have come; all there are."""
        with self.arrived:
            come = self.arrived.wait_for(lambda: len(self.messages) >= count or self.failed, timeout)
            assert come and len(self.messages) >= count, f"{len(self.messages)} of {count} messages: {self.messages} {self.failed!r}"
            return list(self.messages)

    def close(self):
        if self.connection and self.connection.sock:
            self.connection.sock.shutdown(socket.SHUT_RDWR)


class Hearing(Listening):
    """The listening GET of a session."""

    def __init__(self, client):
        super().__init__(client, None, None)

    def opened(self):
        assert self.open.wait(10), f"no stream: {self.failed!r}"

    def begin(self):
        return self.client.pool.send("GET", "/mcp", self.client.named(), timeout=60)


class Legacy:
    """A client up to 2025-11-25. `sent` says what goes out, `replies` what came back."""

    def __init__(self, address, version="2025-11-25", capabilities=EVERYTHING, name="legacy"):
        self.pool, self.version, self.capabilities, self.name = Pool(address), version, capabilities, name
        self.session, self.negotiated, self.meta, self.modern_headers = None, None, None, False
        self.headers = []  # that all its requests carry

    def post(self, message, timeout=20):
        lines = [("Host", "127.0.0.1"), ("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
        lines += self.headers
        if self.negotiated:
            lines.append(("MCP-Protocol-Version", self.negotiated))
        if self.session:
            lines.append(("Mcp-Session-Id", self.session))
        if self.modern_headers and "id" in message:
            lines.append(("Mcp-Method", message["method"]))
            if message["method"] in NAMED:
                lines.append(("Mcp-Name", message["params"][NAMED[message["method"]]]))
        body = encode(message)
        return self.pool.exchange("POST", "/mcp", [*lines, ("Content-Length", str(len(body)))], body, timeout)

    def ask(self, method, params=None, id=1):
        params = dict(params or {})
        if self.meta:
            params["_meta"] = {**params.get("_meta", {}), **self.meta}
        return self.post(request(id, method, params))

    def open(self):
        about = {"name": self.name, "version": "1"}
        params = {"protocolVersion": self.version, "capabilities": self.capabilities, "clientInfo": about}
        reply = self.post(request(0, "initialize", params))
        self.session = reply.header("mcp-session-id")
        assert reply.status == 200 and self.session, f"HTTP {reply.status} {reply.messages} without a session"
        self.negotiated = reply.answer(0)["result"]["protocolVersion"]
        expect(self.post(notification("notifications/initialized", {})).status, 202, "initialized:")
        return reply.answer(0)["result"]

    def call(self, tool, id=1, token=None, **arguments):
        meta = {} if token is None else {"_meta": {"progressToken": token}}
        return self.ask("tools/call", {"name": tool, "arguments": arguments, **meta}, id)

    def notify(self, method, params):
        expect(self.post(notification(method, params)).status, 202, f"{method}:")

    def answer(self, id, result):
        expect(self.post({"jsonrpc": "2.0", "id": id, "result": result}).status, 202, "an answer:")

    def broken_off(self, method, params, id):
        """The first message of an answer, and, on another connection, what comes after it."""
        body = encode(request(id, method, params))
        accepting = [*self.named(), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        connection, response = self.pool.send("POST", "/mcp", accepting, body)
        name, first = next(events(response))
        connection.close()
        connection, response = self.pool.send("GET", "/mcp", [*self.named(), ("Last-Event-ID", name)])
        rest = []
        for _, data in events(response):
            rest.append(json.loads(data))
            if rest[-1].get("id") == id:
                break
        connection.close()
        return json.loads(first), rest

    def named(self):
        """The header lines of each request within the session."""
        return [
            ("Host", "127.0.0.1"),
            *self.headers,
            ("Accept", "application/json, text/event-stream"),
            ("MCP-Protocol-Version", self.negotiated),
            ("Mcp-Session-Id", self.session),
        ]

    def result(self, method, id=1):
        return self.ask(method, id=id).answer(id)["result"]

    def close(self):
        return self.pool.exchange("DELETE", "/mcp", [("Host", "127.0.0.1"), ("Mcp-Session-Id", self.session)]).status
