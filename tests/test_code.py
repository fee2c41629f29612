"""Code in answers: finding it, telling its language, and telling what is broken from what is a part of something."""

from __future__ import annotations

import asyncio
import doctest
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boost_qa.checks import code
from boost_qa.checks.code import CODE_MODEL, LABELS, MOST_BLOCKS, examine, examiner, look, look_here
from boost_qa.checks.programs import compilers
from boost_qa.checks.programs.compilers import at_hand, compile_in
from boost_qa.checks.programs.fences import blocks
from boost_qa.checks.programs.programming import guess, tagged
from boost_qa.checks.programs.snippets import read_json, read_python
from boost_qa.checks.programs.toolchains import COMPILERS
from boost_qa.config import Code
from boost_qa.errors import ModelError
from boost_qa.isolation import Isolation
from boost_qa.runner import Job, call_for
from boost_qa.types import Dialogue, Record, Reply, Request, Turn

RECORD = Record("id", "procqa", "How?", "So.", "1")


def _isolation() -> Isolation | ModelError:
    try:
        return Isolation.find()
    except ModelError as error:
        return error


FOUND = _isolation()
isolated = pytest.mark.skipif(isinstance(FOUND, ModelError), reason=f"no isolation here: {FOUND}")


def dialogue(*texts: str) -> Dialogue:
    sides = ("human", "gpt")
    return Dialogue(RECORD, "debate", tuple(Turn("x", sides[at % 2], text) for at, text in enumerate(texts)))


def fenced(text: str, tag: str = "") -> str:
    return f"Look:\n```{tag}\n{text}\n```\n"


def labels(text: str, isolation=None, run=False) -> list[str]:
    return [finding.label for finding in look_here(dialogue("How?", text), isolation, run)]


# --- fences --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("```python\nx\n```", [("python", "x\n", 1, True)]),
        ("~~~\na\n```\nb\n~~~", [("", "a\n```\nb\n", 1, True)]),
        ("- a\n\n        ```js\n        x\n        ```\n", [("js", "x\n", 3, True)]),  # set in by too many spaces
        ("1. a\n   ```sh\n   b\n   ```\nafter", [("sh", "b\n", 2, True)]),
        ("> ```\n> q\n> ```\n", [("", "q\n", 1, True)]),
        ("````md\n```py\nx\n```\n````", [("md", "```py\nx\n```\n", 1, True)]),
        ("```py\nx", [("py", "x", 1, False)]),
        ("```py\nx\n", [("py", "x\n", 1, False)]),
        ("```py\nx\n\n", [("py", "x\n\n", 1, False)]),
        ("```{.python}\nx\n```", [("python", "x\n", 1, True)]),
        ("``` Python, linenos\nx\n```", [("python", "x\n", 1, True)]),
        ("```py\nx\n``` more\n```", [("py", "x\n``` more\n", 1, True)]),
        ("a\r\n```py\r\nx\r\n```\r\nb", [("py", "x\n", 2, True)]),
        ("<div>\n```\nx\n```\n</div>", [("", "x\n", 2, True)]),
        ("```\n\n```", []),
        ("```", []),
        ("in `one` and ``` two ``` lines", []),
        ("", []),
        ("    indented = 1", []),
    ],
)
def test_fences(text, expected):
    assert [(block.tag, block.code, block.line, block.closed) for block in blocks(text)] == expected


@given(
    st.lists(st.text(st.characters(exclude_characters="`~\r\0", codec="utf-8"), min_size=1, max_size=60), max_size=6)
)
def test_what_is_fenced_is_found(codes):
    """Each in a fence of its own, with text between: no more, no less, and unchanged."""
    codes = [code for code in ("\n".join(code.split("\n")) for code in codes) if code.strip()]
    text = "\n\ntext\n\n".join(f"```x\n{code}\n```" for code in codes)
    found = [block.code for block in blocks(text)]
    assert found == [f"{code}\n" for code in codes] or any(ch in text for ch in "\x85\u2028\u2029\x0b\x0c\t")


@pytest.mark.parametrize(
    "text", ["> " * 20000 + "x", "```\n" * 20000, "- " * 3000 + "x", "`" * 200000, "1. " * 3000, "~~~ a\n" * 9999]
)
def test_hostile_markdown_takes_no_time(text):
    began = time.monotonic()
    blocks(text)
    assert time.monotonic() - began < 5


