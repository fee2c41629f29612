"""Running a program that nobody trusts: bubblewrap's namespaces, limits, and a watcher that ends it.

Inside there is a read-only /usr with the interpreter, an own /proc, four devices, and /tmp, which is all that can be
written and is gone afterwards. There is no network, none of the caller's files, environment, processes or rights, and
the program is user `nobody` without capabilities; `syscalls.py` says which calls of the kernel it is refused besides.
It is ended when it takes too long, writes too much, or holds too much memory or too many files (`watch.py`); ending
the first process of its PID namespace ends all that it ever started.

Nothing here falls back: where isolation cannot be had, or does not hold, `Isolation.find` raises, and nothing runs.
What is shared all the same is the kernel and the processors.

Traps seen: /proc/1/environ shows what bubblewrap was started with, whatever it clears, so it is started with nothing;
its root and /dev are file systems in memory without a limit, so they are made read-only; root has no limit of
processes, in a user namespace neither, so a caller who is root becomes nobody first; a limit set from outside on a
program that waits (`--block-fd`) is never set when the caller dies, for then the program goes on, so limits are set
inside; without `--as-pid-1` bubblewrap leaves a zombie of each run to the machine's first process.

A caller that is killed takes its programs along; in the first milliseconds of a run, before bubblewrap has tied itself
to its caller, the program goes on instead, and ends with its time.
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from boost_qa.errors import EngineError, ModelError
from boost_qa.isolation.interpreter import candidates
from boost_qa.isolation.syscalls import refusing
from boost_qa.isolation.watch import Limits, Why, attend

REMEDY = "Install bubblewrap 0.8 or later (`apt install bubblewrap`) and allow user namespaces; or run no code."
NOBODY = 65534
OPEN_FILES = 128
MOST_GIVEN = 200
ENVIRONMENT = {"PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
_DEVICES = ("null", "zero", "random", "urandom")
_WALLS = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent", "--as-pid-1"),
    *("--cap-drop", "ALL", "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "isolation", "--clearenv"),
)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended.

    `exit` is its code, or 128 and the signal that ended it; None where isolation ended it, and `why` says for what:
    time, memory, output or files. `stdout` and `stderr` are what it wrote, cut at the limit; what is no UTF-8 is
    replaced. `finished` is whether `run_python` saw the last line reached.
    """

    exit: int | None
    stdout: str
    stderr: str
    why: Why | None
    seconds: float
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Isolation:
    """Isolation that was seen to hold on this machine; `find` makes it.

    Args:
        bwrap: the program bubblewrap.
        python: the interpreter inside; its own packages besides the standard library are hidden.
        binds: paths outside /usr that it needs, read-only inside.
    """

    bwrap: str
    python: str = "/usr/bin/python3"
    binds: tuple[str, ...] = ()

    @classmethod
    def find(cls) -> Isolation:
        """Isolation with this interpreter, or the system's where this one lies out of nobody's reach.

        Raises:
            ModelError: if bubblewrap is missing or cannot isolate here, or if a program inside reached what it must
                not; it says which.
        """
        from boost_qa.isolation.probe import reached

        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise ModelError("there is no program bwrap, so code cannot be run in isolation", REMEDY)
        failures = []
        for python, binds in candidates():
            isolation = cls(bwrap, python, binds)
            try:
                holes = reached(isolation)
            except EngineError as error:
                failures.append(f"{python}: {error.what}")
                continue
            if holes:
                raise ModelError(f"isolation does not hold: a program inside reached {', '.join(holes)}", REMEDY)
            return isolation
        raise ModelError(f"code cannot be run in isolation here: {'; '.join(failures)}", REMEDY)

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, bytes | str] | None = None,
        stdin: bytes | str = "",
        *,
        seconds: float = 10.0,
        memory_mib: int = 512,
        processes: int = 32,
        output_bytes: int = 1 << 20,
        disk_mib: int = 64,
        address_mib: int | None = None,
        readable: Sequence[str] = (),
    ) -> Ran:
        """Run `argv` in /tmp beside `files`, and come back when nothing of it is left.

        Args:
            argv: the program's path and arguments, as they are inside.
            files: contents by name; a name is a relative path without `..`.
            seconds: by the clock, for all of it.
            memory_mib: for all processes together, counted as the kernel has it in memory.
            processes: at once, threads included.
            output_bytes: of stdout and stderr together; the program is ended at the first byte more.
            disk_mib: what /tmp holds, which is memory as well.
            address_mib: address space of each process; None: as much as `memory_mib`. Programs that reserve far more
                than they use (java, node) need more.
            readable: further paths outside that can be read inside.

        Raises:
            ValueError: for a name or an argument that is not allowed.
            EngineError: if the program could not be started in isolation, or not be ended.
        """
        if not argv or not seconds > 0:
            raise ValueError("a program to run, and seconds above 0, are needed")
        limits = Limits(seconds, memory_mib << 20, disk_mib << 20, output_bytes)
        with ExitStack() as stack:

            def held(content: bytes | str) -> int:
                number = _sealed(content)
                stack.callback(os.close, number)
                return number

            beside = {name: held(content) for name, content in _checked(files or {}).items()}
            calls = held(refusing())
            told = os.memfd_create("told")  # of a pipe whose reader dies, bubblewrap dies half-way
            stack.callback(os.close, told)
            walls = [*_WALLS, *_tree((*self.binds, *readable), disk_mib << 20)]
            for name, number in beside.items():
                walls += ["--file", str(number), f"/tmp/{name}"]
            walls += ["--remount-ro", "/", "--seccomp", str(calls), "--json-status-fd", str(told)]
            for key, value in ENVIRONMENT.items():
                walls += ["--setenv", key, value]
            address = memory_mib if address_mib is None else address_mib
            inside = _limited(seconds, address << 20, processes, disk_mib << 20)
            try:
                process = subprocess.Popen(
                    [self.bwrap, *walls, "--", *inside, *argv],
                    stdin=held(stdin),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(*beside.values(), calls, told),
                    env={},
                    cwd="/",
                    **_as_nobody(),
                )
            except OSError as error:
                raise EngineError(f"{self.bwrap} cannot be started: {error}", REMEDY) from error
            ended = attend(process, told, limits)
        out, err = (stream.decode("utf-8", "replace") for stream in (ended.stdout, ended.stderr))
        if ended.exit is None and ended.why is None:
            raise EngineError(f"isolation could not be set up: {err.strip()[-300:]}", REMEDY)
        return Ran(None if ended.why else ended.exit, out, err, ended.why, ended.seconds)

    def run_python(self, code: str, tests: str = "", stdin: bytes | str = "", **limits: Any) -> Ran:
        """Run Python code, then `tests` below it in the same module; `limits` are those of `run`.

        `finished` says that the last line was reached and the exit code was 0: code that happens to end the program
        before the tests (`sys.exit()`) has not passed them. Code that wants to can forge it, being in one process with
        its tests.
        """
        end = secrets.token_hex(16)
        last = f"import os as _o, sys as _s\n_s.stdout.flush()\n_o.write(1, b'{end}')\n"
        given = {"main.py": f"{code}\n\n{tests}\n\n{last}".encode("utf-8", "replace")}
        ran = self.run([self.python, "-s", "main.py"], given, stdin, **limits)
        return replace(ran, stdout=ran.stdout.replace(end, "", 1), finished=ran.exit == 0 and end in ran.stdout)


