"""Isolation: programs that try to get out, or to take the machine down, and what becomes of them.

What can be tried without harm is also run outside (`OUTSIDE`), where it must succeed: an attempt that could not
succeed anywhere would prove nothing.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boost_qa.errors import EngineError, ModelError
from boost_qa.isolation import ENVIRONMENT, Isolation, probe, syscalls, watch

TMP = "/tmp"
CANARY = secrets.token_hex(8)


def _isolation() -> Isolation | ModelError:
    try:
        return Isolation.find()
    except ModelError as error:
        return error


FOUND = _isolation()
isolated = pytest.mark.skipif(isinstance(FOUND, ModelError), reason=f"no isolation here: {FOUND}")


def alive(marker: str) -> list[str]:
    """Command lines with `marker` in them, of processes that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if marker.encode() in line:
            found.append(line.decode("utf-8", "replace"))
    return found


def attempt(code: str, **limits):
    """Run Python code in isolation, and see that nothing of it is left."""
    marker = secrets.token_hex(12)
    limits = {"seconds": 10.0, **limits}
    files = {"main.py": code, **limits.pop("files", {})}
    ran = FOUND.run([FOUND.python, "-s", "main.py", marker], files, limits.pop("stdin", ""), **limits)
    assert not alive(marker)
    return ran


# --- getting out ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Things of the caller that a program might reach: servers, files, the environment, a process."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "secret").write_text(CANARY)
    for each in (folder, *folder.parents):
        if each.is_relative_to("/tmp") and each != Path("/tmp") and each.owner() == Path(folder).owner():
            each.chmod(0o755)  # it is the walls that hold it, not its mode
    home = Path.home() / f".isolation-{CANARY}"
    home.write_text(CANARY)
    os.environ["ISOLATION_CANARY"] = CANARY
    abstract = f"isolation-{CANARY}"
    tcp, unix, path = (
        socket.create_server(("127.0.0.1", 0)),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    )
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.settimeout(0.2)
    unix.bind(f"\0{abstract}")
    path.bind(str(folder / "socket"))
    bystander = subprocess.Popen(["sleep", "600"])
    for each in (unix, path):
        each.listen()
    try:
        yield {
            "PORT": str(tcp.getsockname()[1]),
            "UDP": str(udp.getsockname()[1]),
            "ABSTRACT": abstract,
            "SOCKET": str(folder / "socket"),
            "SECRET": str(folder / "secret"),
            "FOLDER": str(folder),
            "HOME": str(home),
            "CANARY": CANARY,
            "CALLER": str(os.getpid()),
            "BYSTANDER": str(bystander.pid),
            "udp": udp,
        }
    finally:
        for each in (tcp, unix, path, udp):
            each.close()
        home.unlink()
        del os.environ["ISOLATION_CANARY"]
        assert bystander.poll() is None, "a process beside was killed"
        bystander.kill()
        bystander.wait()


