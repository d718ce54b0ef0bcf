"""The servers: how each is started, what is asked of it, and which parts of its answers change from run to run."""

import dataclasses
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading

from wire import Bridge, call_params

UNICODE = "naïve ☃ 日本語 𝄞 \u2028 \u0007 \\ \" </script> é"
MEGABYTE = "0123456789abcdef" * 65536

TAGS = ("alpha", "omega")  # what the two sessions of a claim remember

HERE = pathlib.Path(__file__).resolve().parent
WORK = HERE.parent / ".work" / "servers"


def tool(name, /, **arguments):
    return "tools/call", call_params(name, arguments)


@dataclasses.dataclass
class Server:
    name: str
    sdk: str
    group: str  # of pins/, or None
    argv: list
    calls: list = dataclasses.field(default_factory=list)  # (method, params) of the recorded script
    # One call per number, and what only its answer contains.
    probe: object = None
    env: dict = dataclasses.field(default_factory=dict)
    setup: object = None  # fills the folder before each start
    version: str = "2025-11-25"  # what the client asks for
    capabilities: dict = dataclasses.field(default_factory=dict)
    answers: dict = dataclasses.field(default_factory=dict)  # to the server's own requests
    masks: list = dataclasses.field(default_factory=list)  # (regex, replacement, reason)
    remember: object = None  # tag -> a call that leaves the tag in the session's memory
    recall: object = None  # the call whose answer contains the tags
    roots: bool = False  # its memory is what each client says of its roots: file://{here}/TAG
    strict: bool = False  # also claims about sessions that the bridge opens or reopens by itself
    folder: pathlib.Path = None  # these three are set by `prepare`
    command: list = None
    logs: pathlib.Path = None

    def prepare(self):
        """An empty folder of its own, the same path each time, so that answers with paths are equal."""
        self.folder = WORK / "run" / self.name
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "home").mkdir(parents=True)
        self.logs = WORK / "logs"
        self.logs.mkdir(exist_ok=True)
        if self.setup:
            self.setup(self.folder)
        here = str(self.folder)
        self.command = [part.replace("{here}", here) for part in self.argv]

    def log(self, label):
        return self.logs / f"{self.name}.{label}.log"

    def environment(self, mark):
        env = {key: value for key, value in os.environ.items() if not key.startswith("MCP_BRIDGE_")}
        env |= {"HOME": str(self.folder / "home"), "TZ": "UTC", "NO_PROXY": "127.0.0.1", "DO_NOT_TRACK": "1", "SERENA_USAGE_REPORTING": "false"}
        env |= {key: value.replace("{here}", str(self.folder)) for key, value in self.env.items()}
        return env | {Bridge.MARK: mark}

    def spied(self):
        """The command with a copy of all that it reads in `stdin.PID`; the server keeps the pid the bridge knows."""
        script = 'log=$1; shift; exec "$@" < <(exec tee -- "$log.$$")'
        return ["bash", "-c", script, "spy", str(self.folder / "stdin"), *self.command]

    def masked(self, text):
        # In event streams these are escaped, because widespread readers take them for the end of a line: within a JSON
        # string it is the same character.
        for char in "\u2028\u2029\x85":
            text = text.replace(char, f"\\u{ord(char):04x}")
        for pattern, replacement, _ in self.masks:
            text = re.sub(pattern, replacement, text)
        return text


# --------------------------------------------------------------------------------------------- fixtures


def fifty_files(folder):
    data = folder / "data"
    (data / "deep" / "er").mkdir(parents=True)
    for i in range(50):
        (data / f"{i}.txt").write_text(f"content of file <{i}>\n")
    (data / "ünïcode ☃.txt").write_text(UNICODE)
    (data / "big.txt").write_text(MEGABYTE)
    (data / "deep" / "er" / "leaf.md").write_text("# leaf\n")
    for path in [*data.rglob("*"), data]:
        os.utime(path, (1_700_000_000, 1_700_000_000))
    for tag in TAGS:
        (folder / tag).mkdir()


def fifty_entities(folder):
    with open(folder / "memory.jsonl", "w") as file:
        for i in range(50):
            json.dump({"type": "entity", "name": f"entity-{i}", "entityType": "number", "observations": [f"is <{i}>"]}, file)
            file.write("\n")


