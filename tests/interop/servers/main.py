"""Runs the claims: main.py BRIDGE_BINARY NOTEBOOK_BINARY [server…]; `main.py --groups [server…]` names what to install."""

import concurrent.futures
import os
import sys
import threading
import time
import traceback

import claims
import everything
import modern
import share
from fleet import fleet

AT_A_TIME = 3  # servers; most of a server's time is waiting, and starting is what takes the processor


def run(server, bridge, printing):
    """All claims about one server; what the table says of it."""
    facts = {"passed": 0, "failed": 0, "skipped": 0}
    started = time.monotonic()
    parts = [claims.differential, modern.claims, share.claims, claims.sessions, claims.strict]
    if server.name == "everything":
        parts.append(everything.claims)
    for part in parts:
        try:
            for claim, reason in part(server, bridge, facts):
                say(facts, printing, server, claim, reason)
        except Exception as reason:  # the part is broken, not just a claim: say where
            where = traceback.extract_tb(reason.__traceback__)[-1]
            say(facts, printing, server, part.__name__, f"{type(reason).__name__} at {where.name}:{where.lineno}: {reason}")
    claims.early(server, facts)
    facts["seconds"] = time.monotonic() - started
    return facts


def say(facts, printing, server, claim, reason):
    verdict = "skipped" if isinstance(reason, claims.Skip) else "failed" if reason else "passed"
    facts[verdict] += 1
    word = {"passed": "ok", "failed": "FAIL", "skipped": "skip"}[verdict]
    with printing:
        print(f"{word} {server.name} {claim}" + (f": {reason}" if reason else ""), flush=True)


COLUMNS = ["passed", "failed", "answers", "early request", "second initialize", "exit after EOF", "seconds"]


def table(servers, results):
    rows = [["server", "SDK", *COLUMNS]]
    for server in servers:
        facts = results[server.name]
        cells = [facts.get(column, "?") for column in COLUMNS]
        rows.append([server.name, server.sdk, *(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print("\n`early request` and `second initialize` say how the server itself, without the bridge, takes them.\n")


def main():
    if sys.argv[1:2] == ["--groups"]:
        known, wanted = fleet("notebook"), sys.argv[2:]
        check(known, wanted)
        print(*sorted({known[name].group for name in wanted or known if known[name].group}), sep="\n")
        return 0

    bridge, notebook, *wanted = sys.argv[1:]
    known = fleet(os.path.abspath(notebook))
    check(known, wanted)
    servers = [known[name] for name in wanted or known]
    printing = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        running = {server.name: pool.submit(run, server, os.path.abspath(bridge), printing) for server in servers}
        results = {name: future.result() for name, future in running.items()}
    table(servers, results)
    passed, failed, skipped = (sum(facts[what] for facts in results.values()) for what in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


def check(known, wanted):
    for name in wanted:
        if name not in known:
            sys.exit(f"no server {name!r}; there are: {' '.join(known)}")


sys.exit(main())
