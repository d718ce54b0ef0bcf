"""What server-everything can do and few others can: ask the client, report progress, log, publish updates."""

import concurrent.futures
import json
import time

from claims import at_once, attempt, reasons
from wire import INITIALIZED, Bridge, Http, call_params, hello, notification, request

CAPABLE = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}}
RESOURCE = {"uri": "demo://resource/dynamic/text/7"}


def sampled(text):
    return {"model": "m", "role": "assistant", "content": {"type": "text", "text": text}}


def session(bridge, answers=None, listen=True):
    client = Http(bridge.port, {"roots/list": {"roots": [{"uri": "file:///first"}]}} | (answers or {}))
    client.initialize(hello("2025-11-25", CAPABLE))
    if listen:
        client.listen()
    client.send(INITIALIZED)
    return client


def text_of(answer):
    if answer.error:
        raise AssertionError(f"refused: {answer.text[:300]}")
    return "\n".join(part.get("text", "") for part in answer.result["content"])


def expect(holds, what):
    return None if holds else what


def post(client, tool, arguments=None, id_text="1", meta=None):
    return client.exchange("POST", request(id_text, "tools/call", call_params(tool, arguments, meta)))


def claims(server, bridge_binary, facts):
    server.prepare()
    bridge = Bridge(bridge_binary, server, server.command, "features")
    clients = []

    def new(*args, **more):
        clients.append(session(bridge, *args, **more))
        return clients[-1]

    try:
        client = new()
        yield from asks(client, new)
        yield from progress(client)
        yield from listening(new)
        yield from tasks(client)
    finally:
        for client in clients:
            client.hang_up()
        bridge.stop()
        bridge.clean_up()


def asks(client, new):
    def sampling():
        client.answers["sampling/createMessage"] = lambda params: sampled("☃ " + params["messages"][0]["content"]["text"])
        reply = post(client, "trigger-sampling-request", {"prompt": "naïve 𝄞", "maxTokens": 5})
        own = [message.method for _, message in reply.unasked]
        return expect(own == ["sampling/createMessage"], f"on the stream of the call: {own}") or expect(
            "☃ Resource trigger-sampling-request context: naïve 𝄞" in text_of(reply.answer), reply.answer.text[:300]
        )

    yield attempt("sampling is asked on the stream of the call and answered", sampling)

    def elicitation():
        for answer, sign in (
            ({"action": "accept", "content": {"name": "Zoë"}}, "- Name: Zoë"),
            ({"action": "decline"}, "declined"),
            ({"action": "cancel"}, "cancel"),
        ):
            client.answers["elicitation/create"] = answer
            text = text_of(client.call("trigger-elicitation-request"))
            if sign not in text:
                return f"{answer['action']}: {text[:300]}"

    yield attempt("elicitation is accepted, declined and cancelled", elicitation)

    def refused():
        client.answers["sampling/createMessage"] = None
        text = client.call("trigger-sampling-request", {"prompt": "x"}).text
        return expect("not here" in text, text[:300])

    yield attempt("a client's refusal to sample reaches the server", refused)

    def many():
        client.answers["sampling/createMessage"] = lambda params: sampled(params["messages"][0]["content"]["text"])

        def job(i):
            def run():
                text = text_of(client.call("trigger-sampling-request", {"prompt": f"<{i}>"}, str(i)))
                if f"context: <{i}>" not in text:
                    raise AssertionError(f"call {i}: {text[:200]}")

            return run

        return reasons(at_once([job(i) for i in range(8)]))

    yield attempt("8 calls that sample at once each get the sample of their own prompt", many)

    def crossed():
        # Both children count their own requests from 0, so the same ids are outstanding in both sessions.
        pair = [new({"sampling/createMessage": sampled(name)}) for name in ("alpha", "omega")]

        def job(who, name, i):
            def run():
                text = text_of(who.call("trigger-sampling-request", {"prompt": "x"}, str(i)))
                if name not in text:
                    raise AssertionError(f"{name}, call {i}: {text[:200]}")

            return run

        return reasons(at_once([job(who, name, i) for i in range(5) for who, name in zip(pair, ("alpha", "omega"))]))

    yield attempt("two sessions sample at once under the same ids and keep to themselves", crossed)

    def roots():
        client.answers["roots/list"] = {"roots": [{"uri": "file:///second", "name": "zweite ☃"}]}
        before = len(client.asked)
        client.send(notification("notifications/roots/list_changed"))
        if not client.await_that(lambda: len(client.asked) > before, 5):
            return "the server's roots/list does not arrive"
        deadline = time.monotonic() + 5
        while "zweite ☃" not in (text := text_of(client.call("get-roots-list"))):
            if time.monotonic() > deadline:
                return text[:300]

    yield attempt("roots are asked for on the GET stream while no call is in flight", roots)

    def backlog():
        late = new(listen=False)
        time.sleep(0.5)
        if late.asked:
            return f"asked without a stream: {late.asked}"
        late.listen()
        return expect(late.await_that(lambda: late.asked, 5), "what the server asked before the GET stream is lost")

    yield attempt("what the server asks before there is a GET stream waits for it", backlog)


