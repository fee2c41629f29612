"""What is measured on: dialogues as training tokenised and labelled them, and single questions with their answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from boost_qa.checks.words import END, tokens
from boost_qa.errors import SourceError
from boost_qa.mechanism.recorded import Recorded
from boost_qa.portable import last_name
from boost_qa.rows import dialogue_row, original_row
from boost_qa.run_folder import RunFolder
from boost_qa.sources.files import SUFFIXES
from boost_qa.train.arguments import DialogueArguments
from boost_qa.train.dialogues import load_dialogues, to_messages
from boost_qa.train.supervision import IGNORED, labels, supervised
from boost_qa.train.template import DialogueTokenizer
from boost_qa.types import digest

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Item:
    """A dialogue in tokens; `labels` are as many as `ids`, IGNORED where there is no loss."""

    name: str
    ids: list[int]
    labels: list[int]

    @property
    def tokens(self) -> int:
        """How many carry loss."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with its reference answer; where a row has none, with the last answer of its dialogue."""

    name: str
    question: str
    answer: str
    record: str | None

    @property
    def words(self) -> str:
        """The question without case and punctuation: what makes two the same."""
        return _words(self.question)


@dataclass(frozen=True)
class Material:
    """Rows trained on, and rows held out; `facts` says what they are.

    Args:
        trained: dialogues.
        held: dialogues of records that were not trained on.
        questions: those trained on, each once.
        pool: what held-out questions are compared with: those questions, and the second ones of analogies.
        others: held-out ones, each once, without those trained on.
    """

    trained: Rows
    held: Rows
    questions: list[Exchange]
    pool: list[str]
    others: list[Exchange]
    facts: dict[str, Any]


def find_material(known: Recorded, held_out: Sequence[str]) -> Material:
    """Read what was trained on, and what was held out: `held_out`, or what the recipe itself held out.

    Args:
        held_out: run folders, exported folders, files of dialogues, or of `question` and `reference_answer` or
            `answer`; or datasets on the Hub, of which the split train is read.

    Raises:
        SourceError: a dataset cannot be read, or nothing is held out.
    """
    datasets.disable_progress_bars()
    for name in (known.ours.dataset, *held_out):
        _check_place(name)
    found = load_dialogues(known.ours)
    held: list[Mapping[str, Any]] = []
    records: list[Mapping[str, Any]] = []
    for name in held_out:
        dialogues, singles = _read(name)
        held += dialogues
        records += singles
    if not held_out and found.validation is not None:
        held = records = list(found.validation)
    questions, analogues = _distinct(found.train), _analogues(found.train)
    seen = _seen(found.train) | {_words(text) for text in analogues}
    others = [one for one in _distinct(records) if one.words not in seen and one.record not in seen]
    if not others:
        why = "every question there was trained on" if records else "the training held out nothing"
        raise SourceError(f"nothing is held out: {why}", "Give other questions: --held-out FILE_OR_RUN.")
    untaught = [row for row in held if _exchange(row, 0).words not in seen and not _records(row) & seen]
    facts = found.facts | {
        "dataset": last_name(str(found.facts["dataset"])),
        "as_trained": None if known.fingerprint is None else known.fingerprint == found.facts["fingerprint"],
        "held_out": [last_name(name) for name in held_out],
        "held_out_fingerprint": digest(*(text for one in others for text in (one.question, one.answer)))[:16],
        "trained_questions": len(questions),
        "held_out_questions": len(others),
        "held_out_dialogues": len(untaught),
    }
    pool = [one.question for one in questions] + analogues
    return Material(found.train, untaught, questions, pool, others, facts)


def drawn(rows: Rows, limit: int, seed: int, tokenizer: DialogueTokenizer, known: Recorded) -> list[Item]:
    """At most `limit` dialogues, drawn at random; those that training would leave out are passed over."""
    chosen: list[Item] = []
    for number in np.random.default_rng(seed).permutation(len(rows)):
        one = encode(_dialogue(rows[int(number)]), int(number), tokenizer, known)
        chosen += [] if one is None else [one]
        if len(chosen) == limit:
            break
    return chosen


