"""Asks Serena everything in the table, over stdio and in several ways through the bridge: main.py BRIDGE_BINARY"""

import concurrent.futures
import http.client
import os
import pathlib
import signal
import sys
import threading
import traceback
import typing

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "servers"))

import ends
import wire
from ends import NOISY, SERENA, Modern, Server, now
from table import CLOSING, OPENING, PROJECTS
from wire import INITIALIZED, Bridge, Http, Stdio, call_params, eventually, hello, request

VERSION = "2025-11-25"
AT_A_TIME = 3  # ways at once: each is a Serena and a language server, the pair twice that

ORDER = list(PROJECTS)
ROTATED = ORDER[2:] + ORDER[:2]  # at no time the project of ORDER


class Seen(typing.NamedTuple):
    case: object
    outcome: str  # masked
    answer: object
    seconds: float


class Way:
    """One way to send the table: its claims, what it saw, and how long that took."""

    def __init__(self, name, work):
        self.name, self.work = name, work
        self.seen = {}  # session -> {"project case": Seen}
        self.claims = []  # (claim, reason it fails or None)
        self.facts = {}

    def claim(self, name, reason=None):
        self.claims.append((name, reason))

    def play(self, server, session, end, order=ORDER, between=None):
        """The whole table in one session. `between` is called when a project is about to be, and when it is, active."""
        seen = self.seen[session] = {}
        asked = 0

        def ask(group, case):
            nonlocal asked
            asked += 1
            started = now()
            answer = end.ask(ends.body(case, str(asked), server.projects(session)))
            seen[f"{group} / {case.name}"] = Seen(case, server.masked(answer.outcome, session), answer, now() - started)

        started = now()
        for case in OPENING:
            ask("opening", case)
        for project in order:
            for number, case in enumerate(PROJECTS[project]):
                if between and number < 2:
                    between(project, number)
                ask(project, case)
        for case in CLOSING:
            ask("closing", case)
        self.facts["table"] = now() - started

    def run(self, bridge):
        started = now()
        try:
            self.work(self, bridge)
        except Exception as reason:
            where = traceback.extract_tb(reason.__traceback__)[-1]
            self.claim("runs to its end", f"{type(reason).__name__} at {where.name}:{where.lineno}: {reason}")
        self.facts["all"] = now() - started


# --------------------------------------------------------------------------------------------- the ways


def stdio(way, _):
    server = Server(way.name)
    end = Stdio(server, "7" * 32)
    try:
        way.opening = server.masked(end.ask(request("0", "initialize", hello(VERSION))).outcome, "a")
        end.send(INITIALIZED)
        way.play(server, "a", end)
    finally:
        end.end()


def initialized(client, way):
    way.opening = client.initialize(hello(VERSION)).outcome
    client.send(INITIALIZED)


def uninitialized(client, way):
    way.opening = client.initialize(hello(VERSION)).outcome


class Behind:
    """A server behind a bridge for the time of a `with`; afterwards nothing of it may be left."""

    def __init__(self, way, binary, server, options=()):
        self.way, self.server = way, server
        # No child ahead of its session: each is two seconds of a processor.
        self.bridge = Bridge(binary, server, server.command, "bridge", ["--lazy", *options])

    def __enter__(self):
        return self.bridge

    def __exit__(self, *failed):
        try:
            if not any(failed):
                code = self.bridge.stop()
                left = self.bridge.family()
                self.way.claim("the bridge ends in order and leaves no process", code != 0 and f"exit {code}" or left and f"{left}")
        finally:
            self.bridge.clean_up()


def table_behind(command, opening):
    def work(way, binary):
        server = Server(way.name, command)
        with Behind(way, binary, server) as bridge:
            client = Http(bridge.port)
            opening(client, way)
            one_serena(way, bridge, 1, lambda: way.play(server, "a", client))
            gone(way, bridge, client)
        if command is NOISY:
            noise = "Serena is on its way…"
            logged = [line for line in server.log("bridge").read_text().splitlines() if "child.stdout_noise" in line]
            way.claim("the line on stdout is in the log", None if len(logged) == 1 and noise in logged[0] else f"{logged}")

    return work


def modern(way, binary):
    server = Server(way.name)
    with Behind(way, binary, server) as bridge:
        client = Modern(bridge.port)
        version = client.initialize()
        methods = [method for _, method, _ in client.seen[:2]]
        fell_back = methods == ["server/discover", "initialize"] and version == VERSION
        way.claim("its client asks for the modern era and falls back to initialize", None if fell_back else f"{methods} {version}")
        one_serena(way, bridge, 1, lambda: way.play(server, "a", client))
        wrong = [what for what in client.seen if what[2] not in (200, 202, 204)]
        way.claim("every HTTP status is one of success", wrong and f"{wrong[:3]}" or None)
        gone(way, bridge, client)


