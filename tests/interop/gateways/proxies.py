"""Gateways that pass an agent's own requests on: agentgateway, microsoft/mcp-gateway, the transparent proxy of toolhive.

Each is `exchange(verb, lines, body)`: what it does to a request on its way to the backend and to the answer on its way
back. `Agent` is what stands in front of them, a client that does what the specification says and nothing else.
"""

import json
import random
import re
import threading
import uuid

from wire import PATIENCE, Lost, Pool, Reply, encode, events, notification, request

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}


def value_of(lines, name):
    return next((value for key, value in lines if key.lower() == name), None)


def without(lines, *names):
    return [(key, value) for key, value in lines if key.lower() not in names]


class Agent:
    """One agent, in front of a gateway that it knows as `host`."""

    def __init__(self, gateway, more=(), host="gateway.example:3000", version="2025-11-25"):
        self.gateway, self.more, self.host, self.version = gateway, more, host, version
        self.session = self.negotiated = None
        self.handshakes, self.last_id, self.unasked, self.statuses = 0, 0, [], []

    def lines(self, verb, body=None):
        lines = [("host", self.host), ("connection", "keep-alive")]
        if verb == "POST":
            lines += [("content-type", "application/json"), ("accept", "application/json, text/event-stream")]
        elif verb == "GET":
            lines.append(("accept", "text/event-stream"))
        if self.negotiated:
            lines.append(("mcp-protocol-version", self.negotiated))
        if self.session:
            lines.append(("mcp-session-id", self.session))
        lines += [("accept-language", "*"), ("sec-fetch-mode", "cors"), ("user-agent", "node")]
        lines += [("accept-encoding", "gzip, deflate"), *self.more]
        return lines + ([("content-length", str(len(body)))] if body is not None else [])

    def post(self, message, timeout=PATIENCE):
        body = encode(message)
        reply = self.gateway.exchange("POST", self.lines("POST", body), body, timeout)
        self.statuses.append(reply.status)
        self.unasked += [one for one in reply.messages if "method" in one]
        return reply

    def ask(self, method, params=None, timeout=PATIENCE):
        self.last_id += 1
        reply = self.post(request(self.last_id, method, params or {}), timeout)
        return reply, reply.answer(self.last_id)

    def start(self, timeout=PATIENCE):
        self.session, self.negotiated = None, None
        self.handshakes += 1
        info = {"name": "agent", "version": "1"}
        hello = {"protocolVersion": self.version, "capabilities": {}, "clientInfo": info}
        reply, answer = self.ask("initialize", hello, timeout)
        assert reply.status == 200 and answer and "result" in answer, f"initialize: {reply.status} {reply.body[:200]!r}"
        self.session, self.negotiated = reply.header("mcp-session-id"), answer["result"]["protocolVersion"]
        reply = self.post(notification("notifications/initialized", {}))
        assert reply.status == 202, f"initialized: {reply.status} {reply.body[:200]!r}"
        return self

    def call(self, tool, arguments=None, timeout=PATIENCE, meta=None):
        params = {"name": tool, "arguments": arguments or {}} | ({"_meta": meta} if meta else {})
        reply, answer = self.ask("tools/call", params, timeout)
        if reply.status == 404:
            self.start(timeout)
            reply, answer = self.ask("tools/call", params, timeout)
        assert reply.status == 200 and answer, f"{tool}: HTTP {reply.status} {reply.form} {reply.body[:200]!r}"
        return answer

    def listen(self):
        """What comes on the GET stream is added to `unasked`; the stream's status at once."""
        return self.gateway.listen(self.lines("GET"), self.unasked.append)

    def leave(self):
        return self.gateway.exchange("DELETE", self.lines("DELETE"), None, PATIENCE).status


class Gateway:
    def __init__(self, address):
        self.pool, self.target = Pool(address), "{}:{}".format(*address)
        self.seen = []  # (verb, status) of the backend's answers

    def forward(self, verb, lines, body=None, timeout=PATIENCE, path="/mcp", **how):
        reply = self.pool.exchange(verb, path, lines, body, timeout, **how)
        self.seen.append((verb, reply.status))
        return reply

    def stream(self, lines, each):
        connection, response = self.pool.send("GET", "/mcp", lines)
        if response.status == 200:
            connection.sock.settimeout(None)

            def read():
                try:
                    for _, data in events(response):
                        each(json.loads(data))
                except (OSError, ValueError):
                    pass

            threading.Thread(target=read, daemon=True).start()
        return response.status


