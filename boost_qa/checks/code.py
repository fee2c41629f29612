"""Code in answers: whether each fenced block at least parses, and, on demand, whether Python runs.

A block whose language no fence names is looked at if its marks tell the language, and where it does not parse then, it
is unchecked, not broken: of fourteen such failures in real answers twelve were a wrong guess, a dialect, or a header
that was not there, one showed the wrong and the right beside each other, and one was a fault of the code.

Compilers and programs run in isolation (`isolation.py`) and nowhere else. Without isolation, what needs it is
unchecked, and says so; running code is an error then.
"""

from __future__ import annotations

import json
import re
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from boost_qa.checks.finding import Finding, excerpt
from boost_qa.checks.programs.compilers import Verdict, at_hand, compile_in
from boost_qa.checks.programs.fences import Block, blocks
from boost_qa.checks.programs.programming import guess, tagged
from boost_qa.checks.programs.snippets import as_read, read_json, read_python, stands_alone
from boost_qa.checks.programs.toolchains import COMPILERS
from boost_qa.engines.workers import Workers
from boost_qa.errors import EngineError, ModelError
from boost_qa.isolation import Isolation, Ran
from boost_qa.types import Dialogue, Message, Request, Sampling

if TYPE_CHECKING:
    from boost_qa.config import Code

NAME, VERSION = "code", "2"
CODE_MODEL = f"look at code, version {VERSION}"
"""The model of requests to look at code; `examiner` is the engine that answers it."""

LABELS = {
    "code parses": "a block of code parses as it stands",
    "code is a fragment": "it parses as a part of something, or lacks names and headers only",
    "code is a session": "it shows prompts with what was typed and answered, and what was typed parses",
    "code is a notebook": "Python with the magic commands of notebooks",
    "code is Python 2": "what keeps it from parsing is Python 2's",
    "code broken": "no reading of it parses in the language that its fence names",
    "code unchecked": "there is no compiler, no isolation, or no telling the language; the detail says which",
    "code unfinished": "the text ends inside the block",
    "code runs": "Python ran to its end",
    "code fails": "Python ended with an error or at a limit",
    "code not run": "it needs what isolation does not have: a module, file, network or input, or a function around it",
}
_STATES = {
    "parses": "code parses",
    "fragment": "code is a fragment",
    "session": "code is a session",
    "notebook": "code is a notebook",
    "python 2": "code is Python 2",
    "broken": "code broken",
    "unchecked": "code unchecked",
}
MOST_BLOCKS = 32
"""Of a turn; further ones are unchecked."""
LONGEST = 50_000
"""Characters of a block; a longer one is unchecked."""
COMPILE_SECONDS = 20.0
"""For one run of a compiler, of which a block may take two."""
TURN_SECONDS = 90.0
"""For all blocks of a turn; what comes after is unchecked."""

_ADDRESS_MIB = 32 * 1024  # of a worker: its compilers inherit it, and reserve far more than they use
_ABSENT = ("ModuleNotFoundError", "EOFError", "FileNotFoundError", "gaierror", "ConnectionRefusedError", "URLError")
_ASIS = Sampling(temperature=0.0, max_tokens=1)  # nothing is drawn

Outcome = Literal["code runs", "code fails", "code not run"]


async def look(dialogue: Dialogue, settings: Code | None = None) -> list[Finding]:
    """What there is to say of the code in each `gpt` turn: one request for each turn that has any.

    Code runs if `settings` say so.
    """
    found = []
    for at, turn in enumerate(dialogue.turns):
        if turn.side != "gpt" or not blocks(turn.text):
            continue
        asked = {"text": turn.text, "isolate": True}
        if settings is not None:
            asked |= {"run": settings.run, "seconds": settings.seconds, "memory_mib": settings.memory_mib}
        reply = await Request(CODE_MODEL, (Message("user", json.dumps(asked)),), _ASIS)
        if reply.finish == "refused":
            found.append(Finding("code unchecked", at, excerpt(reply.text)))
        else:
            found += [Finding(label, at, detail) for label, detail in json.loads(reply.text)]
    return found


def examiner(settings: Code | None = None, processes: int | None = None) -> Workers:
    """The engine that answers `CODE_MODEL`.

    Raises:
        ModelError: if code is to run, and isolation cannot be had.
    """
    seconds = 5.0 if settings is None else settings.seconds
    if settings is not None and settings.run:
        Isolation.find()
    languages = ", ".join(language for language in COMPILERS if at_hand(language))
    return Workers(
        "boost_qa.checks.code:examine",
        seconds=TURN_SECONDS + 2 * COMPILE_SECONDS + 2 * seconds,
        memory_mib=_ADDRESS_MIB,
        processes=processes,
        revision=f"checks {VERSION}, with compilers of {languages}",
    )


