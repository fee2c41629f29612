"""The system calls that a program in isolation does not get, as a seccomp filter.

Namespaces and dropped rights close most doors already. What is refused here is what they leave open: memory that no
limit counts (memfd, System V and POSIX queues), the caller's keyring, sockets of families that no network namespace
divides (vsock reaches a virtual machine's host), and old or wide interfaces of the kernel that no program of a
data set needs. A refused call gives EPERM, as if there were no right; a foreign instruction set ends the program.
"""

from __future__ import annotations

import errno
import platform
import struct

from boost_qa.errors import ModelError

# name: number on x86_64, number on aarch64
REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "swapon": (167, 224),
    "quotactl": (179, 60),
    "personality": (135, 92),
    "syslog": (103, 116),
}
_SOCKET = (41, 198)
_FAMILIES = (1, 2, 10)  # unix, IPv4 and IPv6, which a network namespace divides
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, and the kernel's AUDIT_ARCH
_X32 = 0x40000000  # the same calls once more, with shorter pointers

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # places in seccomp_data
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def refusing(machine: str | None = None) -> bytes:
    """The filter as instructions of classic BPF, for `machine` as `platform.machine()` names it (default: this one).

    Raises:
        ModelError: for a machine whose numbers are not in the table.
    """
    machine = platform.machine() if machine is None else machine
    if machine not in _MACHINES:
        remedy = f"Programs can be run on {' and '.join(_MACHINES)}; leave the running of code out elsewhere."
        raise ModelError(f"isolation knows no system calls of {machine!r}", remedy)
    column, architecture = _MACHINES[machine]
    lines = [
        _line(_LOAD, _ARCHITECTURE),
        _line(_EQUAL, architecture, 1, 0),
        _line(_RETURN, _KILL),
        _line(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [_line(_AT_LEAST, _X32, 0, 1), _line(_RETURN, _KILL)]
    for numbers in REFUSED.values():
        lines += [_line(_EQUAL, numbers[column], 0, 1), _line(_RETURN, _ERRNO | errno.EPERM)]
    lines += [_line(_EQUAL, _SOCKET[column], 1, 0), _line(_RETURN, _ALLOW), _line(_LOAD, _FIRST_ARGUMENT)]
    for family in _FAMILIES:
        lines += [_line(_EQUAL, family, 0, 1), _line(_RETURN, _ALLOW)]
    lines.append(_line(_RETURN, _ERRNO | errno.EAFNOSUPPORT))
    return b"".join(lines)


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; a jump passes over `if_true` or `if_false` of those after it."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
