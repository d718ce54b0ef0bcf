"""Both ends of the wire, without an SDK: raw JSON-RPC text, a stdio child, a Streamable HTTP client, /proc.

What is compared between the two ends is the text of a member, never its parsed value: two numbers that are equal may
be spelt differently, and a bridge that re-serialises is found out by exactly that.
"""

import collections
import http.client
import json
import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import threading
import time
import uuid

PATIENCE = 30.0  # seconds until an answer counts as lost; the slowest cold start here takes 2

# --------------------------------------------------------------------------------------------- messages

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")


def members(text):
    """The members of the object that `text` is, as {name: raw text of the value}."""
    found, at = {}, _BLANK.match(text, 0).end()
    if text[at : at + 1] != "{":
        raise ValueError(f"not an object: {text[:80]!r}")
    at = _BLANK.match(text, at + 1).end()
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _BLANK.match(text, at).end()
        if text[at] != ":":
            raise ValueError(f"no colon after {name!r}")
        start = _BLANK.match(text, at + 1).end()
        _, end = _DECODER.raw_decode(text, start)
        if name in found:
            raise ValueError(f"member {name!r} twice")
        found[name] = text[start:end]
        at = _BLANK.match(text, end).end()
        if text[at] == ",":
            at = _BLANK.match(text, at + 1).end()
    return found


class Message:
    """One JSON-RPC message as it was on the wire."""

    def __init__(self, data):
        self.text = data.decode("utf-8", "strict").strip()
        self.raw = members(self.text)
        self.id = self.raw.get("id")  # raw text, or None if there is none
        self.method = json.loads(self.raw["method"]) if "method" in self.raw else None

    @property
    def is_answer(self):
        return self.method is None

    @property
    def outcome(self):
        """`result …` or `error …` with the raw text of the member: what must arrive unchanged."""
        both = [f"{name} {self.raw[name]}" for name in ("result", "error") if name in self.raw]
        return " AND ".join(both) if both else "neither result nor error"

    @property
    def error(self):
        return json.loads(self.raw["error"]) if "error" in self.raw else None

    @property
    def result(self):
        return json.loads(self.raw["result"]) if "result" in self.raw else None

    def unasked(self):
        """What a notification or a request of the server says, less the id, which is the server's business."""
        return f"{self.method} {self.raw.get('params', '')}"


def request(id_text, method, params=None):
    """The usual body. `id_text` and `params` are JSON text; `params` may also be a value."""
    if params is not None and not isinstance(params, str):
        params = json.dumps(params)
    tail = f',"params":{params}' if params is not None else ""
    return f'{{"jsonrpc":"2.0","id":{id_text},"method":{json.dumps(method)}{tail}}}'.encode()


def notification(method, params=None):
    tail = f',"params":{json.dumps(params)}' if params is not None else ""
    return f'{{"jsonrpc":"2.0","method":{json.dumps(method)}{tail}}}'.encode()


def hello(version="2025-06-18", capabilities=None):
    return {
        "protocolVersion": version,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "interop", "version": "1"},
    }


INITIALIZED = notification("notifications/initialized")

# --------------------------------------------------------------------------------------------- one end


class End:
    """What both ends have in common: the unasked messages they saw, and how they answer the server's requests."""

    def __init__(self, answers=None):
        self.answers = answers or {}  # method -> result, or a function of the params
        self.notes = []  # text of each notification
        self.asked = []  # text of each request that the server made
        self.news = threading.Condition()

    def take(self, message):
        if message.is_answer:
            raise AssertionError(f"an answer that nobody waits for: {message.text[:300]}")
        if message.id is None:
            seen, what = self.notes, message.unasked()
        else:
            seen, what = self.asked, message.unasked()
            # A thread of its own: the client may have to POST, and the stream must be read meanwhile.
            threading.Thread(target=self.reply_to, args=[message], daemon=True).start()
        with self.news:
            seen.append(what)
            self.news.notify_all()

    def reply_to(self, message):
        result = self.answers.get(message.method)
        if callable(result):
            result = result(json.loads(message.raw.get("params", "null")))
        if result is None:
            tail = '"error":{"code":-32601,"message":"not here"}'
        else:
            tail = f'"result":{json.dumps(result)}'
        try:
            self.send(f'{{"jsonrpc":"2.0","id":{message.id},{tail}}}'.encode())
        except Exception as reason:  # on a thread of its own: the claim sees it among what came
            self.notes.append(f"BROKEN: {message.method} cannot be answered: {reason}")

    def await_that(self, what, timeout=PATIENCE):
        """Waits until `what()` holds; it is asked again at each new message."""
        deadline = time.monotonic() + timeout
        with self.news:
            while not what():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.news.wait(min(left, 0.2))
        return True

    def call(self, tool, arguments=None, id_text="1", meta=None):
        return self.ask(request(id_text, "tools/call", call_params(tool, arguments, meta)))


