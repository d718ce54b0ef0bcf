"""The client half of the Go SDK, and the two gateways that are built on it: gh-aw-mcpg and docker/mcp-gateway.

What it sends and when it gives a connection up is from modelcontextprotocol/go-sdk, mcp/client.go (Connect) and
mcp/streamable.go (Write, checkResponse, connectStandaloneSSE, handleSSE, Close), in the release each gateway pins.
"""

import http.client
import json
import random
import socket
import threading
import time

from wire import PATIENCE, Lost, Pool, encode, events, notification, request

TRANSIENT = {429, 500, 502, 503, 504}  # isTransientHTTPStatus: the call fails, the connection lives


class Dead(Exception):
    """The connection failed for good: the SDK answers every later call with the same error."""


class SessionMissing(Dead):
    """The same by a 404 (ErrSessionMissing): the one failure that a caller may tell apart."""


class Rejected(Exception):
    """This request only: a transient status, or no connection."""


class GoClient:
    """One session. `modern`: 1.7 and later, which begin with `server/discover`; before it was 2025-06-18 at once."""

    def __init__(self, address, name, version="1.0.0", *, modern=False, listen=True, retries=5, limit=None):
        self.pool, self.host = Pool(address), "{}:{}".format(*address)
        self.info = {"name": name, "version": version}
        self.modern, self.listen, self.retries = modern, listen, retries
        self.limit = limit  # http.Client.Timeout: the body of the listening GET counts too
        self.session = self.negotiated = self.failed = self.wire = None
        self.last_id, self.lock = 0, threading.Lock()
        self.closed = threading.Event()
        self.unasked, self.statuses, self.forms, self.gets = [], [], [], 0

    # ------------------------------------------------------------------------------------------------ on the wire

    def lines(self, verb, size=None, accept=None, more=()):
        """As net/http writes them: its own first, then the caller's by name, then the encoding it undoes itself."""
        own = {"Accept": accept} if accept else {}
        if size is not None:
            own["Content-Type"] = "application/json"
        if self.negotiated:
            own["Mcp-Protocol-Version"] = self.negotiated
        if self.session:
            own["Mcp-Session-Id"] = self.session
        own |= dict(more)
        first = [("Host", self.host), ("User-Agent", "Go-http-client/1.1")]
        if size is not None:
            first.append(("Content-Length", str(size)))
        return [*first, *sorted(own.items()), ("Accept-Encoding", "gzip")]

    def fail(self, reason):
        if self.failed is None:
            self.failed = reason
        raise self.failed

    def check(self, what, status):
        if status == 404:
            self.fail(SessionMissing(f"{what}: 404"))
        if status in TRANSIENT:
            raise Rejected(f"{what}: {status}")
        if not 200 <= status < 300:
            self.fail(Dead(f"{what}: {status}"))

    def write(self, message, timeout=PATIENCE, more=(), probe=False):
        if self.failed is not None:
            raise self.failed
        if self.closed.is_set():
            raise Dead("client is closing")
        body, what = encode(message), message.get("method", "an answer")

        def head(status, headers):
            self.statuses.append(status)
            given = headers.get("mcp-session-id")
            if given and 200 <= status < 300:
                self.session = self.session or given
                if self.session != given:
                    self.fail(Dead("mismatching session IDs"))

        try:
            lines = self.lines("POST", len(body), "application/json, text/event-stream", more)
            reply = self.pool.exchange("POST", "/mcp", lines, body, timeout, head, self.take)
        except Lost as reason:
            raise Rejected(f"{what}: {reason}") from None
        if probe and not 200 <= reply.status < 300:
            return None  # a failed `server/discover` is never held against the connection
        self.check(what, reply.status)
        if "id" not in message or "method" not in message:
            return None
        if reply.form == "":
            raise Rejected(f"{what}: unsupported content type {reply.header('content-type')!r}")
        answer = reply.answer(message["id"])
        self.forms.append(reply.form)
        if answer is None:
            raise Rejected(f"{what}: request terminated without response")
        return answer

    def take(self, message):
        """What the server says or asks on any stream. Roots are what this SDK offers if nobody says otherwise."""
        if "method" not in message:
            return
        self.unasked.append(message)
        if "id" in message:
            result = {"roots": []} if message["method"] == "roots/list" else {}
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            threading.Thread(target=self.write, args=[answer], daemon=True).start()

    def ask(self, method, params=None, timeout=PATIENCE, **how):
        with self.lock:
            self.last_id += 1
            id = self.last_id
        try:
            return self.write(request(id, method, params or {}), timeout, **how)
        except TimeoutError:
            # The context ended: the SDK drops the answer and tells the server, even of `initialize`.
            reason = {"reason": "context deadline exceeded", "requestId": id}
            try:
                self.write(notification("notifications/cancelled", reason))
            except (Dead, Rejected):
                pass
            raise

    def call(self, tool, arguments=None, timeout=PATIENCE):
        return self.ask("tools/call", {"arguments": arguments or {}, "name": tool}, timeout)

    # ------------------------------------------------------------------------------------------------ its life

    def connect(self, limit=PATIENCE):
        deadline = time.monotonic() + limit

        def left():
            return max(0.01, deadline - time.monotonic())

        capabilities = {"roots": {"listChanged": True}}
        try:
            if self.modern:
                meta = {
                    "io.modelcontextprotocol/clientCapabilities": capabilities,
                    "io.modelcontextprotocol/clientInfo": self.info,
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                }
                more = {"Mcp-Method": "server/discover", "Mcp-Protocol-Version": "2026-07-28"}
                found = self.ask("server/discover", {"_meta": meta}, left(), more=more.items(), probe=True)
                assert found is None or "error" in found, f"a 2026-07-28 server: {found}"
            version = "2025-11-25" if self.modern else "2025-06-18"
            hello = {"capabilities": capabilities, "clientInfo": self.info, "protocolVersion": version}
            answer = self.ask("initialize", hello, left())
            if "result" not in answer:
                raise Rejected(f"initialize: {answer['error']['message']}")
            self.negotiated = answer["result"]["protocolVersion"]
            if self.listen:
                # Its head is waited for, and only then comes `initialized`.
                self.start_listening()
            self.write(notification("notifications/initialized", {}), left())
        except Exception:
            self.close()
            raise
        return self

    def get(self, last=None):
        more = [("Last-Event-ID", last)] if last else []
        self.gets += 1
        return self.pool.send("GET", "/mcp", self.lines("GET", None, "text/event-stream", more))

    def start_listening(self):
        connection, response = self.get()
        if response.status == 405:
            return
        kind = response.getheader("Content-Type", "")
        if kind != "text/event-stream" or 400 <= response.status < 500:
            return  # it warns, and lives without
        self.check("standalone SSE stream", response.status)
        threading.Thread(target=self.handle_stream, args=[connection, response], daemon=True).start()

    def handle_stream(self, connection, response):
        while True:
            last = self.read_stream(connection, response)
            if self.closed.is_set():
                return
            for attempt in range(1, self.retries + 1):  # connectSSE: 1 s, half as much again each time, plus jitter
                pause = 1.5 ** (attempt - 1)
                if self.closed.wait(pause + random.uniform(0, pause)):
                    return
                try:
                    connection, response = self.get(last)
                    break
                except (Lost, TimeoutError):
                    continue
            else:
                self.failed = self.failed or Dead("standalone SSE stream: failed to reconnect")
                return
            try:
                self.check("standalone SSE stream", response.status)
            except (Dead, Rejected) as reason:
                self.failed = self.failed or reason
                return

    def read_stream(self, connection, response):
        last, self.wire = None, connection.sock
        self.wire.settimeout(None)
        timer = threading.Timer(self.limit or 3600, hang_up, [self.wire])
        timer.daemon = True
        timer.start()
        try:
            for last, data in events(response):
                self.take(json.loads(data))
        except (OSError, http.client.HTTPException, ValueError):
            pass  # hung up, by either side
        timer.cancel()
        connection.close()
        return last

    def close(self):
        if self.closed.is_set():
            return
        # A session that is known to be gone is not deleted; 1.7 does not delete one that never was either.
        if not isinstance(self.failed, SessionMissing) and (self.session or not self.modern):
            try:
                self.pool.exchange("DELETE", "/mcp", self.lines("DELETE"), timeout=3)
            except (Lost, TimeoutError):
                pass
        self.closed.set()
        if self.wire:
            hang_up(self.wire)


