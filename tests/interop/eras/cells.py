"""All four cells: clients of both eras in front of servers of both eras, real ones on both sides, held to the same list.

The clients are those of ../clients, and `claims.mjs`, `claims.py` and `rmcp/src/main.rs` there say what each claim asks. Each
client meets each server twice: alone, and on one process with clients of both eras at the same time.
"""

import collections
import functools
import re
import subprocess
import threading
import time

from era import HERE, MODERN, Legacy, Modern, claim, expect  # first: it says where the others are
from bridge import eventually
from isolation import told
from wire import text_of

SESSION = "session"  # up to 2025-11-25
CLIENT_DEADLINE = 170  # seconds; alone, it takes 10

# What a client is held to, in its order.
CLAIMS = (
    "initialize", "capabilities", "tools", "errors", "prompts", "state", "resources", "concurrent", "sampling", "elicitation",
    "roots", "progress", "log", "updates", "cancel", "slow", "ping", "terminate", "gone",
)  # fmt: skip

# Claim -> era of the client -> why it is none there. What is not here has to hold, and what is here must not come.
CANNOT = {
    "ping": {MODERN: "2026-07-28 has none"},
    "gone": {MODERN: "there is no session"},
}

# What else a cell cannot have, whatever stands in between: what, who has not, why.
BEYOND = [
    ("resumption with `Last-Event-ID`", "clients of 2026-07-28", "there a stream that is closed is a call that is cancelled"),
    ("`notifications/roots/list_changed`", "all but a session that has a server of its own era for itself",
     "a server of 2026-07-28 asks for roots when it needs them; on a shared one nobody can tell whose roots they are"),
    ("what a server asks or logs outside of a call", "all but a session that has a server of its own era for itself",
     "2026-07-28 has it in calls only; on a shared server nobody can tell whose it is: asked, the server is refused"),
    ("`tasks/…` of 2025-11-25", "all but a session in front of a server of its own era",
     "2026-07-28 has them as an extension of another form"),
]

Server = collections.namedtuple("Server", "era command options")
Client = collections.namedtuple("Client", "era command mode")


def both_eras(installed):
    return [installed / "python/bin/python", HERE / "servers" / "python2.py"]


SERVERS = {
    "typescript-1": Server(SESSION, lambda installed: ["node", installed / "node" / "notebook1.mjs"], ()),
    "python-1": Server(
        SESSION, lambda installed: [installed / "python1/bin/python", HERE / "servers" / "python1.py"], ()
    ),
    "typescript-2": Server(MODERN, lambda installed: ["node", installed / "node" / "notebook.mjs", "--modern"], ()),
    "python-2": Server(MODERN, lambda installed: [*both_eras(installed), "--modern"], ()),
    "rust": Server(MODERN, lambda installed: [installed / "rmcp-server", "--modern"], ()),
    # Of both eras: without the option each client would have it in its own.
    "python-2-both": Server(MODERN, lambda installed: both_eras(installed), ("--era", "modern")),
}


def node(program):
    return lambda installed: ["node", installed / "node" / program]


def python(environment, program):
    return lambda installed: [installed / environment / "bin/python", HERE.parent / "clients" / program]


def rust(installed):
    return [installed / "rmcp-client"]


CLIENTS = {
    "typescript-1": Client(SESSION, node("typescript1.mjs"), "auto"),
    "typescript-2-session": Client(SESSION, node("typescript2.mjs"), "legacy"),
    "typescript-2": Client(MODERN, node("typescript2.mjs"), "shared"),
    "python-1": Client(SESSION, python("python1", "python1.py"), "auto"),
    "python-2-session": Client(SESSION, python("python", "python2.py"), "legacy"),
    "python-2": Client(MODERN, python("python", "python2.py"), "shared"),
    "rust-session": Client(SESSION, rust, "legacy"),
    "rust": Client(MODERN, rust, "shared"),
}

# At once on one process. Where the server is of the session era, what it says for no call in particular is nobody's while
# several have a call in flight; the more there are, the longer each of them waits for such a moment of its own.
TOGETHER = ("typescript-1", "typescript-2", "python-1", "python-2-session", "rust")

seen = {}  # (claim, client's era, server's era, how) -> verdicts


def start(world, url, name, mode):
    command = [*CLIENTS[name].command(world.installed), url, name, mode]
    return subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def verdicts(running):
    """Claim -> (verdict, what was seen) of a client, read to its end."""
    try:
        out, err = running.communicate(timeout=CLIENT_DEADLINE)
    except subprocess.TimeoutExpired:
        running.kill()
        out, err = running.communicate()
    lines = re.findall(r"^(ok|FAIL|n/a) \S+ ([a-z]+):? ?(.*)$", out, re.M)
    return {name: (verdict, text) for verdict, name, text in lines}, err.strip().splitlines()[-1:]


def judge(name, server, how, found, last_words):
    """What does not hold of the list, and what holds though the table says that it can't."""
    wrong, missing = [], [one for one in CLAIMS if one not in found]
    if missing:
        wrong.append(f"{name} has no verdict on {' '.join(missing)}; its stderr ends: {last_words}")
    for one in CLAIMS:
        verdict, text = found.get(one, ("none", ""))
        cannot = CANNOT.get(one, {}).get(CLIENTS[name].era)
        wanted = "n/a" if cannot else "ok"
        cell = seen.setdefault((one, CLIENTS[name].era, SERVERS[server].era, how), [])
        cell.append(verdict if verdict == wanted else "FAIL")
        if one in found and (verdict != wanted or (cannot and text != cannot)):
            wrong.append(f"{name} {one}: {verdict} {text}")
    return wrong


