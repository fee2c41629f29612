"""How often neighbours are analogous, beside how often random pairs are: shares with their intervals.

Shares are of the pairs that could be read. What could not be read is counted beside them, and so is in no share; that
the orders disagree is an outcome of its own.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from boost_qa.analogies.draw import KINDS
from boost_qa.analogies.judging import DISAGREED, GRADES, SAME_STRUCTURE, UNREADABLE
from boost_qa.evaluate.intervals import difference, figure

BANDS = (0.3, 0.5, 0.7, 0.9)
"""Where one band of similarities ends and the next begins."""

OUTCOMES = (*GRADES, DISAGREED)

Row = Mapping[str, Any]
"""A pair as in `analogies.json`."""


def figures(rows: Sequence[Row], outcomes: Mapping[str, str]) -> dict[str, Any]:
    """All shares: together, by source, and by band of similarity; and what neighbours have over random pairs.

    Args:
        outcomes: by the pair's id: one of `OUTCOMES`, or `UNREADABLE`. Pairs without one are left out.

    Returns:
        `all`, a group; `by_source` and `by_similarity`, groups by name. A group has for each kind `pairs`, a count of
        each outcome in `counts`, and the share of each in `shares`: mean, low and high (exact, 95 %), stderr, n; empty
        where no pair could be read. `orders_agree` is such a share, or None; `more_than_random` is the difference in
        pairs of the same structure between neighbours and random pairs, by question, or None.
    """
    seen = [{**row, "outcome": outcomes[row["id"]]} for row in rows if row["id"] in outcomes]
    read = [row for row in seen if row["outcome"] != UNREADABLE]
    return {
        "all": _group(seen),
        "by_source": _groups(seen, lambda row: str(row["source"])),
        "by_similarity": _groups(seen, lambda row: band(row["similarity"])),
        "orders_agree": _share([row["outcome"] != DISAGREED for row in read]),
        "more_than_random": _more_than_random(read),
    }


def band(similarity: float) -> str:
    """The name of the band that a similarity lies in."""
    at = sum(similarity >= edge for edge in BANDS)
    if at == 0:
        return f"below {BANDS[0]}"
    return f"{BANDS[at - 1]} to {BANDS[at]}" if at < len(BANDS) else f"from {BANDS[-1]}"


def table_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The figures as a table's rows, the first of which names the columns."""
    yield ("", "pairs", "number", "unreadable", *OUTCOMES)
    groups = {"all": found["all"]} | {f"source {name}": group for name, group in found["by_source"].items()}
    bands = sorted(found["by_similarity"].items(), key=lambda band: not band[0].startswith("below"))
    groups |= {f"similarity {name}": group for name, group in bands}
    for name, group in groups.items():
        for kind, each in group.items():
            shares = [_text(each["shares"].get(outcome)) for outcome in OUTCOMES]
            yield (name, kind, str(each["pairs"]), str(each["counts"][UNREADABLE]), *shares)


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What stands below the table."""
    if found["orders_agree"]:
        yield f"Both orders had the same grade in {_text(found['orders_agree'])} of the pairs that could be read."
    if more := found["more_than_random"]:
        yield (
            f"The same structure: neighbours {_percent(more['second'])}, random pairs {_percent(more['first'])} of the "
            f"same {more['n']} questions; difference {100 * more['difference']:+.0f} points "
            f"({100 * more['low']:+.0f} to {100 * more['high']:+.0f})."
        )


def shown(found: Mapping[str, Any], title: str) -> Table:
    """The figures as a table to print."""
    names, *rows = table_rows(found)
    table = Table(title=title, title_style="bold", header_style="dim")
    for name in names:
        table.add_column(name, justify="left" if name in ("", "pairs") else "right")
    for row in rows:
        table.add_row(*map(Text, row), end_section=row[1] == KINDS[-1])
    return table


def _groups(rows: Sequence[Row], name: Callable[[Row], str]) -> dict[str, Any]:
    return {each: _group([row for row in rows if name(row) == each]) for each in sorted({name(row) for row in rows})}


def _group(rows: Sequence[Row]) -> dict[str, Any]:
    return {kind: _of_kind([row["outcome"] for row in rows if row["kind"] == kind]) for kind in KINDS}


def _of_kind(outcomes: Sequence[str]) -> dict[str, Any]:
    counts = Counter(outcomes)
    read = [outcome for outcome in outcomes if outcome != UNREADABLE]
    shares = {each: _share([outcome == each for outcome in read]) for each in OUTCOMES} if read else {}
    return {
        "pairs": len(outcomes),
        "counts": {each: counts[each] for each in (*OUTCOMES, UNREADABLE)},
        "shares": shares,
    }


def _share(hits: Sequence[bool]) -> dict[str, Any] | None:
    return dataclasses.asdict(figure([float(hit) for hit in hits])) if hits else None


def _more_than_random(read: Sequence[Row]) -> dict[str, Any] | None:
    """Of the questions whose two pairs could be read."""
    same = {(row["first"], row["kind"]): float(row["outcome"] == SAME_STRUCTURE) for row in read}
    both = [first for first, kind in same if kind == "random" and (first, "neighbour") in same]
    if not both:
        return None
    random, near = ([same[first, kind] for first in both] for kind in ("random", "neighbour"))
    return dataclasses.asdict(difference(random, near))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _text(share: Mapping[str, Any] | None) -> str:
    return f"{_percent(share['mean'])} ({100 * share['low']:.0f} to {100 * share['high']:.0f})" if share else "-"