def hang_up(wire):
    try:
        wire.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was first


# ---------------------------------------------------------------------------------------------------- gateways


class Mcpg:
    """gh-aw-mcpg of summer 2026 on SDK 1.7: one connection for all agents (internal/mcp/connection.go,
    connection_transport.go, http_transport.go; docs/CONFIGURATION.md: connectTimeout 30, keepaliveInterval 1500)."""

    def __init__(self, address, connect_limit=30.0):
        self.address, self.connect_limit = address, connect_limit
        self.lock, self.handshakes, self.client = threading.Lock(), 0, None

    def connect(self):
        """Streamable HTTP, then the old SSE transport, then JSON without any transport: the statuses that it saw."""
        try:
            self.client = self.start()
            return []
        except (Dead, Rejected, TimeoutError):
            lines = GoClient(self.address, "awmg").lines("GET", None, "text/event-stream")
            return [Pool(self.address).exchange("GET", "/mcp", lines).status, self.plain().status]

    def plain(self, *headers):
        """It says nothing of `initialized`, and begins with a session id of its own making."""
        client = GoClient(self.address, "awmg")
        hello = {"capabilities": {}, "clientInfo": client.info, "protocolVersion": "2025-11-25"}
        body = encode(request(1, "initialize", hello))
        more = [("Mcp-Session-Id", "awmg-init-1"), *headers]
        lines = client.lines("POST", len(body), "application/json, text/event-stream", more)
        return client.pool.exchange("POST", "/mcp", lines, body)

    def start(self):
        self.handshakes += 1
        return GoClient(self.address, "awmg", modern=True, listen=False, retries=0).connect(self.connect_limit)

    def call(self, tool, arguments=None, timeout=PATIENCE):
        """A 404 begins a new session and asks once more; any other failure is the caller's."""
        client = self.client
        try:
            return client.call(tool, arguments, timeout)
        except SessionMissing:
            with self.lock:
                self.client.close()
                self.client = self.start()
            return self.client.call(tool, arguments, timeout)

    def list(self):
        return self.client.ask("tools/list")

    def ping(self):
        """The SDK's keepalive: the first ping that fails closes the session, and nobody opens another."""
        try:
            answer = self.client.ask("ping")
            assert "result" in answer, answer
        except (Dead, Rejected, TimeoutError):
            self.client.close()
            self.client.failed = Dead("client is closing")
            raise

    def close(self):
        if self.client:
            self.client.close()


