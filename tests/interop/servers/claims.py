"""What is claimed of every server behind the bridge. Each function yields (claim, reason it fails or None)."""

import collections
import concurrent.futures
import itertools
import json
import os
import signal
import subprocess
import time

from fleet import TAGS
from wire import INITIALIZED, Bridge, Http, Stdio, call_params, eventually, hello, notification, request, stats

AT_ONCE = 50
BIGGEST = 2**53 - 1  # the largest integer that every client can spell


class Skip(str):
    """Why a claim is not tried."""


def different(items):
    """The reason of a claim from a list of what is wrong: the first few, and how many."""
    items = list(items)
    return f"{len(items)} wrong: " + " | ".join(items[:3]) if items else None


def clip(text, around=None):
    start = max(0, (around or 0) - 60)
    return text[start : start + 160]


def first_difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"at {at} of {len(a)}/{len(b)}: {clip(a, at)!r} became {clip(b, at)!r}"


# --------------------------------------------------------------------------------------------- the same answers


def script(server):
    """The recorded script: bodies in order, each with an id that is a little hard to carry."""
    ids = itertools.chain(
        ["0", "1", "-1", str(BIGGEST), '"1"', '""', '"a b"', '"ü☃𝄞"', '"\\u00fc\\/\\"\\\\"', f'"{"x" * 300}"'],
        map(str, itertools.count(1000)),
    )
    folder = str(server.folder)

    def ask(method, params=None):
        if params is not None:
            # A client writes either form of what is not ASCII.
            params = json.dumps(params, ensure_ascii=len(method) % 2 == 0).replace("{here}", folder)
        return request(next(ids), method, params)

    yield ask("ping")
    for what in ("tools", "resources", "prompts"):
        yield ask(f"{what}/list")
    yield ask("resources/templates/list")
    yield ask("tools/list", {"cursor": "no-such-cursor"})
    yield ask("no/such/method", {"deep": [[{"a": None}]]})
    yield ask("tools/call", call_params("no-such-tool ☃"))
    yield ask("tools/call", {})
    yield ask("logging/setLevel", {"level": "debug"})
    yield ask("completion/complete", {"ref": {"type": "ref/prompt", "name": "none"}, "argument": {"name": "x", "value": ""}})
    pretty = json.dumps({"jsonrpc": "2.0", "id": 77, "method": "tools/list", "params": {"_meta": {"x/y": [1.0, 1e2]}}}, indent=1)
    yield pretty.replace("\n", "\r\n").replace(" ", "\t").encode()
    yield notification("notifications/interop/unknown", {"x": 1})
    yield notification("notifications/cancelled", {"requestId": 424242, "reason": "never sent"})
    for method, params in server.calls:
        yield ask(method, params)
    yield ask("ping")


def play(end, bodies):
    answers = []
    for body in bodies:
        if b'"id"' in body:
            answers.append((body, end.ask(body)))
        else:
            end.send(body)
    return answers


def differential(server, bridge_binary, facts):
    server.prepare()
    bodies = list(script(server))
    opening = request("0", "initialize", hello(server.version, server.capabilities))

    mark = "5" * 32
    plain = Stdio(server, mark, server.answers)
    try:
        expected = [(opening, plain.ask(opening))]
        plain.send(INITIALIZED)
        expected += play(plain, bodies)
        time.sleep(0.3)  # what it still says after the last answer
        facts["second initialize"] = describe(plain.ask(opening))
    finally:
        seconds = plain.end()
    facts["spoken"] = expected
    facts["exit after EOF"] = "only by TERM" if seconds is None else f"{seconds:.2f} s"
    facts["answers"] = len(expected)

    server.prepare()
    bridge = Bridge(bridge_binary, server, server.command, "differential")
    try:
        client = Http(bridge.port, server.answers)
        got = [(opening, client.initialize(hello(server.version, server.capabilities)))]
        client.send(INITIALIZED)
        client.listen()
        try:
            got += play(client, bodies)
        except AssertionError as reason:
            yield "the script runs to its end", str(reason)
            return
        yield "the script runs to its end", None

        wrong = []
        for (body, a), (_, b) in zip(expected, got):
            a_text, b_text = server.masked(a.outcome), server.masked(b.outcome)
            if a_text != b_text:
                wrong.append(f"{clip(body.decode())}: {first_difference(a_text, b_text)}")
        yield f"answers are equal byte for byte ({len(expected)})", different(wrong)

        for what, here, there in (("notifications", plain.notes, client.notes), ("server requests", plain.asked, client.asked)):
            wanted = collections.Counter(map(server.masked, here))

            def seen():
                return collections.Counter(map(server.masked, there))

            client.await_that(lambda: seen() == wanted, 3)
            missing, extra = wanted - seen(), seen() - wanted
            wrong = [f"missing {clip(x)!r}" for x in missing] + [f"too many {clip(x)!r}" for x in extra]
            yield f"the same {what} arrive ({len(here)})", different(wrong)
        client.hang_up()
    finally:
        bridge.stop()
        bridge.clean_up()


