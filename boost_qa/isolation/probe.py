"""A small program that tries to get out of isolation, and says what it reached."""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from boost_qa.errors import EngineError

if TYPE_CHECKING:
    from boost_qa.isolation import Isolation

SECONDS = 20.0

_PROGRAM = """
import json, os, socket, sys
told = json.load(sys.stdin)
reached = []

def attempt(what, action):
    try:
        action()
    except OSError:
        return
    reached.append(what)

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(1)
        one.connect(address)

attempt("a server of this machine", lambda: connect(socket.AF_INET, ("127.0.0.1", told["port"])))
attempt("a socket without a path", lambda: connect(socket.AF_UNIX, told["abstract"]))
attempt("a file of the caller", lambda: open(told["file"]))
for path in ("/etc/passwd", "/etc/hostname", "/root", "/home", "/var", "/sys", "/run"):
    attempt(path, lambda: os.stat(path))
for path in ("/probe", "/usr/probe", "/usr/local/probe", "/dev/probe", "/proc/probe", "/var/tmp/probe"):
    attempt("writing " + path, lambda: open(path, "w"))
attempt("memory that nothing counts", lambda: os.memfd_create("probe"))
attempt("a further namespace", lambda: os.chroot("/tmp"))
if not set(os.environ) <= set(told["environment"]):
    reached.append("the environment")
try:
    first = open("/proc/1/environ").read().split("\\0")
    if not {line.partition("=")[0] for line in first if line} <= set(told["environment"]):
        reached.append("the environment of the first process")
except OSError:
    pass
if os.getuid() == 0 or int(open("/proc/self/status").read().split("CapEff:")[1].split()[0], 16):
    reached.append("rights of root")
if sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[-1] > 100:
    reached.append("processes of the machine")
children = []
try:
    while len(children) < told["processes"] + 8:
        children.append(os.fork())
        if not children[-1]:
            import time
            time.sleep(60)
            os._exit(0)
    reached.append("more processes than allowed")
except BlockingIOError:
    if not children:
        raise
for child in children:
    os.kill(child, 9)
print(json.dumps(reached))
"""


def reached(isolation: Isolation) -> list[str]:
    """What a program inside `isolation` reached of what it must not; nothing, where it holds.

    Raises:
        EngineError: if the program did not run to its end, so that nothing is known.
    """
    from boost_qa.isolation import ENVIRONMENT

    abstract = f"\0boost_qa-probe-{id(isolation)}"
    with (
        tempfile.NamedTemporaryFile() as canary,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(abstract)
        unix.listen()
        Path(canary.name).chmod(0o644)  # it is the walls that hold it, not its mode
        told = {
            "port": server.getsockname()[1],
            "abstract": abstract,
            "file": canary.name,
            "environment": [*ENVIRONMENT, "PWD", "LC_CTYPE"],
            "processes": 8,
        }
        ran = isolation.run_python(_PROGRAM, stdin=json.dumps(told), seconds=SECONDS, processes=8)
    if not ran.finished:
        why = ran.why or ran.stderr.strip()[-300:] or f"exit code {ran.exit}"
        raise EngineError(f"the program that tries isolation did not come to its end: {why}")
    found: list[str] = json.loads(ran.stdout)
    return found