# Each prints OUT if it got out, HELD if it was refused. %NAME% stands for something of `world`.
OUTSIDE = {
    "tcp": "import socket; socket.create_connection(('127.0.0.1', %PORT%), 2); print('OUT')",
    "abstract socket": "import socket; socket.socket(socket.AF_UNIX).connect('\\0%ABSTRACT%'); print('OUT')",
    "socket in a folder": "import socket; socket.socket(socket.AF_UNIX).connect('%SOCKET%'); print('OUT')",
    "caller's file": "print('OUT' if '%CANARY%' in open('%SECRET%').read() else 'HELD')",
    "caller's home": "print('OUT' if '%CANARY%' in open('%HOME%').read() else 'HELD')",
    "link to the caller's file": """
import os
os.symlink('%SECRET%', '%TMP%/link-%CANARY%')
try: print('OUT' if '%CANARY%' in open('%TMP%/link-%CANARY%').read() else 'HELD')
finally: os.unlink('%TMP%/link-%CANARY%')
""",
    "link to root": """
import os
os.symlink('/', '%TMP%/root-%CANARY%')
try: print('OUT' if os.path.exists('%TMP%/root-%CANARY%%SECRET%') else 'HELD')
finally: os.unlink('%TMP%/root-%CANARY%')
""",
    "climbing out of the folder": "print('OUT' if '%CANARY%' in open('../../..%SECRET%').read() else 'HELD')",
    "writing where the caller reads": "open('%FOLDER%/written', 'w'); print('OUT')",
    "passwd": "print('OUT' if 'root' in open('/etc/passwd').read() else 'HELD')",
    "hostname": "import socket; print('OUT' if open('/etc/hostname').read() else 'HELD')",
    "environment": "import os; print('OUT' if '%CANARY%' in str(os.environ) else 'HELD')",
    "environment of all processes": """
import os
seen = b''
for name in os.listdir('/proc'):
    try: seen += open(f'/proc/{name}/environ', 'rb').read()
    except OSError: pass
print('OUT' if b'%CANARY%' in seen else 'HELD')
""",
    "seeing the caller": """
import os
lines = [open(f'/proc/{name}/cmdline').read() for name in os.listdir('/proc') if name.isdigit()]
print('OUT' if any('pytest' in line for line in lines) else 'HELD')
""",
    "root of the caller": "import os; print('OUT' if os.path.exists('/proc/%CALLER%/root%SECRET%') else 'HELD')",
    "memory without limit": "import os; os.memfd_create('x'); print('OUT')",
    "vsock": "import socket; socket.socket(40, socket.SOCK_STREAM); print('OUT')",
    "netlink": "import socket; socket.socket(16, socket.SOCK_RAW, 0); print('OUT')",
}


def filled(code: str, world) -> str:
    for name, value in {**world, "TMP": TMP}.items():
        code = code.replace(f"%{name}%", str(value))
    return code


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name not in {"vsock", "netlink"}])
def test_outside_it_succeeds(name, world, tmp_path):
    """So that being held, below, means something."""
    if name == "hostname" and not Path("/etc/hostname").exists():
        pytest.skip("this machine has no /etc/hostname")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    code = filled(OUTSIDE[name], world).replace("../../..", "../" * (len(folder.parts) - 1))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert ran.stdout == "OUT\n", ran.stderr
    (Path(world["FOLDER"]) / "written").unlink(missing_ok=True)


@isolated
@pytest.mark.parametrize("name", OUTSIDE)
def test_escape_into_the_callers_world(name, world):
    ran = attempt(filled(OUTSIDE[name], world))
    assert ran.why is None and "OUT" not in ran.stdout
    assert ran.stdout == "HELD\n" or ran.exit == 1, ran  # tried to its end, or refused
    assert not (Path(world["FOLDER"]) / "written").exists()


@isolated
def test_escape_by_udp(world):
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', %UDP%))"
    subprocess.run([sys.executable, "-c", filled(code, world)], check=True)
    assert world["udp"].recv(10) == b"x"
    attempt(filled(code, world))
    with pytest.raises(TimeoutError):
        world["udp"].recv(10)