class Agentgateway(Gateway):
    """crates/agentgateway/src/mcp: session.rs, streamablehttp.rs, upstream/streamablehttp.rs, upstream/mod.rs.

    It parses and writes each message anew, with `Mcp-Method` and `Mcp-Name` on every POST, and keeps the agent's other
    headers, `Host` too where the target is an address and not a name. JSON answers are read whole, up to `buffer`.
    """

    def __init__(self, address, stateful=True, buffer=2 << 20):
        super().__init__(address)
        self.stateful, self.buffer, self.sessions = stateful, buffer, {}

    def upstream(self, verb, agent, message, session, timeout=PATIENCE, **how):
        lines = [] if verb == "DELETE" else [("accept", "text/event-stream")]
        body = None
        if verb == "POST":
            body = encode(message)
            lines = [("content-type", "application/json"), ("accept", "text/event-stream, application/json")]
            if "method" in message:
                lines.append(("mcp-method", message["method"]))
            name = message.get("params", {}).get("name") if message.get("method") in ("tools/call", "prompts/get") else None
            lines += [("mcp-name", name)] if name else []
        if session:
            lines.append(("mcp-session-id", session))
        given = {key for key, _ in lines} | {"mcp-session-id", "content-length", "content-encoding", *HOP_BY_HOP}
        lines += without(agent, *given)
        if body is not None:
            lines.append(("content-length", str(len(body))))
        if verb == "GET":
            return self.stream(lines, how["each"])
        return self.forward(verb, lines, body, timeout, **how)

    def exchange(self, verb, lines, body, timeout=PATIENCE):
        mine = value_of(lines, "mcp-session-id")
        if verb == "DELETE":
            reply = self.upstream("DELETE", lines, None, self.sessions.pop(mine, None))
            return Reply(202 if 200 <= reply.status < 300 else reply.status, {}, "")
        message = json.loads(body)
        if not self.stateful:
            return self.once(lines, message, timeout)
        if mine is None and message.get("method") != "initialize":
            return Reply(400, {}, "", body=b"Session ID is required")
        if mine is not None and mine not in self.sessions:
            return Reply(404, {}, "", body=b"Session not found")
        reply = self.upstream("POST", lines, message, self.sessions.get(mine), timeout)
        back = self.back(reply)
        if mine is None and back.status == 200:
            mine = str(uuid.uuid4())
            self.sessions[mine] = reply.header("mcp-session-id")
            back.headers["mcp-session-id"] = mine
        return back

    def back(self, reply):
        if reply.status in (202, 204):
            return Reply(202, {}, "")
        if not 200 <= reply.status < 300:
            return reply  # as it came; its own session stays, and a new one is the agent's business
        if reply.form == "json" and len(reply.body) > self.buffer:
            return Reply(500, {}, "", body=b"failed to process response: length limit exceeded")
        return Reply(200, {}, "sse", reply.messages)

    def once(self, lines, message, timeout):
        """`statefulMode: stateless`: a session for each message of the agent, deleted behind its answer."""
        session = None
        if message.get("method") != "initialize":
            version = value_of(lines, "mcp-protocol-version") or "2025-11-25"
            info = {"name": "agentgateway", "version": "1.0.0"}
            hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": info}
            # It needs the head only: JSON it has read by then, a stream it drops.
            reply = self.upstream("POST", lines, request(0, "initialize", hello), None, timeout, head_only=True)
            if reply.status != 200:
                return self.back(reply)
            session = reply.header("mcp-session-id")
            self.upstream("POST", lines, notification("notifications/initialized", {}), session, timeout)
        reply = self.upstream("POST", lines, message, session, timeout)
        session = session or reply.header("mcp-session-id")
        if session:
            self.upstream("DELETE", lines, None, session)
        return self.back(reply)

    def listen(self, lines, each):
        mine = value_of(lines, "mcp-session-id")
        return self.upstream("GET", lines, None, self.sessions[mine], each=each)


