"""What a run folder has to show: kept and dropped dialogues and rejected records, with what checks and journal say.

Each file is read once, line by line, and the journal is asked for one dialogue at a time.

Of a checked run, `checks.jsonl` says what checks saw and which dialogues stayed; those that did not are in
`dropped.jsonl`, and in `rejected.jsonl` as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from boost_qa.contents import STAR
from boost_qa.errors import RunError
from boost_qa.page.entry import Entry, Line, Noted, Prompt, Shown
from boost_qa.page.journal_side import Asked, Replies, behind, pieces, replies
from boost_qa.portable import portable_model
from boost_qa.run_folder import RunFolder
from boost_qa.star_agents import pairs
from boost_qa.types import Usage, digest

Mask = Callable[[str], str]

MOVED = {"debate": "error_correction"}
"""The scenario a dialogue was begun in, in the journal, where its record was moved for a mistake that was none."""

_model = cache(portable_model)


class Verdict(NamedTuple):
    """A line of `checks.jsonl`."""

    kept: bool
    why: list[str]
    findings: list[tuple[int | None, Noted]]


def read(run: RunFolder) -> Iterator[Shown]:
    """Kept dialogues, dropped ones, then rejected records, each in its file's order.

    Raises:
        RunError: if a line of a file is damaged, or lacks a key.
        JournalError: if the journal is damaged.
    """
    verdicts = {row["id"]: _named(where, _verdict, row) for where, row in rows(run.checks_file, "id")}
    dropped = {row["id"] for _, row in rows(run.dropped_file, "id")}
    manifest = run.manifest()
    mask = _masking(manifest)
    roles = {name.rpartition("/")[2] for name in manifest.get("prompts", {})}
    with replies(run.journal, _speakers(manifest)) as journal:
        for where, row in rows(run.dialogues_file, "id"):
            if row["id"] not in dropped:
                yield _named(where, _dialogue, row, verdicts.get(row["id"]), journal, mask, False)
        for where, row in rows(run.dropped_file, "id"):
            yield _named(where, _dialogue, row, verdicts.get(row["id"]), journal, mask, True)
        wanted = {row["record"] for _, row in rows(run.rejected_file, "record")}
        records = {row["id"]: row for _, row in rows(run.records_file, "id") if row["id"] in wanted}
        for where, row in rows(run.rejected_file, "record"):
            if digest(row["record"], row.get("scenario", "")) not in dropped:
                yield _named(where, _refusal, row, records.get(row["record"], {}), journal, mask, roles)


def checks(run: RunFolder) -> dict[str, Any]:
    """What `checks.json` holds; {} where nothing was checked.

    Raises:
        RunError: if it is damaged.
    """
    file = run.checks_summary_file
    if not file.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        dict(found["checks"])
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(str(file), error) from error
    return found


def rows(path: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a file with where they stand, or of its `.part` while the run goes on; none without a file.

    Raises:
        RunError: if a line is no JSON object, or `key` is not in it.
    """
    file = path if path.exists() else path.with_name(path.name + ".part")
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):  # still being written
                return
            where = f"{file}, line {number}"
            try:
                row = json.loads(line)
                row[key]
            except (ValueError, TypeError, LookupError) as error:
                raise _damaged(where, error) from error
            yield where, row


def _dialogue(row: Mapping[str, Any], verdict: Verdict | None, journal: Replies, mask: Mask, dropped: bool) -> Shown:
    record, related = row["record"], row["related"]
    turns = [
        Line(turn["speaker"], turn["side"], turn["text"], _model(turn["model"]), turn["temperature"])
        for turn in row["turns"]
    ]
    entry = Entry(
        id=row["id"],
        status="dropped" if dropped or (verdict and not verdict.kept) else "kept",
        scenario=row["scenario"],
        source=record["source"],
        record=record["id"],
        question=record["question"],
        answer=record["answer"],
        turns=turns,
        facts={name: record[name] for name in ("source_id", "licence", "revision", "final")},
        related={name: related[name] for name in ("id", "question", "answer")} if related else None,
        checked=verdict is not None,
        why=verdict.why if verdict else [],
        pair=row.get("pair"),
        candidates=row.get("candidates", []),
    )
    for at, noted in verdict.findings if verdict else ():
        (turns[at].findings if at is not None and 0 <= at < len(turns) else entry.findings).append(noted)
    asked = journal.asked(record["id"], pairs.scenario(entry.pair) if entry.pair else entry.scenario)
    if not asked and entry.scenario in MOVED:
        asked = journal.asked(record["id"], MOVED[entry.scenario])
    costs = [Usage(**turn["usage"]) for turn in row["turns"]]
    said = [(turn.text, cost) if turn.model else None for turn, cost in zip(turns, costs, strict=True)]
    prompts: list[Prompt | None] = []
    for turn, cost, hit in zip(turns, costs, behind(said, asked), strict=True):
        turn.again = max(0, cost.requests - 1)
        if hit is not None:
            turn.tokens = hit[0].attempts[hit[1]].completion_tokens
        elif turn.model and cost.requests == 1:
            turn.tokens = cost.completion_tokens
        prompts.append(_prompt(*hit, entry.texts(), mask) if hit else None)
    return Shown(entry, prompts)


