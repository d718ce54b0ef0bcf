"""The ten servers: what each is asked once its Dockerfile has started it."""

import dataclasses
import os
import subprocess

REFUSED = object()  # the server itself says no; what it says is its business
CHROMIUM = os.access("/usr/bin/chromium", os.X_OK)


@dataclasses.dataclass
class Case:
    # (tool, arguments, what the answer contains); `{root}` is the folder that stands for the image's own /.
    calls: list
    # The same for a session that begins when the first one has ended: what outlives a session.
    later: list = dataclasses.field(default_factory=list)
    setup: object = None  # fills that folder
    respawns: bool = False  # a session outlives its process
    many: bool = False  # twenty sessions at once


def repository(root):
    repo = root / "repo"
    repo.mkdir()
    env = os.environ | {"HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{who}_NAME": "A", f"GIT_{who}_EMAIL": "a@example.com"}
    for command in ("init --quiet", "commit --quiet --allow-empty --message=snow"):
        subprocess.run(["git", *command.split()], cwd=repo, env=env, check=True, capture_output=True)


def data(root):
    (root / "data").mkdir()


def project(root):
    # Nothing that wants a language server.
    (root / "workspace" / "one").mkdir(parents=True)
    (root / "workspace" / "one" / "snow.txt").write_text("white\n")


SNOW = {"name": "snow", "entityType": "weather", "observations": ["it is white"]}

# The longest first.
CASES = {
    "serena": Case(
        [
            ("activate_project", {"project": "{root}/workspace/one", "session": "s"}, "activated"),
            ("list_dir", {"relative_path": ".", "recursive": False}, "snow.txt"),
        ],
        setup=project,
    ),
    # A name that never resolves, with a network or without.
    "fetch": Case([("fetch", {"url": "http://example.invalid/"}, REFUSED)], respawns=True, many=True),
    "github": Case([("search_repositories", {"query": "mcp"}, REFUSED)], respawns=True, many=True),
    "playwright": Case(
        [
            ("browser_navigate", {"url": "data:text/html,<h1>snow</h1>"}, "data:text/html" if CHROMIUM else REFUSED),
            ("browser_snapshot", {}, "snow" if CHROMIUM else REFUSED),
        ],
        # The browser of a session ends with it.
        later=[("browser_snapshot", {}, "about:blank" if CHROMIUM else REFUSED)],
    ),
    "filesystem": Case(
        [("write_file", {"path": "{root}/data/a", "content": "snow"}, "a")],
        later=[("read_text_file", {"path": "{root}/data/a"}, "snow")],
        setup=data,
    ),
    "git": Case([("git_log", {"repo_path": "{root}/repo"}, "snow")], setup=repository),
    "memory": Case(
        [("create_entities", {"entities": [SNOW]}, "it is white")],
        later=[("open_nodes", {"names": ["snow"]}, "it is white")],
        setup=data,
        respawns=True,
    ),
    "sqlite": Case(
        [
            ("create_table", {"query": "CREATE TABLE weather (what TEXT)"}, "success"),
            ("write_query", {"query": "INSERT INTO weather VALUES ('snow')"}, "1"),
        ],
        later=[("read_query", {"query": "SELECT what FROM weather"}, "snow")],
        setup=data,
    ),
    "time": Case(
        [("convert_time", {"source_timezone": "UTC", "time": "12:30", "target_timezone": "Asia/Kathmandu"}, "T18:15")],
        respawns=True,
    ),
    "everything": Case([("echo", {"message": "snow"}, "Echo: snow")]),
}
