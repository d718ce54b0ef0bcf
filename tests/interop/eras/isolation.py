"""Many modern clients on one child: the same ids, the same tokens, and each gets only its own (P4).

What takes a bridge holds in front of a child of either era; `servers.py` asks the same of servers of 2026-07-28.
"""

import json
import tempfile
import time

from era import META, Modern, claim, expect, side_by_side
from wire import text_of

MANY = 50
STEPS = 5


def words(client):
    return [f"word-{number}-of-{client}" for number in range(MANY)]


def crowd(bridge, *headers):
    return [Modern(bridge.address, *headers, name=f"client-{number}") for number in range(MANY)]


def told(client):
    return json.loads(text_of(client.call("tell", id="tell").answer("tell")))


def calls(bridge, crowd=crowd):
    """Fifty clients with the same id and progress token get their own answer and their own progress"""
    clients, own = crowd(bridge), words("work")

    def work(number, client):
        reply = client.call("work", id=1, token="t", word=own[number], steps=STEPS, pause=0.02)
        expect(text_of(reply.answer(1)), own[number], "the answer:")
        progress = [message["params"] for message in reply.messages if message.get("method") == "notifications/progress"]
        wanted = [{"progressToken": "t", "progress": step, "total": STEPS, "message": own[number]} for step in range(1, STEPS + 1)]
        expect(progress, wanted, "progress:")
        expect(len(reply.messages), STEPS + 1, "messages:")

    side_by_side(work, clients)
    expect(len({told(client)["pid"] for client in clients[:5]}), 1, "children:")


def types(bridge, client=Modern):
    """A token and an id that look like another's, a number and a text, stay apart and come back as they were"""
    names = [(1, "1"), ("1", 1), (0, "0"), ("0", 0), (2**53 - 1, "é"), ("é", 2**53 - 1)] * 4

    def work(number, client):
        id, token = names[number]
        reply = client.call("work", id=id, token=token, word=f"{number}", steps=3, pause=0.02)
        found = [message for message in reply.messages if "method" not in message]
        expect([(one["id"], type(one["id"])) for one in found], [(id, type(id))], "the id:")
        expect(text_of(found[0]), f"{number}", "the answer:")
        tokens = [message["params"]["progressToken"] for message in reply.messages if "method" in message]
        expect(tokens, [token] * 3, "the token:")

    side_by_side(work, [client(bridge.address) for _ in names])


@claim("isolation", "log lines come to who asked for them, in its own calls, and to nobody else")
def logs(world):
    clients, own = crowd(world.bridge("--share", "all")), words("log")

    def lines(reply):
        return [message["params"]["data"] for message in reply.messages if message.get("method") == "notifications/message"]

    def log(number, client):
        asks = number % 2 == 0
        reply = client.call("log", id=1, level="info" if asks else None, word=own[number])
        expect(text_of(reply.answer(1)), own[number], "the answer:")
        # With other calls in flight nobody can tell whose a line is: then it is no one's.
        assert lines(reply) in ([], [own[number]] if asks else []), f"{own[number]} got {lines(reply)}"

    side_by_side(log, clients)
    for number, client in enumerate(clients[:4]):  # alone it is known
        found = lines(client.call("log", id=1, level="info" if number % 2 == 0 else None, word=own[number]))
        expect(found, [own[number]] if number % 2 == 0 else [], "alone:")
    expect(lines(clients[0].call("log", id=1, level="warning", word=own[0])), [], "below the level:")


