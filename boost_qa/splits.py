"""Which records are held out for validation: a pure function of their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from boost_qa.types import digest


def validation_records(ids: Iterable[str], pairs: Iterable[tuple[str, str]], share: float) -> frozenset[str]:
    """The ids of the validation split; all others are for training.

    Records that meet in an analogy stay together, and so do all that are joined through further
    analogies: the digest of the smallest id among them decides. A group that is larger than the
    whole share (and than one pair) is for training, for it would swallow the training split.

    Args:
        ids: every record of the run.
        pairs: the two records of each analogy.
        share: expected share of records in validation, from 0 (none) to below 1.
    """
    parent = {id: id for id in ids}

    def first(id: str) -> str:
        while parent[id] != id:
            parent[id] = id = parent[parent[id]]
        return id

    for one, other in pairs:
        low, high = sorted((first(parent.setdefault(one, one)), first(parent.setdefault(other, other))))
        parent[high] = low
    sizes = Counter(first(id) for id in parent)
    most = max(2.0, share * len(parent))
    drawn = {id for id, size in sizes.items() if size <= most and _fraction(id) < share}
    return frozenset(id for id in parent if first(id) in drawn)


def _fraction(id: str) -> float:
    """A number from 0 to 1 that only depends on `id`."""
    return int(digest("split", id), 16) / 16**32
