"""Runs the claims: main.py BRIDGE_BINARY NOTEBOOK_BINARY WORK_FOLDER [WORD…]."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

import kubernetes_validate
import yaml
from blocks import ROOT, block, blocks

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "entrypoints"))
from dockerfile import Image

BRIDGE, NOTEBOOK, WORK = (pathlib.Path(word) for word in sys.argv[1:4])
FRONT, EXAMPLES, GATEWAYS, DOCKER = "README.md", "examples/README.md", "examples/gateways.md", "docker/README.md"
ADDRESS = "127.0.0.1:8080"  # what the documents have where a bridge is asked
PATIENCE = 60  # seconds; the agents take one or two for a command
TOKEN = secrets.token_urlsafe(24)

CLAIMS = []


def claim(sentence):
    return lambda test: CLAIMS.append((sentence, test))


def same(seen, expected, what):
    if seen != expected:
        raise AssertionError(f"{what}: {seen!r}, not {expected!r}")


def holds(condition, seen):
    if not condition:
        raise AssertionError(str(seen))


# ---------------------------------------------------------------------------------------------- what runs


class Home:
    """An empty home and an empty project. The programs of the documents are on its PATH, the agents keep to it."""

    def __init__(self, folder, **variables):
        self.project = folder / "project"
        programs = folder / "bin"
        for place in [self.project, programs]:
            place.mkdir()
        (programs / "mcp-bridge").symlink_to(BRIDGE)
        # npx takes what is installed in the project before it asks a registry.
        (self.project / "node_modules").symlink_to(WORK / "node" / "node_modules")
        path = [str(programs), str(WORK / "node/node_modules/.bin"), str(WORK / "python/bin"), os.environ["PATH"]]
        kept = {name: value for name, value in os.environ.items() if "proxy" in name.lower() or name.startswith("npm_")}
        self.folder = folder
        self.env = kept | {"HOME": str(folder), "PATH": ":".join(path), "DISABLE_TELEMETRY": "1"} | variables

    def shell(self, text):
        return ["bash", "--norc", "-euo", "pipefail", "-c", text]

    def run(self, text, code=0, **variables):
        """What it prints on stdout. No command of the documents asks anything."""
        done = subprocess.run(
            self.shell(text),
            cwd=self.project,
            env=self.env | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        same(done.returncode, code, f"exit code of {text!r}, which says {done.stdout + done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def bridge(self, command, **variables):
        """The address of the bridge that this command starts, on a port of its own."""
        log = self.folder / "bridge.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                self.shell(f"exec {command}"),
                cwd=self.project,
                env=self.env | {"MCP_BRIDGE_LISTEN": "127.0.0.1:0"} | variables,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            deadline = time.monotonic() + PATIENCE
            while not (found := re.search(r"http://(127\.0\.0\.1:\d+)/mcp", log.read_text())):
                holds(process.poll() is None and time.monotonic() < deadline, f"no start: {log.read_text()}")
                time.sleep(0.05)
            yield found[1]
        except Exception as error:
            error.add_note(f"log of the bridge: {log.read_text()}")
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        same(process.returncode, 0, "exit code of the bridge")

    def notebook(self, token=None):
        options = ""
        if token:
            (self.folder / "token").write_text(f"{token}\n")
            options = f"--token-file {self.folder}/token"
        return self.bridge(f"mcp-bridge {options} -- {shlex.quote(str(NOTEBOOK))}")


@contextlib.contextmanager
def home(**variables):
    with tempfile.TemporaryDirectory(prefix="documents-") as folder:
        yield Home(pathlib.Path(folder), **variables)


def at(address, text):
    """The text with the address of this bridge."""
    holds(ADDRESS in text, f"no {ADDRESS} in {text!r}")
    return text.replace(ADDRESS, address)


def in_table(client, column):
    """What stands between backticks in this client's row of the front page."""
    rows = [line for line in (ROOT / FRONT).read_text().splitlines() if line.startswith(f"| {client} |")]
    same(len(rows), 1, f"rows of {client}")
    return rows[0].split(" | ")[column].split("`")[1]


def tools(text):
    return {tool["name"] for tool in json.loads(text)["tools"]}


# ---------------------------------------------------------------------------------------------- the front page


@claim("front page: the everything server behind the bridge, and its tools in the inspector")
def _():
    with home() as here, here.bridge(block(FRONT, "mcp-bridge -- npx")) as address:
        listed = tools(here.run(at(address, block(FRONT, "npx -y @modelcontextprotocol/inspector"))))
        holds({"echo", "get-sum"} <= listed, listed)