def examine(payload: str) -> str:
    """Look at one text; for a worker process.

    Args:
        payload: JSON with `text`, and optionally `isolate` (compilers may be asked), `run`, `seconds`, `memory_mib`.

    Returns:
        JSON: a list of [label, detail], in the order of the blocks.

    Raises:
        ModelError: if code is to run, and isolation cannot be had.
    """
    asked: dict[str, Any] = json.loads(payload)
    isolation = _isolation() if asked.get("isolate") or asked.get("run") else None
    if isinstance(isolation, ModelError) and asked.get("run"):
        raise isolation
    limits = {"seconds": asked.get("seconds", 5.0), "memory_mib": asked.get("memory_mib", 512)}
    if isinstance(isolation, ModelError):
        isolation = None
    return json.dumps(_findings(asked["text"], isolation, bool(asked.get("run")), **limits))


def look_here(dialogue: Dialogue, isolation: Isolation | None = None, run: bool = False) -> list[Finding]:
    """The same as `look`, at once and in this process.

    Raises:
        ModelError: if code is to run without isolation.
    """
    return [
        Finding(label, at, detail)
        for at, turn in enumerate(dialogue.turns)
        if turn.side == "gpt"
        for label, detail in _findings(turn.text, isolation, run)
    ]


def _findings(
    text: str, isolation: Isolation | None, run: bool, seconds: float = 5.0, memory_mib: int = 512
) -> list[tuple[str, str]]:
    if run and isolation is None:
        raise ModelError("code is to run, but not in isolation", "Give Isolation.find(), or do not run code.")
    found: list[tuple[str, str]] = []
    deadline = time.monotonic() + TURN_SECONDS
    for number, block in enumerate(blocks(text)):
        over = number >= MOST_BLOCKS or time.monotonic() > deadline
        language = tagged(block.tag) if block.tag else guess(block.code)
        verdict = Verdict("unchecked", "too many, or too slow") if over else _read(block, language, isolation)
        if verdict.state == "broken" and not block.tag:
            verdict = Verdict("unchecked", f"no fence says its language: {verdict.why}")
        where = f"line {block.line}, {excerpt(language, 0, 20)}"
        found.append((_STATES[verdict.state], excerpt(f"{where}: {_said(verdict.why)}" if verdict.why else where)))
        if not block.closed:
            found.append(("code unfinished", where))
        if run and isolation is not None and language == "python" and verdict.state == "parses" and not over:
            program = as_read(block.code)
            if stands_alone(program):
                label, why = _outcome(isolation.run_python(program, seconds=seconds, memory_mib=memory_mib))
            else:
                label, why = "code not run", "a part of a function or a loop"
            found.append((label, excerpt(f"{where}: {why}" if why else where)))
    return found


def _read(block: Block, language: str, isolation: Isolation | None) -> Verdict:
    if len(block.code) > LONGEST:
        return Verdict("unchecked", f"longer than {LONGEST:,} characters")
    if language == "python":
        return read_python(block.code)
    if language == "json":
        return read_json(block.code)
    if language == "unknown":
        return Verdict("unchecked", "its language is not told")
    if at_hand(language) is None:
        return Verdict("unchecked", "no compiler at hand")
    if isolation is None:
        return Verdict("unchecked", "no isolation for its compiler")
    if language == "bash" and (typed := _typed(block.code)) is not None:
        verdict = compile_in(isolation, language, typed, COMPILE_SECONDS)
        return Verdict("session", verdict.why) if verdict.state in ("parses", "fragment") else verdict
    return compile_in(isolation, language, block.code, COMPILE_SECONDS)


def _typed(code: str) -> str | None:
    """What was typed after the prompts of a shell; None if there are none."""
    lines = [line.strip() for line in code.splitlines()]
    typed = [line[2:] for line in lines if line.startswith(("$ ", "# ", "> "))]
    return "\n".join(typed) if any(line.startswith("$ ") for line in lines) else None


def _outcome(ran: Ran) -> tuple[Outcome, str]:
    if ran.why is not None:
        return "code fails", f"ended for {ran.why}"
    if ran.exit == 0:
        return "code runs", ""
    last = (ran.stderr.strip().splitlines() or [""])[-1]
    kind = last.partition(":")[0].rpartition(".")[2]  # and not its message, which may hold anything
    if kind in _ABSENT:
        return "code not run", kind
    return "code fails", kind if kind.isidentifier() else f"exit code {ran.exit}"


def _said(why: str) -> str:
    """A compiler's words without the longer pieces of code that they quote, which may hold somebody's secrets."""
    quoted = r"""["'`\u2018\u201c][^"'`\u2019\u201d]{17,}["'\u2019\u201d]?"""
    return re.sub(rf"{quoted}|\S*@\S*|\d{{5,}}", "…", why)


@cache
def _isolation() -> Isolation | ModelError:
    try:
        return Isolation.find()
    except (ModelError, EngineError) as error:
        return error if isinstance(error, ModelError) else ModelError(error.what, error.remedy)