@isolated
@pytest.mark.parametrize(
    "name, code",
    {
        "dns": "import socket; socket.getaddrinfo('example.org', 80)",
        "address outside": "import socket; socket.create_connection(('192.0.2.1', 80), 2)",
        "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "packet socket": "import socket; socket.socket(17, socket.SOCK_RAW)",
        "becoming root": "import os; os.setuid(0)",
        "another group": "import os; os.setgroups([0])",
        "chroot": "import os; os.chroot('/tmp')",
        "writing to the interpreter": "import sys; open(sys.executable, 'r+b')",
        "replacing the interpreter": "import os, sys; os.rename(sys.executable, sys.executable + '.old')",
        "writing to the library": "import os; open(os.__file__, 'a')",
        "writing to the root": "open('/x', 'w')",
        "writing to /dev": "open('/dev/x', 'w')",
        "writing to /usr/local": "open('/usr/local/x', 'w')",
        "writing to a kernel setting": "open('/proc/sys/kernel/hostname', 'w').write('x')",
        "kernel's core pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')",
        "system request": "open('/proc/sysrq-trigger', 'w').write('b')",
        "the machine's memory": "open('/dev/mem', 'rb')",
        "the machine's disk": "import os; os.mknod('/tmp/disk', 0o060666, os.makedev(254, 0))",
        "killing a number": "import os; [os.kill(n, 9) for n in (%CALLER%, %BYSTANDER%)]",
        "host's name": "import socket; socket.sethostname('x')",
    }.items(),
)
def test_escape_is_refused(name, code, world):
    ran = attempt(filled(code, world))
    assert ran.exit == 1 and ran.why is None
    assert any(word in ran.stderr for word in ("Error:", "gaierror", "error:")), ran.stderr
    assert "SyntaxError" not in ran.stderr and "ImportError" not in ran.stderr


CALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) >= 0: print('OUT', arguments)
    return errno.errorcode.get(ctypes.get_errno())
"""


@isolated
@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("ptrace", "0, 0, 0, 0", "EPERM"),
        ("unshare", "0x10000000", "EPERM"),
        ("mount", "b'x', b'/tmp', b'tmpfs', 0, 0", "EPERM"),
        ("setns", "0, 0", "EPERM"),
        ("keyctl", "0, -3, 0", "EPERM"),
        ("bpf", "0, 0, 0", "EPERM"),
        ("io_uring_setup", "1, 0", "EPERM"),
        ("perf_event_open", "0, 0, -1, -1, 0", "EPERM"),
        ("userfaultfd", "1", "EPERM"),
        ("shmget", "0, 4096, 0o1600", "EPERM"),
        ("process_vm_readv", "1, 0, 0, 0, 0, 0", "EPERM"),
    ],
)
def test_escape_by_a_system_call(name, arguments, expected):
    column = ("x86_64", "aarch64").index(os.uname().machine)
    ran = attempt(f"{CALL}\nprint(call({syscalls.REFUSED[name][column]}, {arguments}))")
    assert ran.stdout == f"{expected}\n"


@isolated
def test_escape_into_a_namespace_of_its_own():
    """By clone, which no filter can read the flags of in every form: namespaces themselves are used up."""
    flags = "0x10000000 | 17"
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    ran = attempt(f"{CALL}\nerror = call({number}, {flags}, 0, 0, 0, 0)\nprint(error)")
    assert ran.stdout in ("ENOSPC\n", "EPERM\n", "EUSERS\n"), ran


@isolated
def test_escape_by_another_instruction_set():
    """The numbers of x32 and of 32-bit programs are others, and would pass by the filter."""
    if os.uname().machine != "x86_64":
        pytest.skip("only x86_64 has them")
    ran = attempt(f"{CALL}\nprint('before', flush=True)\ncall(0x40000000 + 101, 0, 0, 0, 0)\nprint('after')")
    assert ran.stdout == "before\n" and ran.exit == 128 + signal.SIGSYS


@isolated
def test_no_descriptor_of_the_caller_is_inside(tmp_path):
    code = """
import os
for number in range(3, 1024):
    try: os.fstat(number); print(number, os.readlink(f'/proc/self/fd/{number}'))
    except OSError: pass
