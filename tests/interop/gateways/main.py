"""Runs the claims: main.py BRIDGE_BINARY NOTEBOOK_BINARY HOSTILE_BINARY [gateway…]"""

import concurrent.futures
import sys
import threading
import time
import traceback

import proxy_claims  # noqa: F401 — they add themselves to claims.ALL
import sdk_claims  # noqa: F401
import claims
from bridge import Bridge

AT_A_TIME = 8  # claims; nearly all of their time is waiting


class World:
    """What one claim has: bridges of its own, and gateways that are closed before them."""

    def __init__(self, binary, notebook, hostile):
        self.binary, self.children = binary, {"notebook": notebook, "hostile": hostile}
        self.bridges, self.gateways = [], []

    def bridge(self, child="notebook", *options):
        name, *arguments = child.split()
        self.bridges.append(Bridge(self.binary, [self.children[name], *arguments], *options))
        return self.bridges[-1]

    def gateway(self, kind, *arguments, **options):
        gateway = kind(*arguments, **options)
        if hasattr(gateway, "connect"):
            assert gateway.connect() == [], "it does not connect"
        self.gateways.append(gateway)
        return gateway

    def close(self):
        for gateway in self.gateways:
            gateway.close()
        for bridge in self.bridges:
            bridge.stop()


def judge(claim, binaries):
    world, started, reason = World(*binaries), time.monotonic(), None
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
    *binaries, = sys.argv[1:4]
    known = dict.fromkeys(claim.gateway for claim in claims.ALL)
    wanted = sys.argv[4:] or list(known)
    for name in wanted:
        if name not in known:
            sys.exit(f"no gateway {name!r}; there are: {' '.join(known)}")
    started, printing, failed = time.monotonic(), threading.Lock(), 0
    chosen = [claim for claim in claims.ALL if claim.gateway in wanted]
    # The longest first, so that none of them begins when all others are done.
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        running = {pool.submit(judge, claim, binaries): claim for claim in sorted(chosen, key=lambda claim: -claim.seconds)}
        for done in concurrent.futures.as_completed(running):
            claim, (reason, seconds) = running[done], done.result()
            failed += reason is not None
            with printing:
                word = "FAIL" if reason else "ok"
                print(f"{word} {claim.gateway}: {claim.text} ({seconds:.1f} s)" + (f": {reason}" if reason else ""), flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
