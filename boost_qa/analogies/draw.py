"""Which pairs of a run are looked at: questions with a neighbour, and the same questions with a stranger."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from boost_qa.errors import RunError
from boost_qa.retrieval import Embed
from boost_qa.run_folder import RunFolder
from boost_qa.scenarios.assignment import assign
from boost_qa.types import Record, digest

Kind = Literal["neighbour", "random"]
KINDS: tuple[Kind, Kind] = ("neighbour", "random")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions. `id` says nothing of the kind; `rank` counts from 1, and only neighbours have one.

    `similarity` is the cosine of the questions' embeddings, -1 to 1.
    """

    id: str
    kind: Kind
    first: Record
    second: Record
    rank: int | None
    similarity: float


def draw(run: RunFolder, limit: int, seed: int, embed: Embed, *, pool_is_rest: bool) -> list[Pair]:
    """`limit` questions, spread evenly over the sources, each with one of its neighbours and with a random record.

    The neighbour is drawn evenly among those retrieved, as the scenario does (MASTER, Eq. 3). The random record comes
    from the neighbour's source and is neither the question nor one of its neighbours; where a source has no other,
    the question has no random pair. The same seed and a larger limit give the same pairs and more.

    Args:
        embed: the run's own, for the similarities.
        pool_is_rest: whether the run looked for neighbours only among records that begin no analogy.

    Returns:
        neighbours and random pairs in an order that tells nothing.

    Raises:
        RunError: no question of the run has a neighbour.
    """
    records = {record.id: record for record in run.records()}
    near = _neighbours(run, records)
    questions = [records[id] for id, found in near.items() if found]
    if not questions:
        remedy = "Give a run whose recipe has analogical_reasoning, and bounds of similarity that leave neighbours."
        raise RunError(f"no question of the run in {run.path} has neighbours", remedy)
    pool: dict[str, list[str]] = defaultdict(list)
    for id in sorted(records.keys() - (near.keys() if pool_is_rest else ())):
        pool[records[id].source].append(id)
    drawn: list[tuple[Kind, str, str, int | None]] = []
    for record, _ in assign(questions, {"": 1.0}, seed=seed, dialogues=limit):
        chance, found = Random(digest("analogies", str(seed), record.id)), near[record.id]
        rank = chance.randrange(len(found))
        drawn.append(("neighbour", record.id, found[rank], rank + 1))
        strangers = [id for id in pool[records[found[rank]].source] if id not in {record.id, *found}]
        if strangers:
            drawn.append(("random", record.id, chance.choice(strangers), None))
    likeness = _similarities([(records[one], records[other]) for _, one, other, _ in drawn], embed)
    pairs = [
        Pair(digest(one, other)[:16], kind, records[one], records[other], rank, similarity)
        for (kind, one, other, rank), similarity in zip(drawn, likeness, strict=True)
    ]
    return sorted(pairs, key=lambda pair: digest(str(seed), pair.id))


def _neighbours(run: RunFolder, records: Mapping[str, Record]) -> dict[str, list[str]]:
    """What `neighbours.json` holds.

    Raises:
        RunError: it is missing, damaged, or names records that the run does not have.
    """
    remedy = "Bring the run folder back as `boost-qa generate` wrote it."
    try:
        near: dict[str, list[str]] = json.loads(run.neighbours_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{run.neighbours_file}: {error}", remedy) from error
    for id, found in near.items():
        if strange := [one for one in (id, *found) if one not in records]:  # a set less keys() would walk all of them
            raise RunError(f"{run.neighbours_file} names {min(strange)!r}, which {run.records_file} has not", remedy)
    return near


def _similarities(pairs: Sequence[tuple[Record, Record]], embed: Embed) -> list[float]:
    """Cosines, to four digits: further ones depend on the machine."""
    texts = sorted({record.question for pair in pairs for record in pair})
    vectors = dict(zip(texts, embed(texts), strict=True))
    cosines = (float(vectors[one.question] @ vectors[other.question]) for one, other in pairs)
    return [round(min(1.0, max(-1.0, cosine)), 4) for cosine in cosines]
