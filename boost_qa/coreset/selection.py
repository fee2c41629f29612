"""From vectors to a choice as in TAGCOS: k-means, then orthogonal matching pursuit in each cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[Any]
"""Floats of shape (records, size); rows of length 1, or 0 for a record without an answer."""


def select(vectors: Vectors, count: int, clusters: int = 100, seed: int = 0) -> list[int]:
    """The rows of a coreset, cluster by cluster, in each the first chosen first.

    Each cluster gives as much of `count` as it has of the rows. Clusters are no more than what is chosen.

    Args:
        count: how many, at most all.
        clusters: 100 in the authors' code.
        seed: of k-means.
    """
    if count in (0, len(vectors)):
        return list(range(count))
    members = _clusters(vectors, min(clusters, count), seed)
    budgets = shares([len(rows) for rows in members], count)
    return [
        int(rows[at])
        for rows, budget in zip(members, budgets, strict=True)
        for at in pursue(vectors[rows].astype(np.float64), budget)
    ]


def shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` in parts that are to each other as the sizes are, none above its size; the largest rests go up."""
    exact = [count * size / sum(sizes) for size in sizes]
    found = [int(share) for share in exact]
    rests = sorted(range(len(sizes)), key=lambda at: (found[at] - exact[at], at))
    for at in rests[: count - sum(found)]:
        found[at] += 1
    return found


def pursue(vectors: Vectors, count: int, ridge: float = 1.0) -> list[int]:
    """The rows whose weighted sum comes near their mean, chosen one by one.

    Each time the row is taken that points most in the direction of what is missing; then all weights are
    fitted again, by least squares with a penalty on their squares (a first row alone without it). Where no row
    points there any more, it begins again with those that are left, as the authors do.

    Args:
        ridge: weight of the penalty; 1 in the authors' code.
    """
    target = vectors.mean(axis=0)
    left = np.ones(len(vectors), dtype=bool)
    found: list[int] = []
    while len(found) < count:
        for at in _towards(target, vectors, left, count - len(found), ridge):
            left[at] = False
            found.append(at)
    return found


def _towards(target: Vectors, vectors: Vectors, left: NDArray[Any], count: int, ridge: float) -> list[int]:
    """At least one of the rows that are left, at most `count`."""
    missing, found, free = target, list[int](), left.copy()
    inverse = np.zeros((0, 0))  # of the Gram matrix of what is found, and the penalty
    while len(found) < count:
        pull = np.where(free, vectors @ missing, -np.inf)
        at = int(pull.argmax())
        if found and pull[at] <= 0:
            break
        gram, square = vectors[found] @ vectors[at], float(vectors[at] @ vectors[at])
        inverse = _bordered(inverse, gram, square + ridge)
        found.append(at)
        free[at] = False
        chosen = vectors[found]
        alone = len(found) == 1 and square > 0
        missing = target - chosen.T @ (chosen @ target / square if alone else inverse @ (chosen @ target))
    return found


def _bordered(inverse: Vectors, column: Vectors, corner: float) -> Vectors:
    """The inverse of a matrix with one more row and column."""
    across = inverse @ column
    rest = corner - column @ across
    top = np.hstack([inverse + np.outer(across, across) / rest, -across[:, None] / rest])
    return np.vstack([top, np.append(-across, 1.0)[None] / rest])


def _clusters(vectors: Vectors, count: int, seed: int) -> list[NDArray[Any]]:
    """Rows by cluster, the largest cluster first."""
    from sklearn.cluster import KMeans

    labels = KMeans(count, random_state=seed, n_init=1).fit_predict(vectors)
    members = [np.flatnonzero(labels == label) for label in range(count)]
    return sorted((rows for rows in members if len(rows)), key=lambda rows: (-len(rows), int(rows[0])))
