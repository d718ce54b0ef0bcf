"""What is claimed of the bridge behind the gateways that are built on the Go SDK."""

import concurrent.futures
import random
import time

from bridge import eventually
from claims import LARGE, NOTE, claim, delete_behind_its_back, error_of, expect, fails, listed, methods, reason_of
from claims import seen_by_child, tools_of
from golang import Dead, Docker, Mcpg, McpgJanuary, Rejected, SessionMissing
from wire import text_of

# ---------------------------------------------------------------------------------------------- gh-aw-mcpg


@claim("mcpg", "server/discover falls back to initialize 2025-11-25 on the same connection; list, call")
def _(world):
    bridge = world.bridge("hostile strict")
    gateway = world.gateway(Mcpg, bridge.address)
    expect(gateway.client.negotiated, "2025-11-25")
    expect(gateway.client.statuses, [200, 200, 202], "discover, initialize, initialized:")
    expect(gateway.client.pool.made, 1, "TCP connections:")
    assert "echo" in tools_of(gateway.list())
    expect(text_of(gateway.call("echo", {"text": "ü☃"})), "ü☃")
    expect(seen_by_child(gateway.call("seen"))[:2], ["initialize", "notifications/initialized"])
    gateway.close()
    assert eventually(lambda: bridge.sessions_ended("deleted") == 1), "its DELETE did not end the session"


@claim("mcpg", "two agents share its one session: 32 calls at once, each answer to its own caller")
def _(world):
    gateway = world.gateway(Mcpg, world.bridge().address)
    gateway.call("add_note", NOTE)

    def agent(n):
        said = f"{n} {random.random()}"
        if n % 4 == 0:
            return text_of(gateway.call("slow", {"seconds": 0.4, "text": said})) == f"waited 0.4 s: {said}"
        return text_of(gateway.call("echo", {"text": said})) == said

    with concurrent.futures.ThreadPoolExecutor(32) as agents:
        assert all(agents.map(agent, range(32)))
    expect(listed(gateway.call("list_notes")), ["milk"])
    expect(gateway.handshakes, 1, "handshakes:")
    expect(set(gateway.client.statuses), {200, 202})


@claim("mcpg", "more calls at once than --max-in-flight: 200 with an error each, never a 4xx, so the connection lives", 2)
def _(world):
    gateway = world.gateway(Mcpg, world.bridge("notebook", "--max-in-flight", "4").address)
    with concurrent.futures.ThreadPoolExecutor(16) as agents:
        answers = list(agents.map(lambda _: gateway.call("slow", {"seconds": 0.5}), range(16)))
    refused = [answer for answer in answers if "error" in answer]
    assert refused and {reason_of(answer) for answer in refused} == {"too_many_inflight"}, refused
    assert len(refused) < 16
    expect(text_of(gateway.call("echo", {"text": "on"})), "on")


@claim("mcpg", "a child that needs 5 s for initialize is within its 30 s; the head is there long before", 6)
def _(world):
    gateway = world.gateway(Mcpg, world.bridge("hostile slow_init 5000").address)
    expect(text_of(gateway.call("echo", {"text": "late"})), "late")
    expect(gateway.handshakes, 1, "handshakes:")


@claim("mcpg", "a start beyond its limit: it gives up, and the session that it was not told of ends", 6)
def _(world):
    # With the era known it does not give up while it waits for the answer to its server/discover.
    bridge = world.bridge("hostile slow_init 5000", "--era", "legacy")
    gateway = Mcpg(bridge.address, connect_limit=2.0)
    # What it tries then is refused at once, so that it need not wait for its limit twice more.
    expect(gateway.connect(), [405, 404], "its SSE and its JSON without a transport:")
    assert eventually(lambda: bridge.sessions_begun() == bridge.sessions_ended("unclaimed") == 1), bridge.text()


@claim("mcpg", "a session deleted behind its back: 404, it re-initializes once, the call is answered")
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(Mcpg, bridge.address)
    gateway.call("add_note", NOTE)
    delete_behind_its_back(bridge, gateway.client.session)
    expect(listed(gateway.call("list_notes")), [], "a new session begins with nothing:")
    expect(gateway.handshakes, 2, "handshakes:")
    expect(listed(gateway.call("list_notes")), [])
    expect(gateway.handshakes, 2, "handshakes:")


