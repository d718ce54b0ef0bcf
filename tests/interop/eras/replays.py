"""The first messages of clients that cannot be installed here, as they were seen on the wire.

Claude Code asks `server/discover` first. Answered, it stays modern for good; refused with -32601 it falls back to
`initialize` of 2025-11-25. Where `initialize` is answered with 2026-07-28, it puts what that revision wants on every
request of the session. Codex sends `initialize` of 2025-06-18, and nothing else.
"""

import json

from bridge import eventually
from era import META, MODERN, Legacy, Modern, claim, expect
from wire import text_of

CLAUDE = {"roots": {"listChanged": True}, "elicitation": {"form": {}, "url": {}}}
CODEX = {"elicitation": {"form": {}}}


def claude(bridge):
    return Modern(bridge.address, capabilities=CLAUDE, name="claude-code")


def untouched(bridge):
    """No session has begun. One server may have been asked what it speaks, which is none of a session, and is gone soon."""
    assert eventually(lambda: bridge.children() == []), f"children: {bridge.children()}"
    expect(bridge.sessions_begun(), 0, "sessions:")
    assert bridge.text().count('event="child.trial_start"') <= 1, "more than one server was asked what it speaks"


def refused(reply, id):
    """As dual-era clients need it: 200, -32601 under its id, and no session."""
    error = reply.answer(id).get("error", {})
    expect((reply.status, error.get("code"), reply.header("mcp-session-id")), (200, -32601, None), "server/discover:")


@claim("claude-code", "by default its server/discover is refused, no session's child is started for it, and it has a session of its own")
def falls_back(world):
    bridge = world.bridge("--lazy")
    for _ in range(3):
        refused(claude(bridge).ask("server/discover", id=0), 0)
    untouched(bridge)
    clients = [Legacy(bridge.address, capabilities=CLAUDE, name="claude-code") for _ in range(2)]
    for client in clients:
        expect(client.open()["protocolVersion"], "2025-11-25", "negotiated:")
    pids = {json.loads(text_of(client.call("tell").answer(1)))["pid"] for client in clients}
    expect(len(pids), 2, "children of two clients:")
    for number, client in enumerate(clients):
        expect(text_of(client.call("keep", word=str(number)).answer(1)), str(number), "what it kept:")
        expect(client.close(), 204, "DELETE:")


@claim("claude-code", "a call of 2026-07-28 that comes all the same is refused with the options that would serve it")
def insists(world):
    bridge = world.bridge("--lazy")
    client = claude(bridge)
    for method, params in {"tools/list": {}, "tools/call": {"name": "tell", "arguments": {}}}.items():
        reply = client.ask(method, params, id=7)
        error = reply.messages[0].get("error", {})
        expect(reply.messages[0].get("id"), 7, "the id:")
        assert "--share" in error.get("message", "") and "--session-key" in error["message"], f"{reply.status} {error}"
    untouched(bridge)


@claim("claude-code", "with --share all it is served 2026-07-28 from the first message to the last, and no session appears")
def stays_modern(world):
    bridge = world.bridge("--share", "all")
    client = claude(bridge)
    found = client.ask("server/discover", id=0).answer(0)["result"]
    assert MODERN in found["supportedVersions"], found
    expect(found["_meta"][META + "serverInfo"]["name"], "child", "server:")
    assert found["capabilities"]["tools"] and "ttlMs" in found and "cacheScope" in found, found
    listed = client.ask("tools/list", id=1).answer(1)["result"]
    assert any(tool["name"] == "tell" for tool in listed["tools"]) and listed["resultType"] == "complete", listed
    expect((client.ask("prompts/list", id=2).status, client.replies[-1].answer(2)["error"]["code"]), (404, -32601), "prompts/list:")
    listening = client.listen(3, toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True)
    expect(listening.wait(1)[0]["params"]["_meta"][META + "subscriptionId"], 3, "subscription:")
    for id in range(4, 8):
        reply = client.call("work", id=id, token=id, word=f"w{id}", steps=2, meta={"claudecode/toolUseId": f"toolu_{id}"})
        expect(text_of(reply.answer(id)), f"w{id}", "the answer:")
        expect([m["params"]["progressToken"] for m in reply.messages[:-1]], [id, id], "progress:")
    expect({reply.header("mcp-session-id") for reply in client.replies}, {None}, "sessions:")
    listening.close()


@claim("claude-code", "a session that negotiated 2026-07-28 is one, though every request looks like the newest revision")
def session_of_the_newest(world):
    bridge = world.bridge(child=["--echo-version"])
    clients = [Legacy(bridge.address, MODERN, capabilities=CLAUDE, name="claude-code") for _ in range(2)]
    for number, client in enumerate(clients):
        expect(client.open()["protocolVersion"], MODERN, "negotiated:")
        client.modern_headers = True
        client.meta = {META + "protocolVersion": MODERN, META + "clientInfo": {"name": "claude-code", "version": "2"},
            META + "clientCapabilities": CLAUDE}
        reply = client.call("keep", id=1, word=str(number))
        expect(reply.status, 200, "HTTP status:")
        expect(text_of(reply.answer(1)), str(number), "what it kept:")
        expect(client.ask("tools/list", id=2).status, 200, "tools/list:")
        result = client.result("tools/list", id=3)
        assert "resultType" not in result and "ttlMs" not in result, f"translated: {result}"
    for client in clients:
        expect(client.close(), 204, "DELETE:")


@claim("codex", "its initialize of 2025-06-18 opens a session of its own, with and without --share")
def codex(world):
    for options in ("--lazy",), ("--share", "all"), ("--session-key", "header:X-Key"):
        bridge = world.bridge(*options)
        client = Legacy(bridge.address, "2025-06-18", capabilities=CODEX, name="codex-mcp-client")
        # On a shared server a session is answered in its own revision.
        revision = "2025-06-18" if "--share" in options else "2025-11-25"
        expect(client.open()["protocolVersion"], revision, "what the child answers:")
        expect(text_of(client.call("keep", word="mine").answer(1)), "mine", "what it kept:")
        expect(client.close(), 204, "DELETE:")


@claim("both", "clients of both eras are served on one endpoint at the same time")
def both(world):
    bridge = world.bridge("--share", "all")
    modern, legacy = Modern(bridge.address), Legacy(bridge.address)
    legacy.open()
    for id in range(1, 6):
        expect(text_of(modern.call("work", id=id, word=f"m{id}").answer(id)), f"m{id}", "modern:")
        expect(text_of(legacy.call("work", id=id, word=f"l{id}").answer(id)), f"l{id}", "legacy:")
    result = legacy.result("tools/list", id=9)
    assert "resultType" not in result, f"the session got {list(result)}"
    expect(legacy.close(), 204, "DELETE:")
    expect(text_of(modern.call("work", id=1, word="after").answer(1)), "after", "modern, after the session's end:")