def describe(answer):
    return "answers" if answer.error is None else f"refuses ({answer.error['code']})"


def early(server, facts):
    """How the server itself takes a request before `initialize`: the reason for the handshake claims."""
    server.prepare()
    child = Stdio(server, "6" * 32)
    try:
        child.send(request("1", "tools/list"))
        answer = child.inbox.get(timeout=10)
        facts["early request"] = "exits" if answer is None else describe(answer)
    except Exception:  # a server that says nothing is a fact too
        facts["early request"] = "is silent"
    finally:
        child.end()


# --------------------------------------------------------------------------------------------- one handshake


AWKWARD = (
    b'{ "params" : {"a":1e2,"b":"\\u00e9\\/","c":9007199254740993,"d":[ ] ,"e":-0.0,"f":"\xc3\xa9\xe2\x98\x83",\r\n\t\t"x" : [{"jsonrpc":"1.0","id":7}] },\n'
    b'"id" :  "\\u00e4" , "method":"x-interop/bytes",\n "jsonrpc":"2.0" }'
)


def open_session(port, server, tag=None):
    """A session before its `initialized`."""
    answers = dict(server.answers)
    capabilities = dict(server.capabilities)
    if server.roots and tag:
        capabilities["roots"] = {}
        answers["roots/list"] = {"roots": [{"uri": f"file://{server.folder}/{name}"} for name in (tag, "data")]}
    client = Http(port, answers)
    client.initialize(hello(server.version, capabilities))
    return client


def at_once(jobs):
    """Runs all jobs at the same time; what each raised or None."""
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        return [future.exception() for future in [pool.submit(job) for job in jobs]]


def lists(client, id_text):
    def job():
        answer = client.ask(request(id_text, "tools/list"))
        if answer.error:
            raise AssertionError(f"refused: {answer.text[:200]}")

    return job


def reasons(errors):
    return different(str(error) for error in errors if error is not None)


def stdin_of(server, needle):
    """What the one child read whose stdin contains `needle`."""
    found = [path.read_bytes() for path in server.folder.glob("stdin.*")]
    found = [data for data in found if needle in data]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} children read {needle!r}")
    return found[0].decode().splitlines()


def handshake_of(lines):
    """None, or what is wrong with the order of what a child read."""
    methods = [json.loads(line).get("method") for line in lines if line.strip()]
    count = collections.Counter(methods)
    if methods[:1] != ["initialize"] or count["initialize"] != 1:
        return f"initialize {count['initialize']} times, first is {methods[:1]}"
    others = [method for method in methods[1:] if method not in ("ping", None)]
    if others[:1] != ["notifications/initialized"] or count["notifications/initialized"] != 1:
        return f"initialized {count['notifications/initialized']} times, the order is {others[:4]}"
    return None


def sessions(server, bridge_binary, facts):
    server.prepare()
    bridge = Bridge(bridge_binary, server, server.spied(), "sessions", ["--stop-grace", "2s"])
    clients = {}
    try:
        yield from handshakes(server, bridge, clients)
        yield from isolation(server, bridge, clients)
        yield from ends(server, bridge, clients)
    finally:
        for client in clients.values():
            client.hang_up()
        bridge.clean_up()


def attempt(claim, what):
    """The claim holds if `what` returns; a reason it returns or raises is why not."""
    try:
        return claim, what()
    except Exception as reason:  # a broken exchange is a failed claim, not the end of the run
        return claim, f"{type(reason).__name__}: {reason}" if not isinstance(reason, AssertionError) else str(reason)


