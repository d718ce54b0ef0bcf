"""What is claimed of the bridge behind the gateways that pass an agent's own requests on."""

import re
import time

from bridge import eventually
from claims import LARGE, NOTE, claim, delete_behind_its_back, expect, listed, methods, reason_of, seen_by_child
from claims import tools_of
from proxies import Agent, Agentgateway, Microsoft, Toolhive
from wire import text_of

# These pass the agent's Host on. A listener that others can reach takes any; a loopback one, as here, must be told.
HOST = ["--allow-host", "gateway.example"]
SESSION_ID = re.compile(r"[A-Za-z0-9-]{1,128}")


def served(agent):
    """What every agent wants."""
    _, answer = agent.ask("tools/list")
    assert "echo" in tools_of(answer)
    expect(text_of(agent.call("echo", {"text": "ü☃"})), "ü☃")
    expect(set(agent.statuses) - {200, 202}, set(), "statuses:")


def reports(agent):
    """A log line and progress before an answer, in their order."""
    expect(text_of(agent.call("log", {"level": "error", "message": "careful"})), "logged")
    answer = agent.call("count", {"to": 3, "delay_ms": 20}, meta={"progressToken": "p"})
    expect(text_of(answer), "counted to 3")
    expect(methods(agent.unasked), ["notifications/message"] + 3 * ["notifications/progress"])
    expect([one["params"]["progress"] for one in agent.unasked[1:]], [1, 2, 3])


# ---------------------------------------------------------------------------------------------- agentgateway


@claim("agentgateway", "initialize, list, call, with Mcp-Method and Mcp-Name and the agent's Host; DELETE ends the session")
def _(world):
    bridge = world.bridge("hostile strict", *HOST)
    agent = Agent(Agentgateway(bridge.address)).start()
    served(agent)
    expect(seen_by_child(agent.call("seen"))[:2], ["initialize", "notifications/initialized"])
    expect(agent.leave(), 202)
    assert eventually(lambda: bridge.sessions_ended("deleted") == 1)


@claim("agentgateway", "two agents, two sessions, its connections shared; neither sees the other's")
def _(world):
    gateway = Agentgateway(world.bridge("notebook", *HOST).address)
    a, b = Agent(gateway).start(), Agent(gateway).start()
    a.call("add_note", NOTE)
    expect((listed(b.call("list_notes")), listed(a.call("list_notes"))), ([], ["milk"]))
    expect(gateway.pool.made, 1, "TCP connections:")


@claim("agentgateway", "a child that needs 5 s for initialize", 6)
def _(world):
    agent = Agent(Agentgateway(world.bridge("hostile slow_init 5000", *HOST).address)).start()
    served(agent)


@claim("agentgateway", "a lost session: 404 passed on, the agent re-initializes once, the call is answered", 2)
def _(world):
    bridge = world.bridge("notebook", *HOST)
    agent = Agent(Agentgateway(bridge.address)).start()
    agent.call("add_note", NOTE)
    bridge.crash()
    bridge.start()
    expect(listed(agent.call("list_notes")), [])
    expect(agent.handshakes, 2, "handshakes:")


@claim("agentgateway", "an idle end: 404 passed on, the agent re-initializes once; its GET through the gateway prevents it", 4)
def _(world):
    bridge = world.bridge("notebook", *HOST, "--idle-timeout", "2s")
    gateway = Agentgateway(bridge.address)
    listening, idle = Agent(gateway).start(), Agent(gateway).start()
    expect(listening.listen(), 200, "GET:")
    listening.call("add_note", NOTE)
    bridge.await_log('event="session.end"')
    time.sleep(1.5)
    expect(listed(idle.call("list_notes")), [])
    expect((listed(listening.call("list_notes")), listening.handshakes, idle.handshakes), (["milk"], 1, 2))


@claim("agentgateway", "the child dies in a call: an error as 200; then 404, the agent re-initializes once")
def _(world):
    agent = Agent(Agentgateway(world.bridge("notebook", *HOST).address)).start()
    expect(reason_of(agent.call("crash")), "child_exited")
    expect(text_of(agent.call("echo", {"text": "on"})), "on")
    expect(agent.handshakes, 2, "handshakes:")


@claim("agentgateway", "progress and log messages in between; what comes unasked, on the GET stream")
def _(world):
    agent = Agent(Agentgateway(world.bridge("notebook", *HOST).address)).start()
    reports(agent)
    expect(agent.listen(), 200, "GET:")


@claim("agentgateway", "an answer of 5 MiB: too much for its buffer as JSON, by its own design; whole with --sse-after 0ms", 2)
def _(world):
    bridge = world.bridge(f"hostile huge {LARGE}", *HOST, "--sse-after", "10s")
    agent = Agent(Agentgateway(bridge.address)).start()
    reply, _ = agent.ask("tools/call", {"name": "echo", "arguments": {}})
    expect((reply.status, b"length limit" in reply.body), (500, True))
    bridge = world.bridge(f"hostile huge {LARGE}", *HOST, "--sse-after", "0ms")
    expect(len(text_of(Agent(Agentgateway(bridge.address)).start().call("echo"))), LARGE)