def updates(bridge):
    """Resource updates come to who subscribed to the address, under the subscription id that it chose"""
    clients = crowd(bridge)
    own, common = [f"item:///{number}" for number in range(MANY)], "item:///common"

    def listen(number, client):
        filter = [own[number], *([common] if number < 10 else [])]
        listening = client.listen("s", resourceSubscriptions=filter)
        first = listening.wait(1)[0]
        expect(first["method"], "notifications/subscriptions/acknowledged", "first:")
        expect(first["params"]["notifications"], {"resourceSubscriptions": filter}, "acknowledged:")
        return listening

    listening = side_by_side(listen, clients)
    watched = told(clients[0]).get("watched")  # a child of 2026-07-28 has listeners instead
    if watched is not None:
        expect(set(watched), {*own, common}, "the child is subscribed to")
    side_by_side(lambda number, client: client.call("update", id=1, word=own[number]), clients)
    clients[-1].call("update", id=1, word=common)
    for number, stream in enumerate(listening):
        wanted = [own[number], *([common] if number < 10 else [])]
        messages = stream.wait(1 + len(wanted))
        expect(sorted(message["params"]["uri"] for message in messages[1:]), sorted(wanted), f"updates for {number}:")
        expect({message["params"]["_meta"][META + "subscriptionId"] for message in messages}, {"s"}, "subscription ids:")
    for stream in listening[1:]:
        stream.close()
    deadline = time.monotonic() + 5
    while watched is not None and (left := set(told(clients[0])["watched"])) != {own[0], common} and time.monotonic() < deadline:
        time.sleep(0.02)
    if watched is not None:
        expect(left, {own[0], common}, "who is left watches")
    clients[-1].call("update", id=1, word=common)
    expect(listening[0].wait(4)[-1]["params"]["uri"], common, "the one that is left gets")
    expect(len(listening[0].messages), 4, "messages of the one that is left:")
    listening[0].close()


def answered(reply, id, word):
    """The questions of an `input_required`, each of them this client's own; the parameters of the retry."""
    result = reply.answer(id)["result"]
    expect(result["resultType"], "input_required", "the result:")
    expect(reply.messages[-1], reply.answer(id), "the last message:")
    responses = {}
    for key, question in result["inputRequests"].items():
        params = question["params"]
        asked = params["message"] if question["method"] == "elicitation/create" else params["messages"][0]["content"]["text"]
        assert asked.startswith(word), f"{word} was asked {asked}"
        if question["method"] == "elicitation/create":
            responses[key] = {"action": "accept", "content": {"word": f"to {asked}"}}
        else:
            responses[key] = {"role": "assistant", "model": "m", "content": {"type": "text", "text": f"to {asked}"}}
    return {"inputResponses": responses, "requestState": result["requestState"]}


def questions(bridge):
    """A question comes to the client whose call it belongs to, and where nobody can tell, to nobody"""
    clients, own = crowd(bridge), words("question")

    def ask(number, client):
        first = client.call("question", id=1, word=own[number])
        answer = first.answer(1)["result"]
        if answer.get("isError"):
            expect(text_of(first.answer(1)), f"not answered: {own[number]}", "the refusal:")
            return 0
        second = client.call("question", id=2, word=own[number], retry=answered(first, 1, own[number]))
        expect(text_of(second.answer(2)), f"{own[number]}: to {own[number]}", "the answer:")
        return 1

    side_by_side(ask, clients)
    expect([ask(number, client) for number, client in enumerate(clients[:5])], [1] * 5, "alone:")


@claim("isolation", "a call may ask several questions at once and then another one")
def rounds(world):
    client = Modern(world.bridge("--share", "all").address)
    asked, retry = [], {}
    for id in range(1, 6):
        reply = client.call("questions", id=id, word="w", retry=retry)
        if "content" in reply.answer(id)["result"]:
            expect(text_of(reply.answer(id)), "to w a, to w b, to w c", "the answer:")
            expect(reply.answer(id)["result"]["resultType"], "complete", "the result:")
            break
        asked.append(len(reply.answer(id)["result"]["inputRequests"]))
        retry = answered(reply, id, "w")
    assert sum(asked) == 3 and asked[-1] == 1, f"questions in the rounds: {asked}"


@claim("isolation", "a retry without all answers is asked again, one with a state that is not its own is refused")
def states(world):
    bridge = world.bridge("--share", "all")
    client, other = Modern(bridge.address), Modern(bridge.address)
    retry = answered(client.call("question", id=1, word="w"), 1, "w")
    nothing = client.call("question", id=2, word="w", retry={**retry, "inputResponses": {}})
    retry = answered(nothing, 2, "w")
    for what, params in {
        "a state that was changed": {**retry, "requestState": retry["requestState"] + "x"},
        "a state of nobody": {**retry, "requestState": "x"},
    }.items():
        expect(client.call("question", id=3, word="w", retry=params).answer(3).get("error", {}).get("code"), -32602, what)
    wrong = other.call("question", id=4, word="another", retry=retry)
    expect(wrong.answer(4).get("error", {}).get("code"), -32602, "a state of another request:")
    right = client.call("question", id=5, word="w", retry=retry)
    expect(text_of(right.answer(5)), "w: to w", "the answer:")


