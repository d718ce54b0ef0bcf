"""The same script from a client of 2026-07-28, of servers of any era that their clients share: what it gets is what the
server said over stdio, with what the revision adds to each result, and no byte else."""

import base64
import http.client
import json
import re

from claims import different, first_difference, script
from wire import PATIENCE, Bridge, Events, Message, members

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
# What is no request of that revision.
REMOVED = {"ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
ADDED = {"resultType", "ttlMs", "cacheScope"}
NOT_FOUND = {-32002: -32602}  # a resource that is not there has another code now
ROUNDS = 5
BLANK = re.compile(r"[ \t\r\n,]*")


def in_header(value):
    plain = re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value) and not value.startswith("=?")
    return value if plain else f"=?base64?{base64.b64encode(value.encode()).decode()}?="


class Modern:
    def __init__(self, port, capabilities, answers):
        self.port, self.answers = port, answers
        self.meta = f'"{META}protocolVersion":"{VERSION}","{META}clientCapabilities":{json.dumps(capabilities)}'

    def exchange(self, id_text, method, params, more=""):
        """`params` and `more` are JSON text; `more` goes in front. The status and the answer."""
        known = members(params)
        meta = known.pop("_meta", "{}")
        inner = meta.strip()[1:-1].strip()
        known["_meta"] = f"{{{self.meta}{',' if inner else ''}{inner}}}"
        text = ",".join(filter(None, [more, *(f"{json.dumps(name)}:{value}" for name, value in known.items())]))
        body = f'{{"jsonrpc":"2.0","id":{id_text},"method":{json.dumps(method)},"params":{{{text}}}}}'.encode()
        head = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": in_header(method),
        }
        named = json.loads(known.get(NAMED.get(method), "null"))
        if isinstance(named, str):
            head["Mcp-Name"] = in_header(named)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/mcp", body, head)
            response = connection.getresponse()
            if response.headers.get("Mcp-Session-Id"):
                raise AssertionError(f"a session id in the answer to {body[:120]!r}")
            if (response.headers.get("Content-Type") or "").startswith("text/event-stream"):
                found = [Message(event) for _, event in Events(response)][-1:]
            else:
                found = [Message(response.read())]
        finally:
            connection.close()
        if not found or found[0].id != id_text:
            raise AssertionError(f"HTTP {response.status} without an answer to {body[:120]!r}: {found and found[0].text[:200]}")
        return response.status, found[0]

    def ask(self, id_text, method, params):
        """With the answers that the server wants, in as many rounds as it takes."""
        more = ""
        for _ in range(ROUNDS):
            status, answer = self.exchange(id_text, method, params, more)
            result = answer.result or {}
            if result.get("resultType") != "input_required":
                return status, answer
            given = {}
            for key, question in result["inputRequests"].items():
                reply = self.answers.get(question["method"])
                given[key] = reply(question.get("params")) if callable(reply) else reply
            state = f',"requestState":{json.dumps(result["requestState"])}' if "requestState" in result else ""
            more = f'"inputResponses":{json.dumps(given)}{state}'
        raise AssertionError(f"asked {ROUNDS} times for {method}")


def without_added(result):
    """The members of a result as the server gave them."""
    found = {name: value for name, value in members(result).items() if name not in ADDED}
    if "_meta" in found:
        meta = {name: value for name, value in members(found["_meta"]).items() if name != META + "serverInfo"}
        found["_meta"] = json.dumps(meta, sort_keys=True)
        if not meta:
            del found["_meta"]
    return found


def plain(result):
    found = members(result)
    if "_meta" in found:
        found["_meta"] = json.dumps(members(found["_meta"]), sort_keys=True)
    return found


def elements(text):
    """The raw text of each element of an array."""
    found, decoder, at = [], json.JSONDecoder(), text.index("[") + 1
    while (at := BLANK.match(text, at).end()) < len(text) and text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = end
    return found


def content_of(server, method, there, status, here):
    """, as to what its tools answer"""
    if method != "tools/call" or there.result is None or there.result.get("isError"):
        return None
    a, b = there.result["content"], (here.result or {}).get("content")
    return None if server.masked(json.dumps(a)) == server.masked(json.dumps(b)) else f"{str(b)[:200]} instead of {str(a)[:200]}"


def bytes_of(server, method, there, status, here):
    """, byte for byte"""
    if there.error is not None:
        if here.error is None:
            return f"a result instead of {there.outcome[:120]}"
        wanted = there.error | {"code": NOT_FOUND.get(there.error["code"], there.error["code"])}
        if here.error != wanted:
            return f"{here.error} instead of {wanted}"
        right = {404} if here.error["code"] == -32601 else {200, 400}
        return None if status in right else f"HTTP {status} with {here.error['code']}"
    if here.result is None:
        return f"HTTP {status} {here.outcome[:200]}"
    if status != 200 or here.result.get("resultType") != "complete":
        return f"HTTP {status}, resultType {here.result.get('resultType')}"
    if re.fullmatch(r".*/list|resources/read", method) and not {"ttlMs", "cacheScope"} <= here.result.keys():
        return f"no word of how long it may be kept: {list(here.result)}"
    a, b = plain(there.raw["result"]), without_added(here.raw["result"])
    if "tools" in a and "tools" in b:
        # The bridge says for all its clients that they can do everything, so there may be more tools, but no others.
        known = elements(b.pop("tools"))
        b["tools"] = f"[{','.join(tool for tool in known if tool in elements(a['tools']))}]"
        a["tools"] = f"[{','.join(elements(a['tools']))}]"
    for name in sorted({*a, *b}):
        x, y = server.masked(a.get(name, "nothing")), server.masked(b.get(name, "nothing"))
        if x != y:
            return f"{name}: {first_difference(x, y)}"
    return None


def claims(server, bridge_binary, facts):
    """`differential` has left what the server says over stdio in `facts`."""
    spoken = facts.get("spoken")
    if not spoken:
        return
    server.prepare()
    bridge = Bridge(bridge_binary, server, server.command, "modern", ["--share", "all", "--lazy"])
    try:
        client = Modern(bridge.port, server.capabilities, server.answers)
        found = client.ask('"d"', "server/discover", "{}")[1].result or {}
        about = found.get("_meta", {}).get(META + "serverInfo", {}).get("name")
        named = json.loads(members(spoken[0][1].raw["result"])["serverInfo"])["name"]
        right = VERSION in found.get("supportedVersions", []) and about == named
        yield "server/discover says who it is", None if right else f"{found} of {named}"

        # A server of both eras is asked in this one, and chooses other words than over stdio.
        eras = re.findall(r'event="server\.era" era="(\w+)"', server.log("modern").read_text(errors="replace"))
        compare = bytes_of if eras[-1:] == ["legacy"] else content_of
        wrong, count = [], 0
        by_id = {Message(body).id: answer for body, answer in spoken}
        for body in script(server):
            message = Message(body)
            params = message.raw.get("params", "{}")
            # A call without a name has nothing that a header could mirror: the bridge refuses it.
            if message.id is None or message.method in REMOVED or (message.method, params) == ("tools/call", "{}"):
                continue
            count += 1
            status, answer = client.ask(message.id, message.method, params)
            reason = compare(server, message.method, by_id[message.id], status, answer)
            if reason:
                wrong.append(f"{message.method} {params[:80]}: {reason}")
        yield f"a client of 2026-07-28 is told the same{compare.__doc__} ({count})", different(wrong)
    finally:
        bridge.stop()
        bridge.clean_up()
