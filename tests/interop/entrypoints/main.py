"""Runs the claims: main.py BRIDGE_BINARY [server…]."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "servers"))  # both ends of the wire

from cases import CASES, CHROMIUM, REFUSED
from claims import ancestors, at_once, attempt, handshake_of, reasons
from dockerfile import ROOT, Image
from wire import INITIALIZED, Bridge, Http, eventually, hello, request, stats

WORK = HERE.parent / ".work"
VENVS = [WORK / "servers" / name for name in ("python-sdk-1", "python-sdk-2", "serena")]
NODES = [WORK / "servers" / "npm", WORK / "entrypoints" / "npm"]

AT_A_TIME = 3  # servers
SESSIONS = 20  # at once, of the servers that keep no state
PLAIN = 10  # clients that know nothing of sessions

TOKEN = "X-GitHub-Token"


class Server:
    """One Dockerfile of `examples/`, run without its container: a folder stands for the image's own /."""

    def __init__(self, name):
        self.name, self.case = name, CASES[name]
        self.image = Image(ROOT / "examples" / f"{name}.Dockerfile")
        self.root = self.folder = self.home = None  # set by `prepare`

    def installed(self, registry, package):
        """The version that is installed here and the folder of its programs."""
        if registry == "npm":
            for node in NODES:
                manifest = node / "node_modules" / package / "package.json"
                if manifest.exists():
                    return json.loads(manifest.read_text())["version"], node / "node_modules" / ".bin"
        for venv in VENVS if registry == "pip" else []:
            for info in venv.glob(f"lib/python3*/site-packages/{package.replace('-', '_')}-*.dist-info"):
                return info.name.removesuffix(".dist-info").rpartition("-")[2], venv / "bin"
        return None, None

    def program(self):
        """What the image's command would start, as it is installed here."""
        word = self.image.command[0]
        for package in self.image.packages:
            _, folder = self.installed(*package)
            if folder and (folder / word).exists():
                return str(folder / word)
        raise AssertionError(f"no package that the image installs has a program {word!r}")

    def local(self, text):
        """A path of the image becomes one below our folder; programs of the system stay where they are."""
        return re.sub(r"(?<![\w./-])/(?!usr/)(?=\w)", f"{self.root}/", text)

    def prepare(self, label):
        self.root = WORK / "entrypoints" / "run" / f"{self.name}.{label}"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        if self.case.setup:
            self.case.setup(self.root)
        self.folder = self.root / self.image.workdir.lstrip("/")
        self.home = self.root / self.image.env.get("HOME", "/home").lstrip("/")
        for folder in (self.folder, self.home):
            folder.mkdir(parents=True, exist_ok=True)

    def environment(self, mark):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BRIDGE_", "GITHUB_"))}
        env |= {"HOME": str(self.home), "DO_NOT_TRACK": "1", "GIT_CONFIG_NOSYSTEM": "1", Bridge.MARK: mark}
        return env | {name: self.local(value) for name, value in self.image.env.items()}

    def log(self, label):
        return self.root.with_suffix(f".{label}.log")

    def options(self):
        return [self.local(option) for option in self.image.options]

    def command(self):
        return [self.program(), *map(self.local, self.image.command[1:])]

    def spied(self):
        """The command with a copy of all that it reads in `stdin.PID`; the server keeps the pid the bridge knows."""
        script = 'log=$1; shift; exec "$@" < <(exec tee -- "$log.$$")'
        return ["bash", "-c", script, "spy", str(self.root / "stdin"), *self.command()]

    def read_by_children(self):
        """The lines that each child has read; one that waits for its session has read none."""
        texts = [path.read_text().splitlines() for path in self.root.glob("stdin.*")]
        return [lines for lines in texts if lines]


class Client(Http):
    """A client that sends a header of its own with `initialize`, as a gateway that knows its user does."""

    def __init__(self, port, token):
        super().__init__(port)
        self.token = token

    def headers(self, more=None):
        return super().headers(({} if self.session else {TOKEN: self.token}) | (more or {}))

    def open(self):
        self.initialize(hello("2025-06-18"))
        self.send(INITIALIZED)
        return self


def lists(client):
    answer = client.ask(request("1", "tools/list"))
    if answer.error or not answer.result["tools"]:
        raise AssertionError(f"tools/list: {answer.text[:200]}")


