"""Which Python interpreter runs inside isolation, and what it needs from outside."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator

SYSTEM = "/usr/bin/python3"


def candidates() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Interpreters to try, best first: each with the paths outside the system's own /usr that it needs.

    First this one (of a virtual environment: the one it was made from), then the system's. This one may lie where
    the user that a program runs as cannot go, such as root's home.
    """
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    needs = [executable, sysconfig.get_path("stdlib")]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        needs.append(f"{sysconfig.get_config_var('LIBDIR')}/{sysconfig.get_config_var('INSTSONAME')}")
    yield executable, tuple(path for path in needs if not _is_system(path))
    if executable != os.path.realpath(SYSTEM):
        yield SYSTEM, ()


def _is_system(path: str) -> bool:
    """Whether a path is inside anyway."""
    return path.startswith("/usr/") and not path.startswith("/usr/local/")