@claim("agentgateway", "stateless: initialize, initialized, message, DELETE for each of the agent's; no session is left", 2)
def _(world):
    bridge = world.bridge("notebook", *HOST)
    gateway = Agentgateway(bridge.address, stateful=False)
    agent = Agent(gateway).start()
    expect(agent.session, None)
    agent.call("add_note", NOTE)
    expect(listed(agent.call("list_notes")), [], "each call has a child of its own:")
    expect({status for _, status in gateway.seen}, {200, 202, 204})
    assert eventually(lambda: bridge.sessions_begun() == bridge.sessions_ended("deleted") == 4), bridge.text()


@claim("agentgateway", "stateless, a child that needs 5 s: it drops the stream of initialize unread, the call is answered", 6)
def _(world):
    bridge = world.bridge("hostile slow_init 5000", *HOST)
    gateway = Agentgateway(bridge.address, stateful=False)
    agent = Agent(gateway)
    agent.negotiated = "2025-11-25"
    expect(text_of(agent.call("echo", {"text": "late"})), "late")
    expect([status for _, status in gateway.seen], [200, 202, 200, 204])


# ---------------------------------------------------------------------------------------------- microsoft/mcp-gateway


@claim("microsoft", "initialize, list, call by POST alone, with the agent's Host; the session id is of the shape it keeps")
def _(world):
    agent = Agent(Microsoft(world.bridge("hostile strict", *HOST).address)).start()
    assert SESSION_ID.fullmatch(agent.session), agent.session
    served(agent)
    expect((agent.listen(), agent.leave()), (405, 405), "GET and DELETE, by its own design:")
    expect(text_of(agent.call("echo", {"text": "on"})), "on")


@claim("microsoft", "three pods with --replica: ids keep the shape, each session comes back to its own")
def _(world):
    bridges = [world.bridge("notebook", *HOST, "--replica", f"adapter-{n}") for n in range(3)]
    gateway = Microsoft(*[bridge.address for bridge in bridges])
    agents = [Agent(gateway).start() for _ in range(8)]
    for n, agent in enumerate(agents):
        assert re.match(r"adapter-\d", agent.session) and SESSION_ID.fullmatch(agent.session), agent.session
        agent.call("add_note", {"title": str(n), "text": ""})
    for n, agent in enumerate(agents):
        expect(listed(agent.call("list_notes")), [str(n)])


@claim("microsoft", "a child that needs 5 s for initialize: the head is there long before its 100 s", 6)
def _(world):
    agent = Agent(Microsoft(world.bridge("hostile slow_init 5000", *HOST).address)).start()
    served(agent)


@claim("microsoft", "a lost session: 404 passed on, the agent re-initializes once, the call is answered", 2)
def _(world):
    bridge = world.bridge("notebook", *HOST)
    agent = Agent(Microsoft(bridge.address)).start()
    bridge.crash()
    bridge.start()
    expect(listed(agent.call("list_notes")), [])
    expect(agent.handshakes, 2, "handshakes:")


@claim("microsoft", "it never deletes: an agent that left costs a session until --idle-timeout; one that stays re-initializes", 3)
def _(world):
    bridge = world.bridge("notebook", *HOST, "--idle-timeout", "2s")
    agent = Agent(Microsoft(bridge.address)).start()
    agent.leave()
    expect(bridge.sessions_ended(), 0)
    bridge.await_log('event="session.end"')
    expect(listed(agent.call("list_notes")), [])
    expect(agent.handshakes, 2, "handshakes:")


@claim("microsoft", "a full bridge is 500 to the agent, by its own design; with --evict the longest idle session makes room", 2)
def _(world):
    gateway = Microsoft(world.bridge("notebook", *HOST, "--max-sessions", "1").address)
    Agent(gateway).start()
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "late", "version": "1"}}
    reply, _ = Agent(gateway).ask("initialize", hello)
    expect((reply.status, gateway.pods[0].seen[-1]), (500, ("POST", 503)))
    gateway = Microsoft(world.bridge("notebook", *HOST, "--max-sessions", "1", "--evict").address)
    first, second = Agent(gateway).start(), Agent(gateway).start()
    expect(text_of(second.call("echo", {"text": "b"})), "b")
    expect(text_of(first.call("echo", {"text": "a"})), "a")
    expect(first.handshakes, 2, "handshakes of the one that was evicted:")


@claim("microsoft", "the child dies in a call: an error as 200; then 404, the agent re-initializes once")
def _(world):
    agent = Agent(Microsoft(world.bridge("notebook", *HOST).address)).start()
    expect(reason_of(agent.call("crash")), "child_exited")
    expect(text_of(agent.call("echo", {"text": "on"})), "on")
    expect(agent.handshakes, 2, "handshakes:")


@claim("microsoft", "an agent in a browser, as in its portal: its Origin goes along; 403 unless --allow-origin names it")
def _(world):
    origin = [("origin", "https://portal.example")]
    gateway = Microsoft(world.bridge("notebook", *HOST).address)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "portal", "version": "1"}}
    reply, _ = Agent(gateway, origin).ask("initialize", hello)
    expect((reply.status, gateway.pods[0].seen), (500, [("POST", 403)]))
    gateway = Microsoft(world.bridge("notebook", *HOST, "--allow-origin", "https://portal.example").address)
    served(Agent(gateway, origin).start())