def pair(way, binary):
    """Two sessions of one bridge go through the projects in another order, and wait for each other before each. One is of
    a client that could speak 2026-07-28, and has a session of its own as Serena could speak it too."""
    server = Server(way.name, sessions=("a", "b"))
    together = threading.Barrier(2, timeout=wire.PATIENCE)
    wrong, checked = [], []

    def session(name, order, client):
        def between(project, number):
            together.wait()
            if number == 1:  # both are active now
                where = getattr(client, "past", client).call("execute_shell_command", {"command": "pwd"}).outcome
                checked.append(project)
                if str(server.projects(name) / project) + "\\" not in where:
                    wrong.append(f"{project} of {name}: {where[:200]}")
                together.wait()

        try:
            way.play(server, name, client, order, between)
        except BaseException:
            together.abort()
            raise

    with Behind(way, binary, server) as bridge:
        clients = {"a": Http(bridge.port), "b": Modern(bridge.port)}
        initialized(clients["a"], way)
        version = clients["b"].initialize()
        asked = [method for _, method, _ in clients["b"].seen[:2]]
        fell_back = asked == ["server/discover", "initialize"] and version == VERSION
        way.claim("one of them has asked for 2026-07-28 first", None if fell_back else f"{asked} {version}")

        def both():
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                jobs = [pool.submit(session, "a", ORDER, clients["a"]), pool.submit(session, "b", ROTATED, clients["b"])]
                for job in concurrent.futures.as_completed(jobs):
                    job.result()

        one_serena(way, bridge, 2, both)
        if len(checked) != 2 * len(ORDER):
            wrong.append(f"seen active: {checked}")
        way.claim(f"two sessions have different active projects at once ({len(ORDER)} times)", wrong and " | ".join(wrong) or None)
        malformed(way, clients["a"])
        gone(way, bridge, clients["a"], clients["b"])


def malformed(way, client):
    wrong = []
    for body in (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ping"', b"tools/call", b"[]", b'"ping"', b"\xff"):
        reply = client.exchange("POST", body)
        if reply.status != 400:
            wrong.append(f"{body!r}: HTTP {reply.status}")
    answer = client.call("find_symbol", {"name_path_pattern": "Clock"})
    if '\\"Clock\\"' not in answer.outcome:
        wrong.append(f"afterwards {answer.outcome[:200]}")
    way.claim("what is no message gets 400, and the session goes on", wrong and " | ".join(wrong) or None)


def late(way, binary):
    """The first symbol call waits for a language server that takes longer than two keep-alive intervals allow."""
    server = Server(way.name)
    (server.projects("a") / "python" / "late").touch()
    with Behind(way, binary, server) as bridge:
        client = Http(bridge.port)
        initialized(client, way)
        client.call("activate_project", {"project": str(server.projects("a") / "python"), "session": "late"})
        started = now()
        connection = http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=wire.PATIENCE)
        call = call_params("get_symbols_overview", {"relative_path": "orchard/trees.py"})
        connection.request("POST", "/mcp", request("1", "tools/call", call), client.headers())
        response = connection.getresponse()
        head = now() - started
        lines = response.read().decode().splitlines()
        took = now() - started
        connection.close()
        comments = sum(line.startswith(":") for line in lines)
        data = "".join(line for line in lines if line.startswith("data:"))
        right = response.status == 200 and comments and head < ends.LATE / 2 and took > ends.LATE / 2 and "oldest" in data
        seen = f"HTTP {response.status}, head after {head:.1f} s, {comments} comments, {took:.1f} s: {data[:200]}"
        way.claim(f"a first symbol call that takes {ends.LATE} s arrives behind a keep-alive", None if right else seen)
        way.facts["first symbol"] = took


def restored(way, binary):
    """Serena is killed between two calls. Its project is open again only where the activation of that is restored."""
    killed(way, binary, [], "without --restore a Serena that was killed has no project")
    killed(way, binary, ["--restore", "activate_project"], "with it the next call finds the project that was active, and nothing is logged")


def killed(way, binary, options, name):
    server = Server(way.name)
    with Behind(way, binary, server, ["--on-exit", "respawn", *options]) as bridge:
        client = Http(bridge.port)
        initialized(client, way)
        for project in ("go", "python"):
            client.call("activate_project", {"project": str(server.projects("a") / project), "session": "restored"})
        before, (first,) = overview(client), ends.serenas(bridge)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: "child.respawned" in server.log("bridge").read_text(), wire.PATIENCE)
        after, config, (second,) = overview(client), client.call("get_current_config").outcome, ends.serenas(bridge)
        log = server.log("bridge").read_text()
        if options:
            right = before == after and "oldest" in after and "Active project: python" in config
        else:
            right = "No active project" in after and "Active project: python" not in config
        right = right and first != second and log.count("child.respawned") == 1 and "child.not_restored" not in log
        way.claim(name, None if right else f"{first}, {second}: {before[:200]} became {after[:200]}; {config[:200]}; {log[-500:]}")
        if options:
            gone(way, bridge, client)