def progress(client):
    def steps(reply, token):
        return [
            json.loads(message.raw["params"])["progress"]
            for _, message in reply.unasked
            if message.method == "notifications/progress" and f'"progressToken":{token}' in message.raw["params"]
        ]

    def one():
        started = time.monotonic()
        reply = post(client, "trigger-long-running-operation", {"duration": 1.5, "steps": 5}, "1", {"progressToken": "t ☃"})
        at = [moment - started for moment, message in reply.unasked if message.method == "notifications/progress"]
        return (
            expect(steps(reply, '"t ☃"') == [1, 2, 3, 4, 5], f"progress {steps(reply, chr(34) + 't ☃' + chr(34))}")
            or expect(at and at[0] < 0.8, f"progress came at {at}, not while the call ran")
            or expect("completed" in text_of(reply.answer), reply.answer.text[:200])
        )

    yield attempt("progress arrives while the call runs, in order", one)

    def several():
        def run(token):
            return post(
                client, "trigger-long-running-operation", {"duration": 0.8, "steps": 4}, token, {"progressToken": json.loads(token)}
            )

        tokens = ["1", '"1"', '"b"', "7", '"c"']
        with concurrent.futures.ThreadPoolExecutor(len(tokens)) as pool:
            replies = list(pool.map(run, tokens))
        wrong = []
        for token, reply in zip(tokens, replies):
            mine = [m for _, m in reply.unasked if m.method == "notifications/progress"]
            if steps(reply, token) != [1, 2, 3, 4] or len(mine) != 4:
                wrong.append(f"{token}: {[m.raw['params'] for m in mine]}")
        return expect(not wrong, " | ".join(wrong[:3]))

    yield attempt("progress of 5 calls at once stays on the stream of its token", several)

    def forms():
        quick = post(client, "echo", {"message": "x"})
        slow = post(client, "trigger-long-running-operation", {"duration": 0.7, "steps": 1})
        return expect((quick.form, slow.form) == ("json", "sse"), f"quick {quick.form}, slow {slow.form}")

    yield attempt("a quick answer is JSON, a slow one an event stream", forms)

    def resumed():
        body = request('"cut"', "tools/call", call_params("trigger-long-running-operation", {"duration": 1.5, "steps": 5}, {"progressToken": "cut"}))
        running = client.stream("POST", body)
        last, _ = next(running)
        running.close()
        got = []
        for last, message in client.stream("GET", more={"Accept": "text/event-stream", "Last-Event-ID": last}):
            got.append(message)
            if message.is_answer:
                break
        steps = [json.loads(m.raw["params"])["progress"] for m in got[:-1]]
        return expect(steps == [2, 3, 4, 5], f"after the cut: {[m.text[:80] for m in got]}") or expect(
            got[-1].id == '"cut"' and "completed" in got[-1].text, got[-1].text[:200]
        )

    yield attempt("a stream that is cut is resumed with Last-Event-ID, nothing lost or twice", resumed)

    def cancelled():
        body = request('"stop"', "tools/call", call_params("trigger-long-running-operation", {"duration": 30, "steps": 60}, {"progressToken": 5}))
        running = client.stream("POST", body)
        next(running)  # progress: it runs
        client.send(notification("notifications/cancelled", {"requestId": "stop"}))
        # This server goes on reporting and never answers, as the specification lets it; somebody must end the stream.
        started = time.monotonic()
        answer = next((message for _, message in running if message.is_answer), None)
        seconds = time.monotonic() - started
        return (
            expect(seconds < 15, f"the stream stayed open for {seconds:.0f} s")
            or expect(answer and answer.id == '"stop"' and answer.error, f"it ended with {answer and answer.text}")
            or expect("x" in text_of(client.call("echo", {"message": "x"})), "the session is stuck")
        )

    yield attempt("a cancelled call that the server never answers ends with an error of its own id", cancelled)


def listening(new):
    def updates():
        subscribed, other = new(), new()
        subscribed.ask(request("1", "resources/subscribe", RESOURCE))
        for client in (subscribed, other):
            client.call("toggle-subscriber-updates")
            client.ask(request("2", "logging/setLevel", {"level": "debug"}))
            client.call("toggle-simulated-logging")

        def seen(client, what):
            return [note for note in client.notes if what in note]

        # Once at the toggle, and once more five seconds later, when nothing is in flight: that one needs the GET stream.
        # The server says «Debug-level message» and the like, and «Alert level-message».
        for client, what, times in (
            (subscribed, "notifications/resources/updated", 2),
            (subscribed, "level", 2),
            (other, "level", 2),
        ):
            if not client.await_that(lambda: len(seen(client, what)) >= times, 8):
                return f"{what}: {seen(client, what)}"
        return expect(not seen(other, "notifications/resources/updated"), "a session got updates that it never asked for")

    yield attempt("updates and log messages reach the GET stream of their own session only", updates)


def tasks(client):
    def research():
        made = client.ask(request("1", "tools/call", call_params("simulate-research-query", {"topic": "☃"}) | {"task": {"ttl": 60000}}))
        if made.error:
            return made.text[:300]
        name = made.result["task"]["taskId"]
        status = client.ask(request("2", "tasks/get", {"taskId": name})).result["status"]
        result = client.ask(request("3", "tasks/result", {"taskId": name}))
        return expect(status == "working", status) or expect("☃" in result.outcome, result.text[:300])

    yield attempt("a task is made, asked about and awaited", research)
