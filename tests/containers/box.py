"""Boxes to run the bridge in: containers of podman and runc, and bare namespaces of `unshare`."""

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from mcp import Client

HERE = Path(__file__).resolve().parent
CLONE = HERE.parent.parent
WORK = CLONE / ".ci" / ".work" / "containers"
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def eventually(what, condition, seconds=10):
    """Polls until `condition` gives something true, and returns it."""
    end = time.monotonic() + seconds
    while not (got := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return got


# ---------------------------------------------------------------------------------------------- what the kernel sees


class Process:
    """What /proc says of one process, at one moment."""

    def __init__(self, pid):
        self.pid = int(pid)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        self.status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        self.name, self.parent = self.status["Name"], int(self.status["PPid"])
        self.zombie = self.status["State"].startswith("Z")
        self.inner_pid = int(self.status["NSpid"].split()[-1])

    def __repr__(self):
        return f"{self.name}[{self.inner_pid}]{'(zombie)' if self.zombie else ''}"


class Box:
    """Something in which the bridge runs as PID 1. `pid` is that process as seen from here."""

    pid = 0

    def processes(self):
        """All processes in the box's pid namespace but PID 1."""
        inside, found = os.readlink(f"/proc/{self.pid}/ns/pid"), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and entry.name != str(self.pid):
                with contextlib.suppress(OSError):  # gone in the meantime
                    if os.readlink(entry / "ns" / "pid") == inside:
                        found.append(Process(entry.name))
                    continue
                # A zombie has no namespaces to look at any more; its parent still tells where it belongs.
                with contextlib.suppress(OSError):
                    process = Process(entry.name)
                    if process.zombie and process.parent == self.pid:
                        found.append(process)
        return found

    def children(self):
        return [process for process in self.processes() if process.parent == self.pid and not process.zombie]

    def zombies(self):
        return [process for process in self.processes() if process.zombie]

    def client(self):
        return Client(self.dial)

    def session(self):
        return self.client().initialize()

    def get(self, path):
        return self.client().http("GET", path).answer().status

    def ready(self):
        def asked():
            assert self.runs(), f"ended instead of getting ready:\n{self.log()}"
            with contextlib.suppress(OSError):
                return self.get("/readyz") == 200

        eventually("ready", asked)
        return self


# ---------------------------------------------------------------------------------------------- podman


class Podman:
    """podman with a store of its own: vfs needs no kernel module, runc takes each layout of cgroups."""

    def __init__(self, bridge, *servers):
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        # podman refuses a run root of more than 50 characters, and a clone may lie deeper than that.
        self.run_root = tempfile.mkdtemp(prefix="mcp-bridge-")
        conf = WORK / "containers.conf"
        # podman asks for limits above the ones it has itself, which not every machine grants.
        conf.write_text("[containers]\ndefault_ulimits = []\n")
        self.env = {**os.environ, "CONTAINERS_CONF": str(conf)}
        self.command = ["podman", "--root", str(WORK / "root"), "--runroot", self.run_root, "--runtime", "runc"]
        self.command += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        self.names = (f"box{number}" for number in itertools.count(1))
        self.build(bridge, servers)

    def build(self, bridge, servers):
        """The image of docker/Dockerfile with the bridge put in the place of its build stage, and on top of it an
        image as a user would make it for servers that are static files."""
        built, added = WORK / "built", WORK / "added"
        built.mkdir()
        shutil.copy(bridge, built / "mcp-bridge")
        file = CLONE / "docker" / "Dockerfile"
        self("build", "--format", "docker", "-t", "mcp-bridge", "--build-context", f"build={built}", "-f", file, built)

        added.mkdir()
        for server in servers:
            shutil.copy(server, added / server.name)
        (added / "not-executable").write_text("no program\n")
        lines = ["FROM mcp-bridge", "COPY . /", f'CMD ["--", "/{servers[0].name}"]']
        (WORK / "Dockerfile").write_text("\n".join(lines) + "\n")
        self("build", "--format", "docker", "-t", "servers", "-f", WORK / "Dockerfile", added)

        # An image of somebody else, without the bridge.
        (WORK / "Dockerfile").write_text("\n".join(["FROM scratch", "COPY . /"]) + "\n")
        self("build", "--format", "docker", "-t", "vendor", "-f", WORK / "Dockerfile", added)

    def __call__(self, *args, check=True, timeout=60):
        # conmon notes the end of memory in the folder that podman was called in.
        done = subprocess.run([*self.command, *map(str, args)], env=self.env, cwd=WORK, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"podman {args[0]} failed:\n{done.stdout}{done.stderr}"
        return done

    def options(self, user):
        """Everything taken away that a cluster may take away. The network is an empty one of the box's own, so that
        each bridge has port 8080 to itself."""
        return ["--network", "none", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--unsetenv-all",
                "--security-opt", "no-new-privileges", "--user", user, "--log-driver", "k8s-file",
                "--health-interval", "disable"]

    def run(self, *command, options=(), user="65532:65532", image="servers"):
        """To its end: exit code and stderr."""
        done = self("run", "--rm", *self.options(user), *options, image, *command, check=False)
        return done.returncode, done.stderr

    @contextlib.contextmanager
    def box(self, *command, options=(), user="65532:65532", port=8080, image="servers"):
        """A container that is ready, gone at the end of the block."""
        name = next(self.names)
        self("run", "--detach", "--name", name, *self.options(user), *options, image, *command)
        try:
            yield Container(self, name, port).ready()
        except Exception as error:
            error.add_note("log of the bridge:\n" + self("logs", name, check=False).stderr)
            raise
        finally:
            self("rm", "--force", "--time", "0", name)

    def close(self):
        self("rm", "--all", "--force", "--time", "0", check=False)
        shutil.rmtree(WORK, ignore_errors=True)
        shutil.rmtree(self.run_root, ignore_errors=True)


class Container(Box):
    def __init__(self, podman, name, port):
        self.podman, self.name, self.port, self.stopping = podman, name, port, None
        self.pid = self.state()["Pid"]

    def state(self):
        return json.loads(self.podman("inspect", self.name).stdout)[0]["State"]

    def runs(self):
        return os.path.exists(f"/proc/{self.pid}")

    def log(self):
        return self.podman("logs", self.name).stderr

    def dial(self, host="127.0.0.1"):
        """A socket belongs to the network its thread was in when it was made."""
        with open("/proc/thread-self/ns/net") as here, open(f"/proc/{self.pid}/ns/net") as there:
            enter(there)
            try:
                return socket.create_connection((host, self.port), timeout=20)
            finally:
                enter(here)

    def exec(self, *command):
        return self.podman("exec", self.name, *command, check=False)

    def stop(self):
        """Begins `podman stop`: SIGTERM, and SIGKILL ten seconds later."""
        command = [*self.podman.command, "stop", "--time", "10", self.name]
        self.stopping = subprocess.Popen(command, env=self.podman.env, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def term(self):
        """SIGTERM alone. podman allows no exec in a container that it is stopping."""
        self.podman("kill", "--signal", "TERM", self.name)

    def exit_code(self):
        """Waits for the end."""
        if self.stopping:
            self.stopping.wait(timeout=20)
        return int(self.podman("wait", self.name).stdout)


def enter(network):
    if LIBC.setns(network.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


# ---------------------------------------------------------------------------------------------- unshare


class Bare(Box):
    """PID 1 of a bare pid namespace: no engine, no seccomp, and this machine's network, hence a port of its own."""

    def __init__(self, command, **popen):
        self.stderr = tempfile.TemporaryFile("w+", prefix="mcp-bridge-")
        self.unshare = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.stderr,
                                        **popen)
        own = Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children")
        self.pid = int(eventually("forked", own.read_text, 5))

    def runs(self):
        return self.unshare.poll() is None

    def log(self):
        self.stderr.seek(0)
        return self.stderr.read()

    def dial(self):
        port = eventually("start line", lambda: re.search(r"127\.0\.0\.1:(\d+)", self.log()))
        return socket.create_connection(("127.0.0.1", int(port[1])), timeout=20)

    def signal(self, number):
        os.kill(self.pid, number)

    def exit_code(self):
        return self.unshare.wait(timeout=20)

    def end(self):
        # --kill-child alone is not enough: the kernel forgets that signal when the user changes (`chroot --userspec`).
        if self.runs():
            self.signal(signal.SIGKILL)
        self.unshare.kill()
        self.unshare.wait()


@contextlib.contextmanager
def bare(*command, options=(), env=None):
    """`command` as PID 1 of a pid namespace that dies with this test."""
    box = Bare(["unshare", "--pid", "--fork", "--kill-child", *options, *map(str, command)], env=env)
    try:
        yield box.ready()
    except Exception as error:
        error.add_note("log of the bridge:\n" + box.log())
        raise
    finally:
        box.end()


@contextlib.contextmanager
def bare_root(**files):
    """A folder to `chroot` to, with these files and nothing else: no /proc, no /dev, no /tmp."""
    with tempfile.TemporaryDirectory(prefix="mcp-bridge-") as root:
        os.chmod(root, 0o755)
        for name, file in files.items():
            shutil.copy(file, Path(root, name))
        yield root