@claim("mcpg", "a restarted bridge: no connection is no death, then 404, it re-initializes once, the call is answered", 2)
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(Mcpg, bridge.address)
    gateway.call("add_note", NOTE)
    bridge.crash()
    fails(Rejected, gateway.call, "list_notes")
    bridge.start()
    expect(listed(gateway.call("list_notes")), [])
    expect(gateway.handshakes, 2, "handshakes:")


@claim("mcpg", "a stopping bridge: a call in flight ends with its answer or with an error, as 200", 2)
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(Mcpg, bridge.address)
    with concurrent.futures.ThreadPoolExecutor(2) as agents:
        short = agents.submit(gateway.call, "slow", {"seconds": 1})
        long = agents.submit(gateway.call, "slow", {"seconds": 30})
        bridge.await_log('event="session.start"')
        time.sleep(0.3)
        bridge.process.terminate()
        expect(text_of(short.result()), "waited 1 s")
        error_of(long.result())
    expect(gateway.client.failed, None)
    expect(bridge.process.wait(12), 0, "exit code:")


@claim("mcpg", "pings are activity: a session lives through three times its --idle-timeout of 2 s", 7)
def _(world):
    bridge = world.bridge("notebook", "--idle-timeout", "2s")
    gateway = world.gateway(Mcpg, bridge.address)
    gateway.call("add_note", NOTE)
    for _ in range(12):
        time.sleep(0.5)
        gateway.ping()
    expect(listed(gateway.call("list_notes")), ["milk"])
    expect(gateway.handshakes, 1, "handshakes:")


@claim("mcpg", "its ping every 25 min comes before the end of the default --idle-timeout")
def _(world):
    bridge = world.bridge()
    limit = int(bridge.await_log(r"idle_timeout=(\d+)\.0")[1])
    assert limit > 1500, f"--idle-timeout is {limit} s"


@claim("mcpg", "an idle end without pings: 404, it re-initializes once, the call is answered", 3)
def _(world):
    bridge = world.bridge("notebook", "--idle-timeout", "2s")
    gateway = world.gateway(Mcpg, bridge.address)
    gateway.call("add_note", NOTE)
    bridge.await_log('event="session.end"')
    expect(listed(gateway.call("list_notes")), [])
    expect(gateway.handshakes, 2, "handshakes:")


@claim("mcpg", "a ping that meets a forgotten session (404): it closes the connection for good, by its own design")
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(Mcpg, bridge.address)
    delete_behind_its_back(bridge, gateway.client.session)
    fails(SessionMissing, gateway.ping)
    expect(gateway.client.statuses[-1], 404)
    for _ in range(2):
        expect(type(fails(Dead, gateway.call, "echo", {"text": "?"})), Dead)
    expect(gateway.handshakes, 1, "handshakes:")


@claim("mcpg", "the child dies in a call: an error as 200; the next call re-initializes once and is answered")
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(Mcpg, bridge.address)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        waiting = other.submit(gateway.call, "slow", {"seconds": 30})
        bridge.await_log('event="session.start"')
        time.sleep(0.3)
        error = error_of(gateway.call("crash", {"code": 3}))
        expect((error["data"]["reason"], error["data"]["exit_code"]), ("child_exited", 3))
        expect(reason_of(waiting.result()), "child_exited", "the other agent's call:")
    expect(gateway.client.failed, None)
    expect(text_of(gateway.call("echo", {"text": "on"})), "on")
    expect(gateway.handshakes, 2, "handshakes:")


@claim("mcpg", "the same with --on-exit respawn: the next call is answered in the same session")
def _(world):
    gateway = world.gateway(Mcpg, world.bridge("notebook", "--on-exit", "respawn").address)
    session = gateway.client.session
    expect(reason_of(gateway.call("crash", {"signal": "KILL"})), "child_exited")
    expect(text_of(gateway.call("echo", {"text": "on"})), "on")
    gateway.ping()
    expect((gateway.client.session, gateway.handshakes), (session, 1))


@claim("mcpg", "after a death, a ping before the next call kills the connection; with --on-exit respawn it does not")
def _(world):
    gateway = world.gateway(Mcpg, world.bridge().address)
    gateway.call("crash")
    fails(SessionMissing, gateway.ping)
    gateway = world.gateway(Mcpg, world.bridge("notebook", "--on-exit", "respawn").address)
    gateway.call("crash")
    gateway.ping()
    expect(text_of(gateway.call("echo", {"text": "on"})), "on")