def _refusal(
    row: Mapping[str, Any], record: Mapping[str, Any], journal: Replies, mask: Mask, roles: Collection[str]
) -> Shown:
    scenario, reason = row["scenario"], row["reason"]
    gave_up = reason.partition(":")[0]  # a role; of a star run, the pair of the base sample
    entry = Entry(
        id=digest(row["record"], scenario),  # as a dialogue of theirs would have been called
        status="rejected",
        scenario=scenario,
        source=record.get("source", ""),
        record=row["record"],
        question=record.get("question", ""),
        answer=record.get("answer", ""),
        turns=[],
        facts={name: record.get(name) for name in ("source_id", "licence", "revision", "final")},
        why=[reason],
        detail=mask(row["detail"]),
    )
    asked = journal.asked(row["record"], pairs.scenario(gave_up) if scenario == STAR else scenario)
    for each in asked:
        last, name = each.attempts[-1], gave_up if each is asked[-1] and gave_up in roles else ""
        written, again = last.completion_tokens, len(each.attempts) - 1
        entry.turns.append(Line(name, "", mask(last.text), _model(each.model), each.sampling[0], written, again))
    return Shown(entry, [_prompt(each, len(each.attempts) - 1, entry.texts(), mask) for each in asked])


def _prompt(asked: Asked, said: int, texts: Sequence[str], mask: Mask) -> Prompt:
    messages = [
        (role, [mask(piece) if isinstance(piece, str) else piece for piece in pieces(content, texts)])
        for role, content in asked.messages
    ]
    others = [attempt for at, attempt in enumerate(asked.attempts) if at != said]
    attempts = [(mask(attempt.text), attempt.finish, attempt.completion_tokens) for attempt in others]
    return Prompt(_model(asked.model) or "", asked.sampling, messages, attempts)


def _verdict(row: Mapping[str, Any]) -> Verdict:
    findings = [
        (found["turn"], (check["check"], found["label"], found["detail"]))
        for check in row["checks"]
        for found in check.get("findings", [check])  # by check, or one by one
        if found["label"] is not None
    ]
    return Verdict(row["kept"], list(row["why"]), findings)


def _masking(manifest: Mapping[str, Any]) -> Mask:
    """What the journal's texts go through: where a recipe masks personal data, the page shows none either."""
    settings = (manifest.get("recipe", {}).get("checks") or {}).get("personal_data") or {}
    if not settings.get("mask"):
        return lambda text: text
    from boost_qa.checks.personal_data import masked

    return lru_cache(4096)(lambda text: masked(text)[0])  # the words of role prompts come again and again


def _speakers(manifest: Mapping[str, Any]) -> Collection[str]:
    """The models that requests of agents name: by themselves, or with their alias where one is reached in two ways."""
    models = manifest.get("models", {})
    return {name for alias, facts in models.items() for name in (facts["model"], f"{facts['model']} ({alias})")}


def _named(where: str, make: Any, *parts: Any) -> Any:
    """`make(*parts)`, whose errors say where the line stands."""
    try:
        return make(*parts)
    except (LookupError, TypeError, AttributeError) as error:
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> RunError:
    what = f"no key {error}" if isinstance(error, KeyError) else str(error)
    remedy = "Bring the file back from a copy; or delete it and run the command that wrote it again."
    return RunError(f"{where}: {what}", remedy)
