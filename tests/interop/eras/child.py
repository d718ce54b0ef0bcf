"""A server up to 2025-11-25 whose every word names the call that it belongs to: child.py [--echo-version] [--hold MIB]

So whoever receives a word that it did not send has received somebody else's. With --echo-version it answers `initialize`
with whatever version it is asked for, as servers do that do not know better. With --hold it has so much memory, written
to, before it reads its first message.
"""

import json
import os
import sys
import threading
import time

held = bytearray(b"\x01") * (int(sys.argv[sys.argv.index("--hold") + 1]) << 20) if "--hold" in sys.argv else b""

writing = threading.Lock()
state = threading.Condition()
answers, cancelled, kept, watched, heard = {}, [], [], set(), []
running = {}  # id as JSON -> the word of the call
last = 0


def send(message):
    with writing:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def notify(method, params):
    send({"method": method, "params": params})


def ask(method, params):
    """The client's answer, or None where it refused."""
    global last
    with state:
        last += 1
        number = last
    send({"id": number, "method": method, "params": params})
    with state:
        if not state.wait_for(lambda: number in answers, 20):
            raise RuntimeError("no answer to a question within 20 s")
        return answers.pop(number).get("result")


def elicit(word):
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    return ask("elicitation/create", {"message": word, "requestedSchema": schema})


def sample(word):
    messages = [{"role": "user", "content": {"type": "text", "text": word}}]
    return ask("sampling/createMessage", {"messages": messages, "maxTokens": 10})


class Refused(Exception):
    """The client did not answer: the tool fails."""


def work(key, token, word, steps=1, pause=0.01):
    for step in range(1, steps + 1):
        time.sleep(pause)
        with state:
            if key not in running:
                return None
        if token is not None:
            notify("notifications/progress", {"progressToken": token, "progress": step, "total": steps, "message": word})
    return word


def log(key, token, word):
    notify("notifications/message", {"level": "info", "logger": "child", "data": word})
    return word


def question(key, token, word):
    answer = elicit(word)
    if answer is None or answer.get("action") != "accept":
        raise Refused(f"not answered: {word}")
    return f"{word}: {answer['content']['word']}"


def questions(key, token, word):
    """Two at once, and then one more."""
    results = {}
    both = [
        threading.Thread(target=lambda: results.update(a=elicit(f"{word} a"))),
        threading.Thread(target=lambda: results.update(b=sample(f"{word} b"))),
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    results["c"] = elicit(f"{word} c")
    if None in results.values():
        raise Refused(f"not answered: {word}")
    return f"{results['a']['content']['word']}, {results['b']['content']['text']}, {results['c']['content']['word']}"


def stubborn(key, token, word, pause=1.0):
    """Goes on whether it is cancelled or not, and asks, logs and reports progress at the end."""
    time.sleep(pause)
    if token is not None:
        notify("notifications/progress", {"progressToken": token, "progress": 1, "message": word})
    log(key, token, word)
    answer = elicit(word)
    return f"{word}: {answer and answer['content']['word']}"


def update(key, token, word):
    with state:
        known = word in watched
    if known:
        notify("notifications/resources/updated", {"uri": word})
    return word if known else "nobody watches it"


def later(key, token, word, pause=0.3):
    """Asks, logs and tells of an update when the call is long over."""

    def belated():
        time.sleep(pause)
        log(key, token, word)
        notify("notifications/resources/updated", {"uri": word})
        answer = elicit(word)
        with state:
            heard.append(f"{word}: {answer and answer.get('action')}")

    threading.Thread(target=belated, daemon=True).start()
    return word


def keep(key, token, word):
    with state:
        kept.append(word)
        return " ".join(kept)


def tell(key, token):
    with state:
        now = {"watched": sorted(watched), "running": sorted(running.values())}
        return json.dumps({"pid": os.getpid(), "cancelled": cancelled, "heard": heard, **now})


TOOLS = {tool.__name__: tool for tool in (work, log, question, questions, stubborn, update, later, keep, tell)}
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}}


def call(message):
    key, params = json.dumps(message["id"]), message["params"]
    arguments = params.get("arguments", {})
    with state:
        running[key] = arguments.get("word", params["name"])
    try:
        text, failed = TOOLS[params["name"]](key, params.get("_meta", {}).get("progressToken"), **arguments), False
    except Refused as refusal:
        text, failed = str(refusal), True
    with state:
        if running.pop(key, None) is None and params["name"] != "stubborn":
            return  # cancelled: nobody wants to know
    send({"id": message["id"], "result": {"content": [{"type": "text", "text": text}], "isError": failed}})


def request(message):
    method, params = message["method"], message.get("params", {})
    if any(name.startswith("io.modelcontextprotocol/") for name in params.get("_meta", {})) and "--echo-version" not in sys.argv:
        return send({"id": message["id"], "error": {"code": -32600, "message": "what is this in _meta?"}})
    if method == "tools/call" and params.get("name") in TOOLS:
        return threading.Thread(target=call, args=[message], daemon=True).start()
    if method == "initialize":
        version = params["protocolVersion"] if "--echo-version" in sys.argv else "2025-11-25"
        result = {
            "protocolVersion": version,
            "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True, "listChanged": True}, "logging": {}},
            "serverInfo": {"name": "child", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": SCHEMA} for name in TOOLS]}
    elif method in ("ping", "logging/setLevel"):
        result = {}
    elif method in ("resources/subscribe", "resources/unsubscribe"):
        with state:
            (watched.add if method == "resources/subscribe" else watched.discard)(params["uri"])
        result = {}
    else:
        return send({"id": message["id"], "error": {"code": -32601, "message": f"no method {method}"}})
    send({"id": message["id"], "result": result})


for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        with state:
            answers[message["id"]] = message
            state.notify_all()
    elif "id" in message:
        request(message)
    elif message["method"] == "notifications/cancelled":
        with state:
            word = running.pop(json.dumps(message["params"]["requestId"]), None)
            cancelled.append(word)
    else:
        with state:
            heard.append(message["method"])
