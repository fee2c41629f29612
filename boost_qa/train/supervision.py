"""Which turns carry loss.

The paper's dialogues hold a weak student's wrong answer as an assistant turn, and its framework's default
trains on every assistant turn: right after a plain question, as at test time. MASTER does not say
whether this was switched off (spec of the paper: loss masking UNKNOWN), so it is a setting here.
"""

from __future__ import annotations

from collections.abc import Sequence

from boost_qa.errors import SourceError
from boost_qa.train.arguments import LossOn

CONTEXT_ONLY = frozenset({"weak_student", "student_a", "student_b"})
"""Speakers whose turns `not_weak` leaves without loss: who may be wrong and does not close the dialogue."""

IGNORED = -100
"""The label of a token without loss, as PyTorch's cross entropy has it."""


def supervised(speakers: Sequence[str], loss_on: LossOn) -> list[bool]:
    """For each assistant turn, whether the model learns to write it.

    Args:
        speakers: who spoke each assistant turn, in order.
    """
    if loss_on == "all":
        return [True] * len(speakers)
    if loss_on == "last":
        return [place == len(speakers) - 1 for place in range(len(speakers))]
    return [speaker not in CONTEXT_ONLY for speaker in speakers]


def labels(ids: Sequence[int], turns: Sequence[tuple[int, int]], chosen: Sequence[bool]) -> list[int]:
    """The token ids themselves in the chosen turns, and IGNORED elsewhere; as many as `ids`."""
    marked = [IGNORED] * len(ids)
    for (begin, end), learned in zip(turns, chosen, strict=True):
        if learned:
            marked[begin:end] = ids[begin:end]
    return marked


def need_speakers(loss_on: LossOn, columns: Sequence[str], dataset: str) -> None:
    """Raises SourceError if `loss_on` asks who speaks and the dataset does not say."""
    if loss_on == "not_weak" and "speakers" not in columns:
        raise SourceError(
            f"{dataset}: loss_on: not_weak needs the column `speakers`, which is not there",
            "Use `loss_on: all` or `loss_on: last`, or a dataset that boost-qa exported.",
        )
