"""Which programming language a block of code is in: by its fence, or by marks that few other languages have."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import cache

_TAGS = {
    "python": "python python3 py py3 ipython pycon python-repl python2 py2",
    "c": "c h",
    "c++": "c++ cpp cc cxx hpp",
    "java": "java",
    "javascript": "javascript js node nodejs mjs",
    "bash": "bash sh shell zsh console shell-session shellsession terminal",
    "json": "json",
    "perl": "perl pl",
    "typescript": "typescript ts",
    "c#": "c# csharp cs",
    "text": "text txt plaintext plain output none",
}
_LANGUAGES = {tag: language for language, tags in _TAGS.items() for tag in tags.split()}

# Marks at the beginning of a line unless they say otherwise; those of languages that nothing here checks are there so
# that they are not taken for one that is.
_MARKS = {
    "python": r"""
        def\s+\w+\s*\(.*\)\s*(?:->.*)?: | class\s+\w+(?:\([\w., =]*\))?: | from\s+[\w.]+\s+import\s
        import\s+[\w.]+(?:\s+as\s+\w+)?$ | (?:if|elif|while|for|with|try|except|else|finally)\b[^{};]*:$ | >>>\s
        .*\bself\.\w | @[a-z_][\w.]*(?:\(.*\))?$ | print\s*\(.*\)$ | .*\blambda\s+\w*:?
        .*\b(?:is\s+not\s+None|not\s+in|None|True|False)\b | .*\bf["'] | \w+\s*=\s*\[.*\bfor\s
    """,
    "c": r"""
        \#\s*include\s*[<"][\w/]+\.h[>"] | \#\s*define\s+\w+ | (?:int|void)\s+main\s*\(
        (?:static\s+)?(?:unsigned|struct\s+\w+)\s*\*?\s*\w+.*[;{(]
        .*\b(?:printf|scanf|malloc|sizeof|free|strlen|memcpy|fopen)\s*\( | typedef\s
        (?:char|int|float|double|void)\s*\*+\s*\w+ | .*\w->\w
        (?:int|char|float|double|long)\s+\w+(?:\[\w*\])?\s*(?:=.*)?;
    """,
    "c++": r"""
        \#\s*include\s*<[a-z_]+> | .*\bstd:: | using\s+namespace\s | template\s*< | .*\b(?:cout|cerr)\s*<<
        .*\bcin\s*>> | (?:public|private|protected):$
        .*\b(?:vector|map|string|unique_ptr|shared_ptr)\s*<.*>\s*\w | .*\w::~?\w+\( | .*\bnullptr\b
        (?:class|struct)\s+\w+\s*(?::\s*public\s.*)?\{?$ | .*\bconst\s+\w+\s*& | .*\boperator\s*[=<>+\-*\[(]
        auto\s+\w+\s*= | .*\b(?:static|dynamic|reinterpret)_cast<
    """,
    "java": r"""
        import\s+(?:static\s+)?(?:java|javax|org|com)\.[\w.*]+; | package\s+[\w.]+;
        (?:public|private|protected)\s+(?:static\s+|final\s+|abstract\s+)*(?:class|interface|enum)\s
        (?:public|private|protected)\s+(?:static\s+|final\s+)*[\w<>\[\], ]+\s+\w+\s*\(.*\)\s*(?:throws\s.*)?\{?
        .*\bSystem\.(?:out|err)\.print | @Override | .*\bnew\s+\w+(?:<[\w, ]*>)?\( | .*\bthrows\s+\w*Exception
        (?:final\s+)?(?:String|Integer|List<.*>|Map<.*>|int|boolean)\s+\w+\s*=.*;$ | .*\.stream\(\)
        .*\bString\s*\[\] | .*\binstanceof\s+[A-Z]
    """,
    "javascript": r"""
        (?:const|let)\s+[\w{\[][^:]*=(?!.*\bas\s).* | var\s+\w+\s*=
        (?:async\s+)?function\s*\*?\s*\w*\s*\([^:]*\)\s*\{ | .*=>\s*[{(\w] | .*\bconsole\.log\(
        .*\b===|.*\b!== | .*\bdocument\.\w | .*\brequire\(["'] | module\.exports | import\s.*\sfrom\s+["']
        export\s+(?:default|const|function) | .*\bawait\s | .*\$\(["'.\w] | .*\bnew\s+Promise\(
        .*\bJSON\.(?:parse|stringify) | .*\bundefined\b
    """,
    "typescript": r"""
        interface\s+\w+(?:<.*>)?\s*(?:extends\s.*)?\{ | type\s+\w+(?:<.*>)?\s*=
        .*\b\w+\??:\s*(?:string|number|boolean|any|void|unknown|never)\b | .*\bas\s+(?:const|any|unknown|\w+;)
        enum\s+\w+\s*\{ | .*\b(?:private|public|readonly)\s+\w+\s*: | .*\bkeyof\s | declare\s | .*\bimplements\s
        .*:\s*\w+\[\]\s*= | .*\)\s*:\s*[\w<>\[\]|]+\s*(?:=>|\{)
    """,
    "bash": r"""
        \#!\s*/(?:usr/)?bin/(?:env\s+)?(?:ba|z|k)?sh | \$\s+\w
        (?:sudo|apt|apt-get|git|npm|pip|docker|cd|ls|grep|sed|awk|find|chmod|curl|export|echo|mkdir|rm|cat|cp|mv|ssh|kill|ps|tar)\s
        if\s+\[{1,2}\s | (?:then|fi|done|esac|do)$ | for\s+\w+\s+in\s[^:]*(?:;\s*do)?$ | .*\$\{?\w+
        while\s+(?:read|\[|true|:) | .*\|\s*(?:grep|sed|awk|xargs|sort|head|tail|wc|cut)\b
        \w+=(?:\$\(|`|["']|\w+$) | .*\s(?:2>&1|>/dev/null)
    """,
    "perl": r"""
        \#!.*perl | use\s+(?:strict|warnings|[A-Z][\w:]*)\b | my\s+[$@%(] | sub\s+\w+\s*\{ | .*\$\w+->\{
        .*=~\s*[ms/] | foreach\s+my\s | print\s+["$@]
    """,
    "c#": r"""
        (?:public|internal)\s.*\bclass\s+\w+\s*:\s*\w.*
        using\s+[A-Z][\w.]*; | namespace\s+[A-Z][\w.]* | .*\bConsole\.(?:Write|Read) | .*\{\s*get;\s*
        .*\bstring\s+\w+\s*= | .*\basync\s+Task
        (?:public|private|protected|internal)\s+.*\b(?:string|bool|override|virtual|readonly|var|async)\b
        .*\bvar\s+\w+\s*=\s*(?:new|await|from)\b | \[\w+(?:\(.*\))?\]$ | .*\bforeach\s*\(var
    """,
    "powershell": r"""
        .*\$\w+\.[A-Z] | .*\b(?:Get|Set|New|Write|Remove|Add|Test|Invoke|Select|Where|ForEach|Start|Import)-[A-Z]\w+
        .*\s-(?:eq|ne|like|match|not|and|or|gt|lt)\s | (?i:param)\s*\( | (?i:foreach|if|while)\s*\(\s*\$ | \$\w+\s*=\s
        .*\[(?:string|int|System\.[\w.]+|ref)\]
    """,
    "php": r"""
        <\?php | .*\$\w+\s*->\w | .*\$this-> | .*\becho\s+[\"'$] | \$\w+\s*=.*; | .*\barray\(
        .*\bfunction\s+\w*\s*\(\$
    """,
    "go": r"""
        package\s+\w+$ | func\s+(?:\(\w+\s+\*?\w+\)\s+)?\w*\( | .*:=\s | .*\bfmt\.\w | import\s+\(
        type\s+\w+\s+(?:struct|interface) | .*\berr\s*!=\s*nil
    """,
    "rust": r"""
        (?:pub\s+)?fn\s+\w+ | let\s+(?:mut\s+)?\w+(?::.*)?\s*=.*; | use\s+(?:std|crate)::.* | impl\b | .*\w+!\(
        .*&mut\s | .*\bmatch\s.*\{ | .*-> (?:Option|Result|Self|&)
    """,
    "sql": r"""
        (?i:select|insert|update|delete|create|alter|with|from|where|join|left\s+join|inner\s+join|group\s+by|order\s+by|having|union)\b[^({;=]*
        .*\b(?:FROM|WHERE|JOIN|VALUES)\b
    """,
    "kotlin": r"""
        (?:(?:private|override|suspend|data|open|inline)\s+)*(?:fun|val|class|object)\s+\w+.*[^;]$
        .*\bval\s+\w+ | .*\?\.let\b | .*:\s*(?:Int|String|Boolean)\b | .*\bprintln\(
        import\s+(?:kotlin|android)
    """,
    "swift": r"""
        import\s+(?:UIKit|Foundation|SwiftUI) | (?:let|var)\s+\w+(?::\s*\[?[A-Z].*)?\s*=.*[^;]$
        func\s+\w+\(.*\)\s*(?:->.*)?\{ | guard\s | .*\bif let\b | @\w+\s+var | .*\bnil\b
    """,
    "ruby": r"""
        require\s+['\"] | def\s+\w+[?!]?(?:\(.*\))?$ | end$ | .*\bdo\s*\|.*\| | puts\s | .*\.each\b | attr_
        .*@\w+\s*= | .*\.\w+[?!]
    """,
    "r": r"library\( | .*<-\s | .*%>% | .*\bdata\.frame\( | .*\bc\(\d | .*\bggplot\(",
    "html": r"""
        <!DOCTYPE | </?(?:html|head|body|div|span|p|script|a|ul|li|table|tr|td|form|input|button|style)\b
        </\w+>
    """,
    "css": r"[.#@]?[\w:.#, >-]+\{$ | [a-z-]+:\s[^;]+;$",
    "haskell": r"""
        \w+\s*::\s | module\s+[A-Z].*where | import\s+(?:qualified\s+)?[A-Z]\w+(?:\.\w+)*(?:\s+\(|$|\s+as)
        .*\bwhere$ | data\s+\w+.*= | .*<-\s | main\s*=
    """,
    "scala": r"(?:object|trait|case\s+class)\s+\w | .*\bdef\s+\w+.*=\s | .*=>\s | val\s+\w+\s*=",
    "dart": r"""
        import\s+'package: | .*\bWidget\s+build | @override | .*\bfinal\s+\w+\s+\w+; | void\s+main\(\)
    """,
    "elixir": r"def(?:p|module)?\s+\w.*\bdo$ | .*\|>\s | end$ | .*\bIO\.puts | .*->$",
}  # fmt: skip

MARKS_THAT_TELL = 2


def tagged(tag: str) -> str:
    """The language that a fence names, in lower case; as it stands there if it is not known here."""
    return _LANGUAGES.get(tag, tag)


def guess(code: str) -> str:
    """The language that `code` has most marks of; `unknown` where they do not tell it.

    A mark is a line and a pattern that fits it. It takes `MARKS_THAT_TELL`, and a third more than any other language
    has. JSON is what can be read as JSON.
    """
    stripped = code.strip()
    if stripped[:1] in "[{" and stripped[-1:] in "]}":
        with suppress(ValueError, RecursionError):
            if json.loads(stripped):
                return "json"
    lines = [line.strip() for line in code.splitlines()[:200] if line.strip()]
    marks = {
        language: sum(1 for line in lines for mark in patterns if mark.match(line[:300]))
        for language, patterns in _patterns().items()
    }
    best, second = sorted(marks, key=lambda language: -marks[language])[:2]
    return best if marks[best] >= MARKS_THAT_TELL and 3 * marks[best] >= 4 * marks[second] else "unknown"


@cache
def _patterns() -> dict[str, list[re.Pattern[str]]]:
    """Each language's marks; they are written one after the other, with ` | ` or a new line between them."""
    return {
        language: [re.compile(mark.strip()) for mark in re.split(r" \| |\n", marks) if mark.strip()]
        for language, marks in _MARKS.items()
    }