"""
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ran = attempt(code)
    assert (ran.exit, ran.stdout) == (0, "")


@isolated
@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..", ".", "", "a\0b", "a/..", "/"])
def test_names_that_leave_the_folder(name):
    with pytest.raises(ValueError, match="no name of a file"):
        FOUND.run(["/usr/bin/true"], {name: "x"})


@isolated
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.text(min_size=1, max_size=40).filter(
        lambda name: (
            name.encode("utf-8", "replace").decode() == name
            and not name.startswith("/")
            and "\0" not in name
            and name.split("/")[-1] not in ("", ".", "..")
            and ".." not in name.split("/")
            and max(len(part.encode()) for part in name.split("/")) < 200
        )
    ),
    content=st.binary(max_size=200),
)
def test_files_are_given_as_they_are(name, content):
    code = "import os, sys; sys.stdout.buffer.write(open(os.fsencode(sys.argv[1]), 'rb').read())"
    ran = FOUND.run([FOUND.python, "-c", code, name], {name: content})
    assert ran.exit == 0 and ran.stdout == content.decode("utf-8", "replace"), ran


@isolated
def test_what_one_program_leaves_no_other_finds():
    attempt("open('/tmp/left', 'w').write('x')")
    ran = attempt("import os; print(os.listdir('/tmp'), dict(os.environ))")
    names, environment = ran.stdout.strip().split(" ", 1)
    assert names == "['main.py']"
    assert set(eval(environment)) <= {*ENVIRONMENT, "PWD", "LC_CTYPE"} and CANARY not in environment


# --- taking the machine down ---------------------------------------------------------------------


@isolated
def test_escape_by_many_processes():
    """First those that can be counted; only then a bomb, which has to come to the same bound."""
    code = """
import os, time
for n in range(200):
    try:
        if not os.fork(): time.sleep(30); os._exit(0)
    except OSError: break
print(n)
"""
    ran = attempt(code, processes=10)
    assert ran.exit == 0 and int(ran.stdout) == 9, ran  # and the one that counts
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    ran = attempt(bomb, processes=10, seconds=1.0)
    assert (ran.why, ran.exit) == ("time", None) and ran.seconds < 5


@isolated
def test_escape_by_many_threads():
    code = """
import threading, time
try:
    for n in range(200): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
except RuntimeError: print(n)
"""
    assert int(attempt(code, processes=10, address_mib=8192).stdout) == 9


@isolated
@pytest.mark.parametrize(
    "code",
    [
        "while True: print('x' * 5000)",
        "import sys\nwhile True: sys.stderr.write('x' * 5000)",
        "import os\nwhile True: os.write(1, b'\\xff' * 100000)",
        "import os\nfor _ in range(3): os.fork()\nwhile True: print('x' * 5000, flush=True)",
    ],
)
def test_escape_by_infinite_output(code):
    ran = attempt(code, output_bytes=100_000, seconds=8)
    assert (ran.why, ran.exit) == ("output", None)
    assert 0 < len(ran.stdout) + len(ran.stderr) <= 100_000


@isolated
def test_output_up_to_the_limit_is_whole():
    assert attempt("print('x' * 999)", output_bytes=1000).stdout == "x" * 999 + "\n"
    ran = attempt("print('x' * 1000)", output_bytes=1000)
    assert (ran.why, ran.stdout) == ("output", "x" * 1000)
    assert (
        attempt("import sys; print('a' * 6); sys.stdout.flush(); sys.stderr.write('b' * 5)", output_bytes=12).exit == 0
    )


@isolated
@pytest.mark.parametrize(
    "code",
    ["bytearray(10 << 30)", "x = []\nwhile True: x.append(bytearray(1 << 20))", "import mmap; mmap.mmap(-1, 10 << 30)"],
)
def test_escape_by_allocation(code):
    ran = attempt(code, memory_mib=128)
    assert (ran.exit == 1 and ("MemoryError" in ran.stderr or "Cannot allocate" in ran.stderr)) or ran.why == "memory"


@isolated
def test_escape_by_allocation_in_many_processes():
    """Each is small enough by itself."""
    code = """
import os, time
for _ in range(6):
    if not os.fork(): break
held = bytearray(b'x') * (60 << 20)
time.sleep(30)
"""
    ran = attempt(code, memory_mib=128)
    assert (ran.why, ran.exit) == ("memory", None)


@isolated
def test_memory_that_processes_share_is_counted_once():
    code = """
