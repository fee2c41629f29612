"""People's edits of a card on the Hub survive the next release.

Three texts meet: the card as it was generated at the last release (`base`), the card as people have made it
since (`theirs`), and the card of this release (`ours`). The YAML on top is merged by key, the text below by line.

The merge of lines is diff3 over `difflib`. It is written here because merge3 on PyPI is under the GPL, and
three-merge works on characters and is no longer maintained.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

OWNED = frozenset(
    (
        *("configs", "dataset_info", "size_categories", "base_model", "base_model_relation", "library_name"),
        "model-index",
    )
)
"""Keys of the YAML that say what the release is, so people's changes of them do not last."""

_GONE: Any = object()  # the value of a key that is not there; None is a value
_FRONT = re.compile(r"\s*---[ \t]*\n(?:|(?P<yaml>.*?)\n)---[ \t]*\n", re.DOTALL)
_OPENED = re.compile(r"\s*---[ \t]*\n")


class Merged(NamedTuple):
    """A card of all three.

    Args:
        text: the card.
        kept: one short line for each passage and key that both sides changed, where people's version stays and this
            release's is left out: its first line as it stands on the Hub; what people took out begins with `removed: `.
            It also names YAML on the Hub that cannot be read.
    """

    text: str
    kept: list[str]


class _Card(NamedTuple):
    """`keys` is None if there is YAML that cannot be read; it is part of `body` then."""

    yaml: str
    keys: dict[Any, Any] | None
    body: str


class _Change(NamedTuple):
    """Lines start to end of the base are `lines` now."""

    start: int
    end: int
    lines: list[str]


def merge(base: str | None, theirs: str | None, ours: str) -> Merged:
    """The card to publish. Merging its result again changes nothing: `merge(ours, text, ours).text == text`.

    YAML, by key: those in `OWNED` are ours, with the configs that people added under other names. Another one is ours
    unless people changed, added or removed it; what people added to lists of plain values and took out of them is done
    to ours. YAML that was merged is written anew, without its comments; YAML that is as one side has it keeps that
    side's text.

    Body: a passage that one side changed is that side's. What people only put before or after lines that changed here
    is put there again; where both inserted at one place, theirs comes first. Where both changed the same lines, theirs
    stays, and `kept` names it. Changes without an unchanged line between them are one passage.

    Without a base, a card on the Hub was written by hand: its keys win, its body comes first, and ours follows whole.

    YAML on the Hub that cannot be read (or is not closed, or is no mapping) does not stop a release: ours is used, and
    theirs stands below it as text, where people see it.

    Lines end in "\\n" only (theirs may have CR and CRLF), and a byte order mark is dropped. A card that comes out as it
    is on the Hub keeps that one's line ends.

    Args:
        base: the card as generated at the last release; None if there was none.
        theirs: the card on the Hub now; None if there is none.
        ours: the card as generated now, with YAML.
    """
    if theirs is None or (base is None and not theirs.strip()):
        return Merged(ours, [])
    theirs = theirs.removeprefix("\ufeff")
    plain = _plain(theirs)
    if plain == _plain(ours) or (base is not None and plain == _plain(base)):
        return Merged(ours, [])
    old, hub, new = None if base is None else _read(_plain(base)), _read(plain), _read(_plain(ours))
    front, kept = _merge_yaml(old, hub, new)
    body, also = _merge_bodies(old, hub, new)
    text = f"---\n{front}\n---\n{body}" if front else body
    as_it_is = {_plain(ours): ours, plain: theirs}
    return Merged(as_it_is.get(text, text), kept + also)


def _plain(text: str) -> str:
    """With "\\n" as the only line end, also of the last line."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return lines if lines.endswith("\n") or not lines else lines + "\n"


def _read(text: str) -> _Card:
    found = _FRONT.match(text)
    if found is None:
        opened = _OPENED.match(text)
        return _Card(text[opened.end() :], None, text) if opened else _Card("", {}, text)
    front = found["yaml"] or ""
    keys = _load(front)
    return _Card(front, keys, text if keys is None else text[found.end() :])


# --- YAML ----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """With the truth values of YAML 1.2, which the Hub reads: `language: no` is Norwegian."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:bool"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _load(front: str) -> dict[Any, Any] | None:
    try:
        keys = yaml.load(front, Loader=_Loader)
        json.dumps(keys, default=str, skipkeys=True)  # fails on an alias within its own anchor, which has no end
    except Exception:  # besides YAMLError, PyYAML raises whatever its converters meet: `2024-13-01` is a ValueError
        return None
    if keys is None and not front.strip():
        return {}
    return keys if isinstance(keys, dict) else None


def _dump(keys: Mapping[Any, Any]) -> str:
    text: str = yaml.dump(
        dict(keys), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=float("inf")
    )
    return text.removesuffix("\n")


def _merge_yaml(base: _Card | None, theirs: _Card, ours: _Card) -> tuple[str, list[str]]:
    """The YAML without its `---` lines, and what of people's was kept against ours."""
    if theirs.keys is None:
        return ours.yaml, [_first_line(theirs.yaml.split("\n"))]
    old, new = (base.keys if base else None) or {}, ours.keys or {}
    if base and theirs.yaml == base.yaml:
        return ours.yaml, []
    merged, kept = dict[Any, Any](), list[str]()
    for key in [*new, *(key for key in theirs.keys if key not in new)]:
        was, on_hub, now = (side.get(key, _GONE) for side in (old, theirs.keys, new))
        value, both = _merge_values(key, was, on_hub, now)
        if value is not _GONE:
            merged[key] = value
        if both:
            stays = f"removed: {_dump({key: was})}" if on_hub is _GONE else _dump({key: on_hub})
            kept.append(_first_line(stays.split("\n")))
    if merged == theirs.keys:
        return theirs.yaml, kept
    return ours.yaml if merged == new else _dump(merged), kept


