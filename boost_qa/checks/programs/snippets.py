"""Reading Python and JSON as they stand in answers: whole, in part, as a session, or of another age."""

from __future__ import annotations

import ast
import doctest
import json
import re
import textwrap
import warnings
from contextlib import suppress

from boost_qa.checks.programs.compilers import Verdict

_MAGIC = re.compile(r"(?m)^([ \t]*)(?:%%?[a-z_]\w*|[!?][\w./]|\w+[\w.]*\?{1,2}$).*$")
_IPYTHON_IN = re.compile(r"(?m)^[ \t]*(?:In \[\d+\]|\.\.\.+):[ ]?")
_IPYTHON_OUT = re.compile(r"(?m)^[ \t]*Out\[\d+\]:.*$")
_TWO = re.compile(
    r"Missing parentheses in call to '(?:print|exec)'|multiple exception types must be parenthesized|"
    r"leading zeros in decimal integer literals"
)
_TWO_LINE = re.compile(
    r"^\s*(?:print\s+[^(=\s]|raise\s+\w+,|except\s+\w+\s*,\s*\w+\s*:|exec\s+[\"'\w])|<>|`\w+`|\bur[\"']"
)
_PROMPT = re.compile(r"(?m)^>>>(?: |$)")  # set in, it may stand in a docstring
_LEFT_OUT = re.compile(r"(?m)^[ \t]*(?://.*|#.*|\.\.\.|…)[ \t]*$|(?<=[\[{,])\s*(?:\.\.\.|…)\s*(?=[\]},])")


def read_python(code: str) -> Verdict:
    """Whether Python code parses in the version that runs this, as what, and if not, why."""
    code = as_read(code)
    if _IPYTHON_IN.search(code):  # `In [1]: x = 1` would parse, as an annotation
        shown = _magic_error(textwrap.dedent(_IPYTHON_OUT.sub("", _IPYTHON_IN.sub("", code))))
        return Verdict("session", "with IPython's prompts") if shown is None else _broken(shown)
    error = _error(code)
    if error is None:
        return Verdict("parses")
    if _PROMPT.search(code):
        return _session(code)
    if _MAGIC.search(code) and _magic_error(code) is None:
        return Verdict("notebook", "with magic commands")
    for part in _completed(code):
        if _error(part) is None:
            return Verdict("fragment", "parses as a part of something")
    lines = code.splitlines()
    where = lines[error.lineno - 1] if error.lineno and error.lineno <= len(lines) else ""
    if _TWO.search(error.msg) or _TWO_LINE.search(where):
        return Verdict("python 2", f"line {error.lineno}: {error.msg}")
    return _broken(error)


def as_read(code: str) -> str:
    """Python code without what all its lines are set in by."""
    return textwrap.dedent(code).strip("\n")


def stands_alone(code: str) -> bool:
    """Whether Python code is a program: `return 1` and `await f()` parse, but only as parts of functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(code, "<block>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def read_json(code: str) -> Verdict:
    """Whether a text is JSON, JSON lines, or a part of JSON; comments and dots for what is left out make it a part."""
    if _json_error(code) is None:
        return Verdict("parses")
    lines = [line for line in code.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.strip()[:1] in "{[" and _json_error(line) is None for line in lines):
        return Verdict("parses", "one value a line")
    bare = _LEFT_OUT.sub("", code).strip().rstrip(",")
    bare = re.sub(r",(\s*[\]}])", r"\1", bare)
    for part in (bare, f"{{{bare}}}", f"[{bare}]"):
        if _json_error(part) is None:
            return Verdict("fragment", "parses as a part of something")
    return Verdict("broken", _json_error(code) or "")


def _session(code: str) -> Verdict:
    try:
        examples = doctest.DocTestParser().get_examples(code)
    except ValueError as error:
        return Verdict("broken", f"no session: {error}")
    for example in examples:
        found = _magic_error(example.source)
        shown = "SyntaxError" in example.want or "IndentationError" in example.want  # what Python said of it
        if found is not None and not shown:
            return Verdict("broken", f"line {example.lineno + 1}: {found.msg}")
    return Verdict("session", f"{len(examples)} inputs")


def _completed(code: str) -> list[str]:
    """What a part of a program may be a part of."""
    inside = f"if 1:\n    if 1:\n        pass\n{textwrap.indent(code, '    ')}"
    return [
        f"if 1:\n{code}",  # its first line is set in, and others are not
        code.lstrip(),
        f"{code}\n    pass",
        f"{code.rstrip()}\n{' ' * (_indent(code) + 4)}pass",
        inside,  # else: and elif
        f"try:\n    pass\n{code}",
        f"{{\n{code}\n}}",
        f"f(\n{code}\n)",
        f"match 1:\n{textwrap.indent(code, '    ')}",
    ]


def _indent(code: str) -> int:
    last = (code.rstrip().splitlines() or [""])[-1]
    return len(last) - len(last.lstrip())


def _magic_error(code: str) -> SyntaxError | None:
    return _error(_MAGIC.sub(r"\1pass", code))


def _error(code: str) -> SyntaxError | None:
    """Why code does not parse; None if it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except SyntaxError as error:
            return error
        except ValueError as error:  # a NUL
            return SyntaxError(str(error))
        except (RecursionError, MemoryError):
            return SyntaxError("nested too deeply")
    return None


def _broken(error: SyntaxError) -> Verdict:
    return Verdict("broken", f"line {error.lineno}: {error.msg}" if error.lineno else error.msg)


def _json_error(code: str) -> str | None:
    with suppress(RecursionError):
        try:
            json.loads(code)
        except ValueError as error:
            return str(error)
        return None
    return "nested too deeply"