@claim("microsoft", "progress and log messages in between, on the POST's own stream")
def _(world):
    reports(Agent(Microsoft(world.bridge("notebook", *HOST).address)).start())


@claim("microsoft", "an answer of 5 MiB", 2)
def _(world):
    agent = Agent(Microsoft(world.bridge(f"hostile huge {LARGE}", *HOST).address)).start()
    expect(len(text_of(agent.call("echo"))), LARGE)


# ---------------------------------------------------------------------------------------------- toolhive


@claim("toolhive", "initialize, list, call, GET, DELETE with its X-Forwarded headers; Host is rewritten")
def _(world):
    bridge = world.bridge("hostile strict")
    agent = Agent(Toolhive(bridge.address)).start()
    served(agent)
    expect(agent.listen(), 200, "GET:")
    expect(agent.leave(), 204)
    assert eventually(lambda: bridge.sessions_ended("deleted") == 1)


@claim("toolhive", "its health check, GET / without a session, is below 500 before, with and after sessions")
def _(world):
    bridge = world.bridge("notebook", "--max-sessions", "1")
    gateway = Toolhive(bridge.address)
    agent = Agent(gateway)
    for moment in (lambda: None, agent.start, agent.leave):
        moment()
        status = gateway.health()
        assert 200 <= status < 500, status
    expect(bridge.sessions_begun(), 1)


@claim("toolhive", "two agents, two sessions; neither sees the other's")
def _(world):
    gateway = Toolhive(world.bridge().address)
    a, b = Agent(gateway).start(), Agent(gateway).start()
    a.call("add_note", NOTE)
    expect((listed(b.call("list_notes")), listed(a.call("list_notes"))), ([], ["milk"]))


@claim("toolhive", "a child that needs 5 s for initialize", 6)
def _(world):
    served(Agent(Toolhive(world.bridge("hostile slow_init 5000").address)).start())


@claim("toolhive", "a lost session: it re-initializes without `initialized`, the call is answered; the agent never learns", 2)
def _(world):
    bridge = world.bridge("hostile strict")
    gateway = Toolhive(bridge.address)
    agent = Agent(gateway).start()
    delete_behind_its_back(bridge, agent.session)
    expect(text_of(agent.call("echo", {"text": "on"})), "on")
    expect(seen_by_child(agent.call("seen"))[:3], ["initialize", "notifications/initialized", "tools/call"])
    expect((agent.handshakes, gateway.replayed), (1, 1))


@claim("toolhive", "a restarted bridge: the same, and what the child knew is silently gone, by its own design", 2)
def _(world):
    bridge = world.bridge()
    gateway = Toolhive(bridge.address)
    agent = Agent(gateway).start()
    agent.call("add_note", NOTE)
    bridge.crash()
    bridge.start()
    expect(listed(agent.call("list_notes")), [])
    expect((agent.handshakes, gateway.replayed), (1, 1))
    expect(set(agent.statuses), {200, 202})


@claim("toolhive", "a lost session while it only listens: GET is met with 404, it re-initializes and sends the GET again")
def _(world):
    bridge = world.bridge()
    gateway = Toolhive(bridge.address)
    agent = Agent(gateway).start()
    delete_behind_its_back(bridge, agent.session)
    expect((agent.listen(), gateway.replayed), (200, 1))
    agent.call("add_note", NOTE)
    wanted = "notifications/resources/list_changed"
    assert eventually(lambda: wanted in methods(agent.unasked)), agent.unasked


@claim("toolhive", "an idle end: it re-initializes, the agent never learns; a GET through it prevents that", 4)
def _(world):
    bridge = world.bridge("notebook", "--idle-timeout", "2s")
    gateway = Toolhive(bridge.address)
    listening, idle = Agent(gateway).start(), Agent(gateway).start()
    expect(listening.listen(), 200, "GET:")
    for agent in (listening, idle):
        agent.call("add_note", NOTE)
    bridge.await_log('event="session.end"')
    time.sleep(1.5)
    expect((listed(listening.call("list_notes")), listed(idle.call("list_notes"))), (["milk"], []))
    expect((gateway.replayed, idle.handshakes), (1, 1))


@claim("toolhive", "the child dies in a call: the agent gets the error as 200; its next call is answered by a new child")
def _(world):
    gateway = Toolhive(world.bridge().address)
    agent = Agent(gateway).start()
    expect(reason_of(agent.call("crash")), "child_exited")
    expect(text_of(agent.call("echo", {"text": "on"})), "on")
    expect((gateway.replayed, agent.handshakes), (1, 1))


@claim("toolhive", "progress and log messages in between")
def _(world):
    reports(Agent(Toolhive(world.bridge().address)).start())


@claim("toolhive", "an answer of 5 MiB", 2)
def _(world):
    agent = Agent(Toolhive(world.bridge(f"hostile huge {LARGE}").address)).start()
    expect(len(text_of(agent.call("echo"))), LARGE)