def calls(server, client, steps):
    for tool, arguments, expected in steps:
        answer = client.call(tool, json.loads(json.dumps(arguments).replace("{root}", str(server.root))))
        error = answer.error or {}
        if (error.get("data") or {}).get("source") == "mcp-bridge":
            raise AssertionError(f"{tool}: an error of the bridge: {answer.text[:300]}")
        refused = bool(error or answer.result.get("isError"))
        if refused != (expected is REFUSED) or (not refused and expected not in answer.outcome):
            raise AssertionError(f"{tool}: {answer.text[:300]}")


def pid_of(bridge, client):
    """The child that a session has now, as the log says."""
    sid = re.escape(client.session[:8])
    text = pathlib.Path(bridge.log).read_text()
    found = re.findall(rf'event="(?:session\.start|child\.respawned)" sid="?{sid}"? pid=(\d+)', text)
    if not found:
        raise AssertionError(f"the log names no child of {sid}")
    return int(found[-1])


def tree(pid):
    """A child and all that came from it, as it is now."""
    table = {stat.pid: stat for stat in stats()}
    if pid not in table:
        raise AssertionError(f"the child {pid} is gone already")
    return {stat.pid for stat in table.values() if pid in (stat.pid, stat.group) or pid in ancestors(stat.pid, table)}


def alive(pids):
    return pids & {stat.pid for stat in stats()}


def gone(pids, bridge, timeout=12):
    """None once all of them have ended, or which stay."""
    if not eventually(lambda: not alive(pids), timeout):
        return f"still there: { {pid: line for pid, line in bridge.family().items() if pid in pids} or alive(pids)}"
    return None


def kill(pid):
    """SIGKILL, and back when nothing is left of it."""
    os.kill(pid, signal.SIGKILL)
    if not eventually(lambda: not alive({pid})):
        raise AssertionError(f"nobody reaps {pid}")


# --------------------------------------------------------------------------------------------- the claims


def the_file(server):
    yield attempt("the Dockerfile is complete, pinned and not root", server.image.fault)

    def versions():
        packages = server.image.packages
        pairs = {package: (version, server.installed(*package)[0]) for package, version in packages.items()}
        # What comes along with a server, such as a language server, is not installed here.
        found = [pair for pair in pairs.values() if pair[1]]
        return None if found and all(said == here for said, here in found) else f"in the Dockerfile and here: {pairs}"

    yield attempt("its version is the one that is tested here", versions)


def one_after_the_other(server, binary):
    server.prepare("one")
    bridge = Bridge(binary, server, server.command(), "bridge", server.options())
    try:
        client = Client(bridge.port, "token-of-one")

        def opens():
            client.open()
            lists(client)

        yield attempt("initialize, and tools/list is not empty", opens)
        if not client.session:
            return
        yield attempt("a call", lambda: calls(server, client, server.case.calls))

        def ends():
            kin = tree(pid_of(bridge, client))
            if (status := client.delete()) != 204:
                return f"DELETE: HTTP {status}"
            return gone(kin, bridge, 20)

        yield attempt("DELETE, and its processes are gone", ends)
        if server.case.later:
            second = Client(bridge.port, "token-of-two").open()
            later = lambda: calls(server, second, server.case.later)
            yield attempt("a second session sees what outlived the first", later)

        def stops():
            if (code := bridge.stop()) != 0:
                return f"exit code {code}"
            if not eventually(lambda: not bridge.family(), 1):
                return f"left behind: {bridge.family()}"

        yield attempt("SIGTERM ends it with code 0 and leaves no process", stops)
    finally:
        bridge.clean_up()


def many(server, binary):
    server.prepare("many")
    bridge = Bridge(binary, server, server.command(), "bridge", server.options())
    try:
        clients = [Client(bridge.port, f"token-of-{number}") for number in range(SESSIONS)]

        def use(client):
            def job():
                client.open()
                lists(client)
                calls(server, client, server.case.calls)

            return job

        yield attempt(f"{SESSIONS} sessions at once list and call", lambda: reasons(at_once(list(map(use, clients)))))
        if not all(client.session for client in clients):
            return
        pids = {client.token: pid_of(bridge, client) for client in clients}

        def own():
            if len(set(pids.values())) != SESSIONS:
                return f"{len(set(pids.values()))} children"

        yield attempt(f"they have {SESSIONS} children", own)

        if server.name == "github":

            def secrets():
                for token, pid in pids.items():
                    got = re.findall(rb"token-of-\d+", pathlib.Path(f"/proc/{pid}/environ").read_bytes())
                    if got != [token.encode()]:
                        return f"the child of {token} has {got}"
                if b"token-of-" in pathlib.Path(bridge.log).read_bytes():
                    return "the log has a token"

            yield attempt("each child has its own client's token, and the log has none", secrets)

        def end():
            kin = set().union(*map(tree, pids.values()))
            return reasons(at_once([client.delete for client in clients])) or gone(kin, bridge)

        yield attempt(f"after {SESSIONS} times DELETE none of their processes is left", end)
    finally:
        bridge.stop()
        bridge.clean_up()