def fronting(world, name, *options):
    server = SERVERS[name]
    bridge = world.bridge(*server.options, *options, command=[str(part) for part in server.command(world.installed)])
    return bridge, "http://{}:{}/mcp".format(*bridge.address)


def alone(world, client, server):
    # A client without sessions is served by a server of sessions where somebody said that it is shared.
    needs = CLIENTS[client].era == MODERN and SERVERS[server].era == SESSION
    _, url = fronting(world, server, *(("--share", "all") if needs else ()))
    wrong = judge(client, server, "alone", *verdicts(start(world, url, client, CLIENTS[client].mode)))
    assert not wrong, "; ".join(wrong)


def together(world, server):
    bridge, url = fronting(world, server, "--share", "all")
    watching = Modern(bridge.address)
    pid = told(watching)["pid"]
    # Another one may have been asked which era it speaks.
    assert eventually(lambda: bridge.children() == [pid]), f"children {bridge.children()}, of which {pid} answers"
    running = {}
    for name in TOGETHER:
        mode = "shared" if CLIENTS[name].era == MODERN else "legacy-shared"
        running[name] = start(world, url, name, mode)
    found, readers = {}, []
    for name, client in running.items():
        readers.append(threading.Thread(target=lambda name=name, client=client: found.update({name: verdicts(client)})))
        readers[-1].start()
    processes = set()
    while any(reader.is_alive() for reader in readers):
        processes.update(bridge.children())
        time.sleep(0.1)
    wrong = [line for name in TOGETHER for line in judge(name, server, "together", *found[name])]
    assert not wrong, "; ".join(wrong)
    expect(told(watching)["pid"], pid, "the process after the clients:")
    expect(processes, {pid}, "processes while they ran:")


def opened(world, client):
    """The one process is open in 2026-07-28, whichever era its first client is of."""
    bridge, _ = fronting(world, "python-2-both", "--share", "all")
    first = client(bridge.address)
    if isinstance(first, Legacy):
        expect(first.open()["protocolVersion"], "2025-11-25", "negotiated:")
    expect(told(first)["version"], MODERN, "what the server was opened in:")


def interrupted(world, server, options):
    """A stream that broke off, and the rest of it by `Last-Event-ID`, which is the bridge's own and so no server's matter."""
    bridge, _ = fronting(world, server, *options)
    client = Legacy(bridge.address)
    client.open()
    call = {"name": "work", "arguments": {"word": "w", "steps": 5, "pause": 0.3}, "_meta": {"progressToken": "t"}}
    first, rest = client.broken_off("tools/call", call, id=7)
    steps = [message["params"]["progress"] for message in [first, *rest[:-1]]]
    expect(steps, [1, 2, 3, 4, 5], "progress before and after:")
    expect((rest[-1].get("id"), text_of(rest[-1])), (7, "w"), "the answer:")
    expect(client.close(), 204, "DELETE:")


def table():
    """Claim × client on server: what the README shows, and with it what does not hold."""
    cells = [(client, server) for client in (SESSION, MODERN) for server in (SESSION, MODERN)]
    rows = [["", *(f"{client} on {server}" for client, server in cells)]]
    for one in CLAIMS:
        row = [one]
        for client, server in cells:
            words = []
            for how in ("alone", "together"):
                of = seen.get((one, client, server, how), [])
                good = sum(verdict != "FAIL" for verdict in of)
                words.append("n/a" if of and set(of) == {"n/a"} else f"{good}/{len(of)}")
            row.append("n/a" if set(words) == {"n/a"} else ", ".join(words))
        rows.append(row)
    rows.insert(1, ["---"] * len(rows[0]))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    reasons = [(f"`{one}`", f"clients of {era}", why) for one, eras in CANNOT.items() for era, why in eras.items()]
    without = ["| what | who has not | why |", "|---|---|---|", *("| " + " | ".join(row) + " |" for row in [*reasons, *BEYOND])]
    return "\n".join([*lines, "", "Each cell: alone, together.", "", *without])


for server, (server_era, *_) in SERVERS.items():
    if server == "python-2-both":
        continue  # the same program as `python-2`, but for how it is opened
    for client, (client_era, *_) in CLIENTS.items():
        text = f"{client} ({client_era}) has all its claims in front of {server} ({server_era}), alone"
        claim(f"{client_era}-on-{server_era}", text)(functools.partial(alone, client=client, server=server))
    text = f"clients of both eras have all their claims on one process of {server} ({server_era}) at the same time"
    claim("together", text)(functools.partial(together, server=server))
    for options in (), ("--share", "all"):
        text = f"a broken stream of a session in front of {server} ({server_era}) is resumed" + " with --share all" * bool(options)
        claim("resumption", text)(functools.partial(interrupted, server=server, options=options))
for client in Legacy, Modern:
    claim("together", f"--era modern opens a server of both eras in 2026-07-28, though its first client is {client.__name__}")(
        functools.partial(opened, client=client)
    )
