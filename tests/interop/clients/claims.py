"""What every Python client is held to. A driver (python1.py, python2.py, fastmcp4.py) only spells one SDK's API."""

import asyncio
import contextlib
import json
import os
import random
import re
import sys
import time
import urllib.error
import urllib.request

CALLS = 50  # in flight at once
STEPS = 20  # progress notifications of one call
ARRIVAL = 5  # seconds, for what arrives unasked
LOG_ARRIVAL = 1  # seconds, for a log line of a call that has been answered
DEADLINE = 40  # seconds, for one claim: a hang is a failure with a name
PATIENCE = 90  # seconds, for what a shared child says while others have calls in flight


def same(seen, expected, what):
    if seen != expected:
        raise AssertionError(f"{what}: {seen!r}, expected {expected!r}")


def holds(condition, seen):
    if not condition:
        raise AssertionError(str(seen))


async def eventually(condition, what, within=ARRIVAL):
    """Waits until `condition` holds, with a deadline."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > within:
            raise AssertionError(f"not within {within} s: {what()}")
        await asyncio.sleep(0.01)


class Driver:
    """One connected client. Handlers fill `logs`, `updated` and `list_changed`; the HTTP hook fills the rest.

    `mode` is `auto` or `legacy`, and ends with `shared` where others have the same server. With `shared` alone the client
    is to speak 2026-07-28: then it has `listening(uri)`, a context, in place of `subscribe`, `set_level` and `ping`.
    """

    tells_of_cancelling = True  # a caller that gives up

    def __init__(self, name, mode="auto"):
        self.name, self.shared, self.modern = name, mode.endswith("shared"), mode == "shared"
        self.negotiation = "legacy" if mode.startswith("legacy") else "auto"
        self.logs, self.updated, self.list_changed = [], [], 0
        self.answers, self.session = [], None

    def has_prompts(self):
        return self.capabilities().prompts is not None

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

    def missing(self, name, why):
        print("n/a", self.client, f"{name}:", why, flush=True)

    def fail(self, name, seen):
        self.failed += 1
        print("FAIL", self.client, f"{name}:", " ".join(seen.split()), flush=True)


async def check(url, driver, connected):
    """`connected` is the SDK's own context manager: it connects, and ends the session on its way out."""
    client, shared, modern = driver.name, driver.shared, driver.modern
    own = f"{client}-{os.getpid()}"
    claims = Claims(client)
    text = driver.text

    async def code(refused):
        try:
            return f"no error, but {await refused}"
        except Exception as error:
            return error.error.code if hasattr(error, "error") else repr(error)

    async def patiently(attempt):
        """Where several clients share a child, what it says for no call in particular (a question, a log line) can
        belong to any of those that have a call in flight; then nobody gets it, and the call says so or goes without. And
        they share the notes, which each of them clears once."""
        start = time.monotonic()
        while True:
            try:
                return await attempt()
            except Exception:
                if not shared or time.monotonic() - start > PATIENCE:
                    raise
            await asyncio.sleep(random.uniform(0.05, 1))  # not all at the same time again

    async def initialize():
        await connected.__aenter__()
        same(driver.server(), "notebook", "server name")
        same(driver.version(), "2026-07-28" if modern else "2025-11-25", "version")

    async def capabilities():
        found = driver.capabilities()
        listed = found.resources.model_dump(by_alias=True)
        same((listed["subscribe"], listed["listChanged"]), (True, True), "capabilities of resources")
        holds(found.tools is not None and found.logging is not None, found)

    offered = []

    async def tools():
        offered.extend(await driver.tools())
        holds("add_note" in offered and "confirm_clear" in offered, offered)

    async def errors():
        failed = await driver.call("read_note", {"title": f"no {own}"})
        marked = getattr(failed, "isError", False) or getattr(failed, "is_error", False)  # each SDK has a name for it
        holds(marked and f"no {own}" in failed.content[0].text, failed)
        same(await code(driver.call("no_such_tool", {})), -32602, "code of an unknown tool")

    async def prompts():
        same(await driver.prompts(), ["greet"], "prompts")
        same(await driver.prompt("greet", {"name": own}), f"Say hello to {own}", "the prompt")

    async def resources():
        async def kept():
            await text("add_note", {"title": own, "text": f"kept by {own}"})
            uris = await driver.resources()
            holds(f"note:///{own}" in uris, uris)
            same(await driver.read(f"note:///{own}"), f"kept by {own}", "the resource")

        await patiently(kept)
        unknown = -32602 if modern else -32002
        same(await code(driver.read(f"note:///no-{own}")), unknown, "code of an unknown resource")

    async def ping():
        await driver.ping()

    async def state():
        async def kept():
            await text("add_note", {"title": own, "text": f"kept by {own}"})
            notes = await text("list_notes")
            if shared:
                holds(f". {own}" in notes, notes)  # unless another client has just cleared them
            else:
                same(notes, f"1. {own}", "every note of this session")
            same(await text("read_note", {"title": own}), f"kept by {own}", "the note")

        await patiently(kept)

    async def concurrent():
        sent = [f"{own} {i} {'x' * (i * 10)}" for i in range(CALLS)]
        answers = await asyncio.gather(*(text("echo", {"text": payload}) for payload in sent))
        for i, (answer, payload) in enumerate(zip(answers, sent, strict=True)):
            same(answer, payload, f"answer {i}")

    async def sampling():
        same(await patiently(lambda: text("summarize")), f"summary: {client} read it", "answer")

    async def elicitation():
        answer = await patiently(lambda: text("confirm_clear"))
        if shared:
            holds(re.fullmatch(r"cleared \d+ notes", answer), answer)
        else:
            same(answer, "cleared 1 notes", "answer")

    async def roots():
        same(await patiently(lambda: text("list_roots")), f"file:///srv/{client}", "roots")

    async def progress():
        steps = []

        async def step(progress, total, message):
            steps.append(progress)

        await text("count", {"to": STEPS, "delay_ms": 5}, step)
        await eventually(lambda: len(steps) >= STEPS, lambda: f"{STEPS} steps, seen {steps}")
        same(steps, list(range(1, STEPS + 1)), "steps")

    async def log():
        line = f"warning {own} warns"

        async def logged():
            await text("log", {"level": "warning", "message": f"{own} warns"})
            await eventually(lambda: line in driver.logs, lambda: f"logs {driver.logs}", LOG_ARRIVAL)

        if not modern:
            await driver.set_level("debug")
        await patiently(logged)
        if shared:
            same([line for line in driver.logs if own not in line], [], "logs of others")

    async def updates():
        uri = f"note:///watched-{own}"
        async with contextlib.AsyncExitStack() as listening:
            if modern:
                await listening.enter_async_context(driver.listening(uri))
            else:
                stream = driver.answer("GET")
                holds(stream[1] == 200 and stream[2].startswith("text/event-stream"), stream)
                await driver.subscribe(uri)
            await text("add_note", {"title": f"watched-{own}", "text": own})
            await eventually(
                lambda: uri in driver.updated and driver.list_changed,
                lambda: f"updated {driver.updated}, list_changed {driver.list_changed}",
            )
            same([other for other in driver.updated if other != uri], [], "updates for others")

    async def told(of):
        start = time.monotonic()
        while f"never {own}" not in (words := json.loads(await text("tell"))[of]):
            holds(time.monotonic() - start < ARRIVAL, f"the server's {of} calls are {words}")
            await asyncio.sleep(0.01)

    async def cancel():
        tells = "tell" in offered  # of what runs and what was cancelled
        call = asyncio.create_task(text("slow", {"seconds": 30, "text": f"never {own}"}))
        await (told("running") if tells else asyncio.sleep(0.3))
        start = time.monotonic()
        call.cancel()
        await asyncio.wait([call])
        holds(call.cancelled(), f"the cancelled call answered {call}")
        took = time.monotonic() - start
        holds(took < 5, f"ended after {took:.1f} s")
        same(await text("echo", {"text": "after"}), "after", "the next call")
        if tells and driver.tells_of_cancelling:
            await told("cancelled")

    async def slow():
        start, before = time.monotonic(), len(driver.answers)
        same(await text("slow", {"seconds": 3, "text": own}), f"waited 3 s: {own}", "answer")
        took = time.monotonic() - start
        holds(took > 2.9, f"answered after {took:.1f} s")
        answers = driver.answers[before:]
        holds(any(a[0] == "POST" and a[2].startswith("text/event-stream") for a in answers), answers)

    async def terminate():
        await connected.__aexit__(None, None, None)
        if modern:
            same([answer for answer in driver.answers if answer[0] != "POST"], [], "what belongs to sessions")
            same(driver.session, None, "session")
            return
        holds(200 <= driver.answer("DELETE")[1] < 300, driver.answer("DELETE"))

    async def gone():
        status, body = await asyncio.to_thread(post, url, driver.session)
        holds(status == 404 and json.loads(body)["error"]["code"] == -32001, f"{status} {body}")

    await claims.claim("initialize", initialize)
    if claims.failed and driver.session is None:
        sys.exit(1)
    if not driver.has_prompts():
        claims.missing("prompts", "the server has none")
    asked = capabilities, tools, errors, prompts, state, resources, concurrent, sampling, elicitation, roots, progress
    for body in *asked, log, updates, cancel, slow:
        if body is not prompts or driver.has_prompts():
            await claims.claim(body.__name__, body)
    if modern:
        claims.missing("ping", "2026-07-28 has none")
    else:
        await claims.claim("ping", ping)
    await claims.claim("terminate", terminate)
    if modern:
        claims.missing("gone", "there is no session")
    else:
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
