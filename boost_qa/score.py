"""Anyone's dataset with its scores: how much a prompt helps a small and a large model to predict each answer.

    scoring.json    what is scored, how, and by which weights: a folder never mixes two of them
    data/           the rows as they were and their scores, in Parquet; each file is one block, whole or not there
    summary.json    means, quantiles, rank correlations and counts, when all blocks are there

Until then .rows/ holds the rows as `datasets` reads them, mapped into memory; a block of them is taken out at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetsError
from rich.table import Table

from boost_qa.config import Columns
from boost_qa.errors import EngineError, RunError, SourceError
from boost_qa.models.trainable import trainable
from boost_qa.named_model import folder_revision, id_and_revision
from boost_qa.parquet import _OPTIONS
from boost_qa.portable import portable_model
from boost_qa.rows import ROLES
from boost_qa.run_folder import RunFolder, write_whole
from boost_qa.sources import table
from boost_qa.sources.files import SUFFIXES, DataFile, content_revision
from boost_qa.sources.formats import read_rows
from boost_qa.sources.stream import Unfit, optional
from boost_qa.star_agents.ifd import Skipped
from boost_qa.types import Message

_PAUSE = 10.0  # seconds between two lines of progress
_ROLES: dict[Any, Any] = ROLES | {name: name for name in ("system", "user", "assistant")}
_KNOWN = (
    "messages=messages", "messages=conversations", "prompt=instruction+input,answer=output",
    "prompt=instruction,answer=output", "prompt=instruction+context,answer=response",
    "prompt=instruction,answer=response", "prompt=title+question,answer=answer", "prompt=question,answer=answer",
    "prompt=prompt,answer=response", "prompt=prompt,answer=completion", "prompt=problem,answer=solution",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What is scored, by which models (folders, GGUF files, names of the catalogue, Hub ids or ID@REVISION), and with
    which `options` of `star_agents.scorer.Scorer`. A `block` of rows is in memory at a time, and lost at most."""

    dataset: str
    small: str
    large: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: str | None = None
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    block: int = 2048