import os, time
held = bytearray(b'x') * (60 << 20)
for _ in range(6):
    if not os.fork(): time.sleep(0.4); os._exit(0)
time.sleep(0.5)
print('well')
"""
    assert attempt(code, memory_mib=128).stdout == "well\n"


@isolated
def test_escape_by_a_huge_file():
    code = """
import os
try:
    with open('/tmp/huge', 'wb') as file:
        while True: file.write(b'x' * (1 << 20))
except OSError as error: print(os.path.getsize('/tmp/huge') >> 20, error.errno)
try: os.truncate('/tmp/huge', 10 << 30)
except OSError as error: print(error.errno)
"""
    size, *errors = attempt(code, disk_mib=8).stdout.split()
    assert int(size) <= 8 and len(errors) == 2


@isolated
def test_escape_by_many_files():
    ran = attempt("n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1")
    assert (ran.why, ran.exit) == ("files", None)


@isolated
def test_escape_by_open_files():
    code = """
import os
held = []
try:
    while True: held.append(os.pipe())
except OSError: print(len(held))
"""
    assert int(attempt(code).stdout) < 100


@isolated
@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)",
        "while True: pass",
        "import signal, time\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)",
        "import os, time\nos.close(0); os.close(1); os.close(2)\ntime.sleep(600)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    ],
)
def test_escape_by_never_ending(code):
    began = time.monotonic()
    ran = attempt(code, seconds=0.4)
    assert (ran.why, ran.exit) == ("time", None) and time.monotonic() - began < 5


@isolated
@pytest.mark.parametrize("late", ["", "os.close(1); os.close(2);"])
def test_escape_by_a_daemon(late):
    """It has left its session and its parent, and its program has ended well: it ends all the same, and at once."""
    code = f"""
import os, sys, time
if not os.fork():
    os.setsid()
    if not os.fork():
        {late} time.sleep(600)
    os._exit(0)
print('done')
"""
    ran = attempt(code, seconds=8)
    assert (ran.exit, ran.stdout, ran.why) == (0, "done\n", None) and ran.seconds < 5


@isolated
def test_escape_by_killing_everything():
    """The first process of its namespace is its parent; it cannot be killed or stopped from inside."""
    code = """
import os, signal, time
for target in (os.getppid(), 1, -1):
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGPIPE):
        try: os.kill(target, number)
        except OSError: pass
print(os.getppid(), flush=True)
os.kill(0, signal.SIGKILL)
"""
    ran = attempt(code)
    assert (ran.exit, ran.stdout) == (128 + signal.SIGKILL, "1\n")


@isolated
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGHUP])
def test_ending_the_first_process_ends_the_program(number):
    """It listens to these: the program may end itself so, and only itself."""
    ran = attempt(
        f"import os, time\nif not os.fork(): time.sleep(600)\nos.kill(1, {number:d}); time.sleep(600)", seconds=8
    )
    assert ran.exit not in (0, None) and ran.seconds < 5


@isolated
def test_escape_by_crashes():
    deep = "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()"
    assert attempt(deep, memory_mib=64, seconds=1).exit != 0
    assert attempt("import ctypes; ctypes.string_at(0)").exit == 128 + signal.SIGSEGV
    assert attempt("import os; os.abort()").exit == 128 + signal.SIGABRT
    assert attempt("import os; os._exit(255)").exit == 255


@isolated
@settings(max_examples=15, deadline=None)
@given(st.binary(max_size=300))
def test_input_and_output_are_bytes(data):
    ran = FOUND.run(["/usr/bin/cat"], stdin=data)
    assert ran.exit == 0 and ran.stdout == data.decode("utf-8", "replace")


@isolated
def test_input_cannot_be_used_to_store_anything():
    code = """
import os
def reopened(): open('/proc/self/fd/0', 'r+b', 0).write(b'x' * 99999)
for action in (lambda: os.write(0, b'x'), lambda: os.ftruncate(0, 1 << 30), reopened):
    try: action(); print('OUT')
    except OSError as error: pass
