"""What a compiler or parser says of a piece of code: it parses, it is a fragment, or it is broken.

Python and JSON are read here. Every other language's own compiler is asked, in isolation only: compilers follow
includes, run macros and plug-ins, and Perl runs blocks of a program that it only checks.

A piece from an answer is rarely a whole file. It is shown as it stands, and again inside a function, a class and below
the usual includes; what parses in one of these is a fragment. Names, headers and modules that are missing are no
fault: what fails for these alone is a fragment, too. `broken` is left for what no reading of it can parse.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from boost_qa.checks.programs.toolchains import AS_IT_STANDS, COMPILERS, Compiler
from boost_qa.isolation import Isolation, Ran

State = Literal["parses", "fragment", "session", "notebook", "python 2", "broken", "unchecked"]
MEMORY_MIB, ADDRESS_MIB = 768, 16 * 1024  # java and node reserve gigabytes that they never use


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, and why, in a few words."""

    state: State
    why: str = ""


@cache
def at_hand(language: str) -> str | None:
    """The path of a language's compiler, if there is one that isolation can see: it has to be in /usr."""
    compiler = COMPILERS.get(language)
    found = shutil.which(compiler.program) if compiler else None
    if found is None:
        return None
    real = Path(found).resolve()
    return str(real) if real.is_relative_to("/usr") and not real.is_relative_to("/usr/local") else None


def compile_in(isolation: Isolation, language: str, code: str, seconds: float) -> Verdict:
    """Ask the compiler of `language` about `code`.

    Raises:
        EngineError: if isolation fails.
    """
    path, compiler = at_hand(language), COMPILERS.get(language)
    if path is None or compiler is None:
        return Verdict("unchecked", f"no compiler of {language} at hand")
    readings = readings_of(compiler, code)
    errors: dict[str, list[tuple[str, str]]] = {}
    first = [name for name in readings if name.startswith(AS_IT_STANDS)]
    for names in (first, [name for name in readings if name not in first]):  # most need no more than the first
        if not names:
            break
        ran = isolation.run(
            compiler.command(path, names),
            {**{name: readings[name] for name in names}, **dict(compiler.helpers)},
            seconds=seconds,
            memory_mib=MEMORY_MIB,
            address_mib=ADDRESS_MIB,
            processes=64,
            output_bytes=1 << 18,
            readable=[path for path in compiler.readable if Path(path).exists()],
        )
        if ran.why is not None:
            return Verdict("unchecked", f"its compiler was ended for {ran.why}")
        said = _errors(compiler, names, ran)
        if ran.exit != 0 and not any(said.values()):  # it failed without a word about any file
            last = (ran.stderr or ran.stdout).strip().splitlines()[-1:]
            return Verdict("unchecked", f"its compiler failed: {''.join(last)}")
        if not all(said.values()):
            return Verdict("parses") if names is first else Verdict("fragment", "parses as a part of something")
        errors |= said
    return _judged(compiler, errors)


def readings_of(compiler: Compiler, code: str) -> dict[str, str]:
    """The files that are shown; lines that only say that something is left out are empty in them."""
    return dict(compiler.readings(re.sub(r"(?m)^[ \t]*(?://|#)?[ \t]*(?:\.\.\.|…)[ \t;]*$", "", code)))


def _errors(compiler: Compiler, names: Sequence[str], ran: Ran) -> dict[str, list[tuple[str, str]]]:
    """What was said of each file: lines and errors."""
    errors: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for found in compiler.error.finditer(ran.stdout + "\n" + ran.stderr):
        if found["file"] in errors:
            errors[found["file"]].append((found["line"], " ".join(found["what"].split())))
    return errors


def _judged(compiler: Compiler, errors: Mapping[str, Sequence[tuple[str, str]]]) -> Verdict:
    """A fragment, if there is a reading whose first error is about a name: those after it can come of that."""
    for said in errors.values():
        if compiler.naming.search(said[0][1]):
            return Verdict("fragment", said[0][1])
    line, what = next(iter(errors.values()))[0]
    return Verdict("broken", f"line {line}: {what}" if line != "0" else what)