def encode(row: Mapping[str, Any], number: int, tokenizer: DialogueTokenizer, known: Recorded) -> Item | None:
    """A row with the tokens and labels that training gives it; None where it is too long, or nothing carries loss.

    Raises:
        SourceError: the row is no dialogue.
    """
    messages, speakers = to_messages(row, number)
    encoded = tokenizer.encode(messages)
    if len(encoded.ids) > known.max_length and known.ours.too_long != "cut":
        return None
    marked = labels(encoded.ids, encoded.turns, supervised(speakers, known.ours.loss_on))  # type: ignore[arg-type]
    one = Item(str(row.get("id") or number), encoded.ids[: known.max_length], marked[: known.max_length])
    return one if one.tokens else None


def encode_exchange(one: Exchange, tokenizer: DialogueTokenizer, known: Recorded) -> Item | None:
    """The question as the only turn, and its answer, with loss on all of that; None where they are too long."""
    said = tokenizer.encode([{"role": "user", "content": one.question}, {"role": "assistant", "content": one.answer}])
    if len(said.ids) > known.max_length:
        return None
    return Item(one.name, said.ids, labels(said.ids, said.turns, [True]))


def _read(name: str) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Dialogues, and rows with the records' questions and reference answers; for all but runs they are the same."""
    path = Path(name).expanduser()
    if path.is_dir() and RunFolder(path).begun:
        run = RunFolder(path)
        if not run.finished:
            raise SourceError(f"the run in {path} is not finished", "Finish it with `boost-qa generate`.")
        return [dialogue_row(line) for line in run.dialogues()], [original_row(asdict(one)) for one in run.records()]
    rows: list[Mapping[str, Any]] = list(load_dialogues(DialogueArguments(dataset=name)).train)
    for number, row in enumerate(rows):
        _exchange(row, number)
    return rows, rows


def _check_place(name: str) -> None:
    """That a path leads somewhere, for what is not here is looked for on the Hub, which takes its time."""
    if not Path(name).expanduser().exists() and (name.startswith(("/", ".", "~")) or name.endswith(SUFFIXES)):
        raise SourceError(f"nothing is at {name}", "Give a file, a run folder, an exported folder, or ID on the Hub.")


def _dialogue(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row itself if it has turns, else its question and answer as turns."""
    if row.get("messages") or row.get("conversations"):
        return row
    one = _exchange(row, 0)
    said = [{"role": "user", "content": one.question}, {"role": "assistant", "content": one.answer}]
    return {"id": row.get("id"), "messages": said}


def _exchange(row: Mapping[str, Any], number: int) -> Exchange:
    question, answer = row.get("question"), row.get("reference_answer") or row.get("answer")
    name, own = str(row.get("id") or number), row.get("source_id")
    if not (isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip()):
        messages, _ = to_messages(row, number)
        said = {role: [each["content"] for each in messages if each["role"] == role] for role in ("user", "assistant")}
        question, answer = said["user"][0], said["assistant"][-1]
    return Exchange(name, question, answer, None if own is None else f"{row.get('source') or ''}/{own}")


def _distinct(rows: Iterable[Mapping[str, Any]]) -> list[Exchange]:
    """Each question once, as it comes first."""
    found: dict[str, Exchange] = {}
    for number, row in enumerate(rows):
        one = _exchange(row, number)
        found.setdefault(one.words, one)
    return list(found.values())


def _seen(rows: Iterable[Mapping[str, Any]]) -> set[str | None]:
    """What was trained on: the words of the questions, and the names of records and of their analogues."""
    seen: set[str | None] = set()
    for number, row in enumerate(rows):
        seen |= {_exchange(row, number).words, *_records(row)}
    return seen


def _analogues(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The second questions of analogies, which stand in the teacher's second turn alone.

    What all these turns begin with is how they are posed, and left out.
    """
    told = (to_messages(row, 0)[0] for row in rows if row.get("related_source_id") is not None)
    turns = sorted({each["content"] for said in told for each in [one for one in said if one["role"] == "user"][1:]})
    lead = os.path.commonprefix(turns) if len(turns) > 1 else ""  # noqa: RUF071 - of characters, not of paths
    return [turn[max(lead.rfind(" "), lead.rfind("\n")) + 1 :] for turn in turns]


def _words(text: str) -> str:
    return " ".join(token for token in tokens(text) if token != END)


def _records(row: Mapping[str, Any]) -> set[str | None]:
    names = (row.get("source_id"), row.get("related_source_id"))
    return {f"{row.get('source') or ''}/{name}" for name in names if name is not None}
