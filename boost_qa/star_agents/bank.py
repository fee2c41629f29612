"""Instruction Memory Bank (Star-Agents): which agent pairs did well on seeds like this one.

Neighbours are exact, and do not depend on how many questions are asked at once: a float32 matrix product finds
all that can be among the nearest, and their cosines are taken again in float64, row by row.
"""

from __future__ import annotations

import numpy as np

from boost_qa.retrieval import BLOCK_BYTES, Vectors

ROWS = 1024  # of the first array; it doubles when it is full


class MemoryBank:
    """Seeds whose best score reached `threshold`, as vectors of length 1, with the pair that scored it."""

    def __init__(self, threshold: float = 0.5) -> None:
        if not threshold >= 0:
            raise ValueError(f"{threshold} is no score that a seed can reach")
        self.threshold = threshold
        self._seeds: set[str] = set()
        self._names: list[str] = []  # the pair of each row
        self._rows: Vectors = np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, seed: str, vector: Vectors, pair: str, score: float) -> bool:
        """Keep a seed if its `score` is at least the threshold; whether it was kept.

        Args:
            seed: id of the seed record, each once.
            vector: (d,), of length 1.
            pair: the agent pair whose candidate was chosen.

        Raises:
            ValueError: if the seed is there already, the score is not a number, or the vector is of another
                dimension or length.
        """
        if score != score:
            raise ValueError(f"the score of {seed} is not a number")
        if score < self.threshold:
            return False
        if seed in self._seeds:
            raise ValueError(f"{seed} is in the memory bank already")
        self._append(_unit(vector[None], self._dimensions()))
        self._seeds.add(seed)
        self._names.append(pair)
        return True

    def near(self, vector: Vectors, n: int) -> list[str]:
        """The pairs of the `n` nearest seeds, one for each seed, nearest first; equally near: the earlier one."""
        return self.near_each(vector[None], n)[0]

    def near_each(self, vectors: Vectors, n: int) -> list[list[str]]:
        """`near` for each of many vectors, (m, d), some times quicker than one after the other."""
        queries = _unit(vectors, self._dimensions())
        if not len(self) or n < 1:
            return [[] for _ in queries]
        rows = self._rows[: len(self)]
        block = max(1, BLOCK_BYTES // (4 * len(self)))
        found: list[list[str]] = []
        for start in range(0, len(queries), block):
            part = queries[start : start + block]
            for query, cosine in zip(part, part @ rows.T, strict=True):
                found.append([self._names[row] for row in _nearest(query, rows, cosine, n)])
        return found

    def _dimensions(self) -> int | None:
        return self._rows.shape[1] if len(self) else None

    def _append(self, row: Vectors) -> None:
        if len(self) == len(self._rows):
            grown = np.empty((max(ROWS, 2 * len(self)), row.shape[1]), np.float32)
            if len(self):
                grown[: len(self)] = self._rows
            self._rows = grown
        self._rows[len(self)] = row[0]


def _nearest(query: Vectors, rows: Vectors, cosine: Vectors, n: int) -> list[int]:
    """Positions of the `n` rows with the largest cosines, largest first; `cosine` is what float32 made of them."""
    close = np.arange(len(rows))
    if n < len(rows):
        # a float32 product of rows of length 1 is wrong by at most dimensions x eps / 2, in whatever order it is
        # summed; two of them are compared, and lengths are not quite 1
        slack = 2 * len(query) * np.finfo(np.float32).eps
        close = np.flatnonzero(cosine >= np.partition(cosine, -n)[-n] - slack)
    exact = (rows[close].astype(np.float64) * query).sum(axis=1)
    order = np.lexsort((close, -exact))[:n]
    return [int(row) for row in close[order]]


def _unit(vectors: Vectors, dimensions: int | None) -> Vectors:
    """`vectors` as float32 rows, (n, d), after a look at their shape and lengths."""
    rows: Vectors = np.ascontiguousarray(vectors, np.float32)
    if rows.ndim != 2 or rows.shape[1] != (dimensions or rows.shape[1]):
        raise ValueError(f"vectors of shape {rows.shape} where rows of {dimensions or 'some'} numbers belong")
    if not (np.abs(np.einsum("ij,ij->i", rows, rows) - 1) < 1e-3).all():  # false for what is not a number, too
        raise ValueError("vectors must have length 1")
    return rows
