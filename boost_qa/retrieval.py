"""Analogical retrieval (MASTER, Eq. 3): the top-k most similar questions of a pool, exactly.

Questions are embedded by a sentence-transformers model, normalised, and compared by cosine in blocks,
so that 200,000 questions need their embeddings (4 bytes x dimensions each, memory-mapped from the
cache) and one block of similarities.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from boost_qa.errors import ModelError
from boost_qa.types import Record, digest

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

BLOCK_BYTES = 64 * 2**20
CHUNK = 4096


def similar(
    queries: Vectors, pool: Vectors, k: int, max_similarity: float = 1.0, min_similarity: float = -1.0
) -> list[list[int]]:
    """For each query the positions of its `k` nearest vectors of the pool, nearest first.

    Near-duplicates above `max_similarity` and strangers below `min_similarity` are left out, so there
    may be fewer than `k`. Ties go to the lower position.

    Args:
        queries: (n, d), rows of length 1.
        pool: (m, d), rows of length 1.
    """
    found: list[list[int]] = []
    rows = max(1, BLOCK_BYTES // (4 * max(1, len(pool))))
    for start in range(0, len(queries), rows):
        cosine = queries[start : start + rows] @ pool.T
        np.clip(cosine, -1, 1, out=cosine)  # float32 makes the cosine of a text with its copy a little more than 1
        cosine[(cosine > max_similarity) | (cosine < min_similarity)] = -np.inf
        for row in cosine:
            # all that reach the k-th value, so that a tie at the border is settled by position
            kth = np.partition(row, -k)[-k] if k < len(row) else -np.inf
            nearest = np.flatnonzero((row >= kth) & np.isfinite(row))
            order = np.lexsort((nearest, -row[nearest]))[:k]
            found.append([int(position) for position in nearest[order]])
    return found


def neighbours(
    records: Sequence[Record],
    pool: Sequence[Record],
    embed: Embed,
    k: int,
    max_similarity: float,
    min_similarity: float = -1.0,
    across_sources: bool = False,
) -> dict[str, list[Record]]:
    """The similar records of each record, out of `pool`, within its source unless `across_sources`.

    Returns:
        by record id; an empty list where nothing lies within the bounds.
    """
    groups: dict[str, tuple[list[Record], list[Record]]] = {}
    for position, side in enumerate((records, pool)):
        for record in side:
            groups.setdefault("" if across_sources else record.source, ([], []))[position].append(record)
    found: dict[str, list[Record]] = {}
    for mine, others in groups.values():
        if mine and others:
            # sorted, so that the embedding cache and ties do not depend on the order of the records
            others.sort(key=lambda record: record.id)
            queries, candidates = (embed([record.question for record in side]) for side in (mine, others))
            # one more than k: where a record is in its own pool it is left out below
            nearest = similar(queries, candidates, k + 1, max_similarity, min_similarity)
            for record, near in zip(mine, nearest, strict=True):
                found[record.id] = [others[i] for i in near if others[i].id != record.id][:k]
        else:
            found.update((record.id, []) for record in mine)
    return found


class Embedder:
    """A sentence-transformers model whose results are kept on disk.

    Args:
        folder: of the model.
        revision: names the weights; part of the cache's key.
        cache: folder for the embeddings.
        tell: is told texts done and texts in all.
    """

    def __init__(
        self, folder: Path, revision: str, cache: Path, tell: Callable[[int, int], None] | None = None
    ) -> None:
        self.folder, self.revision, self.cache, self.tell = folder, revision, cache, tell

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts`: (n, d), rows of length 1, memory-mapped. What was done until a call was stopped is kept.

        Raises:
            ModelError: if sentence-transformers or the model is missing.
        """
        kept = self.cache / f"{digest(self.revision, *texts)}.npy"
        if not kept.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(kept.with_suffix(".lock")):  # another process may be at the same texts
                if not kept.exists():
                    self._embed(texts, kept)
        vectors: Vectors = np.load(kept, mmap_mode="r")
        return vectors

    def _embed(self, texts: Sequence[str], kept: Path) -> None:
        """Chunk by chunk, each a file of its own until all are there."""
        chunks = kept.with_suffix(".chunks")
        chunks.mkdir(exist_ok=True)
        starts = range(0, len(texts), CHUNK)
        files = [chunks / f"{start}.npy" for start in starts]
        for start, file in zip(starts, files, strict=True):
            chunk = list(texts[start : start + CHUNK])
            if not file.exists():
                part = file.with_suffix(".part")
                with part.open("wb") as out:
                    np.save(out, self._encode(chunk))
                part.replace(file)
            if self.tell:
                self.tell(start + len(chunk), len(texts))
        whole = kept.with_suffix(".part")
        shape = (len(texts), np.load(files[0], mmap_mode="r").shape[1])
        vectors = np.lib.format.open_memmap(whole, mode="w+", dtype=np.float32, shape=shape)
        for start, file in zip(starts, files, strict=True):
            vectors[start : start + CHUNK] = np.load(file)
        vectors.flush()
        whole.replace(kept)
        shutil.rmtree(chunks)

    def _encode(self, texts: list[str]) -> Vectors:
        found: Vectors = self._model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return found

    @cached_property
    def _model(self) -> Any:
        try:
            import transformers

            # sentence-transformers imports PEFT where that is installed, which then misses a kernel of the Hub aloud
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            what = f"analogical reasoning needs sentence-transformers: {error}"
            raise ModelError(what, "pip install 'boost_qa[retrieval]'") from error
        transformers.utils.logging.disable_progress_bar()
        try:
            return SentenceTransformer(str(self.folder), local_files_only=True)
        except (OSError, ValueError) as error:
            what = f"{self.folder} is no sentence-transformers model: {error}"
            raise ModelError(what, "Set scenarios.analogical_reasoning.embedder.") from error
