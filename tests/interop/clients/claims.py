"""What every Python client is held to. A driver (python1.py, python2.py, fastmcp4.py) only spells one SDK's API."""

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request

CALLS = 50  # in flight at once
STEPS = 20  # progress notifications of one call
ARRIVAL = 5  # seconds, for what arrives unasked
DEADLINE = 20  # seconds, for one claim: a hang is a failure with a name


def same(seen, expected, what):
    if seen != expected:
        raise AssertionError(f"{what}: {seen!r}, expected {expected!r}")


def holds(condition, seen):
    if not condition:
        raise AssertionError(str(seen))


async def eventually(condition, what):
    """Waits until `condition` holds, with a deadline."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > ARRIVAL:
            raise AssertionError(f"not within {ARRIVAL} s: {what()}")
        await asyncio.sleep(0.01)


class Driver:
    """One connected client. Handlers fill `logs`, `updated` and `list_changed`; the HTTP hook fills the rest."""

    def __init__(self, name):
        self.name = name
        self.logs, self.updated, self.list_changed = [], [], 0
        self.answers, self.session = [], None

    async def answered(self, response):
        """httpx response hook: notes method, status and content type of each answer, and the session's id."""
        kind = response.headers.get("content-type", "")
        self.answers.append((response.request.method, response.status_code, kind))
        self.session = response.headers.get("mcp-session-id", self.session)

    def answer(self, method):
        return next((a for a in reversed(self.answers) if a[0] == method), f"no {method} was sent")


class Claims:
    def __init__(self, client):
        self.client, self.failed = client, 0

    async def claim(self, name, body):
        try:
            async with asyncio.timeout(DEADLINE):
                await body()
            print("ok", self.client, name, flush=True)
        except TimeoutError:
            self.fail(name, f"not done within {DEADLINE} s")
        except Exception as error:
            self.fail(name, f"{type(error).__name__}: {error}")

    def fail(self, name, seen):
        self.failed += 1
        print("FAIL", self.client, f"{name}:", " ".join(seen.split()), flush=True)


async def check(url, driver, connected):
    """`connected` is the SDK's own context manager: it connects, and ends the session on its way out."""
    client = driver.name
    own = f"{client}-{os.getpid()}"
    claims = Claims(client)
    text = driver.text

    async def initialize():
        await connected.__aenter__()
        same(driver.server(), "notebook", "server name")
        same(driver.version(), "2025-11-25", "version")

    async def tools():
        names = await driver.tools()
        holds("add_note" in names and "confirm_clear" in names, names)

    async def state():
        await text("add_note", {"title": own, "text": f"kept by {own}"})
        same(await text("list_notes"), f"1. {own}", "every note of this session")
        same(await text("read_note", {"title": own}), f"kept by {own}", "the note")

    async def concurrent():
        sent = [f"{own} {i} {'x' * (i * 10)}" for i in range(CALLS)]
        answers = await asyncio.gather(*(text("echo", {"text": payload}) for payload in sent))
        for i, (answer, payload) in enumerate(zip(answers, sent, strict=True)):
            same(answer, payload, f"answer {i}")

    async def sampling():
        same(await text("summarize"), f"summary: {client} read it", "answer")

    async def elicitation():
        same(await text("confirm_clear"), "cleared 1 notes", "answer")

    async def roots():
        roots = await text("list_roots")
        holds(f"file:///srv/{client}" in roots, roots)

    async def progress():
        steps = []

        async def step(progress, total, message):
            steps.append(progress)

        await text("count", {"to": STEPS, "delay_ms": 5}, step)
        await eventually(lambda: len(steps) >= STEPS, lambda: f"{STEPS} steps, seen {steps}")
        same(steps, list(range(1, STEPS + 1)), "steps")

    async def log():
        await driver.set_level("debug")
        await text("log", {"level": "warning", "message": f"{own} warns"})
        await eventually(lambda: f"warning {own} warns" in driver.logs, lambda: f"logs {driver.logs}")

    async def updates():
        stream = driver.answer("GET")
        holds(stream[1] == 200 and stream[2].startswith("text/event-stream"), stream)
        await driver.subscribe("note:///watched")
        await text("add_note", {"title": "watched", "text": own})
        await eventually(
            lambda: "note:///watched" in driver.updated and driver.list_changed,
            lambda: f"updated {driver.updated}, list_changed {driver.list_changed}",
        )

    async def cancel():
        start = time.monotonic()
        try:
            async with asyncio.timeout(0.3):
                answer = await text("slow", {"seconds": 30, "text": "never"})
            raise AssertionError(f"the cancelled call answered {answer}")
        except TimeoutError:
            pass
        took = time.monotonic() - start
        holds(took < 5, f"ended after {took:.1f} s")
        same(await text("echo", {"text": "after"}), "after", "the next call")

    async def slow():
        start, before = time.monotonic(), len(driver.answers)
        same(await text("slow", {"seconds": 3, "text": own}), f"waited 3 s: {own}", "answer")
        took = time.monotonic() - start
        holds(took > 2.9, f"answered after {took:.1f} s")
        answers = driver.answers[before:]
        holds(any(a[0] == "POST" and a[2].startswith("text/event-stream") for a in answers), answers)

    async def terminate():
        await connected.__aexit__(None, None, None)
        holds(200 <= driver.answer("DELETE")[1] < 300, driver.answer("DELETE"))

    async def gone():
        status, body = await asyncio.to_thread(post, url, driver.session)
        holds(status == 404 and json.loads(body)["error"]["code"] == -32001, f"{status} {body}")

    await claims.claim("initialize", initialize)
    if driver.session is None:
        sys.exit(1)
    for body in tools, state, concurrent, sampling, elicitation, roots, progress, log, updates, cancel, slow:
        await claims.claim(body.__name__, body)
    await claims.claim("terminate", terminate)
    await claims.claim("gone", gone)
    sys.exit(1 if claims.failed else 0)


def post(url, session):
    request = urllib.request.Request(
        url,
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
        {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25",
            "mcp-session-id": session,
        },
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()
