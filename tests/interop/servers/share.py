"""Sessions that share a server (`--share all`): full sessions, on one process that has seen one client."""

import re

from claims import AT_ONCE, at_once, attempt, clip, different, first_difference, handshake_of, lists, probes, reasons, script, stdin_of
from modern import Modern
from wire import INITIALIZED, Bridge, Http, Message, hello, request

# What the bridge answers itself, or says for all its sessions: they may see more tools than one client of their kind.
NOT_COMPARED = {"initialize", "ping", "logging/setLevel", "tools/list"}


def opened(bridge, server):
    client = Http(bridge.port, server.answers)
    client.initialize(hello(server.version, server.capabilities))
    client.send(INITIALIZED)
    client.listen()
    return client


def claims(server, bridge_binary, facts):
    """`differential` has left what the server says over stdio in `facts`."""
    spoken = facts.get("spoken")
    if not spoken:
        return
    server.prepare()
    bridge = Bridge(bridge_binary, server, server.spied(), "share", ["--share", "all", "--stop-grace", "2s"])
    clients = []
    try:
        yield attempt("with --share all two sessions are open at once, and both list the tools", lambda: both(bridge, server, clients))
        if len(clients) == 2:
            yield from together(server, bridge, spoken, *clients)
    finally:
        for client in clients:
            client.hang_up()
        bridge.stop()
        bridge.clean_up()


def names(answer):
    return sorted(tool["name"] for tool in answer.result["tools"])


def both(bridge, server, clients):
    errors = at_once([lambda: clients.append(opened(bridge, server))] * 2)
    if reason := reasons(errors):
        return reason
    found = [names(client.ask(request("1", "tools/list"))) for client in clients]
    if found[0] != found[1] or clients[0].session == clients[1].session:
        return f"{found} in {[client.session for client in clients]}"


def together(server, bridge, spoken, a, b):
    def the_same():
        answers = {Message(body).id: answer for body, answer in spoken}
        wrong, count = [], 0
        for body in script(server):
            message = Message(body)
            if message.id is None:
                a.send(body)
                continue
            there, here = answers[message.id], a.ask(body)
            if message.method in NOT_COMPARED:
                continue
            count += 1
            x, y = server.masked(there.outcome), server.masked(here.outcome)
            if x != y:
                wrong.append(f"{clip(body.decode())}: {first_difference(x, y)}")
        return different(wrong) if count else "nothing was compared"

    yield attempt("a session of several is told what the server says over stdio, byte for byte", the_same)

    def quiet():
        # Changes of lists are everybody's; all else belonged to the calls of the other session.
        foreign = [note for note in b.notes if not re.match(r"notifications/\w+/list_changed ", note)]
        return different(map(clip, foreign + b.asked))

    yield attempt("the other session hears nothing of it", quiet)
    yield attempt(
        f"{AT_ONCE} calls at once in each of two sessions on one process under the same ids",
        lambda: reasons(at_once([*probes(server, a), *probes(server, b)])),
    )

    def newest():
        client = Modern(bridge.port, server.capabilities, server.answers)
        status, answer = client.ask('"m"', "tools/list", "{}")
        if answer.result is None:
            return f"HTTP {status} {answer.text[:200]}"
        there = {name for name in names(a.ask(request("1", "tools/list")))}
        return None if set(names(answer)) == there else f"{names(answer)} instead of {sorted(there)}"

    yield attempt("a client of 2026-07-28 beside them is told of the same tools", newest)

    def one():
        # Another one may have been asked which era it speaks, and nothing else.
        return handshake_of(stdin_of(server, b"tools/list"))

    yield attempt("they are on one process, which has had one handshake", one)

    def leaves():
        if (status := a.delete()) != 204:
            return f"DELETE: HTTP {status}"
        lists(b, "1")()
        if (status := b.delete()) != 204:
            return f"the second DELETE: HTTP {status}"

    yield attempt("one session ends, and the other is served", leaves)