def repository(folder):
    repo = folder / "repo"
    repo.mkdir()
    env = os.environ | {"HOME": str(folder / "home"), "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{who}_NAME": "A", f"GIT_{who}_EMAIL": "a@example.com", f"GIT_{who}_DATE": "1700000000 +0000"}

    def git(*args):
        subprocess.run(["git", *args], cwd=repo, env=env, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    for i, text in enumerate(["one\n", "two\n", UNICODE, "x" * 200_000]):
        (repo / "file.txt").write_text(text)
        git("add", "file.txt")
        git("commit", "--quiet", "--message", f"commit {i} ☃")
    (repo / "file.txt").write_text("changed\n")


def kubeconfig(folder):
    (folder / "kubeconfig").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )


def moon_workspace(folder):
    (folder / ".moon").mkdir()
    (folder / ".moon" / "workspace.yml").write_text("projects: ['app']\n")
    (folder / "app").mkdir()
    (folder / "app" / "moon.yml").write_text("language: 'bash'\n")


def pdf_file(folder):
    """One page with nothing on it, and a megabyte that no reader looks at, for answers of some size."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(MEGABYTE), MEGABYTE.encode()),
    ]
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"xref\n0 5\n0000000000 65535 f \n%strailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (table, len(data))
    (folder / "paper.pdf").write_bytes(data)


class Site(http.server.BaseHTTPRequestHandler):
    """What the fetch server fetches: pages of this process, on loopback."""

    def do_GET(self):
        if self.path.startswith("/page/"):
            body = f"<html><body><h1>Page {self.path}</h1><p>{UNICODE}</p></body></html>"
        elif self.path == "/big":
            body = MEGABYTE
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def absent(i):
    """For servers whose tools need a world that is not here: the refusal of an unknown tool names the tool."""
    return (*tool(f"absent-{i}-tool"), f"absent-{i}-tool")


# --------------------------------------------------------------------------------------------- the fleet


def fleet(notebook):
    npm = str(WORK / "npm" / "node_modules" / ".bin") + "/"
    py2 = str(WORK / "python-sdk-2" / "bin") + "/"
    py1 = str(WORK / "python-sdk-1" / "bin") + "/"
    fastmcp = str(WORK / "fastmcp" / "bin") + "/"
    serena = str(WORK / "serena" / "bin") + "/"
    pages = site()

    servers = [
        Server(
            "everything",
            "TypeScript 1.32",
            "npm",
            [npm + "mcp-server-everything"],
            calls=[
                tool("echo", message=UNICODE),
                tool("echo", message=MEGABYTE),
                tool("echo"),
                tool("get-sum", a=0.1, b=0.2),
                tool("get-sum", a="one", b=2),
                tool("get-tiny-image"),
                tool("get-annotated-message", messageType="error", includeImage=True),
                tool("get-structured-content", location="Chicago"),
                tool("get-resource-links", count=3),
                tool("get-roots-list"),
                ("resources/read", {"uri": "demo://resource/static/document/architecture.md"}),
                ("resources/read", {"uri": "demo://resource/dynamic/text/7"}),
                ("resources/subscribe", {"uri": "demo://resource/dynamic/text/7"}),
                ("resources/unsubscribe", {"uri": "demo://resource/dynamic/text/7"}),
                ("prompts/get", {"name": "args-prompt", "arguments": {"city": "Zürich"}}),
                ("prompts/get", {"name": "no-such-prompt"}),
                ("completion/complete", {
                    "ref": {"type": "ref/prompt", "name": "completable-prompt"},
                    "argument": {"name": "department", "value": "E"},
                }),
                ("tools/call", call_params("trigger-long-running-operation", {"duration": 0.6, "steps": 3}, {"progressToken": "tök"})),
                ("tools/call", call_params("trigger-long-running-operation", {"duration": 0.1, "steps": 2}, {"progressToken": 0})),
                tool("trigger-sampling-request", prompt=UNICODE, maxTokens=10),
                tool("trigger-elicitation-request"),
            ],
            probe=lambda i: (*tool("echo", message=f"<{i}>"), f"Echo: <{i}>"),
            capabilities={"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}},
            answers={
                "roots/list": {"roots": [{"uri": "file:///one", "name": "eins ☃"}]},
                "sampling/createMessage": {"model": "m", "role": "assistant", "content": {"type": "text", "text": "☃"}},
                "elicitation/create": {"action": "accept", "content": {"name": "Zoë", "integer": 7}},
            },
            masks=[
                (r"Resource 7: This is a plaintext resource created at [^\"\\]*", "Resource 7", "says the time"),
            ],
            remember=lambda tag: tool("gzip-file-as-resource", name=tag, data="data:text/plain,x", outputType="resourceLink"),
            recall=("resources/list", {}),
        ),
        Server(
            "filesystem",
            "TypeScript 1.32",
            "npm",
            [npm + "mcp-server-filesystem", "{here}/data"],
            setup=fifty_files,
            version="2025-06-18",
            calls=[
                tool("list_allowed_directories"),
                tool("list_directory", path="{here}/data"),
                tool("directory_tree", path="{here}/data"),
                tool("read_text_file", path="{here}/data/ünïcode ☃.txt"),
                tool("read_text_file", path="{here}/data/big.txt"),
                tool("read_text_file", path="{here}/data/absent.txt"),
                tool("read_text_file", path="/etc/hostname"),
                tool("read_media_file", path="{here}/data/7.txt"),
                tool("write_file", path="{here}/data/new ☃.txt", content=MEGABYTE + UNICODE),
                tool("get_file_info", path="{here}/data/7.txt"),
                tool("edit_file", path="{here}/data/7.txt", edits=[{"oldText": "content", "newText": "inhalt ☃"}]),
                tool("search_files", path="{here}/data", pattern="**/*.md"),
                tool("write_file", path="{here}/data/new.txt"),
            ],
            probe=lambda i: (*tool("read_text_file", path=f"{{here}}/data/{i}.txt"), f" of file <{i}>"),
            masks=[(r"(created|accessed|modified): [^\\\"]*", r"\1", "the fixture is made anew for each side")],
            roots=True,
            recall=tool("list_allowed_directories"),
        ),
        Server(
            "memory",
            "TypeScript 1.32",
            "npm",
            [npm + "mcp-server-memory"],
            env={"MEMORY_FILE_PATH": "{here}/memory.jsonl"},
            setup=fifty_entities,
            version="2025-03-26",
            calls=[
                tool("create_entities", entities=[{"name": "ü ☃", "entityType": "t", "observations": [UNICODE]}]),
                tool("add_observations", observations=[{"entityName": "entity-7", "contents": [MEGABYTE]}]),
                tool("create_relations", relations=[{"from": "ü ☃", "to": "entity-7", "relationType": "☃"}]),
                tool("open_nodes", names=["ü ☃"]),
                tool("read_graph"),
                tool("add_observations", observations=[{"entityName": "absent", "contents": []}]),
                tool("create_entities", entities="none"),
                ("resources/read", {"uri": "memory://knowledge-graph"}),
                ("resources/subscribe", {"uri": "memory://knowledge-graph"}),
                tool("delete_entities", entityNames=["ü ☃"]),
            ],
            probe=lambda i: (*tool("open_nodes", names=[f"entity-{i}"]), f"is <{i}>"),
        ),
        Server(
            "thinking",
            "TypeScript 1.32",
            "npm",
            [npm + "mcp-server-sequential-thinking"],
            env={"DISABLE_THOUGHT_LOGGING": "true"},
            version="2024-11-05",
            calls=[
                tool("sequentialthinking", thought=UNICODE, nextThoughtNeeded=True, thoughtNumber=1, totalThoughts=3),
                tool("sequentialthinking", thought=MEGABYTE, nextThoughtNeeded=True, thoughtNumber=2, totalThoughts=3),
                tool("sequentialthinking", thought="x", nextThoughtNeeded="maybe", thoughtNumber=-3, totalThoughts=3),
                tool("sequentialthinking", thought="x", nextThoughtNeeded=False, thoughtNumber=3, totalThoughts=3),
            ],
            probe=lambda i: (
                *tool("sequentialthinking", thought="x", nextThoughtNeeded=True, thoughtNumber=i + 1, totalThoughts=99),
                f'"thoughtNumber": {i + 1},',
            ),
            remember=lambda tag: tool("sequentialthinking", thought="x", nextThoughtNeeded=True, thoughtNumber=1,
                                      totalThoughts=1, branchFromThought=1, branchId=tag),
            recall=tool("sequentialthinking", thought="x", nextThoughtNeeded=True, thoughtNumber=1, totalThoughts=1),
        ),
        Server(
            "pdf",
            "TypeScript 2.0",
            "npm",
            [npm + "mcp-pdf-server", "--stdio", "{here}/paper.pdf"],
            setup=pdf_file,
            calls=[
                tool("list_pdfs"),
                tool("read_pdf_bytes", url="file://{here}/paper.pdf", offset=0, byteCount=524288),
                tool("read_pdf_bytes", url="file:///etc/hostname"),
                tool("read_pdf_bytes"),
                tool("interact", viewUUID="ü ☃", action="navigate", page=1),
                ("resources/read", {"uri": "ui://pdf-viewer/mcp-app.html"}),
                ("resources/read", {"uri": "ui://absent"}),
            ],
            probe=absent,
        ),
        Server(
            "kubernetes",
            "Go, started by a Node wrapper",
            "npm",
            [npm + "kubernetes-mcp-server", "--kubeconfig", "{here}/kubeconfig"],
            setup=kubeconfig,
            calls=[
                tool("configuration_view", minified=False),
                tool("namespaces_list"),
                tool("pods_get", name="ü ☃", namespace="x"),
                tool("pods_get", name=7),
                tool("resources_create_or_update", resource="☃" * 100_000),
                ("prompts/get", {"name": "no-such-prompt"}),
            ],
            strict=True,
            probe=absent,
        ),
        Server(
            "grafana",
            "Go",
            "python-sdk-2",
            [py2 + "mcp-grafana"],
            env={"GRAFANA_URL": "http://127.0.0.1:1"},
            version="2025-06-18",
            calls=[
                tool("generate_deeplink", resourceType="dashboard", dashboardUid="ü ☃&<>", queryParams={"a": "b c"}),
                tool("generate_deeplink", resourceType="nonsense"),
                tool("generate_deeplink", resourceType="dashboard", dashboardUid=MEGABYTE),
                tool("generate_deeplink", dashboardUid=7),
                tool("search_dashboards", query="☃"),
                ("resources/templates/list", {}),
            ],
            strict=True,
            probe=lambda i: (*tool("generate_deeplink", resourceType="dashboard", dashboardUid=f"uid-{i}-x"), f"/uid-{i}-x"),
            masks=[(r"0x[0-9a-f]+", "ADDRESS", "an error message prints a pointer")],
        ),
        Server(
            "git",
            "Python 2.3 low-level",
            "python-sdk-2",
            [py2 + "mcp-server-git", "--repository", "{here}/repo"],
            setup=repository,
            version="2025-06-18",
            calls=[
                tool("git_status", repo_path="{here}/repo"),
                tool("git_log", repo_path="{here}/repo", max_count=3),
                tool("git_show", repo_path="{here}/repo", revision="HEAD~1"),
                tool("git_show", repo_path="{here}/repo", revision="HEAD"),
                tool("git_diff_unstaged", repo_path="{here}/repo"),
                tool("git_branch", repo_path="{here}/repo", branch_type="local"),
                tool("git_show", repo_path="{here}/repo", revision="ü ☃"),
                tool("git_status", repo_path="/etc"),
                tool("git_status"),
            ],
            strict=True,
            probe=absent,
        ),
        Server(
            "time",
            "Python 2.3 low-level",
            "python-sdk-2",
            [py2 + "mcp-server-time", "--local-timezone", "UTC"],
            version="2025-03-26",
            calls=[
                tool("convert_time", source_timezone="UTC", time="12:30", target_timezone="Asia/Kathmandu"),
                tool("convert_time", source_timezone="Mars/☃", time="12:30", target_timezone="UTC"),
                tool("convert_time", source_timezone="UTC", time="25:00", target_timezone="UTC"),
                tool("get_current_time", timezone="UTC"),
                tool("get_current_time", timezone=MEGABYTE),
                tool("get_current_time"),
            ],
            probe=lambda i: (*tool("convert_time", source_timezone="UTC", time=f"00:{i:02}", target_timezone="UTC"), f"T00:{i:02}:00"),
            masks=[(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "TIME", "it is what the server is for")],
        ),
        Server(
            "fetch",
            "Python 2.3 low-level",
            "python-sdk-2",
            [py2 + "mcp-server-fetch", "--allow-private-ips"],
            calls=[
                tool("fetch", url=f"{pages}/page/1"),
                tool("fetch", url=f"{pages}/page/ü☃", raw=True),
                tool("fetch", url=f"{pages}/big", raw=True, max_length=900_000),
                tool("fetch", url=f"{pages}/absent"),
                tool("fetch", url="http://127.0.0.1:1/"),
                tool("fetch", url="nonsense"),
                ("prompts/get", {"name": "fetch", "arguments": {"url": f"{pages}/page/2"}}),
                ("prompts/get", {"name": "fetch", "arguments": {}}),
            ],
            probe=absent,  # a fetch costs it a tenth of a second of processor time: 150 at once are a test of that
        ),
        Server(
            "excel",
            "Python 2.3 MCPServer",
            "python-sdk-2",
            [py2 + "excel-mcp-server", "stdio", "--allow-dir", "{here}"],
            calls=[
                tool("create_workbook", path="{here}/a ☃.xlsx", sheets=["S"]),
                tool("write_range", path="{here}/a ☃.xlsx", sheet="S", at="A1", rows=[[1, 2.5, "ü ☃"], [True, None, "=A1+B1"]]),
                tool("write_range", path="{here}/a ☃.xlsx", sheet="S", at="A3", rows=[["x" * 30_000]] * 20),
                tool("read_range", path="{here}/a ☃.xlsx", sheet="S"),
                tool("describe_workbook", path="{here}/a ☃.xlsx"),
                tool("read_range", path="{here}/absent.xlsx", sheet="S"),
                tool("read_range", path=7),
            ],
            probe=absent,
        ),
        Server(
            "sqlite",
            "Python 1.30 low-level",
            "python-sdk-1",
            [py1 + "mcp-server-sqlite", "--db-path", "{here}/t.db"],
            version="2024-11-05",
            calls=[
                tool("create_table", query="CREATE TABLE t (n INTEGER, s TEXT)"),
                tool("write_query", query="INSERT INTO t VALUES (1, 'naïve ☃ 𝄞'), (9007199254740993, 'x')"),
                tool("read_query", query="SELECT * FROM t"),
                tool("read_query", query=f"SELECT '{MEGABYTE}' AS big"),
                tool("read_query", query="DELETE FROM t"),
                tool("read_query", query="nonsense"),
                tool("describe_table", table_name="t"),
                tool("append_insight", insight=UNICODE),
                ("resources/read", {"uri": "memo://insights"}),
                ("prompts/get", {"name": "mcp-demo", "arguments": {"topic": "Schnee ☃"}}),
            ],
            probe=lambda i: (*tool("read_query", query=f"SELECT {i} * 1000 + 7 AS n"), f"'n': {i * 1000 + 7}}}"),
            # The tables are in a file that both sessions share; the insights are in memory.
            remember=lambda tag: tool("append_insight", insight=tag),
            recall=("resources/read", {"uri": "memo://insights"}),
        ),
        Server(
            "motherduck",
            "FastMCP 4",
            "fastmcp",
            [fastmcp + "mcp-server-motherduck", "--db-path", ":memory:", "--read-write"],
            calls=[
                tool("execute_query", sql="SELECT 'naïve ☃ 𝄞' AS s, 0.1::DOUBLE AS f, 9007199254740993 AS n"),
                tool("execute_query", sql="SELECT repeat('x', 40000) AS big"),
                tool("execute_query", sql="nonsense"),
                tool("execute_query", sql=7),
                tool("execute_query", sql=f"SELECT length('{MEGABYTE}') AS n"),
                tool("list_databases"),
            ],
            # Not with queries: of many at once on one connection it answers some with no rows, over plain stdio too.
            probe=absent,
            remember=lambda tag: tool("execute_query", sql=f"CREATE TABLE {tag} (n INTEGER)"),
            recall=tool("list_tables"),
        ),
        Server(
            "serena",
            "Python 2.2 MCPServer",
            "serena",
            [serena + "serena", "start-mcp-server", "--enable-web-dashboard", "false", "--enable-gui-log-window", "false"],
            version="2025-06-18",
            calls=[
                tool("initial_instructions"),
                tool("serena_repl", session="ü ☃", code="print(6 * 7)"),
                tool("serena_repl", session="s", code=7),
                tool("activate_project", project="{here}/absent", session="s"),
            ],
            probe=absent,
            masks=[(r"session id is `[0-9a-f]{8}`", "session id is `ID`", "random")],
        ),
        Server(
            "nushell",
            "Rust, rmcp",
            "npm",
            [npm + "nu", "--mcp"],
            calls=[
                tool("evaluate", input="6 * 7"),
                tool("evaluate", input=f"'{UNICODE[:12]}' | str length --grapheme-clusters"),
                tool("evaluate", input="'x' | fill --width 5000 --character 'ü☃'"),
                tool("evaluate", input="nonsense-command"),
                tool("evaluate", input="let x = ("),
                tool("evaluate"),
                tool("command_help", name="str length"),
                tool("list_commands", find="str"),
            ],
            strict=True,
            probe=lambda i: (*tool("evaluate", input=f"{i} * 1000 + 7"), f"output:{i * 1000 + 7}}}"),
            masks=[(r"timestamp(\\?\"?):(\\?\"?)[-+.:T0-9]+", r"timestamp\1:\2TIME", "when the command ran")],
            remember=lambda tag: tool("evaluate", input=f"$env.MEMORY_{tag} = '{tag}'"),
            recall=tool("evaluate", input="$env | columns | where $it starts-with MEMORY_ | to text"),
        ),
        Server(
            "moon",
            "Rust, rust-mcp-sdk",
            "npm",
            [npm + "moon", "mcp"],
            env={"MOON_WORKSPACE_ROOT": "{here}"},
            setup=moon_workspace,
            calls=[
                tool("get_projects"),
                tool("get_project", id="app"),
                tool("get_project", id="ü ☃"),
                tool("get_project"),
                tool("get_tasks"),
            ],
            probe=lambda i: (*tool("get_project", id=f"absent-{i}-x"), f"absent-{i}-x"),
        ),
        Server(
            "azure",
            "C# 1.x",
            "npm",
            [npm + "azmcp-linux-x64", "server", "start"],
            env={"AZURE_MCP_COLLECT_TELEMETRY": "false"},
            calls=[
                tool("get_azure_bestpractices", intent="ü ☃", learn=True),
                tool("bicepschema", intent="x", learn=True),
                tool("get_azure_bestpractices"),
                tool("get_azure_bestpractices", intent=MEGABYTE, command="nonsense"),
            ],
            probe=absent,
        ),
        Server(
            "notebook",
            "none: our own example",
            None,
            [notebook],
            capabilities={"roots": {}, "sampling": {}, "elicitation": {}},
            answers={
                "roots/list": {"roots": [{"uri": "file:///one", "name": "eins ☃"}]},
                "sampling/createMessage": {"model": "m", "role": "assistant", "content": {"type": "text", "text": "☃"}},
                "elicitation/create": {"action": "accept", "content": {}},
            },
            calls=[
                tool("echo", text=UNICODE),
                tool("echo", text=MEGABYTE),
                tool("echo"),
                tool("add_note", title="ü ☃", text=UNICODE),
                tool("list_notes"),
                tool("read_note", title="ü ☃"),
                tool("read_note", title="absent"),
                tool("list_roots"),
                tool("summarize"),
                tool("confirm_clear"),
                tool("log", level="error", message="ü ☃"),
                ("tools/call", call_params("count", {"to": 3, "ms": 20}, {"progressToken": "tök"})),
            ],
            strict=True,
            probe=lambda i: (*tool("echo", text=f"<{i}>"), f"<{i}>"),
            remember=lambda tag: tool("add_note", title=tag, text="x"),
            recall=tool("list_notes"),
        ),
    ]
    for server in servers:
        server.masks.append((rf"({Bridge.MARK}[\\\":=\s]*)[0-9a-f]{{32}}", r"\1MARK", "the mark differs from start to start"))
    return {server.name: server for server in servers}