def respawned(server, binary):
    server.prepare("respawned")
    bridge = Bridge(binary, server, server.spied(), "bridge", server.options())
    try:
        client = Client(bridge.port, "token-of-one").open()
        lists(client)

        def again():
            kill(pid_of(bridge, client))
            lists(client)
            calls(server, client, server.case.calls)

        yield attempt("the call after kill -9 works in the same session", again)

        def greeted():
            seen = server.read_by_children()
            if len(seen) != 2:
                return f"{len(seen)} children were spoken to"
            return next(filter(None, map(handshake_of, seen)), None)

        yield attempt("the new child too is greeted once, before all else", greeted)

        if server.name == "github":

            def token():
                environment = pathlib.Path(f"/proc/{pid_of(bridge, client)}/environ").read_bytes()
                return None if b"token-of-one" in environment else "it has not"

            yield attempt("the new child has the client's token too", token)
    finally:
        bridge.stop()
        bridge.clean_up()


def shared(server, binary):
    server.prepare("shared")
    options = ["--session-key", "shared", "--on-exit", "respawn"]
    bridge = Bridge(binary, server, server.spied(), "bridge", options)
    try:

        def use(client):
            def job():
                lists(client)
                calls(server, client, server.case.calls)

            return job

        def plain():
            clients = [Http(bridge.port) for _ in range(PLAIN)]
            if reason := reasons(at_once(list(map(use, clients)))):
                return reason
            seen = server.read_by_children()
            return f"{len(seen)} children" if len(seen) != 1 else handshake_of(seen[0])

        yield attempt(f"{PLAIN} clients without initialize share one child, greeted once", plain)

        def after():
            for pid in {int(path.suffix[1:]) for path in server.root.glob("stdin.*")} & set(bridge.family()):
                kill(pid)
            use(Http(bridge.port))()
            return next(filter(None, map(handshake_of, server.read_by_children())), None)

        yield attempt("such a client's call after kill -9 works", after)
    finally:
        bridge.stop()
        bridge.clean_up()


# --------------------------------------------------------------------------------------------- running them


def parts_of(server):
    parts = [one_after_the_other]
    if server.case.many:
        parts.append(many)
    if server.case.respawns:
        parts.append(respawned)
    if server.name == "github":
        parts.append(shared)
    return parts


def run(name, binary, say):
    try:
        server = Server(name)
        for claim, reason in the_file(server):
            say(name, claim, reason)
        for part in parts_of(server):
            for claim, reason in part(server, binary):
                say(name, claim, reason)
    except Exception as reason:  # a part broke, not just a claim
        say(name, "the claims can be examined", f"{type(reason).__name__}: {reason}")


def main():
    binary, *wanted = sys.argv[1:]
    for name in wanted:
        if name not in CASES:
            sys.exit(f"no server {name!r}; there are: {' '.join(CASES)}")
    started, counts, printing = time.monotonic(), {"ok": 0, "FAIL": 0}, threading.Lock()

    def say(name, claim, reason):
        word = "FAIL" if reason else "ok"
        with printing:
            counts[word] += 1
            print(f"{word} {name} {claim}" + (f": {reason}" if reason else ""), flush=True)

    (WORK / "entrypoints" / "run").mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda name: run(name, os.path.abspath(binary), say), wanted or CASES))
    if not CHROMIUM:
        print("skip: playwright's browser: there is no /usr/bin/chromium, only its refusal is tested")
    print(f"{time.monotonic() - started:.0f} s")
    print(f"{counts['ok']} passed, {counts['FAIL']} failed")
    return 1 if counts["FAIL"] else 0


sys.exit(main())