# --- Python --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, text",
    [
        ("parses", "def f(x):\n    return x"),
        ("parses", "    x = 1\n    y = 2"),  # all of it set in
        ("parses", "def f(): ...\n..."),
        ("parses", "return 1"),  # of a function; it parses
        ("parses", "await f()"),
        ("parses", "x = '\\d'"),  # a warning is no fault
        ("session", ">>> x = 1\n>>> x\n1"),
        ("session", "text\n>>> for x in y:\n...     print(x)\n...\n1\n2"),
        ("session", ">>> f(\nTraceback (most recent call last):\nSyntaxError: '(' was never closed"),
        ("session", "In [1]: x = 1\n\nIn [2]: x\nOut[2]: 1"),
        ("session", "In [1]: for x in y:\n   ...:     print(x)\n   ...:"),
        ("notebook", "%matplotlib inline\nimport numpy"),
        ("notebook", "!pip install x\nimport x"),
        ("notebook", "for x in y:\n    %timeit f(x)"),
        ("notebook", "f?"),
        ("python 2", "print 'x'"),
        ("python 2", "print x, y"),
        ("python 2", "try:\n    f()\nexcept E, e:\n    pass"),
        ("python 2", "raise ValueError, 'x'"),
        ("python 2", "x = 0777"),
        ("python 2", "exec 'x = 1'"),
        ("python 2", "if x <> y: pass"),
        ("fragment", "    x = 1\ny = 2"),
        ("fragment", "else:\n    x = 1"),
        ("fragment", "elif x:\n    pass"),
        ("fragment", "except ValueError:\n    pass"),
        ("fragment", "def f(x):"),
        ("fragment", "class A:\n    def f(self):"),
        ("fragment", "'a': 1,\n'b': 2,"),
        ("fragment", "x=1, y=2"),
        ("fragment", "case 1:\n    pass"),
        ("broken", "def f(x)\n    return x"),
        ("broken", "x = (1, 2"),
        ("broken", "This is not code, is it?"),
        ("broken", ">>> def f(:\n1"),
        ("broken", "x = 1\0"),
        ("broken", "let x = 1;"),
        ("broken", "(" * 5000 + ")" * 5000),
        ("broken", "'" + "x" * 100),
        ("broken", "for x in y\n    print(x)"),
        ("broken", "\tx = 1\n        y = 2\n z = 3"),
    ],
)
def test_python(state, text):
    assert read_python(text).state == state, read_python(text)


@given(st.text(max_size=300) | st.text(">.%!?In[]0:(){}'\"\\ \n\tabc=#", max_size=200))
def test_python_can_be_anything(text):
    assert read_python(text).state in {"parses", "fragment", "session", "notebook", "python 2", "broken"}


