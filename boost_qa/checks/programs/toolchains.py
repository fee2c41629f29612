"""Which compilers are asked, how, and in which readings they are shown a piece of code.

None of these commands runs the code, but for Perl's `-c`, which runs its BEGIN blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

AS_IT_STANDS = ("whole", "Whole", "sloppy")
"""How the names of those readings begin that add nothing."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """How a language is asked about.

    Args:
        program: looked for on the PATH.
        command: its path, as it is inside, and the names of files: what is run.
        readings: the files to show it: the piece as it stands first (`AS_IT_STANDS`), then what
            makes a fragment whole.
        error: finds the errors: groups `file`, `line` and `what`.
        naming: which of these are about names alone.
        helpers: further files that the command needs.
        readable: paths outside /usr that the program needs.
    """

    program: str
    command: Callable[[str, Sequence[str]], list[str]]
    readings: Callable[[str], Mapping[str, str]]
    error: re.Pattern[str]
    naming: re.Pattern[str] = re.compile(r"(?!)")
    helpers: tuple[tuple[str, str], ...] = ()
    readable: tuple[str, ...] = ()


# --- C and C++ -----------------------------------------------------------------------------------

# headers, and the names that need them: each costs time, those of C++ a third of a second
_C = {
    "stdio.h": r"printf|scanf|FILE|fopen|puts|getchar|stdin|std(?:out|err)",
    "stdlib.h": r"[mc]alloc|realloc|free|exit|ato\w|rand|qsort|abs|strto\w+|NULL|size_t",
    "string.h": r"str\w+|mem\w+",
    "stdint.h": r"u?int(?:_\w+)?\d+_t|u?intptr_t",
    "stdbool.h": r"bool|true|false",
    "ctype.h": r"is\w+|to(?:upper|lower)",
    "math.h": r"sqrt|pow|sin|cos|floor|ceil|fabs|log\w*",
    "errno.h": r"errno|E[A-Z]+",
    "limits.h": r"\w+_M(?:AX|IN)|CHAR_BIT",
    "assert.h": r"assert",
    "time.h": r"time_t|clock\w*|time",
    "unistd.h": r"fork|read|write|close|sleep|exec\w+|pipe|getpid|usleep",
    "stddef.h": r"offsetof|ptrdiff_t|size_t",
}
_CPP = {
    "iostream": r"c(?:out|in|err)|endl|[io]?stream",
    "string": r"w?string|to_string|stoi",
    "vector": r"vector",
    "map": r"map|multimap",
    "unordered_map": r"unordered_\w*map",
    "set": r"set|multiset",
    "memory": r"\w+_ptr|make_(?:unique|shared)",
    "algorithm": r"sort|find\w*|copy\w*|transform|for_each|remove_if|m(?:ax|in)|count_if|swap|reverse|fill",
    "functional": r"function|bind|hash|greater|less",
    "utility": r"pair|move|forward|make_pair",
    "array": r"array",
    "cstdint": _C["stdint.h"],
    "cstring": _C["string.h"],
    "cstdio": _C["stdio.h"],
}
_INCLUDE = re.compile(r"(?m)^[ \t]*#[ \t]*(?:include|import)\b.*$")
_ERROR = re.compile(r"(?m)^(?P<file>\w+\.\w+):(?P<line>\d+):(?:\d+:)? (?:fatal )?error: (?P<what>.*)$")
_NAMES = re.compile(
    r"expected class-name|namespace-name|"
    r"undeclared|not declared|unknown type name|does not name a|has not been declared|No such file|incomplete type|"
    r"no member named|is not a member|no template named|undefined|not a class|not a template|storage class|"
    r"redefinition|redeclar|conflicting|no matching|cannot convert|invalid use|invalid conversion|invalid operands|"
    r"incompatible|is not allowed here|outside|not within|not in a loop|too (?:few|many) arguments|default argument|"
    r"no return|initializer element is not constant|variable-sized|previously|requested|was not declared|"
    r"cannot be used|has no|is private|is protected|ISO C|qualified-id|expects|lvalue|static assertion|must be"
)


def _c_readings(suffix: str, headers: Mapping[str, str], extra: str = "") -> Callable[[str], dict[str, str]]:
    known = {*_C, *_CPP, "cmath", "cstdlib", "cassert", "cctype", "stdarg.h", "signal.h", "pthread.h", "list", "deque"}
    known |= {"queue", "stack", "tuple", "optional", "variant", "type_traits", "thread", "mutex", "chrono", "sstream"}

    def readings(code: str) -> dict[str, str]:
        # other headers cannot be had, and an answer must not name files to read
        kept = _INCLUDE.sub(lambda line: line[0] if _named(line[0]) in known else "", code)
        bare = _INCLUDE.sub("", code)
        needed = [header for header, names in headers.items() if re.search(rf"\b(?:{names})\b", bare)]
        prelude = "".join(f"#include <{header}>\n" for header in needed) + extra
        return {
            f"whole.{suffix}": kept,
            f"below.{suffix}": f"{prelude}#line 1\n{bare}",
            f"inside.{suffix}": f"{prelude}void inside_(void) {{\n#line 1\n{bare}\n;}}\n",
            f"member.{suffix}": f"{prelude}struct inside_ {{\n#line 1\n{bare}\n;}};\n",
        }

    return readings


def _named(include: str) -> str:
    found = re.search(r'[<"]([\w./]+)[>"]', include)
    return found[1] if found else ""


def _gcc(path: str, files: Sequence[str]) -> list[str]:
    standard = "-std=gnu++20" if files[0].endswith("cc") else "-std=gnu17"
    return [
        *(path, standard, "-fsyntax-only", "-w", "-fmax-errors=10", "-fno-diagnostics-show-caret"),
        *("-fdiagnostics-color=never", *files),
    ]


# --- Java ----------------------------------------------------------------------------------------


def _java_readings(code: str) -> dict[str, str]:
    head = re.compile(r"(?m)^[ \t]*(?:import|package)\s[\w.* ]+;")
    imports, body = "".join(f"{line}\n" for line in head.findall(code) if "package" not in line), head.sub("", code)
    return {
        "Whole.java": code,
        "Inside.java": f"{imports}class Inside {{ void inside() throws Exception {{ {body}\n;}} }}",
        "Member.java": f"{imports}class Member {{ {body}\n}}",
        "Abstract.java": f"{imports}class Abstract {{ {{ {body}\n}} }}",
        "Value.java": f"{imports}class Value {{ Object value = {body.strip().rstrip(';')}\n; }}",
    }


def _javac(path: str, files: Sequence[str]) -> list[str]:
    machine = ("-J-Xmx256m", "-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-J-Xshare:auto")
    stop = ("-XDshould-stop.ifError=PARSE", "-XDshould-stop.ifNoError=PARSE", "-proc:none", "-implicit:none")
    return [path, *machine, *stop, "-Xmaxerrs", "60", "-nowarn", *files]


# --- JavaScript ----------------------------------------------------------------------------------

_NODE = """
const fs = require('fs'), vm = require('vm');
for (const name of process.argv.slice(2)) {
  const text = fs.readFileSync(name, 'utf8');
  try {
    if (name.endsWith('.mjs')) new vm.SourceTextModule(text, {identifier: name});
    else new vm.Script(text, {filename: name});
  } catch (error) {
    const line = /:(\\d+)\\n/.exec(error.stack || '');
    console.log(`${name}:${line ? line[1] : 0}: ${error.name}: ${error.message}`);
  }
}
"""


def _node_readings(code: str) -> dict[str, str]:
    return {
        "whole.mjs": code,
        "sloppy.cjs": code,
        "inside.mjs": f"async function* inside_() {{ {code}\n}}",
        "value.mjs": f"(\n{code.strip().rstrip(';,')}\n)",
        "member.mjs": f"class Member {{ {code}\n}}",
        "entries.mjs": f"({{ {code.strip().rstrip(',')}\n}})",
    }


# --- shells and Perl -----------------------------------------------------------------------------


def _bash_readings(code: str) -> dict[str, str]:
    # <name> stands for something to fill in, and not for two redirections
    return {"whole.sh": code, "filled.sh": re.sub(r"<[A-Za-z][\w .-]*>", "FILLED", code)}


def _each(*options: str) -> Callable[[str, Sequence[str]], list[str]]:
    loop = 'program=$1; shift; for file; do "$program" ' + " ".join(options) + ' "$file"; done 2>&1; true'
    return lambda path, files: ["/usr/bin/bash", "-c", loop, "each", path, *files]


COMPILERS = {
    "c": Compiler("gcc", _gcc, _c_readings("c", _C), _ERROR, _NAMES),
    "c++": Compiler("g++", _gcc, _c_readings("cc", _CPP, "using namespace std;\n"), _ERROR, _NAMES),
    "java": Compiler(
        "javac",
        _javac,
        _java_readings,
        re.compile(r"(?m)^(?P<file>\w+\.java):(?P<line>\d+): error: (?P<what>.*)$"),
        readable=tuple(str(path) for path in Path("/etc").glob("java-*-openjdk")),
    ),
    "javascript": Compiler(
        "node",
        lambda path, files: [path, "--no-warnings", "--experimental-vm-modules", "check.js", *files],
        _node_readings,
        re.compile(r"(?m)^(?P<file>\w+\.[cm]js):(?P<line>\d+): (?P<what>.*)$"),
        re.compile(r"Unexpected token '<'"),  # which may be JSX
        helpers=(("check.js", _NODE),),
    ),
    "bash": Compiler(
        "bash",
        _each("-n"),
        _bash_readings,
        re.compile(r"(?m)^(?P<file>\w+\.sh): line (?P<line>\d+): (?P<what>.*)$"),
    ),
    "perl": Compiler(
        "perl",
        _each("-c"),
        lambda code: {"whole.pl": code},
        re.compile(r"(?m)^(?P<what>.*) at (?P<file>\w+\.pl) line (?P<line>\d+)"),
        re.compile(r"Can't locate|Global symbol|Bareword|Can't find .* package|Undefined|not exported|required--this"),
    ),
}