print(os.read(0, 100))
"""
    assert attempt(code, stdin="given").stdout == "b'given'\n"
    assert attempt("print(repr(input()))", stdin="").exit == 1
    assert attempt("import sys; print(len(sys.stdin.read()))", stdin="y" * 3_000_000).stdout == "3000000\n"


@isolated
def test_many_at_once():
    """From threads of one process: none takes another's output, and each is ended alone."""
    results = {}

    def one(n):
        code = f"print({n})" if n % 2 else f"print({n}, flush=True)\nwhile True: pass"
        results[n] = FOUND.run_python(code, seconds=2.5 if n % 2 else 1.0)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert {n: (ran.stdout.strip(), ran.why) for n, ran in results.items()} == {
        n: (str(n), None if n % 2 else "time") for n in range(6)
    }


@isolated
def test_a_killed_caller_takes_its_program_along():
    marker = secrets.token_hex(12)
    program = [FOUND.python, "-c", "import time; time.sleep(30)", marker]
    code = f"""
from boost_qa.isolation import Isolation
Isolation({FOUND.bwrap!r}, {FOUND.python!r}, {FOUND.binds!r}).run({program!r}, seconds=60)
"""
    caller = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not any(line.startswith(FOUND.python) and "sleep" in line for line in alive(marker)):
        assert caller.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 5
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(marker)


# --- the program as a user sees it ---------------------------------------------------------------


@isolated
def test_tests_count_only_when_they_are_reached():
    good = FOUND.run_python("def f(x): return x + 1", "assert f(1) == 2")
    assert good.finished and good.exit == 0 and good.stdout == ""
    assert not FOUND.run_python("def f(x): return x", "assert f(1) == 2").finished
    for early in ("import sys; sys.exit(0)", "import os; os._exit(0)", "quit()", "text = '''", "if False: \\"):
        ran = FOUND.run_python(f"def f(x): return x\n{early}", "assert f(1) == 2")
        assert not ran.finished, early
    assert FOUND.run_python("print('x', end='')").stdout == "x"
    assert FOUND.run_python("import sys, io; sys.stdout = io.StringIO(); print('x')").finished
    assert FOUND.run_python("from __future__ import annotations\nx: unknown = 1", "assert x == 1").finished


@isolated
def test_a_program_that_is_not_there():
    assert FOUND.run(["/usr/bin/there-is-no-such"]).exit == 127
    with pytest.raises(ValueError):
        FOUND.run([])
    with pytest.raises(ValueError):
        FOUND.run(["/usr/bin/true"], seconds=0)


@isolated
def test_setting_up_that_fails_is_no_result():
    with pytest.raises(EngineError, match="could not be set up"):
        FOUND.run(["/usr/bin/true"], readable=["/there-is-no-such-path"])
    with pytest.raises(EngineError, match="could not be set up"):
        FOUND.run(["/usr/bin/true"], {"a": "x", "a/b": "x"})
    with pytest.raises(EngineError, match="could not be set up"):
        FOUND.run(["/usr/bin/true"], {"big": b"x" * (3 << 20)}, disk_mib=1)
    with pytest.raises(ValueError, match="201 files"):
        FOUND.run(["/usr/bin/true"], dict.fromkeys(map(str, range(201)), ""))


@isolated
def test_a_further_path_is_readable_and_no_more(tmp_path):
    (tmp_path / "data").write_text("given")
    for each in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        each.chmod(0o755)
    shown = f"print(open('{tmp_path}/data').read()); open('{tmp_path}/data', 'w')"
    ran = attempt(shown, readable=[str(tmp_path)])
    assert ran.stdout == "given\n" and "Read-only file system" in ran.stderr
    assert (tmp_path / "data").read_text() == "given"


# --- refusing ------------------------------------------------------------------------------------


