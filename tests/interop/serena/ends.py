"""Serena over stdio, Serena behind the bridge, and the ways to speak to it there."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import shutil
import threading
import time

import wire
from table import MASKS, UNORDERED

HERE = pathlib.Path(__file__).resolve().parent
WORK = HERE.parent / ".work" / "serena"
NPM = WORK / "npm" / "node_modules" / ".bin"

wire.PATIENCE = 120  # Serena never refuses while it warms up: it answers late, later still on a busy machine

LATE = 20  # seconds that the language server of a project with a file `late` takes to start

# What a container would have, and nothing that opens a window or a browser. Serena would take pyright with uvx, and
# shellcheck from GitHub: the paths name what is installed already. Projects that are trusted are not asked for their
# own copy of TypeScript.
CONFIG = f"""\
agent_interface: tools
web_dashboard: false
web_dashboard_open_on_launch: false
gui_log_window: false
trusted_project_path_patterns: ["**"]
projects: []
ls_specific_settings:
  python: {{ ls_path: "HERE/pyright" }}
  typescript: {{ ls_path: "{NPM}/typescript-language-server" }}
  bash: {{ ls_path: "{NPM}/bash-language-server" }}
"""

PYRIGHT = f"""\
#!/bin/sh
[ ! -e late ] || sleep {LATE}
exec {NPM}/pyright-langserver "$@"
"""

SERENA = [str(WORK / "python" / "bin" / "serena"), "start-mcp-server"]
NOISY = ["sh", "-c", 'echo "Serena is on its way…"; exec "$@"', "noisy", *SERENA]


class Server:
    """One command in a home of its own, with a copy of the projects for each session: what `wire` starts."""

    def __init__(self, label, command=SERENA, sessions=("a",)):
        self.label, self.command = label, command
        self.folder = WORK / "run" / label
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "home" / ".serena").mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        (self.folder / "home" / ".serena" / "serena_config.yml").write_text(CONFIG.replace("HERE", str(self.folder)))
        (self.folder / "pyright").write_text(PYRIGHT)
        (self.folder / "pyright").chmod(0o755)
        for session in sessions:
            shutil.copytree(HERE / "projects", self.projects(session))

    def projects(self, session):
        return self.folder / session

    def log(self, label):
        return self.folder / f"{label}.log"

    def environment(self, mark):
        home = self.folder / "home"
        env = {key: value for key, value in os.environ.items() if not key.startswith("MCP_BRIDGE_")}
        env |= {"HOME": str(home), "SERENA_HOME": str(home / ".serena"), "SERENA_USAGE_REPORTING": "false"}
        env |= {"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOCACHE": str(WORK / "go-build")}
        env |= {"NO_PROXY": "127.0.0.1", "DO_NOT_TRACK": "1", "TZ": "UTC"}
        return env | {"TMPDIR": str(self.folder / "tmp"), wire.Bridge.MARK: mark}

    def masked(self, outcome, session):
        """The outcome without what differs between any two runs: folders, and what MASKS says."""
        outcome = outcome.replace(str(self.projects(session)), "{PROJECTS}").replace(str(self.folder), "{HERE}")
        for pattern, replacement, _ in MASKS:
            outcome = re.sub(pattern, replacement, outcome)
        return outcome


def body(case, id_text, projects):
    """The request of a case, as it goes over either wire."""
    if "/" in case.call or case.call == "ping":
        method, params = case.call, case.arguments
    else:
        method, params = "tools/call", {"name": case.call, "arguments": case.arguments}
    if params is not None:
        params = json.dumps(params, ensure_ascii=False).replace("{PROJECTS}", str(projects))
    return wire.request(id_text, method, params)


def verdict(outcome):
    if outcome.startswith("error "):
        return "JSON-RPC error"
    return "tool error" if json.loads(outcome.removeprefix("result ")).get("isError") else "ok"


def comparable(case, outcome):
    """Where Serena itself has no order, the words count and not their places."""
    return sorted(re.findall(r"[\w./-]+", outcome)) if case.call in UNORDERED else outcome


# --------------------------------------------------------------------------------------------- the modern client


class Modern:
    """The Python SDK, 2.x, in its automatic mode, with the face of an end of `wire`: bodies in, outcomes out."""

    def __init__(self, port):
        self.port = port
        self.loop = asyncio.new_event_loop()
        self.past = wire.Http(port)  # for what the SDK cannot spell, in the SDK's own session
        self.seen = []  # (HTTP verb, method of the message, status)
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(wire.PATIENCE)

    def initialize(self):
        # Entered and left on one task: the SDK's task groups insist on it.
        opened, self.closing = threading.Event(), asyncio.Event()
        self.living = asyncio.run_coroutine_threadsafe(self.live(opened), self.loop)
        while not opened.wait(0.1):
            if self.living.done():
                self.living.result()
        return self.client.protocol_version

    async def live(self, opened):
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(create_mcp_http_client())
            http.event_hooks["response"].append(self.answered)
            transport = streamable_http_client(f"http://127.0.0.1:{self.port}/mcp", http_client=http)
            self.client = await stack.enter_async_context(Client(transport, mode="auto"))
            self.past.version = self.client.protocol_version
            opened.set()
            await self.closing.wait()

    async def answered(self, response):
        self.past.session = response.headers.get("mcp-session-id", self.past.session)
        message = json.loads(response.request.content or "{}")
        self.seen.append((response.request.method, message.get("method"), response.status_code))

    def ask(self, text):
        message = json.loads(text)
        params = message.get("params")
        if message["method"] == "tools/call" and isinstance(params, dict) and set(params) == {"name", "arguments"}:
            if isinstance(params["arguments"], dict):
                return self.told(self.client.call_tool(params["name"], params["arguments"]))
        if message["method"] == "tools/list":
            return self.told(self.client.list_tools())
        if message["method"] == "prompts/get":
            return self.told(self.client.get_prompt(params["name"]))
        return self.past.ask(text)

    def told(self, work):
        """What the SDK understood; `as_told` puts the answer of another end through the same types."""
        from mcp import MCPError

        try:
            result = self.run(work)
        except MCPError as refusal:
            return Told(f"error {json.dumps(canonical(refusal.error.model_dump(exclude_none=True)))}")
        told = Told(f"result {plain(result)}")
        told.kind = type(result)
        return told

    def delete(self):
        self.loop.call_soon_threadsafe(self.closing.set)
        self.living.result(wire.PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        return next(status for verb, _, status in reversed(self.seen) if verb == "DELETE")


class Told:
    def __init__(self, outcome):
        self.outcome, self.kind = outcome, None

    def as_told(self, outcome):
        what, _, text = outcome.partition(" ")
        if what == "result" and self.kind:
            return f"result {plain(self.kind.model_validate_json(text))}"
        return f"{what} {json.dumps(canonical(json.loads(text)))}"


def plain(result):
    return json.dumps(canonical(result.model_dump(mode="json", by_alias=True, exclude_none=True)), ensure_ascii=False)


def canonical(value):
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    return [canonical(item) for item in value] if isinstance(value, list) else value


# --------------------------------------------------------------------------------------------- processes


def serenas(bridge):
    """The Serenas of a bridge, by their place right below it; what they start is below them."""
    return {stat.pid for stat in wire.stats() if stat.parent == bridge.process.pid and stat.state != "Z"}


def memory(pids):
    """Proportional set size of processes, in MiB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
    return total / 1024


def now():
    return time.monotonic()
