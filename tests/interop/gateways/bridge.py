"""The bridge in front of one child command, and what it logged."""

import pathlib
import re
import signal
import subprocess
import tempfile
import time


class Bridge:
    def __init__(self, binary, command, *options):
        self.binary, self.command, self.options = binary, command, options
        self.folder = tempfile.TemporaryDirectory(prefix="gateways-")
        self.log = pathlib.Path(self.folder.name, "log")
        self.address = None
        self.start()

    def start(self):
        """On a port of its own; later on the same one again."""
        listen = "{}:{}".format(*(self.address or ("127.0.0.1", 0)))
        already = self.text()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "--listen", listen, *self.options, "--", *self.command],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )
        found = self.await_log(r"http://127\.0\.0\.1:(\d+)/mcp", len(already))
        self.address = ("127.0.0.1", int(found[1]))

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def await_log(self, pattern, since=0, timeout=15.0):
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.text()[since:])):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"no {pattern!r} in the log: {self.text()[-600:]}")
            time.sleep(0.02)
        return found

    def sessions_ended(self, reason=r"\w+"):
        return len(re.findall(rf'event="session\.end".*reason="{reason}"', self.text()))

    def sessions_begun(self):
        return self.text().count('event="session.start"')

    def crash(self):
        """As a node that goes away: no parting word. The children see the end of their stdin."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; whatever the claim left behind must not keep it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                code = self.process.wait(12)
            except subprocess.TimeoutExpired:
                self.crash()
                code = "killed"
            if code != 0:
                raise AssertionError(f"the bridge ended with {code} after SIGTERM: {self.text()[-400:]}")
        self.folder.cleanup()


def eventually(what, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