class Microsoft:
    """dotnet/Microsoft.McpGateway.Service/src: Controllers/AdapterReverseProxyController.cs, HttpProxy.cs,
    Session/AdapterSessionRoutingHandler.cs. POST only; the agent's headers and its `Host` go along, a new session goes to any
    pod, an old one to its own. Anything but 2xx for a new session is thrown, and so is an unknown one: 500 to the agent."""

    ID = re.compile(r"^[a-zA-Z0-9\-]{1,128}$")
    BACK = {"content-type", "content-length", "cache-control", "vary", "date", "retry-after", "mcp-session-id"}

    def __init__(self, *addresses):
        self.pods, self.sessions = [Gateway(address) for address in addresses], {}

    def exchange(self, verb, lines, body, timeout=PATIENCE):
        if verb != "POST":
            return Reply(405, {}, "")
        session = value_of(lines, "mcp-session-id")
        if session is not None and (not self.ID.match(session) or session not in self.sessions):
            return Reply(500, {}, "", body=b"Session id is not valid, or has expired.")
        pod = self.sessions[session] if session is not None else random.choice(self.pods)
        host = value_of(lines, "host")
        lines = [*without(lines, "authorization", "connection"), ("Forwarded", f"for=::1;proto=http;host={host}")]
        reply = pod.forward("POST", lines, body, timeout)
        if session is None:
            if not 200 <= reply.status < 300:
                return Reply(500, {}, "", body=b"Response status code does not indicate success")
            given = reply.header("mcp-session-id")
            if given and self.ID.match(given):
                self.sessions[given] = pod
            else:
                reply.headers.pop("mcp-session-id", None)
        headers = {name: value for name, value in reply.headers.items() if name in self.BACK}
        return Reply(reply.status, headers, reply.form, reply.messages, reply.body)

    def listen(self, lines, each):
        return 405


class Toolhive(Gateway):
    """pkg/transport/proxy/transparent: transparent_proxy.go, pinger.go. It remembers each session's `initialize`; a 404 or a
    failed dial is met with that message again, without `initialized`, and the agent's request after it: it never learns."""

    def __init__(self, address):
        super().__init__(address)
        self.sessions, self.replayed = {}, 0

    def outbound(self, lines, session=None):
        lines = without(lines, "host", "mcp-session-id", *HOP_BY_HOP)
        lines = [("Host", self.target), *lines, ("X-Forwarded-For", "127.0.0.1")]
        lines += [("X-Forwarded-Host", "gateway.example:3000"), ("X-Forwarded-Proto", "http")]
        return lines + ([("Mcp-Session-Id", session)] if session else [])

    def exchange(self, verb, lines, body, timeout=PATIENCE):
        mine = value_of(lines, "mcp-session-id")
        begins = body is not None and json.loads(body).get("method") == "initialize"
        if mine is not None and not begins and mine not in self.sessions:
            return Reply(404, {}, "json")
        known = self.sessions.get(mine) if not begins else None
        try:
            reply = self.forward(verb, self.outbound(lines, known and known["backend"]), body, timeout)
        except Lost as reason:
            if not known or "dial" not in str(reason):
                raise
            return self.again(verb, lines, body, known, timeout)
        if verb == "DELETE" and (reply.status < 300 or reply.status == 404):
            self.sessions.pop(mine, None)
        elif reply.status == 404 and known:
            return self.again(verb, lines, body, known, timeout) or reply
        given = reply.header("mcp-session-id")
        if reply.status == 200 and given and given not in self.sessions:
            self.sessions[given] = {"body": body, "backend": given}
        return reply

    def again(self, verb, lines, body, known, timeout):
        if not self.begin_again(lines, known, timeout):
            return None
        return self.forward(verb, self.outbound(lines, known["backend"]), body, timeout)

    def begin_again(self, lines, known, timeout=PATIENCE):
        begin = without(self.outbound(lines), "content-length", "content-type")
        begin += [("Content-Type", "application/json"), ("Content-Length", str(len(known["body"])))]
        session = self.forward("POST", begin, known["body"], timeout).header("mcp-session-id")
        if session is None:
            return False
        self.replayed += 1
        known["backend"] = session
        return True

    def listen(self, lines, each):
        known = self.sessions[value_of(lines, "mcp-session-id")]
        status = self.stream(self.outbound(lines, known["backend"]), each)
        if status == 404:
            self.begin_again(lines, known)
            status = self.stream(self.outbound(lines, known["backend"]), each)
        return status

    def health(self):
        """Every 10 s once a session began; anything below 500 is healthy, five failures in a row stop the proxy."""
        lines = [("Host", self.target), ("User-Agent", "Go-http-client/1.1"), ("Accept-Encoding", "gzip")]
        return self.forward("GET", lines, timeout=5, path="/").status
