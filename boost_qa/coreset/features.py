"""The vectors of many records, in blocks that are each there whole or not at all, so that a stopped command goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boost_qa.types import Record, digest

_PAUSE = 10.0  # seconds between two lines about how far it is


def features(
    records: Sequence[Record],
    vectors: Callable[[Sequence[Record]], NDArray[np.float32]],
    folder: Path,
    made_with: str,
    say: Callable[[str], None] = lambda _: None,
    block: int = 128,
) -> NDArray[np.float32]:
    """The vectors of records, (records, size); those that are in `folder` are not computed again.

    Args:
        vectors: of some records, (records, size).
        made_with: names all that the vectors depend on beside the records; a block has it in its name.
        say: is told how far it is.
    """
    folder.mkdir(exist_ok=True)
    blocks = [records[at : at + block] for at in range(0, len(records), block)]
    files = [folder / f"{digest(made_with, *(record.id for record in some))}.npy" for some in blocks]
    began = due = time.monotonic()
    before = done = sum(len(some) for some, file in zip(blocks, files, strict=True) if file.is_file())
    for some, file in zip(blocks, files, strict=True):
        if file.is_file():
            continue
        _write(file, vectors(some))
        done, now = done + len(some), time.monotonic()
        if now >= due or done == len(records):
            rate, due = (done - before) / max(now - began, 1e-9), now + _PAUSE
            say(f"{done:,} of {len(records):,} gradients, {rate:,.1f}/s, {(len(records) - done) / rate:,.0f} s left")
    return np.concatenate([np.load(file) for file in files])


def _write(file: Path, found: NDArray[Any]) -> None:
    part = file.with_suffix(".part")
    with part.open("wb") as opened:
        np.save(opened, found)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)