def test_without_bubblewrap_nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="no program bwrap") as caught:
        Isolation.find()
    assert "apt install bubblewrap" in caught.value.remedy


@pytest.mark.parametrize("body", ["exit 1", "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1"])
def test_a_bubblewrap_that_cannot_isolate_is_refused(monkeypatch, tmp_path, body):
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{body}\n")
    for each in (fake, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        each.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="cannot be run in isolation here") as caught:
        Isolation.find()
    assert "No permissions" in caught.value.what or "echo" not in body


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="a stand-in is written for the system's Python")
def test_a_bubblewrap_that_does_not_isolate_is_found_out(monkeypatch, tmp_path):
    """One that runs the program as it is: the probe reaches the caller's world, and says so."""
    fake = tmp_path / "bwrap"
    fake.write_text(
        """#!/usr/bin/python3
import json, os, resource, subprocess, sys, tempfile
command = sys.argv[1:]
status = int(command[command.index("--json-status-fd") + 1])
given = {command[n + 2]: command[n + 1] for n, word in enumerate(command) if word == "--file"}
program = command[command.index("--") + 1:]
program = program[program.index("--signal=KILL") + 2:]
folder = tempfile.mkdtemp()
for name, number in given.items():
    open(folder + "/" + name.rpartition("/")[2], "wb").write(open("/proc/self/fd/" + number, "rb").read())
os.write(status, b'{"child-pid": %d}\\n' % os.getpid())
resource.setrlimit(resource.RLIMIT_NPROC, (200, 200))
done = subprocess.run(program, cwd=folder)
os.write(status, b'{"exit-code": %d}\\n' % done.returncode)
"""
    )
    for each in (fake, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        each.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="does not hold") as caught:
        Isolation.find()
    for hole in ("a server of this machine", "a file of the caller", "/etc/passwd", "more processes than allowed"):
        assert hole in caught.value.what


@isolated
def test_the_probe_reaches_what_is_opened_to_it(tmp_path):
    """Its findings are real ones: with a wall taken down on purpose it finds just that."""
    open_to = Isolation(FOUND.bwrap, FOUND.python, (*FOUND.binds, "/etc/hostname"))
    assert probe.reached(open_to) == ["/etc/hostname"]
    assert probe.reached(FOUND) == []


def test_the_filter_has_the_kernels_numbers():
    """Against the headers of this system, where they are installed."""
    headers = [
        (0, Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), "__NR_"),
        (1, Path("/usr/include/asm-generic/unistd.h"), ("__NR_", "__NR3264_")),
    ]
    if not all(path.exists() for _, path, _ in headers):
        pytest.skip("the kernel's headers are not installed")
    for column, path, prefixes in headers:
        prefixes = (prefixes,) if isinstance(prefixes, str) else prefixes
        words = [line.split() for line in path.read_text().splitlines() if line.startswith("#define __NR")]
        known = {name.removeprefix(p): int(n) for _, name, n, *_ in words for p in prefixes if n.isdigit()}
        told = {name: numbers[column] for name, numbers in {**syscalls.REFUSED, "socket": syscalls._SOCKET}.items()}
        assert {name: known[name] for name in told} == told


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_program_that_always_returns(machine):
    lines = list(struct.iter_unpack("=HBBI", syscalls.refusing(machine)))
    for at, (code, if_true, if_false, _) in enumerate(lines):
        if code & 7 == 5:  # a jump
            assert at + 1 + max(if_true, if_false) < len(lines)
    assert lines[-1][0] == 6
    with pytest.raises(ModelError, match="mips"):
        syscalls.refusing("mips")


def test_numbers_told_in_pieces_are_not_taken_for_whole():
    told = os.memfd_create("told")
    os.write(told, b'{ "child-pid": 12')
    assert watch._told(told, "child-pid") is None
    os.write(told, b'3 }\n{ "exit-code": 4 }\n')
    assert (watch._told(told, "child-pid"), watch._told(told, "exit-code")) == (123, 4)
    os.close(told)