@pytest.mark.parametrize("module", [json, asyncio, os, compilers, code, doctest], ids=lambda module: module.__name__)
def test_whole_modules(module):
    """Those of the standard library have sessions in their docstrings, and are none."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert read_python(text).state == "parses"
    assert read_python(text + "\n)").state == "broken"


# --- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, text",
    [
        ("parses", '{"a": [1, null]}'),
        ("parses", '{"a": 1}\n{"a": 2}'),
        ("parses", "3"),
        ("fragment", '"a": 1,\n"b": 2'),
        ("fragment", '{"a": 1},\n{"a": 2}'),
        ("fragment", '{\n  // about a\n  "a": 1,\n}'),
        ("fragment", '{\n  "a": 1,\n  ...\n}'),
        ("fragment", '{"a": [1, ...]}'),
        ("broken", "{'a': 1}"),
        ("broken", '{"a": 1'),
        ("broken", '{"a" 1}'),
        ("broken", "[" * 100000),
        ("broken", "{a: 1}"),
    ],
)
def test_json(state, text):
    assert read_json(text).state == state, read_json(text)


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_json_writes_parses(value):
    assert read_json(json.dumps(value)).state == "parses"
    assert read_json(json.dumps(value, indent=2, ensure_ascii=False)).state == "parses"


# --- telling the language ------------------------------------------------------------------------

SAMPLES = {
    "python": "import os\n\ndef f(x):\n    if x is not None:\n        print(f'{x}')\n    return os.environ",
    "c": '#include <stdio.h>\n\nint main(void) {\n    char *s = malloc(3);\n    printf("%s", s);\n    return 0;\n}',
    "c++": "#include <iostream>\nusing namespace std;\nint main() {\n  std::vector<int> v;\n  cout << v.size();\n}",
    "java": "import java.util.List;\n\npublic class A {\n    @Override\n    public String toString() {\n"
    '        System.out.println("x");\n        return null;\n    }\n}',
    "javascript": "const x = require('x');\nfunction f(a) {\n  console.log(a === 1);\n}\nf(() => { return 1; });",
    "bash": '#!/bin/bash\nfor f in *.txt; do\n  echo "$f" | grep x\ndone\nexport A=1',
    "json": '{"name": "x", "values": [1, 2]}',
    "perl": "use strict;\nuse warnings;\nmy $x = 1;\nmy @y = (1);\nforeach my $z (@y) { print \"$z\"; }",
    "c#": "using System;\nnamespace A {\n  public class B {\n    public string C { get; set; }\n"
    "    static void Main() { Console.WriteLine(1); }\n  }\n}",
    "go": 'package main\n\nimport (\n\t"fmt"\n)\n\nfunc main() {\n\tx := 1\n\tfmt.Println(x)\n}',
    "rust": "fn main() {\n    let mut x = 1;\n    let y: u8 = 2;\n    println!(\"{}\", x);\n}",
    "typescript": "interface A {\n  x: string;\n  y?: number;\n}\nfunction f(a: A): void {\n  const b = a as any;\n}",
    "sql": "SELECT a, b\nFROM t\nWHERE a = 1\nORDER BY b",
}  # fmt: skip


@pytest.mark.parametrize("language", SAMPLES)
def test_marks_tell_the_language(language):
    assert guess(SAMPLES[language]) == language


@pytest.mark.parametrize(
    "text", ["", "x", "hello world", "1 2 3\n4 5 6", "foo()", "{}", "[]", "error: not found", "a = b"]
)
def test_what_has_no_marks_is_not_told(text):
    assert guess(text) == "unknown"


@given(st.text(max_size=400))
def test_a_language_can_be_guessed_of_anything(text):
    assert guess(text)


def test_guessing_takes_no_time():
    for text in ("a" * 200_000, "x = " * 50_000, ("<" * 300 + "\n") * 3000, " " * 100_000 + "x", "((((" * 50_000):
        began = time.monotonic()
        guess(text)
        assert time.monotonic() - began < 2


def test_tags():
    assert [tagged(tag) for tag in ("py", "cpp", "sh", "js", "kotlin")] == [
        "python",
        "c++",
        "bash",
        "javascript",
        "kotlin",
    ]


def test_only_a_fence_makes_code_broken():
    """A guess may be wrong."""
    for text in (SAMPLES["python"] + "\n  )", '{"a": 1, "b": oops}\n' * 3):
        assert labels(fenced(text)) == ["code unchecked"]
    assert labels(fenced(SAMPLES["python"] + "\n  )", "python")) == ["code broken"]
    assert labels(fenced(SAMPLES["python"])) == ["code parses"]


# --- compilers -----------------------------------------------------------------------------------

PIECES = [
    ("c", "parses", SAMPLES["c"]),
    ("c", "parses", "int f(int x) { return x + 1; }"),
    ("c", "fragment", 'printf("%d\\n", x);\nreturn 0;'),
    ("c", "fragment", "Foo *foo = foo_new();\nfoo->bar(1);"),
    ("c", "fragment", '#include "mine.h"\nmine_t f(void) { return MINE; }'),
    ("c", "fragment", "for (int i = 0; i < n; i++) {\n    ...\n}"),
    ("c", "broken", "int main( { return 0; }"),
    ("c", "broken", 'int main(void) { printf("x) ; }'),
    ("c", "broken", "int f(void) { return 1 }"),
    ("c++", "parses", "template <typename T> T f(T x) { return x; }"),
    ("c++", "fragment", "for (auto x : v) {\n  x.f();\n}"),
    ("c++", "broken", "class A { int f( ; };"),
    ("java", "parses", "class A { Unknown x = Missing.get(); }"),
    ("java", "fragment", "public void f() { g(); }\nprivate int x;"),
    ("java", "fragment", "import java.util.*;\nList<String> x = new ArrayList<>();"),
    ("java", "broken", "int x = ;"),
    ("javascript", "parses", "const x = 1;\nexport default x;"),
    ("javascript", "parses", "with (a) { b }"),  # sloppy mode only
    ("javascript", "parses", "await f();"),
    ("javascript", "fragment", "return x;"),
    ("javascript", "fragment", "a: 1,\nb() { return 2; }"),
    ("javascript", "fragment", "{ a: 1, b: 2 }"),
    ("javascript", "fragment", "const x = <div>hello</div>;"),
    ("javascript", "broken", "let x = ;"),
    ("bash", "parses", SAMPLES["bash"]),
    ("bash", "fragment", "git checkout <branch> && ls"),
    ("bash", "broken", "if [ 1 ]; then echo x"),
    ("bash", "broken", "for x in y; do echo )"),
    ("perl", "parses", "my $x = 1; print $x;"),
    ("perl", "fragment", "use strict; $x = 1;"),
    ("perl", "fragment", "use There::Is::None; f();"),
    ("perl", "broken", "my $x = ;"),
]


@isolated
@pytest.mark.parametrize("language, state, text", PIECES)
def test_compilers(language, state, text):
    if at_hand(language) is None:
        pytest.skip(f"no compiler of {language}")
    found = compile_in(FOUND, language, text, 30)
    assert found.state == state, found


@isolated
@pytest.mark.parametrize(
    "language, text",
    [
        ("c", '#include "/etc/passwd"\nint x;'),
        ("c", "#include </etc/passwd>\nint x;"),
        ("c", '#  include\t"/proc/self/environ"\nint x;'),
        ("c", '#define P "/etc/passwd"\n#include P\nint x;'),
        ("c", '??=include "/etc/passwd"\nint x;'),
        ("c", '#inc\\\nlude "/etc/passwd"\nint x;'),
        ("c", '__asm__(".incbin \\"/etc/passwd\\"");'),
        ("c++", "#embed </etc/passwd>"),
        ("perl", 'BEGIN { open F, "/etc/passwd" and print STDERR <F>; print STDERR "ran\\n"; }'),
        ("perl", "BEGIN { exec '/usr/bin/cat', '/etc/passwd' }"),
        ("bash", "$(cat /etc/passwd)\nsource /etc/passwd"),
    ],
)
def test_code_that_reads_the_callers_files_while_it_is_compiled(language, text):
    if at_hand(language) is None:
        pytest.skip(f"no compiler of {language}")
    compiler = COMPILERS[language]
    (name, _), *_ = compiler.readings(text).items()
    ran = FOUND.run(compiler.command(at_hand(language), [name]), {name: text})  # even without what readings leave out
    assert "root:" not in ran.stdout + ran.stderr
    assert "root:" not in compile_in(FOUND, language, text, 20).why


def test_outside_isolation_a_compiler_reads_any_file(tmp_path):
    if at_hand("c") is None:
        pytest.skip("no compiler of c")
    (tmp_path / "x.c").write_text('#include "/etc/passwd"\n')
    ran = subprocess.run(["gcc", "-E", "x.c"], cwd=tmp_path, capture_output=True, text=True)
    assert "root:" in ran.stdout


@isolated
@pytest.mark.parametrize(
    "language, text",
    [
        ("c", '#include "whole.c"\n#include __FILE__'),
        ("c", "#define A(x) x x x x x x x x x x\n#define B(x) A(A(A(x)))\nint y[] = { B(B(B(1,))) };"),
        (
            "c++",
            "template <int N> struct F { static const int v = F<N-1>::v + F<N-2>::v + F<-N>::v; };\nint x = F<900>::v;",
        ),
        ("perl", "BEGIN { 1 while 1 }"),
        ("perl", "BEGIN { while (1) { fork } }"),
        ("perl", "BEGIN { print 'x' x 100000 while 1 }"),
    ],
)
def test_code_that_does_not_let_its_compiler_end(language, text):
    if at_hand(language) is None:
        pytest.skip(f"no compiler of {language}")
    began = time.monotonic()
    found = compile_in(FOUND, language, text, 0.8)
    assert found.state in ("unchecked", "fragment", "broken", "parses") and time.monotonic() - began < 12, found


def test_what_compilers_cannot_tell():
    assert at_hand("kotlin") is None
    assert labels(fenced("fun f() = 1", "kotlin")) == ["code unchecked"]
    assert labels(fenced(SAMPLES["c"], "c")) == ["code unchecked"]  # not without isolation
    (found,) = look_here(dialogue("How?", fenced(SAMPLES["c"], "c")))
    assert ("isolation" in found.detail) == (at_hand("c") is not None)


def test_a_compiler_outside_what_isolation_shows_is_not_at_hand(monkeypatch, tmp_path):
    (tmp_path / "gcc").write_text("#!/bin/sh\n")
    (tmp_path / "gcc").chmod(0o755)
    at_hand.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        assert at_hand("c") is None and at_hand("java") is None
    finally:
        at_hand.cache_clear()


# --- a dialogue ----------------------------------------------------------------------------------


def test_a_dialogue_without_code_asks_nothing_and_finds_nothing():
    play = look(dialogue("How?", "So, with `x`.", "```python\nquestion(\n```"))
    with pytest.raises(StopIteration) as end:
        play.send(None)
    assert end.value.value == []
    assert look_here(dialogue("How?", "So.")) == []


def played(talk: Dialogue, settings=None, answer=examine):
    """The findings and the requests of `look`, answered in this process."""
    play, asked, reply = look(talk, settings), [], None
    while True:
        try:
            request = play.send(reply)
        except StopIteration as end:
            return end.value, asked
        asked.append(request)
        found = answer(request.messages[-1].content)
        reply = found if isinstance(found, Reply) else Reply(found)


def test_one_request_for_each_turn_with_code():
    talk = dialogue(
        "```python\nx = (\n```", fenced("x = (", "python"), "more?", fenced("x = 1", "python") * 2, "", "no"
    )
    found, asked = played(talk)
    assert [(finding.label, finding.turn) for finding in found] == [
        ("code broken", 1),
        ("code parses", 3),
        ("code parses", 3),
    ]
    assert all(isinstance(request, Request) and request.model == CODE_MODEL for request in asked) and len(asked) == 2
    assert found == look_here(talk)


def test_other_settings_are_another_question():
    """Or a run that is to run code would take the replies of one that did not."""
    talk = dialogue("How?", fenced("x = 1", "python"))
    digests = set()
    for chosen in (None, Code(), Code(run=True), Code(seconds=3), Code(memory_mib=64)):
        request = look(talk, chosen).send(None)
        digests.add(call_for(Job("id", "s", lambda: look(talk)), 0, request, 0).digest)
    assert len(digests) == 5


def test_a_reply_that_is_refused_leaves_the_turn_unchecked():
    found, _ = played(
        dialogue("How?", fenced("x", "python")), answer=lambda _: Reply("took longer than 3 s", "refused")
    )
    assert [(finding.label, finding.detail) for finding in found] == [("code unchecked", "took longer than 3 s")]


def test_labels_are_those_that_are_told():
    assert set(code._STATES.values()) <= set(LABELS)
    assert {"code unfinished", "code runs", "code fails", "code not run"} <= set(LABELS)


def test_an_unfinished_block_is_read_as_far_as_it_goes():
    assert labels("```python\nx = 1") == ["code parses", "code unfinished"]
    assert labels("```python\nx = (1,") == ["code broken", "code unfinished"]


def test_too_much_code():
    found = labels(fenced("x = 1", "python") * (MOST_BLOCKS + 3))
    assert found == ["code parses"] * MOST_BLOCKS + ["code unchecked"] * 3
    assert labels(fenced("x = 1\n" * 20000, "python")) == ["code unchecked"]


@settings(max_examples=60)
@given(st.text(max_size=200), st.sampled_from(["", "python", "json", "c", "x y", "{", "`"]))
def test_any_text_can_be_looked_at(text, tag):
    for finding in look_here(dialogue("How?", f"{text}\n```{tag}\n{text}\n```")):
        assert (
            finding.label in LABELS and finding.turn == 1 and len(finding.detail) <= 160 and "\n" not in finding.detail
        )


@isolated
def test_details_quote_no_secrets():
    secret = "correct-horse-battery-staple"
    for tag, text in (
        ("bash", f'f("{secret}")'),
        ("bash", "f(user@example.org)"),
        ("javascript", f"let x = {secret.replace('-', '_')} y;"),
        ("python", f"raise KeyError('{secret}')"),
        ("python", f"'{secret}' = 1"),
        ("json", f'{{"a": "{secret}" "b"}}'),
        (secret, "x"),
    ):
        found = look_here(dialogue("How?", fenced(text, tag)), FOUND, True)
        assert found and not [one for one in found if secret[:16] in one.detail.replace("_", "-") and tag != secret]
        assert not any("user@" in one.detail for one in found)
        assert all(len(one.detail.partition(":")[0]) < 40 for one in found)


def test_surrogates_pass_through_the_journal():
    found, _ = played(dialogue("How?", fenced("x = '\ud800'", "python")))
    assert len(found) == 1


# --- running -------------------------------------------------------------------------------------


@isolated
@pytest.mark.parametrize(
    "text, expected",
    [
        ("print(1)", "code runs"),
        ("assert False", "code fails"),
        ("import sys; sys.exit(2)", "code fails"),
        ("import there_is_no_such_module", "code not run"),
        ("x = input()", "code not run"),
        ("open('data.csv')", "code not run"),
        ("while True: pass", "code fails"),
        ("bytearray(10 << 30)", "code fails"),
        ("raise OSError('EOFError: not really')", "code fails"),
        ("    def f():\n        return 1\n    print(f())", "code runs"),  # what was read: all of it set in
        ("x = 1\nreturn x", "code not run"),
        ("await f()", "code not run"),
        ("break", "code not run"),
        ("def f():\n    return 1\nf()", "code runs"),
    ],
)
def test_python_runs(text, expected):
    answer = examine(json.dumps({"text": fenced(text, "python"), "run": True, "seconds": 2.0, "memory_mib": 256}))
    assert [label for label, _ in json.loads(answer)] == ["code parses", expected]


@isolated
def test_only_python_that_parses_runs():
    assert labels(fenced("x = (", "python"), FOUND, True) == ["code broken"]
    assert labels(fenced(">>> print(1)\n1", "python"), FOUND, True) == ["code is a session"]
    assert labels(fenced("$ echo x\nx", "console"), FOUND, True) == ["code is a session"]


def test_nothing_runs_without_isolation(monkeypatch, tmp_path):
    """The code would leave a file behind, and does not."""
    text = fenced(f"open({str(tmp_path / 'ran')!r}, 'w')", "python")
    with pytest.raises(ModelError, match="not in isolation"):
        look_here(dialogue("How?", text), None, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    code._isolation.cache_clear()
    try:
        with pytest.raises(ModelError, match="no program bwrap"):
            examine(json.dumps({"text": text, "run": True}))
        with pytest.raises(ModelError, match="no program bwrap"):
            examiner(Code(run=True))
        assert json.loads(examine(json.dumps({"text": text, "isolate": True})))[0][0] == "code parses"
    finally:
        code._isolation.cache_clear()
    assert not (tmp_path / "ran").exists()


@isolated
def test_in_worker_processes():
    """Through the engine, with a compiler that reserves more than a worker usually may."""
    language, text = ("java", "int x = 1;") if at_hand("java") else ("python", "else:\n    x = 1")
    talk = dialogue("How?", fenced(text, language) + fenced("print(1)", "python"))
    settings = Code(run=True, seconds=20)

    async def ask():
        engine = examiner(settings, processes=1)
        await engine.open()
        try:
            request = look(talk, settings).send(None)
            return await engine.ask(call_for(Job("id", "s", lambda: look(talk)), 0, request, 0))
        finally:
            await engine.close()

    reply = asyncio.run(ask())
    assert reply.finish == "stop", reply
    assert [label for label, _ in json.loads(reply.text)] == ["code is a fragment", "code parses", "code runs"]