@claim("mcpg", "a call beyond its tool timeout: notifications/cancelled is 202, the connection goes on", 2)
def _(world):
    gateway = world.gateway(Mcpg, world.bridge().address)
    fails(TimeoutError, gateway.call, "slow", {"seconds": 60}, timeout=1)
    expect(gateway.client.statuses[-1], 202)
    expect(text_of(gateway.call("echo", {"text": "on"})), "on")
    expect(gateway.handshakes, 1, "handshakes:")


@claim("mcpg", "a log message before an answer, and a question: both reach it although it opens no GET")
def _(world):
    gateway = world.gateway(Mcpg, world.bridge().address)
    expect(text_of(gateway.call("log", {"level": "error", "message": "careful"})), "logged")
    expect(methods(gateway.client.unasked), ["notifications/message"])
    expect(text_of(gateway.call("list_roots")), "no roots")
    expect(methods(gateway.client.unasked)[1:], ["roots/list"])
    expect(gateway.client.gets, 0)


@claim("mcpg", "an answer of 5 MiB", 2)
def _(world):
    gateway = world.gateway(Mcpg, world.bridge(f"hostile huge {LARGE}").address)
    expect(len(text_of(gateway.call("echo"))), LARGE)
    gateway.ping()


# ---------------------------------------------------------------------------------------------- its January version


@claim("mcpg-january", "GET before `initialized`: its head comes at once, although the child refuses what is early")
def _(world):
    gateway = world.gateway(McpgJanuary, world.bridge("hostile strict").address)
    expect((gateway.client.gets, gateway.client.negotiated), (1, "2025-06-18"))
    expect(gateway.client.statuses, [200, 202], "initialize, initialized:")
    assert "echo" in tools_of(gateway.list())
    expect(text_of(gateway.call("echo", {"text": "a"})), "a")
    expect(seen_by_child(gateway.call("seen"))[:2], ["initialize", "notifications/initialized"])


@claim("mcpg-january", "a child that needs 3 s for initialize is within its 5 s", 4)
def _(world):
    gateway = world.gateway(McpgJanuary, world.bridge("hostile slow_init 3000").address)
    expect(text_of(gateway.call("echo", {"text": "late"})), "late")


@claim("mcpg-january", "its GET counts as listening: no pings, and yet no idle end", 6)
def _(world):
    gateway = world.gateway(McpgJanuary, world.bridge("notebook", "--idle-timeout", "2s").address)
    gateway.call("add_note", NOTE)
    time.sleep(5)
    expect(listed(gateway.call("list_notes")), ["milk"])


@claim("mcpg-january", "its request limit cuts its own GET: it opens another, the session stays", 9)
def _(world):
    bridge = world.bridge("notebook", "--idle-timeout", "6s")
    gateway = world.gateway(McpgJanuary, bridge.address, request_limit=1.0)
    gateway.call("add_note", NOTE)
    assert eventually(lambda: gateway.client.gets >= 4, 14), gateway.client.gets
    expect(listed(gateway.call("list_notes")), ["milk"])
    expect(gateway.client.failed, None)


@claim("mcpg-january", "a lost session: its GET ends, the next is 404, every call fails for good, by its own design", 4)
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(McpgJanuary, bridge.address)
    delete_behind_its_back(bridge, gateway.client.session)
    assert eventually(lambda: gateway.client.failed, 8)
    expect(type(gateway.client.failed), SessionMissing)
    fails(Dead, gateway.call, "echo", {"text": "?"})


@claim("mcpg-january", "the child dies in a call: 200 with an error; with --on-exit respawn the next call is answered", 4)
def _(world):
    gateway = world.gateway(McpgJanuary, world.bridge("notebook", "--on-exit", "respawn").address)
    expect(reason_of(gateway.call("crash")), "child_exited")
    expect(text_of(gateway.call("echo", {"text": "on"})), "on")
    time.sleep(2.5)  # had its GET ended, the next one would be through by now
    expect(text_of(gateway.call("echo", {"text": "still"})), "still")
    expect(gateway.client.failed, None)


@claim("mcpg-january", "an answer of 5 MiB as JSON (--sse-after 10s): its event streams end at 1 MiB a line, by its own design")
def _(world):
    options = "--sse-after", "10s"
    gateway = world.gateway(McpgJanuary, world.bridge(f"hostile huge {LARGE}", *options).address)
    expect(len(text_of(gateway.call("echo"))), LARGE)
    expect(gateway.client.forms[-1], "json")