def _sealed(content: bytes | str) -> int:
    """A file in memory that nobody can change, read from its beginning; gives its descriptor."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    number = os.memfd_create("given", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(number, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(number, 0, os.SEEK_SET)
    fcntl.fcntl(
        number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )
    return number


def _checked(files: Mapping[str, bytes | str]) -> Mapping[str, bytes | str]:
    """`files`, if all their names stay in the folder."""
    if len(files) > MOST_GIVEN:
        raise ValueError(f"{len(files)} files are given, and at most {MOST_GIVEN} can be")
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
            raise ValueError(f"{name!r} is no name of a file inside the folder")
    return files


def _tree(binds: Sequence[str], disk_bytes: int) -> list[str]:
    """bubblewrap's arguments for the files inside, all but those given."""
    local = Path("/usr/local").is_dir()  # what the machine's owner put there is not the system's
    tree = ["--ro-bind", "/usr", "/usr", *(["--tmpfs", "/usr/local"] if local else [])]
    for folder in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64")):
        if folder.is_symlink():
            tree += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            tree += ["--ro-bind", str(folder), str(folder)]
    tree += ["--proc", "/proc", "--tmpfs", "/dev"]
    for device in _DEVICES:
        tree += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    tree += ["--perms", "0700", "--size", str(disk_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for path in binds:
        tree += ["--ro-bind", path, path]
    hidden = [found for path in binds for found in Path(path).glob("*-packages")]
    hidden += Path("/usr/lib").glob("python3*/*-packages")
    for found in hidden:
        tree += ["--tmpfs", str(found), "--remount-ro", str(found)]
    return [*tree, "--remount-ro", "/dev", *(["--remount-ro", "/usr/local"] if local else [])]


def _limited(seconds: float, address: int, processes: int, disk: int) -> list[str]:
    """The programs inside that set the limits and then become, or start, the one that is to be run."""
    processor = math.ceil(seconds * (os.cpu_count() or 1)) + 1
    return [
        *("/usr/bin/prlimit", f"--nproc={processes + 1}", f"--as={address}", f"--fsize={disk}"),
        *(f"--nofile={OPEN_FILES}", f"--cpu={processor}", "--core=0", "--msgqueue=0", "--"),
        *("/usr/bin/timeout", "--signal=KILL", f"{seconds + 2:.1f}"),  # a second clock, for when the caller is killed
    ]


def _as_nobody() -> dict[Literal["user", "group", "extra_groups"], Any]:
    """How a caller who is root starts bubblewrap, so that limits hold and nothing is root's."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