@claim("front page: the image's file is complete, and its entrypoint serves what it installs")
def _():
    with home() as here:
        file = here.folder / "Dockerfile"
        file.write_text(block(FRONT, "FROM python"))
        image = Image(file)
        holds(image.copies_bridge and image.user == "65532:65532", vars(image))
        same([name for _, name in image.packages], [image.command[0]], "what is installed and what is run")
        with here.bridge(shlex.join(image.entrypoint)) as address:
            health = shlex.join(image.healthcheck)
            here.run(health, MCP_BRIDGE_LISTEN=address)
            listed = here.run(at(address, block(EXAMPLES, "npx -y @modelcontextprotocol/inspector")))
            holds("get_current_time" in tools(listed), listed)
        here.run(health, code=1, MCP_BRIDGE_LISTEN=address)


# ---------------------------------------------------------------------------------------------- clients


def claude_connects(here, **variables):
    listed = here.run("claude mcp list", **variables)
    lines = [line for line in listed.splitlines() if line.startswith("notebook: ")]
    same(len(lines), 1, f"lines of notebook in {listed!r}")
    return "Connected" in lines[0] and "Failed" not in lines[0]


@claim("Claude Code: the commands of the examples connect with the token, and not with another one")
def _():
    with home(MCP_TOKEN=TOKEN) as here, here.notebook(TOKEN) as address:
        said = here.run(at(address, block(EXAMPLES, "claude mcp add")))
        holds("Connected" in said and TOKEN not in (here.folder / ".claude.json").read_text(), said)
        holds(claude_connects(here), "not connected")
        holds(not claude_connects(here, MCP_TOKEN="a" * 24), "connected with another token")


@claim("Claude Code: the front page's row, with and without a token")
def _():
    command = in_table("Claude Code", 1).replace("NAME", "notebook")
    with home() as here, here.notebook() as address:
        here.run(command.replace("URL", f"http://{address}/mcp"))
        holds(claude_connects(here), "not connected")
    with home(MCP_TOKEN=TOKEN) as here, here.notebook(TOKEN) as address:
        here.run(f"{command.replace('URL', f'http://{address}/mcp')} {in_table('Claude Code', 2)}")
        holds(claude_connects(here), "not connected with a token")


