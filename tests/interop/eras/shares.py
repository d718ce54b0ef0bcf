"""Many sessions on one child, and what only a session with a child of its own can have."""

import functools

import isolation
from era import Hearing, Legacy, claim, expect, side_by_side
from bridge import eventually
from cells import MODERN, SERVERS, SESSION, fronting
from wire import text_of


def opened(bridge, **about):
    client = Legacy(bridge.address, **about)
    client.open()
    return client


def crowd(bridge):
    return side_by_side(lambda number, _: opened(bridge, name=f"client-{number}"), range(isolation.MANY))


def crossed(world, server):
    options = ("--share", "all", "--max-sessions", "100")  # those of the second list come while those of the first are there
    bridge, _ = fronting(world, server, *options) if server else (world.bridge(*options), None)
    isolation.calls(bridge, crowd)
    isolation.types(bridge, lambda address: opened(bridge))


for server in (None, "typescript-1", "typescript-2", "python-2", "rust"):
    era = SERVERS[server].era if server else SESSION
    text = f"fifty sessions with the same id and progress token on {server or 'child.py'} ({era}) get their own answer and progress"
    claim("share", text)(functools.partial(crossed, server=server))


def asks(messages):
    return [message for message in messages if message.get("method") == "elicitation/create"]


@claim("share", "outside of a call a server can ask a session that has it for itself, and tell it that roots have changed")
def alone(world):
    client = opened(world.bridge())
    hearing = Hearing(client)
    client.notify("notifications/roots/list_changed", {})
    client.call("later", word="w")
    assert eventually(lambda: asks(hearing.messages)), f"heard {hearing.messages}"
    expect([message["params"].get("data") for message in hearing.messages if "message" in message["method"]], ["w"] * 1, "logged:")
    client.answer(asks(hearing.messages)[0]["id"], {"action": "accept", "content": {"word": "w"}})
    wanted = ["notifications/initialized", "notifications/roots/list_changed", "w: accept"]
    assert eventually(lambda: isolation.told(client)["heard"] == wanted), isolation.told(client)
    hearing.close()


@claim("share", "outside of a call a server that sessions share asks nobody and is refused, and tells of resources who watches them")
def outside(world):
    bridge = world.bridge("--share", "all")
    clients = [opened(bridge) for _ in range(3)]
    hearing = [Hearing(client) for client in clients]
    expect(len({isolation.told(client)["pid"] for client in clients}), 1, "children:")
    clients[0].ask("resources/subscribe", {"uri": "w"})
    for client in clients:
        client.notify("notifications/roots/list_changed", {})
    expect(text_of(clients[1].call("later", word="w").answer(1)), "w", "the call:")
    assert eventually(lambda: "w: None" in isolation.told(clients[2])["heard"]), isolation.told(clients[2])
    updates = [("notifications/resources/updated", "w")]
    assert eventually(lambda: hearing[0].messages), "the update does not come"
    found = [[(message["method"], message["params"].get("uri")) for message in one.messages] for one in hearing]
    expect(found, [updates, [], []], "what the three hear:")
    expect(isolation.told(clients[0])["heard"].count("notifications/initialized"), 1, "handshakes:")
    for one in hearing:
        one.close()


@claim("share", "with --share key sessions of one token share a child, and those of another token have another")
def keys(world):
    callers = isolation.with_tokens(world, "--share", "key")
    pids = []
    for client, _ in callers:
        sessions = [Legacy(client.pool.address) for _ in range(2)]
        for session in sessions:
            session.headers = client.headers
            session.open()
        pids.append({isolation.told(session)["pid"] for session in sessions})
    expect([len(of) for of in pids], [1, 1], "children of each token:")
    assert pids[0] != pids[1], "both tokens have the same child"


@claim("share", f"a session in front of {MODERN} may ping and tell that its roots have changed, and the server need not know")
def swallowed(world):
    client = opened(fronting(world, "typescript-2")[0])
    client.notify("notifications/roots/list_changed", {})
    expect(client.result("ping"), {}, "ping:")
    expect(text_of(client.call("keep", word="w").answer(1)), "w", "the call after:")
    expect(client.close(), 204, "DELETE:")