class McpgJanuary(Mcpg):
    """The same in January 2026 on SDK 1.2: listens, 5 s to connect, 120 s for any request, no second handshake, no pings."""

    def __init__(self, address, connect_limit=5.0, request_limit=120.0):
        self.request_limit = request_limit
        super().__init__(address, connect_limit)

    def start(self):
        self.handshakes += 1
        return GoClient(self.address, "awmg", limit=self.request_limit).connect(self.connect_limit)

    def call(self, tool, arguments=None, timeout=PATIENCE):
        return self.client.call(tool, arguments, timeout)


class Docker:
    """docker/mcp-gateway on SDK 1.4 (pkg/mcp/remote.go, pkg/gateway/clientpool.go, capabilitites.go): a session of its own
    for the lists, then one per agent, kept as long as the agent's and never replaced."""

    def __init__(self, address):
        self.address, self.agents = address, {}

    def client(self):
        return GoClient(self.address, "docker-mcp-gateway").connect()

    def lists(self):
        client = self.client()
        found = {}
        for what in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
            found[what] = client.ask(what)
        client.close()
        return found, client

    def call(self, agent, tool, arguments=None, timeout=PATIENCE):
        if agent not in self.agents:
            self.agents[agent] = self.client()
        return self.agents[agent].call(tool, arguments, timeout)

    def agent_left(self, agent):
        self.agents.pop(agent).close()

    def close(self):
        for agent in list(self.agents):
            self.agent_left(agent)