def overview(client):
    return client.call("get_symbols_overview", {"relative_path": "orchard/trees.py"}).outcome


def one_serena(way, bridge, sessions, play):
    """As many Serenas as sessions, and after the table the same ones."""
    before = ends.serenas(bridge)
    play()
    after = ends.serenas(bridge)
    right = before == after and len(after) == sessions
    way.facts["MiB a session"] = ends.memory(bridge.family()) / sessions
    way.facts["MiB of the bridge"] = ends.memory([bridge.process.pid])
    way.claim(f"exactly one Serena per session, the same from the first request to the last ({sessions})",
        None if right else f"before {before}, after {after}")


def gone(way, bridge, *clients):
    family = bridge.family()
    statuses = [client.delete() for client in clients]
    if not all(200 <= status < 300 for status in statuses):
        reason = f"DELETE: HTTP {statuses}"
    elif not eventually(lambda: not bridge.family(), 15):
        reason = f"still there: {bridge.family()}"
    elif len(family) < 2 * len(clients):
        reason = f"there was no language server: {family}"
    else:
        reason = None
    way.claim("with its session Serena goes, and its language server", reason)


# --------------------------------------------------------------------------------------------- the verdict


def expected(way, session):
    """Every case has the verdict and the words of the table: a wrong case is wrong everywhere."""
    for key, seen in way.seen[session].items():
        verdict = ends.verdict(seen.outcome)
        if verdict != seen.case.verdict:
            yield f"{key}: {verdict} instead of {seen.case.verdict}: {seen.outcome[:300]}"
        elif seen.case.says not in seen.outcome:
            yield f"{key}: no {seen.case.says!r} in {seen.outcome[:300]}"


def differences(reference, way, session):
    """The cases that were answered differently than in the reference."""
    for key, there in reference.items():
        here = way.seen[session].get(key)
        if here is None:
            yield key, "not asked"
            continue
        wanted = here.answer.as_told(there.outcome) if isinstance(here.answer, ends.Told) else there.outcome
        a, b = ends.comparable(there.case, wanted), ends.comparable(there.case, here.outcome)
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            yield key, f"at {at} of {len(a)}/{len(b)}: {a[max(0, at - 60):][:160]!r} became {b[max(0, at - 60):][:160]!r}"


def list_of(wrong):
    wrong = list(wrong)
    return f"{len(wrong)} wrong:\n    " + "\n    ".join(wrong[:8]) if wrong else None


def judge(first, second, ways):
    reference = first.seen["a"]
    count = len(reference)
    second.claim(f"over stdio all cases have the verdicts of the table ({count})", list_of(expected(first, "a")))
    # What Serena says differently from run to run, the bridge may too: of these only the verdicts are compared.
    unsteady = dict(differences(reference, second, "a"))
    for key, how in unsteady.items():
        print(f"Serena itself answers differently from run to run, over stdio: {key}: {how}")
    second.claim(f"Serena answers the same twice over stdio ({count - len(unsteady)} of {count})",
        None if len(unsteady) <= count // 20 else f"{len(unsteady)} differ")
    for way in ways:
        if not way.seen:
            continue
        wrong = [f"session {s}: {what}" for s in way.seen for what in expected(way, s)]
        way.claim(f"all verdicts are those of the table ({count} in each of {len(way.seen)})", list_of(wrong))
        steady = {key: seen for key, seen in reference.items() if key not in unsteady}
        wrong = [f"session {s}, {key}: {how}" for s in way.seen for key, how in differences(steady, way, s)]
        if not isinstance(next(iter(way.seen["a"].values())).answer, ends.Told) and way.opening != first.opening:
            wrong.append(f"initialize: {way.opening[:200]}")
        way.claim(f"all answers are those of stdio ({len(steady)} in each of {len(way.seen)})", list_of(wrong))


def main():
    binary = sys.argv[1]
    first, second = Way("stdio", stdio), Way("stdio-again", stdio)
    ways = [
        Way("pair", pair),
        Way("noisy", table_behind(NOISY, initialized)),
        Way("uninitialized", table_behind(SERENA, uninitialized)),
        Way("modern", modern),
        Way("late", late),
        Way("restored", restored),
    ]
    everything = [first, second, *ways]
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda way: way.run(binary), everything))
    if first.seen and second.seen:
        judge(first, second, ways)

    failed = 0
    for way in everything:
        for claim, reason in way.claims:
            failed += bool(reason)
            print(f"{'FAIL' if reason else 'ok'} {way.name} {claim}" + (f": {reason}" if reason else ""))
    print()
    for way in everything:
        for session, seen in way.seen.items():
            slow = ", ".join(f"{project} {seen[f'{project} / overview'].seconds:.1f} s" for project in ORDER)
            print(f"{way.name} {session}: first symbol calls: {slow}")
        print(f"{way.name}: " + ", ".join(f"{what} {value:.1f}" for what, value in way.facts.items()))
    print(f"\n{sum(len(way.claims) for way in everything) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
