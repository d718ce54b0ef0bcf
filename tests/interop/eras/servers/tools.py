"""What both servers of the Python SDK offer: the tools of examples/notebook.rs and those of ../child.py.

A tool gets its `client`, which spells one SDK's API: ask(key, method, params), progress(step, total, message),
log(level, data), changed(uri, fresh), version. What a tool returns is its text; `Failed` is a result with `isError`.
"""

import json
import os
import urllib.parse

import anyio

notes, kept, cancelled = {}, [], []
running = set()  # the words of calls that wait

PROMPT = {"name": "greet", "description": "Greets somebody", "arguments": [{"name": "name", "required": True}]}


class Failed(Exception):
    pass


def greet(name):
    return {"messages": [{"role": "user", "content": {"type": "text", "text": f"Say hello to {name}"}}]}


def uri(title):
    return f"note:///{urllib.parse.quote(title, safe='')}"


def resources():
    return [{"uri": uri(title), "name": title, "mimeType": "text/plain"} for title in notes]


def contents(wanted):
    """What `resources/read` answers, or None where there is no such note."""
    found = [text for title, text in notes.items() if uri(title) == wanted]
    return {"contents": [{"uri": wanted, "mimeType": "text/plain", "text": found[0]}]} if found else None


def elicitation(message, name, kind):
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return "elicitation/create", {"mode": "form", "message": message, "requestedSchema": schema}


async def wait(seconds, word):
    """Waits; a cancelled call leaves its word for `tell`."""
    running.add(word)
    try:
        await anyio.sleep(seconds)
    except anyio.get_cancelled_exc_class():
        cancelled.append(word)
        raise
    finally:
        running.discard(word)


async def add_note(client, title, text):
    fresh = title not in notes
    notes[title] = text
    await client.changed(uri(title), fresh)
    return f"note saved: {title}"


async def list_notes(client):
    return "\n".join(f"{number}. {title}" for number, title in enumerate(notes, 1)) or "no notes yet"


async def read_note(client, title):
    if title not in notes:
        raise Failed(f"there is no note {title}")
    return notes[title]


async def echo(client, text):
    return text


async def confirm_clear(client):
    answer = await client.ask("confirm", *elicitation("Delete all?", "confirm", "boolean"))
    if answer["action"] != "accept" or not answer["content"]["confirm"]:
        return f"kept {len(notes)} notes"
    count = len(notes)
    notes.clear()
    return f"cleared {count} notes"


async def summarize(client):
    messages = [{"role": "user", "content": {"type": "text", "text": "Summarize these notes"}}]
    answer = await client.ask("summary", "sampling/createMessage", {"messages": messages, "maxTokens": 200})
    return f"summary: {answer['content']['text']}"


async def list_roots(client):
    return "\n".join(root["uri"] for root in (await client.ask("roots", "roots/list", None))["roots"])


async def count(client, to, delay_ms=0):
    for step in range(1, to + 1):
        await anyio.sleep(delay_ms / 1000)
        await client.progress(step, to, None)
    return f"counted to {to}"


async def log(client, level, message):
    await client.log(level, message)
    return "logged"


async def slow(client, seconds, text):
    await wait(seconds, text)
    return f"waited {seconds} s: {text}"


async def work(client, word, steps=1, pause=0.01):
    for step in range(1, steps + 1):
        await wait(pause, word)
        await client.progress(step, steps, word)
    return word


async def question(client, word):
    answer = await client.ask("q", *elicitation(word, "word", "string"), state=word)
    if answer["action"] != "accept":
        raise Failed(f"not answered: {word}")
    return f"{word}: {answer['content']['word']}"


async def update(client, word):
    await client.changed(word, False)
    return word


async def keep(client, word):
    kept.append(word)
    return " ".join(kept)


async def tell(client):
    said = {"pid": os.getpid(), "running": sorted(running), "cancelled": cancelled, "version": client.version}
    return json.dumps(said)


TOOLS = {
    tool.__name__: tool
    for tool in (
        add_note, list_notes, read_note, echo, confirm_clear, summarize, list_roots, count, log, slow,
        work, question, update, keep, tell,
    )
}


def listed():
    """What `tools/list` answers, as both SDKs read it."""
    def names(tool):
        return tool.__code__.co_varnames[1 : tool.__code__.co_argcount]

    return [
        {"name": name, "inputSchema": {"type": "object", "properties": {argument: {} for argument in names(tool)}}}
        for name, tool in TOOLS.items()
    ]
