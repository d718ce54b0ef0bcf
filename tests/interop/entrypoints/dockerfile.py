"""What the Dockerfiles of `examples/` say, so that what is tested is what users copy."""

import json
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[3]
INSTRUCTIONS = "ARG COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK RUN STOPSIGNAL USER VOLUME WORKDIR".split()


def instructions(path):
    """(instruction, the rest of its line) in order, comments and continuations resolved."""
    lines = iter(path.read_text().splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        while line.endswith("\\"):
            following = next(lines)
            if not following.lstrip().startswith("#"):
                line = line[:-1] + following.strip()
        word, _, rest = line.partition(" ")
        if word not in INSTRUCTIONS:
            raise ValueError(f"{path.name}: {line!r} begins with no instruction that is used here")
        yield word, rest.strip()


def exec_form(path, text):
    words = json.loads(text)
    if not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
        raise ValueError(f"{path.name}: not in exec form: {text}")
    return words


class Image:
    """One Dockerfile, after those of our own images that it is built on."""

    def __init__(self, path):
        self.path, self.env, self.arguments, self.user, self.workdir = path, {}, {}, None, "/"
        self.entrypoint = self.healthcheck = None
        self.packages = {}  # (registry, name) -> version, None where it is not pinned
        self.copies_bridge = False
        for word, rest in instructions(path):
            self.take(word, rest)

    def take(self, word, rest):
        if word == "FROM" and (ROOT / "docker" / f"{rest}.Dockerfile").exists():
            base = Image(ROOT / "docker" / f"{rest}.Dockerfile")
            self.__dict__.update(base.__dict__ | {"path": self.path})
        elif word == "ENV":
            self.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "ARG" and "=" in rest:
            self.arguments |= [rest.split("=", 1)]
        elif word == "USER":
            self.user = re.sub(r"\$(\w+)", lambda name: self.arguments[name[1]], rest)
        elif word == "WORKDIR":
            self.workdir = rest
        elif word == "COPY" and rest == "--from=mcp-bridge /mcp-bridge /usr/local/bin/":
            self.copies_bridge = True
        elif word == "ENTRYPOINT":
            self.entrypoint = exec_form(self.path, rest)
        elif word == "HEALTHCHECK":
            self.healthcheck = exec_form(self.path, rest.removeprefix("CMD "))
        elif word == "RUN":
            for command in rest.split("&&"):
                self.install(shlex.split(command))

    def install(self, words):
        names = [word for word in words[2:] if not word.startswith("-")]
        separator = {"pip": "==", "npm": "@"}.get(words[0])
        if separator is None or words[1] != "install":
            return
        for name in names:
            # From the second character on: an npm scope begins with the separator.
            place = name.find(separator, 1)
            bare, version = (name, None) if place < 0 else (name[:place], name[place + len(separator) :])
            self.packages[words[0], bare] = version

    @property
    def options(self):
        """Of the bridge."""
        return self.entrypoint[1 : self.entrypoint.index("--")]

    @property
    def command(self):
        """Of the server."""
        return self.entrypoint[self.entrypoint.index("--") + 1 :]

    def fault(self):
        """What is wrong with the file itself, or None."""
        comment = self.path.read_text().splitlines()[:3]
        if not all(line.startswith("#") for line in comment):
            return "it does not begin with what it is and how it is built"
        if not self.copies_bridge:
            return "the bridge is not copied into it"
        if self.user is None or self.user.split(":")[0] in ("0", "root"):
            return f"it runs as {self.user or 'root'}"
        if self.healthcheck != ["mcp-bridge", "--healthcheck"]:
            return f"its health check is {self.healthcheck}"
        if not self.entrypoint or self.entrypoint[0] != "mcp-bridge" or not self.command:
            return f"its entrypoint is {self.entrypoint}"
        if unpinned := [name for (_, name), version in self.packages.items() if version is None]:
            return f"not pinned: {unpinned}"
        if not self.packages:
            return "it installs no server"
        return None