def _merge_values(key: Any, was: Any, on_hub: Any, now: Any) -> tuple[Any, bool]:
    """The value of one key, and whether both changed it and people's is taken."""
    if key in ("configs", "dataset_info"):
        return _merge_configs(was, on_hub, now), False
    if key in OWNED:
        return (on_hub if now is _GONE and was is _GONE else now), False
    if on_hub in (was, now):
        return now, False
    if now == was:
        return on_hub, False
    sides = (was, on_hub, now)
    if _GONE not in sides[1:] and list in map(type, sides[1:]) and all(map(_is_plain, sides)):
        return _merge_lists(*map(_listed, sides)), False
    return on_hub, True


def _merge_lists(was: list[Any], on_hub: list[Any], now: list[Any]) -> list[Any]:
    """What is now, less what people took out, and then what they added."""
    left = [item for item in now if item in on_hub or item not in was]
    return list(dict.fromkeys(left + [item for item in on_hub if item not in was]))


def _merge_configs(was: Any, on_hub: Any, now: Any) -> Any:
    """Ours, and those that people added under names of their own; the default one is ours."""
    if not isinstance(now, list):
        return on_hub if now is _GONE and was is _GONE else now
    known = {str(each.get("config_name")) for side in (was, now) for each in _listed(side) if isinstance(each, dict)}
    added = [each for each in _listed(on_hub) if isinstance(each, dict) and str(each.get("config_name")) not in known]
    return now + [{key: value for key, value in each.items() if key != "default"} for each in added]


def _listed(value: Any) -> list[Any]:
    if value is _GONE or value is None:
        return []
    return value if isinstance(value, list) else [value]


def _is_plain(value: Any) -> bool:
    return all(isinstance(item, str | int | float) for item in _listed(value))


# --- the body ------------------------------------------------------------------------------------


def _merge_bodies(base: _Card | None, theirs: _Card, ours: _Card) -> tuple[str, list[str]]:
    if base is not None:
        lines, kept = _merge_lines(*(card.body.split("\n") for card in (base, theirs, ours)))
        return "\n".join(lines), kept
    if not theirs.body.strip():
        return ours.body, []
    if ours.body.strip() in theirs.body:  # of an earlier release, of which the base was lost
        return theirs.body, []
    return theirs.body.rstrip("\n") + "\n\n" + ours.body.lstrip("\n"), []


def _merge_lines(base: list[str], theirs: list[str], ours: list[str]) -> tuple[list[str], list[str]]:
    """diff3, where people win: the lines, and the first of each passage that both sides changed."""
    changes = _changes(base, theirs), _changes(base, ours)
    merged, kept, done = list[str](), list[str](), 0
    for start, end in _passages([*changes[0], *changes[1]]):
        was = base[start:end]
        on_hub, now = (_version(base, side, start, end) for side in changes)
        merged += base[done:start]
        if on_hub in (was, now):
            merged += now
        elif now == was:
            merged += on_hub
        elif around := _put_around(changes[0], start, end):
            merged += around[0] + now + around[1]
        else:
            merged += on_hub
            kept.append(_first_line(on_hub) or f"removed: {_first_line(was)}")
        done = end
    return merged + base[done:], kept


def _changes(base: Sequence[str], side: Sequence[str]) -> list[_Change]:
    found = difflib.SequenceMatcher(None, base, side, autojunk=False).get_opcodes()
    return [_Change(start, end, list(side[i:j])) for tag, start, end, i, j in found if tag != "equal"]


def _passages(changes: Sequence[_Change]) -> list[tuple[int, int]]:
    """The ranges of the base that somebody changed; those that touch are one."""
    ranges: list[tuple[int, int]] = []
    for start, end in sorted((change.start, change.end) for change in changes):
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], end)
        else:
            ranges.append((start, end))
    return ranges


def _version(base: list[str], changes: Sequence[_Change], start: int, end: int) -> list[str]:
    """What one side has for lines start to end of the base."""
    lines, done = list[str](), start
    for change in changes:
        if start <= change.start and change.end <= end:
            lines += base[done : change.start] + change.lines
            done = change.end
    return lines + base[done:end]


def _put_around(changes: Sequence[_Change], start: int, end: int) -> tuple[list[str], list[str]] | None:
    """What one side inserted right before and right after lines start to end, if it changed nothing else there."""
    inside = [change for change in changes if start <= change.start and change.end <= end]
    if any(change.start != change.end or change.start not in (start, end) for change in inside):
        return None
    above = [line for change in inside if change.start == start for line in change.lines]
    return above, [line for change in inside if change.start > start for line in change.lines]


def _first_line(lines: Sequence[str]) -> str:
    """The first line that is not blank, for a terminal: at most 72 characters, none of them for control."""
    first = next((line.strip() for line in lines if line.strip()), "")
    shown = "".join(letter if letter.isprintable() else " " for letter in first)
    return shown if len(shown) <= 72 else shown[:71] + "…"