@claim("isolation", "what a client did not declare is not asked of it, whatever others declared")
def capabilities(world):
    bridge = world.bridge("--share", "all")
    able, unable = Modern(bridge.address), Modern(bridge.address, capabilities={})
    for _ in range(2):  # whoever came first must not decide
        answer = unable.call("question", id=1, word="w").answer(1)
        refused = answer["result"].get("isError") if "result" in answer else answer["error"]["code"] == -32021
        assert refused, f"asked without the capability: {answer}"
        retry = answered(able.call("question", id=1, word="w"), 1, "w")
        expect(text_of(able.call("question", id=2, word="w", retry=retry).answer(2)), "w: to w", "the answer:")


def closing(bridge):
    """A client that closes its answer ends its own call at the child, and no other"""
    leaver, stayer, watcher = (Modern(bridge.address) for _ in range(3))
    own = {0: "leaves", 1: "stays"}

    def work(number, client):
        try:
            return client.call("work", id=1, token="t", word=own[number], steps=100, pause=0.02, timeout=0.5 if number == 0 else 20)
        except TimeoutError:
            return None

    left, stayed = side_by_side(work, [leaver, stayer])
    expect(left, None, "the one that left got")
    expect(text_of(stayed.answer(1)), "stays", "the one that stayed got")
    expect(told(watcher)["cancelled"], ["leaves"], "cancelled at the child:")


@claim("isolation", "a cancellation that is posted, with the id that others have too, is taken and ends no call")
def posted_cancellation(world):
    bridge = world.bridge("--share", "all")
    worker, other = Modern(bridge.address), Modern(bridge.address)

    def act(number, client):
        if number == 0:
            return client.call("work", id=1, token=1, word="works", steps=20, pause=0.05)
        time.sleep(0.3)
        return client.notify("notifications/cancelled", {"requestId": 1})

    worked, told_off = side_by_side(act, [worker, other])
    expect((told_off.status, told_off.body), (202, b""), "the notification:")
    expect(text_of(worked.answer(1)), "works", "the call:")
    expect(told(other)["cancelled"], [], "cancelled at the child:")


@claim("isolation", "a stream of 2026-07-28 has no event ids, and neither Last-Event-ID nor a foreign session id mean anything")
def no_resumption(world):
    client = Modern(world.bridge("--share", "all").address)
    call = {"name": "work", "arguments": {"word": "w", "steps": 30, "pause": 0.02}}
    for headers in (), (("Last-Event-ID", "1-1"),), (("Mcp-Session-Id", "0" * 48),):
        response, text = client.raw("tools/call", call, *headers)
        expect((response.status, response.getheader("content-type")), (200, "text/event-stream"), f"with {headers}:")
        expect([line for line in text.splitlines() if line.startswith(("id:", "retry:"))], [], f"with {headers}:")
        expect(response.getheader("mcp-session-id"), None, "session:")
        expect(response.getheader("x-accel-buffering"), "no", "X-Accel-Buffering:")
        assert text.count("notifications/progress") == 30, text[-300:]


@claim("isolation", "what a child still says for a call that was closed reaches nobody, least of all who calls at the same time")
def stubborn(world):
    bridge = world.bridge("--share", "all")
    leaver, stayer = Modern(bridge.address), Modern(bridge.address)
    own = {0: "leaves", 1: "stays"}

    def call(number, client):
        options = {"id": 1, "token": "t", "level": "info", "word": own[number], "pause": 1.0 + number}
        try:
            return client.call("stubborn", timeout=0.3 if number == 0 else 20, **options)
        except TimeoutError:
            return None

    left, stayed = side_by_side(call, [leaver, stayer])
    expect(left, None, "the one that left got")
    assert "leaves" not in json.dumps(stayed.messages), f"the one that stayed got {stayed.messages}"
    result = stayed.answer(1)["result"]
    if result["resultType"] == "input_required":
        answered(stayed, 1, "stays")
    else:
        expect(text_of(stayed.answer(1)), "stays: None", "the one that stayed got")  # its question was refused


