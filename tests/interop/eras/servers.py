"""Servers of the official SDKs that speak 2026-07-28, behind the bridge."""

import functools
import json
import os
import signal
import threading

import isolation
from era import HERE, META, MODERN, Legacy, Modern, claim, expect
from wire import text_of

# name -> command, in terms of what is installed
COMMANDS = {
    "typescript": lambda installed: ["node", installed / "node" / "notebook.mjs", "--dual"],
    "python": lambda installed: [installed / "python" / "bin" / "python", HERE / "servers" / "python2.py"],
    "rust": lambda installed: [installed / "rmcp-server"],
}


def only_modern(installed):
    return ["node", installed / "node" / "notebook.mjs", "--modern"]


def command(world, of):
    return [str(part) for part in of(world.installed)]


def discovered(client):
    return client.ask("server/discover", id="d").answer("d")


@claim("typescript", "a server that speaks only 2026-07-28 is served to its clients without any option, one child for all")
def modern_only(world):
    bridge = world.bridge(command=command(world, only_modern))
    clients = [Modern(bridge.address) for _ in range(2)]
    for client in clients:
        result = discovered(client)["result"]
        assert MODERN in result["supportedVersions"], result
        expect(result["_meta"][META + "serverInfo"], {"name": "notebook", "version": "2"}, "server:")
    clients[0].call("keep", word="first")
    expect(text_of(clients[1].call("keep", word="second").answer(1)), "first second", "what both kept:")
    expect({reply.header("mcp-session-id") for client in clients for reply in client.replies}, {None}, "sessions:")


def falls_back(world, of):
    bridge = world.bridge(command=command(world, of))
    reply = Modern(bridge.address).ask("server/discover", id="d")
    expect((reply.status, reply.answer("d").get("error", {}).get("code")), (200, -32601), "server/discover:")
    clients = [Legacy(bridge.address) for _ in range(2)]
    for number, client in enumerate(clients):
        expect(client.open()["protocolVersion"], "2025-11-25", "negotiated:")
        expect(text_of(client.call("keep", word=str(number)).answer(1)), str(number), "what it kept:")
    expect(len({json.loads(text_of(client.call("tell").answer(1)))["pid"] for client in clients}), 2, "children:")
    for client in clients:
        expect(client.close(), 204, "DELETE:")


def shared(world, of):
    bridge = world.bridge("--share", "all", command=command(world, of))
    result = discovered(Modern(bridge.address))["result"]
    assert MODERN in result["supportedVersions"], result
    for work in isolation.COMMON:
        try:
            work(bridge)
        except AssertionError as wrong:
            raise AssertionError(f"{work.__name__}: {wrong}") from wrong


def both(world, of):
    """A child is opened in the era that its client needs: so with both kinds of clients there are two."""
    bridge = world.bridge("--session-key", "header:X-Key", command=command(world, of))
    modern, legacy = Modern(bridge.address, ("X-Key", "a")), Legacy(bridge.address)
    expect(legacy.open()["protocolVersion"], "2025-11-25", "negotiated:")
    for word in "one", "two":
        modern.call("keep", word=word)
        legacy.call("keep", word=f"old {word}")
    expect(text_of(modern.call("keep", word="three").answer(1)), "one two three", "what the modern one kept:")
    expect(text_of(legacy.call("keep", word="three").answer(1)), "old one old two three", "what the session kept:")
    first = modern.call("question", id=1, word="w")
    retry = isolation.answered(first, 1, "w")
    expect(text_of(modern.call("question", id=2, word="w", retry=retry).answer(2)), "w: to w", "the answer:")
    expect(legacy.close(), 204, "DELETE:")


def restarts(bridge):
    """A child that dies takes its calls with it, which say so; the next call has a new one."""
    client, victim = Modern(bridge.address), Modern(bridge.address)
    pid = isolation.told(client)["pid"]
    client.call("keep", word="before")
    timer = threading.Timer(0.5, os.kill, [pid, signal.SIGKILL])
    timer.start()
    lost = victim.call("work", id=7, word="lost", steps=1000, pause=0.02).answer(7)
    expect(lost["error"]["data"]["source"], "mcp-bridge", "the call that was in flight:")
    again = client.call("keep", id=8, word="after")
    expect(text_of(again.answer(8)), "after", "what the new child kept:")
    assert isolation.told(client)["pid"] != pid, "the same process"


@claim("typescript", "a child of 2026-07-28 that dies is replaced, and only the calls in flight know")
def modern_restarts(world):
    restarts(world.bridge(command=command(world, only_modern)))


@claim("isolation", "a shared child of the session era that dies is replaced, and only the calls in flight know")
def shared_restarts(world):
    restarts(world.bridge("--share", "all"))


for name, of in COMMANDS.items():
    claim(name, "a server of both eras gives each client a session of its own, without any option")(functools.partial(falls_back, of=of))
    claim(name, "with --share all its clients of 2026-07-28 share it, and each gets only its own")(functools.partial(shared, of=of))
    claim(name, "with --session-key clients of both eras have a child each, opened in their era")(functools.partial(both, of=of))
claim("typescript", "what speaks only 2026-07-28 is shared, and each client gets only its own")(functools.partial(shared, of=only_modern))