def handshakes(server, bridge, clients):
    def session(tag):
        if tag not in clients:
            clients[tag] = open_session(bridge.port, server, tag)
        return clients[tag]

    def never():
        client = session(TAGS[0])
        return reasons(at_once([lists(client, str(i)) for i in range(10)]))

    yield attempt("requests are served though initialized never comes", never)

    def late():
        client = session(TAGS[1])
        lists(client, "1")()
        client.send(INITIALIZED)
        lists(client, "2")()

    yield attempt("requests are served before a late initialized and after", late)

    def racing():
        client = session("racing")
        jobs = [lists(client, str(i)) for i in range(10)]
        return reasons(at_once([*jobs[:5], lambda: client.send(INITIALIZED), *jobs[5:]]))

    yield attempt("requests are served while initialized is on its way", racing)

    def twice():
        client = session("racing")
        client.send(INITIALIZED)
        client.send(INITIALIZED)
        lists(client, "3")()

    yield attempt("initialized may come again", twice)

    def again():
        client = session("racing")
        reply = client.exchange("POST", request('"again"', "initialize", hello(server.version)))
        if reply.status != 400 or reply.answer is None or reply.answer.error is None or reply.answer.id != '"again"':
            return f"HTTP {reply.status} {reply.answer.text if reply.answer else reply.body!r}"
        lists(client, "4")()

    yield attempt("a second initialize gets 400 and the session lives on", again)

    def bytes_in():
        client = session("racing")
        client.ask(AWKWARD)
        note = b'{"method" : "notifications/interop/bytes","params":{"x":[ 1.0 ]},  "jsonrpc":"2.0"}'
        client.send(note)
        lists(client, "5")()
        lines = stdin_of(server, b"x-interop/bytes")
        before, after = AWKWARD.decode().replace("\r", " ").replace("\n", " ").split('"\\u00e4"')
        line = next(line for line in lines if "x-interop/bytes" in line)
        if not (line.startswith(before) and line.endswith(after) and len(line) - len(before) - len(after) < 24):
            return f"the child read {line!r}"
        if note.decode() not in lines:
            return f"no such line as {note!r}"

    yield attempt("the child reads the client's own bytes, but for the id", bytes_in)

    def one_handshake():
        wrong = []
        for path in server.folder.glob("stdin.*"):
            lines = path.read_text().splitlines()
            if lines:  # empty: started ahead of its session
                wrong.append(handshake_of(lines))
        if len(wrong) != len(clients):
            return f"{len(wrong)} children for {len(clients)} sessions"
        return different(reason for reason in wrong if reason)

    yield attempt("each child reads one initialize and one initialized, in order, before all else", one_handshake)


# --------------------------------------------------------------------------------------------- no session sees another


def probes(server, client):
    """Calls with the ids 0.., each of which fails unless it gets its own answer."""

    def job(i):
        method, params, expected = server.probe(i)
        text = json.dumps(params).replace("{here}", str(server.folder))

        def run():
            answer = client.ask(request(str(i), method, text))
            said = json.dumps(json.loads(answer.text), ensure_ascii=False).replace('\\"', '"')
            if expected not in said:
                raise AssertionError(f"call {i} got {answer.text[:200]}")

        return run

    return [job(i) for i in range(AT_ONCE)]


def isolation(server, bridge, clients):
    a, b = (clients.get(tag) for tag in TAGS)
    if not (a and b):
        return

    if server.remember or server.roots:

        def memories():
            # `recall` can leave traces itself, so the order is: both remember, then both recall.
            for client, tag in ((a, TAGS[0]), (b, TAGS[1])):
                if server.roots:
                    client.listen()
                    client.send(notification("notifications/roots/list_changed"))
                else:
                    answer = client.ask(request("1", *server.remember(tag)))
                    if answer.error or answer.result.get("isError"):
                        return f"cannot remember: {answer.text[:200]}"
            for client, own, foreign in ((a, *TAGS), (b, *reversed(TAGS))):
                if not eventually(lambda: own in client.ask(request("1", *server.recall)).outcome, 5):
                    return f"{own} is forgotten: {client.ask(request('1', *server.recall)).text[:300]}"
                if foreign in client.ask(request("1", *server.recall)).outcome:
                    return f"the session of {own} sees {foreign}"

        yield attempt("two sessions have two memories", memories)

    yield attempt(f"{AT_ONCE} calls at once each get their own answer", lambda: reasons(at_once(probes(server, a))))
    yield attempt(
        f"{AT_ONCE} calls at once in each of two sessions under the same ids",
        lambda: reasons(at_once([*probes(server, a), *probes(server, b)])),
    )