COMMON = (calls, types, updates, questions, closing)

for work in COMMON:
    claim("isolation", work.__doc__[0].lower() + work.__doc__[1:])(lambda world, work=work: work(world.bridge("--share", "all")))


@claim("isolation", "clients with different keys never meet: two children, and nothing of one reaches the other")
def keys(world):
    bridge = world.bridge("--session-key", "header:X-Key")
    clients = [Modern(bridge.address, ("X-Key", f"key-{number % 2}")) for number in range(MANY)]
    pids = side_by_side(lambda number, client: told(client)["pid"], clients)
    expect([len(set(pids[0::2])), len(set(pids[1::2])), len(set(pids))], [1, 1, 2], "children:")

    # The same address in both: each child knows only its own listeners.
    listening = [clients[key].listen("s", resourceSubscriptions=["item:///same"], resourcesListChanged=True) for key in (0, 1)]
    side_by_side(lambda number, client: client.call("keep", id=1, token="t", word=f"{number % 2}"), clients)
    for key in (0, 1):
        kept = text_of(clients[key].call("keep", id=1, word="last").answer(1)).split()
        expect(set(kept), {str(key), "last"}, f"kept for key {key}:")
    for _ in range(3):
        clients[0].call("update", id=1, word="item:///same")
    expect(len(listening[0].wait(4)), 4, "messages for key 0:")
    expect(len(listening[1].messages), 1, "messages for key 1:")

    retry = answered(clients[0].call("question", id=1, word="w"), 1, "w")
    stolen = clients[1].call("question", id=2, word="w", retry=retry)
    expect(stolen.answer(2).get("error", {}).get("code"), -32602, "a state under another key:")
    right = clients[2].call("question", id=3, word="w", retry=retry)
    expect(text_of(right.answer(3)), "w: to w", "the same key on another connection:")
    for stream in listening:
        stream.close()


def with_tokens(world, *options):
    """A bridge that knows two callers, and two clients of each."""
    tokens = [letter * 43 for letter in "ab"]
    file = tempfile.NamedTemporaryFile("w")  # noqa: SIM115 — lives as long as the bridge, which reads it again
    file.write("".join(f"{token}\n" for token in tokens))
    file.flush()
    world.files.append(file)
    bridge = world.bridge("--token-file", file.name, *options)
    return [[Modern(bridge.address, ("Authorization", f"Bearer {token}")) for _ in range(2)] for token in tokens]


@claim("isolation", "with --share key those of one token share a child, and no others")
def tokens(world):
    callers = with_tokens(world, "--share", "key")
    pids = [[told(client)["pid"] for client in clients] for clients in callers]
    expect([len(set(of_one)) for of_one in pids], [1, 1], "children of each token:")
    assert pids[0][0] != pids[1][0], "both tokens have the same child"
    retry = answered(callers[0][0].call("question", id=1, word="w"), 1, "w")
    stolen = callers[1][0].call("question", id=2, word="w", retry=retry)
    expect(stolen.answer(2).get("error", {}).get("code"), -32602, "a state of another token:")


@claim("isolation", "on one child for all, the state of one token's call is refused under another token")
def states_of_tokens(world):
    (mine, too), (other, _) = with_tokens(world, "--share", "all")
    expect(len({told(client)["pid"] for client in (mine, too, other)}), 1, "children:")
    retry = answered(mine.call("question", id=1, word="w"), 1, "w")
    stolen = other.call("question", id=2, word="w", retry=retry)
    expect(stolen.answer(2).get("error", {}).get("code"), -32602, "a state of another token:")
    expect(text_of(too.call("question", id=3, word="w", retry=retry).answer(3)), "w: to w", "the same token elsewhere:")


@claim("isolation", "without its key a modern client is refused by name of the option, and gets no child")
def no_key(world):
    bridge = world.bridge("--session-key", "header:X-Key", "--lazy")
    reply = Modern(bridge.address).call("tell", id=1)
    error = reply.messages[0].get("error", {})
    assert reply.status == 400 and "x-key" in json.dumps(error).lower(), f"HTTP {reply.status} {reply.messages}"
    expect(bridge.sessions_begun(), 0, "sessions:")
