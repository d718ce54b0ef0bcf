"""Runs the claims: main.py BRIDGE_BINARY SERVERS [subject…]; SERVERS is the folder of what `run` installed."""

import concurrent.futures
import pathlib
import subprocess
import sys
import time
import traceback

import cells
import era
import isolation  # noqa: F401 — they add themselves to era.ALL
import replays  # noqa: F401
import servers  # noqa: F401
import shares  # noqa: F401
from bridge import Bridge

AT_A_TIME = 3  # claims
CHILD = [sys.executable, str(era.HERE / "child.py")]


class Front(Bridge):
    def children(self):
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]


class World:
    """What one claim has: bridges of its own."""

    def __init__(self, binary, installed):
        self.binary, self.installed, self.bridges = binary, pathlib.Path(installed), []
        self.files = []  # that its bridges read

    def bridge(self, *options, child=(), command=None):
        """In front of child.py with these arguments, or of another command."""
        self.bridges.append(Front(self.binary, command or [*CHILD, *child], *options))
        return self.bridges[-1]

    def close(self):
        for bridge in self.bridges:
            bridge.stop()
        for file in self.files:
            file.close()


def judge(claim, *arguments):
    world, started, reason = World(*arguments), time.monotonic(), None
    try:
        claim.check(world)
    except Exception as wrong:  # whatever it is, the claim does not hold
        where = traceback.extract_tb(wrong.__traceback__)[-1]
        reason = f"{wrong!r} at {where.name}:{where.lineno}"
    try:
        world.close()
    except Exception as wrong:
        reason = reason or f"at its end: {wrong!r}"
    return reason, time.monotonic() - started


def main():
    binary, installed, *wanted = sys.argv[1:]
    known = list(dict.fromkeys(claim.subject for claim in era.ALL))
    for name in wanted:
        if name not in known:
            sys.exit(f"no subject {name!r}; there are: {' '.join(known)}")
    started, failed = time.monotonic(), 0
    chosen = [claim for claim in era.ALL if claim.subject in (wanted or known)]
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        running = {pool.submit(judge, claim, binary, installed): claim for claim in chosen}
        for done in concurrent.futures.as_completed(running):
            claim, (reason, seconds) = running[done], done.result()
            failed += reason is not None
            word = "FAIL" if reason else "ok"
            print(f"{word} {claim.subject}: {claim.text} ({seconds:.1f} s)" + (f": {reason}" if reason else ""), flush=True)
    if cells.seen:
        print(f"\n{cells.table()}\n")
    print(f"{time.monotonic() - started:.0f} s")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
