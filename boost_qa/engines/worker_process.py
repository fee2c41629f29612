"""The process that works for `Workers`: calls one function, text to text, until its input ends.

Run as a script: `python worker_process.py FOLDER module:function MEBIBYTES SECONDS`. It sees this package without the
package's own `__init__`, which is there for `datasets` and costs a second and 130 MB. One line of JSON each:

    out   {"ready": true}  or  {"failed": why}         first, once, after the module's `prepare()` if it has one
    in    "payload"                                    any number of times
    out   {"done": text}  or  {"memory": true}         for each; after the latter the process ends
          or  {"failed": why}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable


def limit_memory(mebibytes: int) -> None:
    """Let this process have so much address space and no more, where the system can do that."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; macOS; a lower limit that is there already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(folder: str, name: str) -> Callable[[str], str]:
    """The function called `module:function`, of the package that lies in `folder` or any other; it is made ready."""
    package = types.ModuleType("boost_qa")
    package.__path__ = [folder]
    sys.modules["boost_qa"] = package
    path, _, function = name.partition(":")
    module = importlib.import_module(path)
    if hasattr(module, "prepare"):
        module.prepare()
    found: Callable[[str], str] = getattr(module, function)
    return found


def alarm(seconds: int) -> None:
    """End this process after so many seconds, even inside C code; 0 calls it off."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def main(folder: str, name: str, mebibytes: str, seconds: str) -> None:
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints, prints elsewhere
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who waits

    def say(message: dict[str, object]) -> None:
        wire.write(json.dumps(message) + "\n")
        wire.flush()

    try:
        limit_memory(int(mebibytes))
        function = load(folder, name)
    except Exception as error:
        say({"failed": f"{type(error).__name__}: {error}"})
        return
    say({"ready": True})
    for line in sys.stdin:
        alarm(2 * int(float(seconds)) + 2)  # who waits kills sooner; this is for when nobody waits any more
        try:
            answer: dict[str, object] = {"done": function(json.loads(line))}
        except MemoryError:
            say({"memory": True})
            return
        except Exception:
            answer = {"failed": traceback.format_exc(limit=-3)}
        alarm(0)
        say(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
