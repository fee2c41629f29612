"""Which record is taught in which scenario; stable under row order, machine and number of workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from boost_qa.types import Record, digest


def assign(
    records: Sequence[Record],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    dialogues: int | None = None,
    mode: Literal["one", "all"] = "one",
) -> list[tuple[Record, str]]:
    """Pair records with scenarios, source by source (the paper does not say how: UNKNOWN).

    Args:
        records: all records of the run.
        shares: weight of each scenario; every source is split by them.
        seed: of the run; shuffles records before they are dealt.
        dialogues: records to teach, spread over the sources as evenly as their sizes allow; None: all.
        mode: one scenario for each record, or all of them.
    """
    sources: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: digest(str(seed), record.id)):
        sources[record.source].append(record)
    taught = _spread({source: len(rows) for source, rows in sources.items()}, dialogues)
    pairs: list[tuple[Record, str]] = []
    dealt: dict[str, float] = dict.fromkeys(shares, 0.0)
    for source in sorted(sources):
        for record in sources[source][: taught[source]]:
            if mode == "all":
                pairs.extend((record, scenario) for scenario in shares)
                continue
            # the scenario that is furthest behind its share; carried on over sources, so that totals are even too
            scenario = min(shares, key=lambda name: (dealt[name] + 1) / shares[name])
            dealt[scenario] += 1
            pairs.append((record, scenario))
    return pairs


def _spread(sizes: Mapping[str, int], total: int | None) -> dict[str, int]:
    """Take `total` out of groups of these sizes, one from each by turns until a group is used up."""
    if total is None or total >= sum(sizes.values()):
        return dict(sizes)
    taken = dict.fromkeys(sorted(sizes), 0)
    left = total
    while left:
        open_groups = [name for name in taken if taken[name] < sizes[name]]
        each = max(1, left // len(open_groups))
        for name in open_groups:
            step = min(each, sizes[name] - taken[name], left)
            taken[name] += step
            left -= step
    return taken