def load_scorer(name: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The scorer, and what its scores depend on. Raises ModelError if it cannot be had."""
    from boost_qa.star_agents.scorer import Scorer

    id, revision = id_and_revision(name)
    scorer = Scorer(id, model_revision=revision, **options)
    found = scorer.revision or folder_revision(Path(id).expanduser())
    return scorer, {"name": portable_model(id), "revision": found, "dtype": scorer.dtype, "context": scorer.max_tokens}


def score(
    settings: Settings, output: Path, say: Callable[[str], None] = lambda _: None, load: Any = load_scorer
) -> dict[str, Any]:
    """Write the scored rows into `output`, after the last whole block there; gives what summary.json holds.

    `say` is told how far it is; `load` gives a scorer and what its scores depend on.

    Raises:
        SourceError: there is no such dataset, split or column.
        ModelError: a model cannot be had.
        RunError: the folder holds something else, or another process works in it.
        EngineError: scoring or writing failed midway; blocks before that are kept.
    """
    _begun(output)
    models = {size: name for size in ("small", "large") if (name := getattr(settings, size))}
    for name in models.values():
        trainable(id_and_revision(name)[0])
    found, summary = _find(settings, output), output / "summary.json"
    kept = {key: value for key, value in settings.options.items() if key not in ("device", "dtype")}
    kept |= {key: getattr(settings, key) for key in ("config", "split", "columns", "limit", "block")}
    kept |= {"dataset": found.where, "data": found.commit or content_revision(found.files)}
    kept |= {size: portable_model(name) for size, name in models.items()}
    with RunFolder(output).lock():
        begun = _begun(output)
        _check_same(output, begun.get("settings", kept), kept)
        if begun and summary.is_file():
            return dict(json.loads(summary.read_text(encoding="utf-8")))
        say(f"reading {found.where}")
        shutil.rmtree(output / ".rows", ignore_errors=True)
        rows = _read(settings, found, output / ".rows")
        columns, added = _columns(rows.column_names, settings.columns), _added(rows, models)
        loaded = {size: load(name, settings.options) for size, name in models.items()}
        facts: dict[str, Any] = {"settings": kept, "models": {size: known for size, (_, known) in loaded.items()}}
        _check_same(output, begun.get("models", facts["models"]), facts["models"])
        write_whole(output / "scoring.json", json.dumps(facts, ensure_ascii=False, indent=2) + "\n")
        scorers = {size: scorer for size, (scorer, _) in loaded.items()}
        files = _write(rows, columns, added, scorers, output / "data" / settings.split, settings.block, say)
        facts |= {"columns_read": columns, "rows": len(rows)} | _summary(files, added)
        facts["versions"] = {name: metadata.version(name) for name in ("boost_qa", "datasets", "torch", "transformers")}
        write_whole(summary, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")
        shutil.rmtree(output / ".rows")
    return facts


def shown(summary: Mapping[str, Any]) -> Table:
    """The summary as a short table."""
    lost = ", ".join(f"{count:,} {why}" for why, count in summary["unscored"].items())
    related = "; ".join(f"{pair} {rho:+.2f}" for pair, rho in summary["rank_correlations"].items() if rho is not None)
    shown = Table(title=f"{summary['scored']:,} of {summary['rows']:,} rows scored, {summary['cut']:,} of them cut")
    shown.caption = f"not scored: {lost or 'none'}\nrank correlations: {related or 'none'}"
    for name in ("", "mean", "5 %", "median", "95 %"):
        shown.add_column(name, justify="right")
    for name, each in summary["scores"].items():
        numbers = [each[key] for key in ("mean", "0.05", "0.5", "0.95")]
        shown.add_row(name, *("-" if number is None else f"{number:,.4g}" for number in numbers))
    return shown


def _find(settings: Settings, output: Path) -> table.Table:
    given = Path(settings.dataset).expanduser()
    here, there = given.resolve(), output.expanduser().resolve()
    if given.exists() and (here == there or here in there.parents or there in here.parents):
        raise SourceError(f"the dataset and the output lie in each other: {here}, {there}", "Give another --output.")
    path = given.exists() or settings.dataset.startswith(("/", ".", "~")) or settings.dataset.endswith(SUFFIXES)
    where: Any = {"path" if path else "repo": settings.dataset, "revision": settings.revision, "split": settings.split}
    columns = Columns(source="columns", name="score", question="", answer="", **where)
    return table.find_table(columns, settings.dataset, config=settings.config)


def _read(settings: Settings, found: table.Table, cache: Path) -> Dataset:
    at = Path(settings.dataset).expanduser().resolve()
    base = f"hf://datasets/{found.where}@{found.commit}" if found.commit else str(at if at.is_dir() else at.parent)
    names = [_lines(file, cache / f"{n}.jsonl") or f"{base}/{file.name}" for n, file in enumerate(found.files)]
    kind = found.files[0].suffix.removesuffix(".gz").removesuffix("l")[1:]
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(kind, data_files=names, split="train", cache_dir=str(cache))
    except (OSError, ValueError, DatasetsError) as error:
        why = str(error.__cause__ or error).strip().partition("\n")[0]
        raise SourceError(f"{settings.dataset} cannot be read: {why}", "Mend the file, or convert it.") from error
    if not len(rows):
        raise SourceError(f"{settings.dataset} has no rows", "Give another split.")
    return rows.select(range(min(len(rows), settings.limit or len(rows))))


def _lines(file: DataFile, to: Path) -> str | None:
    """A .json file as lines, for `datasets` would read a list into memory whole; None for any other."""
    if file.suffix not in (".json", ".json.gz"):
        return None
    to.parent.mkdir(exist_ok=True)
    with to.open("w", encoding="utf-8", newline="\n") as lines:
        for place, row in read_rows(file, ()):
            if isinstance(row, Unfit):
                raise SourceError(f"{place}: {row.reason}", "Mend or remove it.")
            lines.write(json.dumps(row) + "\n")
    return str(to)


def _columns(there: list[str], given: str | None) -> dict[str, str]:
    """Where prompt and answer stand: `messages`, or `prompt` and `answer`; a plus joins columns."""
    for known in _KNOWN if given is None else [given]:
        columns = dict(part.partition("=")[::2] for part in known.split(","))
        names = {name for value in columns.values() for name in value.split("+")}
        if columns.keys() in ({"messages"}, {"prompt", "answer"}) and names <= set(there):
            return columns
    remedy = f"Say --columns prompt=A,answer=B (prompt=A+C for two) or messages=D; there are: {', '.join(there)}."
    raise SourceError(f"no prompts and answers are found by {given or 'the usual names of their columns'}", remedy)


def _added(rows: Dataset, models: Iterable[str]) -> Features:
    numbers = [*(f"ifd_{size}" for size in models), "gap", "perplexity_small"]
    added = {name: Value("float64") for name in numbers if name != "gap" or len(numbers) > 3}
    added |= {"tokens_small": Value("int64"), "cut": Value("bool"), "unscored": Value("string")}
    if taken := [name for name in added if name in rows.column_names]:
        raise SourceError(f"the rows have a column {', '.join(taken)} already", "Rename it, or leave it out.")
    return Features(added)


def _messages(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Message] | str:
    """The answer behind all that stands before it, or why there is none to score."""
    if "prompt" in columns:
        try:
            texts = {key: [optional(row, name) for name in value.split("+")] for key, value in columns.items()}
        except Unfit as unfit:
            return unfit.reason
        prompt, answer = ("\n\n".join(filter(None, texts[key])) for key in ("prompt", "answer"))
        return [Message("user", prompt), Message("assistant", answer)] if prompt else "no prompt"
    turns = row.get(columns["messages"])
    turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    said = [(str(turn.get("role") or turn.get("from")), turn.get("content") or turn.get("value")) for turn in turns]
    while said and _ROLES.get(said[-1][0]) != "assistant":
        said.pop()
    if unknown := [role for role, _ in said if role not in _ROLES]:
        return f"unknown speaker {unknown[0]}"
    if len(said) < 2:
        return "no prompt" if said else "no answer"
    messages = [Message(_ROLES[role], text) for role, text in said if isinstance(text, str)]
    return messages if len(messages) == len(said) else "a turn without text"


def _write(
    rows: Dataset,
    columns: Mapping[str, str],
    added: Features,
    scorers: Mapping[str, Any],
    stem: Path,
    size: int,
    say: Any,
) -> list[Path]:
    """The files of all blocks, after writing those that are not there."""
    stem.parent.mkdir(exist_ok=True)
    total = -(-len(rows) // size)
    files = [stem.with_name(f"{stem.name}-{number:05d}-of-{total:05d}.parquet") for number in range(total)]
    schema = Features({**rows.features, **added}).arrow_schema
    began, before = time.monotonic(), size * sum(map(Path.is_file, files))
    due, done = began + _PAUSE, float(before)

    def tick() -> None:
        nonlocal due, done
        done, now = done + 1 / len(scorers), time.monotonic()
        if now >= due:
            rate, due = (done - before) / (now - began), now + _PAUSE
            say(f"{done:,.0f} of {len(rows):,} rows, {rate:,.1f}/s, {(len(rows) - done) / rate:,.0f} s left")

    for start, file in zip(range(0, len(rows), size), files, strict=True):
        if file.is_file():
            continue
        block = rows.select(range(start, min(start + size, len(rows))))
        texts = block.select_columns(sorted({name for value in columns.values() for name in value.split("+")}))
        try:
            scores = list(_scores([_messages(row, columns) for row in texts], scorers, tick))
            new = [pa.array([row.get(name) for row in scores], schema.field(name).type) for name in added]
            whole = pa.table([*block.with_format("arrow")[:].columns, *new], schema=schema).combine_chunks()
            with (part := file.with_suffix(".part")).open("wb") as opened:
                pq.write_table(whole, opened, **_OPTIONS)
                opened.flush()
                os.fsync(opened.fileno())
            part.replace(file)
        except (RuntimeError, MemoryError, OSError) as error:
            what = f"{file.name}: {str(error).partition(chr(10))[0]}"
            raise EngineError(what, "The files before it are kept: the same command goes on from there.") from error
    return files


def _scores(found: list[Any], scorers: Mapping[str, Any], tick: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """A row of scores for messages, or for why there are none."""
    pairs = [each for each in found if not isinstance(each, str)]
    scored: list[dict[str, Any]] = [{"cut": False} for _ in pairs]
    for size, scorer in scorers.items():
        for row, one in zip(scored, scorer.score(pairs), strict=True):
            tick()
            if isinstance(one, Skipped):
                row["unscored"] = one.reason
                continue
            row |= {f"ifd_{size}": one.ifd, f"perplexity_{size}": one.perplexity, f"tokens_{size}": one.tokens}
            row["cut"] |= one.prompt_left_out + one.answer_left_out > 0
    rest = iter(scored)
    for each in found:
        row = {"cut": False, "unscored": each} if isinstance(each, str) else next(rest)
        yield row | ({"gap": row["ifd_small"] - row["ifd_large"]} if {"ifd_small", "ifd_large"} <= row.keys() else {})


def _summary(files: Iterable[Path], added: Features) -> dict[str, Any]:
    found = pa.concat_tables([pq.ParquetFile(file).read(list(added)) for file in files]).to_pandas()
    numbers = found.drop(columns=["cut", "unscored"]).astype(float).replace([np.inf, -np.inf], np.nan)
    quantiles = numbers.quantile([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    related, first = numbers.corr("spearman"), "gap" if "gap" in numbers else "ifd_small"
    pairs = [(first, "tokens_small"), (first, "perplexity_small"), ("tokens_small", "perplexity_small")]
    facts = {
        "scored": int(found["unscored"].isna().sum()),
        "cut": int(found["cut"].sum()),
        "unscored": found["unscored"].value_counts().to_dict(),
        "scores": {name: {"mean": each.mean()} | dict(quantiles[name]) for name, each in numbers.items()},
        "rank_correlations": {f"{one}/{other}": related[one][other] for one, other in pairs},
    }
    return dict(json.loads(json.dumps(facts), parse_constant=lambda _: None))  # no number: null


def _begun(output: Path) -> dict[str, Any]:
    """What scoring.json says; empty for a folder that nothing was scored in yet."""
    if (file := output / "scoring.json").is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    if output.exists() and (not output.is_dir() or {each.name for each in output.iterdir()} - {".lock", ".rows"}):
        raise RunError(f"{output} holds other things", "Give an empty folder, or a new one, with --output.")
    return {}


def _check_same(output: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        what = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise RunError(f"{output} was begun otherwise: {what}", "Give the same settings, or another --output.")
