r"""What in a text is prose: code, formulas and quotations are blanked, each letter by a space, so that places stay.

A fence is closed by a fence of its own kind that is at least as long (CommonMark); models also begin one at the end of
a line of text, and end one behind the last line of code. `$5 and $6` is money, no formula:
after the first dollar and before the last one stands no space, and after the last one no digit (Pandoc).
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"(?:[^`]*?(?<!`)(`{3,})[^`]*|[ >]{0,5}(~{3,}).*)\Z")
_INLINE = re.compile(r"(?<!`)(`{1,3})(?!`)[^`\n]+\1(?!`)")
_INDENTED = re.compile(r"^(?: {4}|\t)[^\n]*[;{}()=<>\[\]][^\n]*$", re.MULTILINE)
_FORMULA = re.compile(
    r"\$\$.{1,2000}?\$\$|\\\[.{1,2000}?\\\]|\\\(.{1,1000}?\\\)|\\begin\{(\w+\*?)\}.{0,4000}?\\end\{\1\}"
    r"|(?<![\\$\w])\$(?![\s$])[^$\n]{0,400}?(?<![\s\\])\$(?![\d$])",
    re.DOTALL,
)
_QUOTED = re.compile(r'"[^"\n]{2,600}"|\u201c[^\u201d\n]{2,600}\u201d|\u00ab[^\u00bb\n]{2,600}\u00bb|(?m:^ {0,3}>.*$)')
_ADDRESS = re.compile(r"\b(?:https?|ftp|file|mailto):[^\s<>\"')\]]+|</?[a-zA-Z][^<>\n]{0,300}>")
_LETTER = re.compile(r"[^\n]")


def without_code(text: str) -> str:
    """`text` with fenced and inline code blanked; a fence that nothing closes goes to the end."""
    if "`" not in text and "~~~" not in text:
        return text
    lines, fence = text.splitlines(keepends=True), ""
    for place, line in enumerate(lines):
        was, fence = fence, _fence_after(fence, line)
        if was or fence:
            lines[place] = _blank(line)
    return _INLINE.sub(_blanked, "".join(lines))


def open_fence(text: str) -> bool:
    """Whether a fence of code is still open where the text ends."""
    fence = ""
    for line in text.splitlines():
        fence = _fence_after(fence, line)
    return bool(fence)


def without_formulas(text: str) -> str:
    r"""`text` with what stands in `$...$`, `\(...\)`, `\[...\]` or a LaTeX environment blanked."""
    return _FORMULA.sub(_blanked, text) if "$" in text or "\\" in text else text


def prose(text: str) -> str:
    """`text` with code, formulas, quotations, tags and addresses of the Web blanked."""
    text = _INDENTED.sub(_blanked, without_code(text))
    return _QUOTED.sub(_blanked, _ADDRESS.sub(_blanked, without_formulas(text)))


def words(text: str) -> list[str]:
    """The words and numbers of a text, in small letters."""
    return re.findall(r"\w+", text.lower())


def _fence_after(fence: str, line: str) -> str:
    """The fence that is open after `line`, where `fence` was open before it; "" for none."""
    line = line.strip()
    if fence:
        return "" if line.endswith(fence) else fence
    found = _FENCE.match(line)
    return (found[1] or found[2]) if found else ""


def _blanked(found: re.Match[str]) -> str:
    return _blank(found[0])


def _blank(text: str) -> str:
    return _LETTER.sub(" ", text)