@claim("mcpg-january", "with `headers` it begins with a session id of its own making: 404, it cannot connect, by its own design")
def _(world):
    reply = McpgJanuary(world.bridge().address).plain(("Authorization", "token"))
    # If it were let in: its calls carry the agent's own id, not the one it was given.
    expect((reply.status, error_of(reply.messages[0])["message"]), (404, "Session not found"))


# ---------------------------------------------------------------------------------------------- docker/mcp-gateway


@claim("docker", "the four lists in a session of their own that it deletes, then a session per agent; neither sees the other's")
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(Docker, bridge.address)
    found, client = gateway.lists()
    assert "add_note" in tools_of(found["tools/list"])
    expect(error_of(found["prompts/list"])["code"], -32601, "a list the child does not have:")
    assert "resources" in found["resources/list"]["result"]
    assert eventually(lambda: bridge.sessions_ended("deleted") == 1), "its DELETE did not end the session"
    gateway.call("a", "add_note", NOTE)
    expect(listed(gateway.call("b", "list_notes")), [])
    expect(listed(gateway.call("a", "list_notes")), ["milk"])
    gateway.agent_left("a")
    assert eventually(lambda: bridge.sessions_ended("deleted") == 2)
    expect(listed(gateway.call("b", "list_notes")), [])


@claim("docker", "a child that needs 5 s for initialize: it has no limit of its own", 6)
def _(world):
    gateway = world.gateway(Docker, world.bridge("hostile slow_init 5000").address)
    expect(text_of(gateway.call("a", "echo", {"text": "late"})), "late")


@claim("docker", "an idle agent holds its GET, which counts as listening: no idle end", 6)
def _(world):
    gateway = world.gateway(Docker, world.bridge("notebook", "--idle-timeout", "2s").address)
    gateway.call("a", "add_note", NOTE)
    time.sleep(5)
    expect(listed(gateway.call("a", "list_notes")), ["milk"])


@claim("docker", "a lost session: 404, every call of this agent fails until it reconnects, by its own design", 2)
def _(world):
    bridge = world.bridge()
    gateway = world.gateway(Docker, bridge.address)
    gateway.call("a", "add_note", NOTE)
    bridge.crash()
    bridge.start()
    for _ in range(2):
        fails(SessionMissing, gateway.call, "a", "list_notes")
    gateway.agent_left("a")
    expect(listed(gateway.call("a", "list_notes")), [])
    expect(text_of(gateway.call("b", "echo", {"text": "on"})), "on")


@claim("docker", "the child dies in a call: an error as 200, other agents go on; with --on-exit respawn it does too", 4)
def _(world):
    gateway = world.gateway(Docker, world.bridge("notebook", "--on-exit", "respawn").address)
    gateway.call("b", "add_note", NOTE)
    expect(reason_of(gateway.call("a", "crash", {"code": 1})), "child_exited")
    expect(text_of(gateway.call("a", "echo", {"text": "on"})), "on")
    time.sleep(2.5)  # had its GET ended, the next one would be through by now
    expect(text_of(gateway.call("a", "echo", {"text": "still"})), "still")
    expect(listed(gateway.call("b", "list_notes")), ["milk"])


@claim("docker", "without respawn the same agent meets 404 and fails until it reconnects, by its own design")
def _(world):
    gateway = world.gateway(Docker, world.bridge().address)
    expect(reason_of(gateway.call("a", "crash")), "child_exited")
    fails(SessionMissing, gateway.call, "a", "echo", {"text": "?"})


@claim("docker", "a log message and a question in between, and list_changed on its GET")
def _(world):
    gateway = world.gateway(Docker, world.bridge().address)
    expect(text_of(gateway.call("a", "log", {"level": "error", "message": "careful"})), "logged")
    expect(text_of(gateway.call("a", "list_roots")), "no roots")
    gateway.call("a", "add_note", NOTE)
    wanted = {"notifications/message", "roots/list", "notifications/resources/list_changed"}
    assert eventually(lambda: wanted <= set(methods(gateway.agents["a"].unasked))), gateway.agents["a"].unasked


@claim("docker", "an answer of 5 MiB, as JSON and on an event stream", 2)
def _(world):
    gateway = world.gateway(Docker, world.bridge(f"hostile huge {LARGE}").address)
    expect(len(text_of(gateway.call("a", "echo"))), LARGE)
    gateway = world.gateway(Docker, world.bridge(f"hostile huge {LARGE}", "--sse-after", "0ms").address)
    expect(len(text_of(gateway.call("a", "echo"))), LARGE)
