"""HTTP/1.1 with exactly the header lines that the caller gives, in their order, over connections that are kept.

No library in between adds a header, follows a redirect or repeats a request: what a gateway sends is what is tested.
"""

import http.client
import json
import socket
import threading
import time

PATIENCE = 20.0  # seconds after which an answer counts as lost


class Lost(Exception):
    """The connection could not be made, or ended before a whole answer was there."""


class Reply:
    """One HTTP answer, read to its end: `messages` in their order, `answer` the one with the id that was asked."""

    def __init__(self, status, headers, form, messages=(), body=b""):
        self.status, self.headers, self.form = status, headers, form
        self.messages, self.body = list(messages), body

    def header(self, name):
        return self.headers.get(name.lower())

    def answer(self, wanted):
        return next((one for one in self.messages if "method" not in one and one.get("id") == wanted), None)


class Pool:
    """The connections of one HTTP client to one address; idle ones are used again, as Go, hyper and .NET do."""

    def __init__(self, address):
        self.address = address
        self.idle, self.made, self.lock = [], 0, threading.Lock()

    def send(self, verb, path, lines, body=None, timeout=PATIENCE):
        """The open response and its connection."""
        deadline = time.monotonic() + timeout
        while True:
            with self.lock:
                kept = self.idle.pop() if self.idle else None
            connection = kept or self.connect(timeout)
            try:
                connection.timeout = max(0.01, deadline - time.monotonic())
                if connection.sock:
                    connection.sock.settimeout(connection.timeout)
                connection.putrequest(verb, path, skip_host=True, skip_accept_encoding=True)
                for name, value in lines:
                    connection.putheader(name, value)
                connection.endheaders(body)
                return connection, connection.getresponse()
            except TimeoutError:
                connection.close()
                raise
            except (OSError, http.client.HTTPException) as reason:
                connection.close()
                if kept is None:  # one that was kept may have been closed meanwhile: then once more, on a new one
                    raise Lost(f"{verb}: {reason!r}") from None

    def connect(self, timeout):
        self.made += 1
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            connection.connect()
        except OSError as reason:
            raise Lost(f"dial: {reason}") from None
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def give_back(self, connection, response):
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            with self.lock:
                self.idle.append(connection)

    def exchange(self, verb, path, lines, body=None, timeout=PATIENCE, head=None, each=None, head_only=False):
        """One request, and its answer read to the end; `head(status, headers)` and `each(message)` are told at once.
        `head_only`: an event stream is dropped unread."""
        deadline = time.monotonic() + timeout
        connection, response = self.send(verb, path, lines, body, timeout)
        try:
            headers = {name.lower(): value for name, value in response.getheaders()}
            if head:
                head(response.status, headers)
            kind = headers.get("content-type", "").split(";")[0].strip()
            if kind == "text/event-stream" and head_only:
                connection.close()
                return Reply(response.status, headers, "sse")
            if kind == "text/event-stream":
                messages = []
                for _, data in events(response, deadline):
                    messages.append(json.loads(data))
                    if each:
                        each(messages[-1])
                reply = Reply(response.status, headers, "sse", messages)
            else:
                text = response.read()
                whole = json.loads(text) if kind == "application/json" and text else None
                messages = whole if isinstance(whole, list) else [whole] if whole is not None else []
                reply = Reply(response.status, headers, "json" if messages else "", messages, text)
                for message in messages if each else ():
                    each(message)
        except TimeoutError:
            connection.close()
            raise
        except (OSError, http.client.HTTPException) as reason:
            connection.close()
            raise Lost(f"{verb}: the answer broke off: {reason!r}") from None
        self.give_back(connection, response)
        return reply


def events(response, deadline=None):
    """(id, data) of each event that has data; comments are skipped. A line without a colon is an error, as it is in Go."""
    name, data = None, []
    while line := response.readline():
        if deadline and time.monotonic() > deadline:
            raise TimeoutError("the stream goes on, but without the answer")
        line = line.rstrip(b"\r\n")
        if not line:
            if data:
                yield name, b"\n".join(data)
            data = []
            continue
        field, colon, value = line.partition(b":")
        if not colon:
            raise http.client.HTTPException(f"a line without a colon in an event stream: {line[:80]!r}")
        if field == b"data":
            data.append(value.strip())
        elif field == b"id":
            name = value.strip().decode()


def encode(message):
    return json.dumps(message, separators=(",", ":")).encode()


def request(id, method, params):
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def notification(method, params):
    return {"jsonrpc": "2.0", "method": method, "params": params}


def text_of(answer):
    """The text of a tool's result."""
    if answer is None or "result" not in answer:
        raise AssertionError(f"no result: {str(answer)[:300]}")
    return answer["result"]["content"][0]["text"]