# --------------------------------------------------------------------------------------------- the end


def ancestors(pid, table):
    while pid in table:
        pid = table[pid].parent
        yield pid


def ends(server, bridge, clients):
    a, b = (clients.get(tag) for tag in TAGS)
    if not (a and b):
        return
    family = bridge.family()
    before = {stat.pid: stat for stat in stats() if stat.pid in family}

    def delete():
        if (status := a.delete()) != 204:
            return f"DELETE: HTTP {status}"
        for what, reply in (
            ("POST", a.exchange("POST", request("1", "ping"))),
            ("DELETE", a.exchange("DELETE")),
            ("GET", a.exchange("GET", more={"Accept": "text/event-stream"})),
        ):
            if reply.status != 404:
                return f"{what} after DELETE: HTTP {reply.status}"
        lists(b, "1")()

    yield attempt("DELETE gives 204, then 404, and the other session lives on", delete)

    def gone():
        children = {int(path.suffix[1:]) for path in server.folder.glob("stdin.*")} & set(before)
        if not eventually(lambda: children - set(bridge.family()), 8):
            return f"still there: {bridge.family()}"
        ended = children - set(bridge.family())
        if len(ended) != 1:
            return f"{len(ended)} children ended"
        kin = {pid for pid in before if before[pid].group in ended or ended & set(ancestors(pid, before))}
        if not eventually(lambda: not kin & set(bridge.family()), 5):
            return f"its processes stay: { {pid: line for pid, line in bridge.family().items() if pid in kin} }"
        if not eventually(lambda: not bridge.zombies(), 2):
            return f"zombies: {bridge.zombies()}"

    yield attempt("the processes of the ended session are gone, and no zombie is left", gone)

    def stop():
        code = bridge.stop()
        if code != 0:
            return f"exit code {code}"
        if not eventually(lambda: not bridge.family(), 1):
            return f"left behind: {bridge.family()}"

    yield attempt("SIGTERM ends the bridge with code 0 and leaves no process", stop)


# --------------------------------------------------------------------------------------------- handshakes the bridge makes


def strict(server, bridge_binary, facts):
    """Servers that refuse whatever comes before `initialize`, in sessions that no client opened."""
    if not server.strict:
        return
    known = subprocess.run([bridge_binary, "--help"], capture_output=True, text=True, check=True).stdout
    for option, part in (("--session-key", shared), ("--on-exit", respawn)):
        if option in known:
            yield from part(server, bridge_binary)
        else:
            yield f"with {option}", Skip("this bridge has no such option")


def shared(server, bridge_binary):
    server.prepare()
    bridge = Bridge(bridge_binary, server, server.spied(), "shared", ["--session-key", "shared"])
    try:

        def unopened():
            clients = [Http(bridge.port, server.answers) for _ in range(10)]
            errors = at_once([lists(client, "1") for client in clients])
            return reasons(errors) or handshake_of(stdin_of(server, b"tools/list"))

        yield attempt("with --session-key shared, calls of clients that never initialize are served", unopened)
    finally:
        bridge.stop()
        bridge.clean_up()


def respawn(server, bridge_binary):
    server.prepare()
    bridge = Bridge(bridge_binary, server, server.spied(), "respawn", ["--on-exit", "respawn"])
    try:

        def killed():
            client = open_session(bridge.port, server)
            client.send(INITIALIZED)
            lists(client, "1")()
            copies = list(server.folder.glob("stdin.*"))
            # tee gives a line to the server first and to the file then.
            if not eventually(lambda: any(b"tools/list" in path.read_bytes() for path in copies), 5):
                return "the copy of what the child read lacks the call"
            first = {int(path.suffix[1:]) for path in copies if path.stat().st_size}
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            if not eventually(lambda: not first & set(bridge.family()), 5):
                return f"the killed child stays: {bridge.family()}"
            time.sleep(0.3)  # the bridge may hear of it a moment later than /proc says
            errors = at_once([lists(client, str(i)) for i in range(10)])
            if reason := reasons(errors):
                return reason
            wrong = [handshake_of(path.read_text().splitlines()) for path in server.folder.glob("stdin.*") if path.stat().st_size]
            if len(wrong) != 2:
                return f"{len(wrong)} children read something"
            return different(reason for reason in wrong if reason)

        yield attempt("with --on-exit respawn, a killed child is replaced and greeted before the next call", killed)
    finally:
        bridge.stop()
        bridge.clean_up()