def codex_sees(here):
    """The server and its tools, as Codex sees them when it connects; `mcp list` does not."""
    started = subprocess.Popen(
        ["codex", "app-server"],
        cwd=here.project,
        env=here.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    watchdog = threading.Timer(PATIENCE, started.kill)
    watchdog.start()
    try:
        hello = {"clientInfo": {"name": "documents", "version": "0"}}
        for message in [
            {"id": 0, "method": "initialize", "params": hello},
            {"method": "initialized"},
            {"id": 1, "method": "mcpServerStatus/list", "params": {}},
        ]:
            started.stdin.write(json.dumps(message) + "\n")
        started.stdin.flush()
        for line in started.stdout:
            answer = json.loads(line)
            if answer.get("id") == 1:
                servers = {server["name"]: server for server in answer["result"]["data"]}
                return servers["notebook"]
        raise AssertionError("codex app-server ended without an answer")
    finally:
        watchdog.cancel()
        started.kill()
        started.wait()


@claim("Codex: the command of the examples writes what they show, and connects with the token only")
def _():
    with home(MCP_TOKEN=TOKEN) as here, here.notebook(TOKEN) as address:
        here.run(at(address, block(EXAMPLES, "codex mcp add")))
        written = tomllib.loads((here.folder / ".codex/config.toml").read_text())
        shown = tomllib.loads(at(address, block(EXAMPLES, "[mcp_servers.notebook]")))
        same(written["mcp_servers"], shown["mcp_servers"], "config.toml")
        holds("add_note" in codex_sees(here)["tools"], "no tools")
        here.env["MCP_TOKEN"] = "a" * 24
        same(codex_sees(here)["tools"], {}, "tools with another token")


@claim("Codex: the front page's row, without and with a token")
def _():
    command = in_table("Codex", 1).replace("NAME", "notebook")
    with home() as here, here.notebook() as address:
        here.run(command.replace("URL", f"http://{address}/mcp"))
        holds("add_note" in codex_sees(here)["tools"], "no tools")
    with home(MCP_TOKEN=TOKEN) as here, here.notebook(TOKEN) as address:
        here.run(f"{command.replace('URL', f'http://{address}/mcp')} {in_table('Codex', 2)}")
        holds("add_note" in codex_sees(here)["tools"], "no tools with a token")


@claim("inspector: lists the tools, with a token too")
def _():
    command = block(EXAMPLES, "npx -y @modelcontextprotocol/inspector").strip()
    with home() as here, here.notebook() as address:
        holds("add_note" in tools(here.run(at(address, command))), "no tools")
    token = '--header "Authorization: Bearer $MCP_TOKEN"'
    holds(f"`{token}`" in (ROOT / EXAMPLES).read_text(), "the examples say how it sends a token")
    with home(MCP_TOKEN=TOKEN) as here, here.notebook(TOKEN) as address:
        holds("add_note" in tools(here.run(f"{at(address, command)} {token}")), "no tools with a token")
        here.run(at(address, command), code=3)  # it says auth_required


@claim("Python: the script lists the tools")
def _():
    with home(MCP_TOKEN=TOKEN) as here, here.notebook(TOKEN) as address:
        (here.project / "client.py").write_text(at(address, block(EXAMPLES, "import asyncio")))
        holds("'add_note'" in here.run("python client.py"), "no tools")


@claim("a page's script lists the tools, without and with a token")
def _():
    script = block(EXAMPLES, "const token")
    with home() as here, here.notebook() as address:
        (here.project / "page.mjs").write_text(at(address, script))
        holds("tools: [" in here.run("node page.mjs"), "no tools")
    with home() as here, here.notebook(TOKEN) as address:
        holds("const token = undefined;" in script, "the place for the token")
        script = script.replace("const token = undefined;", f"const token = {json.dumps(TOKEN)};")
        (here.project / "page.mjs").write_text(at(address, script))
        holds("tools: [" in here.run("node page.mjs"), "no tools with a token")


# ---------------------------------------------------------------------------------------------- files


def valid(manifest):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@claim("each YAML and each TOML is one")
def _():
    count = 0
    for document in [FRONT, EXAMPLES, GATEWAYS, DOCKER, "src/README.md", "tests/README.md", ".github/SECURITY.md"]:
        for language, text in blocks(document):
            if language == "yaml":
                count += len([part for part in yaml.safe_load_all(text) if part])
            elif language == "toml":
                count += len(tomllib.loads(text))
    holds(count >= 6, f"{count} were found")


@claim("docker/kubernetes.yaml is what Kubernetes takes, and so is a pod with the init container of docker/README.md")
def _():
    manifests = [part for part in yaml.safe_load_all((ROOT / "docker/kubernetes.yaml").read_text()) if part]
    same({"Deployment", "Service"} - {manifest["kind"] for manifest in manifests}, set(), "kinds that are missing")
    for manifest in manifests:
        valid(manifest)
    spec = yaml.safe_load(block("docker/README.md", "initContainers:"))
    valid({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server"}, "spec": spec})
    with home() as here:
        # The same two commands, with a folder in the place of the volume.
        volume = here.folder / "volume"
        volume.mkdir()
        mount = spec["initContainers"][0]["volumeMounts"][0]["mountPath"]
        here.run(shlex.join(["mcp-bridge", *(word.replace(mount, str(volume)) for word in spec["initContainers"][0]["args"])]))
        words = [word.replace(mount, str(volume)) for word in spec["containers"][0]["command"]]
        same(words[-2:], ["--", "some-mcp-server"], "the server of the pod")
        with here.bridge(shlex.join([*words[:-1], str(NOTEBOOK)])) as address:
            listed = here.run(at(address, block(EXAMPLES, "npx -y @modelcontextprotocol/inspector")))
            holds("add_note" in tools(listed), listed)


@claim("each gateway's file leads to the bridge")
def _():
    url = "http://mcp-bridge:8080/mcp"
    same(tomllib.loads(block("examples/gateways.md", "[servers.notebook]"))["servers"]["notebook"]["url"], url, "gh-aw")
    catalog = yaml.safe_load(block("examples/gateways.md", "registry:"))["registry"]["notebook"]["remote"]
    same([catalog["transport_type"], catalog["url"][-4:]], ["http", "/mcp"], "docker's catalog")
    local = yaml.safe_load(block("examples/gateways.md", "config:"))
    same(local["mcp"]["targets"][0]["mcp"]["host"], url, "agentgateway")
    backend = yaml.safe_load(block("examples/gateways.md", "apiVersion: agentgateway.dev"))
    static = backend["spec"]["mcp"]["targets"][0]["static"]
    same([static["port"], static["path"], static["protocol"]], [8080, "/mcp", "StreamableHTTP"], "agentgateway's backend")
    workload = yaml.safe_load(block("examples/gateways.md", "apiVersion: toolhive"))["spec"]
    same([workload["transport"], workload["mcpPort"]], ["streamable-http", 8080], "toolhive")


# ---------------------------------------------------------------------------------------------- the verdict


def main():
    wanted = [(sentence, test) for sentence, test in CLAIMS if not sys.argv[4:] or any(word in sentence for word in sys.argv[4:])]
    failed = 0
    for sentence, test in wanted:
        try:
            test()
            print("ok", sentence, flush=True)
        except Exception as error:
            failed += 1
            notes = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
            print(f"FAIL {sentence}: {notes}", flush=True)
    print(f"{len(wanted) - failed} passed, {failed} failed")
    return 1 if failed or not wanted else 0


sys.exit(main())