def call_params(tool, arguments=None, meta=None):
    params = {"name": tool, "arguments": arguments or {}}
    if meta:
        params["_meta"] = meta
    return params


class Stdio(End):
    """The server as a child of this process, spoken to as any stdio client would."""

    def __init__(self, server, mark, answers=None):
        super().__init__(answers)
        self.log = open(server.log("stdio"), "wb")
        self.process = subprocess.Popen(
            server.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=server.environment(mark),
            cwd=server.folder,
            start_new_session=True,
        )
        self.inbox = queue.Queue()
        self.writing = threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            try:
                message = Message(line)
            except ValueError:
                continue  # a banner on stdout: not ours to judge here
            if message.is_answer:
                self.inbox.put(message)
            else:
                self.take(message)
        self.inbox.put(None)

    def send(self, body):
        with self.writing:
            self.process.stdin.write(body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
            self.process.stdin.flush()

    def ask(self, body):
        """One request at a time, so the next answer is its answer."""
        self.send(body)
        try:
            answer = self.inbox.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no answer to {body[:200]!r}") from None
        if answer is None:
            raise AssertionError(f"the server ended at {body[:200]!r}")
        return answer

    def end(self):
        """Closes stdin; the seconds until the exit, or None if it had to be ended."""
        started = time.monotonic()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(3)
            return time.monotonic() - started
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.clear_group()
            self.log.close()

    def clear_group(self):
        """It has a session of its own, so a group of its own: a wrapper may leave before what it wraps."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
            except ProcessLookupError:
                break
            eventually(lambda: self.process.poll() is not None and not group_of(self.process.pid), 3)
        self.process.wait()


# --------------------------------------------------------------------------------------------- HTTP

Reply = collections.namedtuple("Reply", "status headers body answer form unasked")  # unasked: on this very stream


class Events:
    """Server-sent events of one response, one (id, data) at a time; comments are skipped."""

    def __init__(self, response):
        self.response = response

    def __iter__(self):
        name, data, kind = None, [], None
        while line := self.response.readline():
            if not line.endswith(b"\n"):
                raise AssertionError(f"the stream ended inside a line: {line[:200]!r}")
            line = line[:-1]
            if b"\r" in line:
                raise AssertionError(f"a carriage return in an event: {line[:200]!r}")
            if not line:
                if data:
                    if kind not in (None, b"message"):
                        raise AssertionError(f"event {kind!r}")
                    yield name, b"\n".join(data)
                data, kind = [], None
                continue
            if line.startswith(b":"):
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"id":
                name = value.decode()
            elif field == b"event":
                kind = value


class Http(End):
    """One session of a client that knows nothing but the specification."""

    def __init__(self, port, answers=None):
        super().__init__(answers)
        self.port = port
        self.session = None
        self.version = None
        self.listening = None

    def headers(self, more=None):
        head = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.session:
            head["Mcp-Session-Id"] = self.session
        if self.version:
            head["MCP-Protocol-Version"] = self.version
        return head | (more or {})

    def exchange(self, verb, body=None, more=None):
        """One HTTP exchange on a connection of its own. The answer is what carries our id; the rest is unasked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(verb, "/mcp", body, self.headers(more))
            response = connection.getresponse()
            kind = (response.headers.get("Content-Type") or "").split(";")[0]
            answer, data, unasked = None, b"", []
            if kind == "text/event-stream":
                for _, event in Events(response):
                    message = Message(event)
                    if not message.is_answer:
                        unasked.append((time.monotonic(), message))
                        self.take(message)
                    elif answer:
                        raise AssertionError(f"a second answer: {message.text[:200]}")
                    else:
                        answer = message
            else:
                data = response.read()
                if kind == "application/json" and data:
                    answer = Message(data)
            form = {"text/event-stream": "sse", "application/json": "json"}.get(kind, kind)
            return Reply(response.status, response.headers, data, answer, form, unasked)
        finally:
            connection.close()

    def stream(self, verb, body=None, more=None):
        """The events of one exchange as they come, (id, message); closing the generator cuts the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(verb, "/mcp", body, self.headers(more))
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"{verb}: HTTP {response.status} {response.read()[:200]!r}")
            for name, event in Events(response):
                yield name, Message(event)
        finally:
            connection.close()

    def initialize(self, params, id_text="0"):
        reply = self.exchange("POST", request(id_text, "initialize", params))
        if reply.status != 200 or reply.answer is None or reply.answer.result is None:
            raise AssertionError(f"initialize: HTTP {reply.status}, {(reply.answer and reply.answer.text) or reply.body!r}")
        self.session = reply.headers["Mcp-Session-Id"]
        if not self.session:
            raise AssertionError("initialize: no Mcp-Session-Id")
        self.version = reply.answer.result["protocolVersion"]
        return reply.answer

    def ask(self, body):
        reply = self.exchange("POST", body)
        if reply.status != 200 or reply.answer is None:
            text = reply.answer.text if reply.answer else reply.body.decode("utf-8", "replace")
            raise AssertionError(f"HTTP {reply.status} instead of an answer to {body[:120]!r}: {text[:300]}")
        sent = members(body.decode())["id"]
        if reply.answer.id != sent:
            raise AssertionError(f"id {reply.answer.id} instead of {sent}")
        return reply.answer

    def send(self, body):
        reply = self.exchange("POST", body)
        if reply.status != 202 or reply.body:
            raise AssertionError(f"HTTP {reply.status} {reply.body[:200]!r} instead of an empty 202 to {body[:120]!r}")

    def listen(self):
        """Opens the GET stream; it stays open until `hang_up`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        head = self.headers({"Accept": "text/event-stream"})
        del head["Content-Type"]
        connection.request("GET", "/mcp", headers=head)
        # http.client lets go of the socket once it has read a head that promises no end.
        wire = connection.sock
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError(f"GET: HTTP {response.status} {response.read()[:200]!r}")
        wire.settimeout(None)
        self.listening = wire
        threading.Thread(target=self.read, args=[response], daemon=True).start()

    def read(self, response):
        try:
            for _, event in Events(response):
                self.take(Message(event))
        except (OSError, http.client.HTTPException):
            pass  # hung up by us or with the session
        except Exception as reason:
            self.notes.append(f"BROKEN: GET stream: {reason}")

    def hang_up(self):
        if self.listening:
            wire, self.listening = self.listening, None
            try:
                wire.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first

    def delete(self):
        return self.exchange("DELETE").status


# --------------------------------------------------------------------------------------------- processes


class Bridge:
    """The bridge in front of one server command. `mark` is in the environment of everything that comes from it."""

    MARK = "INTEROP_MARK"

    def __init__(self, binary, server, command, label, options=()):
        self.mark = uuid.uuid4().hex
        self.log = server.log(label)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [binary, "--listen", "127.0.0.1:0", *options, "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=server.environment(self.mark),
                cwd=server.folder,
            )
        self.port = self.await_port()

    def await_port(self):
        """The bridge logs where it listens; a port of 0 in the options is not it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = re.search(rb"127\.0\.0\.1:([1-9]\d*)", pathlib.Path(self.log).read_bytes())
            if found:
                return int(found[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the bridge does not listen: {pathlib.Path(self.log).read_text()[-400:]}")

    def family(self):
        """Everything alive that descends from this bridge, itself left out: {pid: command line}."""
        return marked(self.mark, but=self.process.pid)

    def zombies(self):
        return [stat for stat in stats() if stat.state == "Z" and stat.parent == self.process.pid]

    def stop(self):
        """SIGTERM, as an orchestrator would; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(12)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "killed: it did not stop within 12 s"

    def clean_up(self):
        """Ends what a failed claim may have left: only what carries our mark."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


Stat = collections.namedtuple("Stat", "pid state parent group")


def stats():
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = pathlib.Path(entry.path, "stat").read_text()
            except OSError:
                continue  # it ended in between
            state, parent, group = text.rpartition(")")[2].split()[:3]
            yield Stat(int(entry.name), state, int(parent), int(group))


def group_of(leader):
    return [stat.pid for stat in stats() if stat.group == leader and stat.state != "Z"]


def marked(mark, but=None):
    """Processes whose environment carries the mark: children that left their group or their parent are found too."""
    needle = f"{Bridge.MARK}={mark}".encode()
    found = {}
    for stat in stats():
        if stat.pid == but or stat.state == "Z":
            continue
        try:
            if needle in pathlib.Path(f"/proc/{stat.pid}/environ").read_bytes().split(b"\0"):
                found[stat.pid] = pathlib.Path(f"/proc/{stat.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def eventually(what, timeout=10.0):
    """Polls for a condition with a deadline."""
    deadline = time.monotonic() + timeout
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
