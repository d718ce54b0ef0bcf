"""What a claim is, and what several of them need."""

import collections
import json

from wire import Pool, text_of

Claim = collections.namedtuple("Claim", "gateway text check seconds")
ALL = []
NOTE = {"title": "milk", "text": "two bottles"}
LARGE = 5 << 20


def claim(gateway, text, seconds=1):
    """`seconds`: about how long it takes."""

    def add(check):
        ALL.append(Claim(gateway, text, check, seconds))
        return check

    return add


def expect(found, wanted, what=""):
    assert found == wanted, f"{what} {str(found)[:300]!r} instead of {str(wanted)[:300]!r}".strip()


def fails(kind, what, *arguments, **options):
    try:
        found = what(*arguments, **options)
    except kind as reason:
        return reason
    raise AssertionError(f"no {kind.__name__}, but {str(found)[:300]}")


def error_of(answer):
    assert answer and "error" in answer, f"no error: {str(answer)[:300]}"
    return answer["error"]


def reason_of(answer):
    """The token of an error that the bridge made."""
    return error_of(answer)["data"]["reason"]


def listed(answer):
    """The notes that this child knows of; a new child knows none."""
    text = text_of(answer)
    return [] if text == "no notes yet" else [line.partition(". ")[2] for line in text.splitlines()]


def tools_of(answer):
    return {tool["name"] for tool in answer["result"]["tools"]}


def methods(messages):
    return [message["method"] for message in messages]


def seen_by_child(answer):
    """What `hostile` has read so far, by method."""
    return [entry.get("method") for entry in json.loads(text_of(answer))]


def delete_behind_its_back(bridge, session):
    reply = Pool(bridge.address).exchange("DELETE", "/mcp", [("Host", "127.0.0.1"), ("Mcp-Session-Id", session)])
    expect(reply.status, 204, "DELETE:")
