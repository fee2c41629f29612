"""A run is a folder that can be read without this package.

    recipe.yaml       the resolved recipe: every setting, defaults included
    manifest.json     versions, model revisions, prompt digests, what the sources gave, counts, usage
    records.jsonl     the records drawn from the sources, one a line
    neighbours.json   the similar records of each record that analogies begin with, nearest first
    bad_rows.jsonl    the rows that the sources could not use, with reasons
    journal.sqlite    every request and its reply
    dialogues.jsonl   the finished dialogues, one a line, in the order of the records
    rejected.jsonl    the records that got none, with reasons
    candidates.jsonl  of a star run: every candidate with its scores, one a line
    history.jsonl     of a star run: what was drawn and chosen for each record, and the probabilities after it
    report.json       of a star run: pairs, what the gap goes along with, and what other policies would have come to
    *.png             of a star run: probabilities.png, scores.png and regret.png, the report in pictures
    checks.jsonl      of a checked run: what each check saw in each dialogue, one dialogue a line
    checks.json       of a checked run: the checks with their versions, counts of their labels, and the funnel
    dropped.jsonl     of a run whose recipe has checks: the dialogues that left because of one
    overlaps.jsonl    of a checked run: each run of words that a benchmark has, too
    report.html       all of it as a page to look at, once `boost-qa report` was called
    analogies/        pairs of similar questions to read and to be judged, once `boost-qa analogies` was called
    coreset.json      the records that `boost-qa coreset` chose, by source, and by which model and settings
    gradients/        what that model told of each record, block by block

`dialogues.jsonl` and those after it appear when the run is finished or checked, all whole; until then they grow under
a `.part` name.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import filelock
import yaml

from boost_qa.errors import RunError
from boost_qa.types import Record


def dump(value: Any) -> str:
    """`value` as one line of JSON: keys in their order, no spaces, unicode as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class Writer:
    """The dialogues and rejected records of a run while it goes on, counted by scenario."""

    def __init__(self, dialogues: TextIO, rejected: TextIO) -> None:
        self._dialogues, self._rejected = dialogues, rejected
        self.kept: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()

    def keep(self, dialogue: Mapping[str, Any]) -> None:
        """Write a dialogue; see `RunFolder.dialogues` for its fields."""
        self._dialogues.write(dump(dialogue) + "\n")
        self.kept[dialogue["scenario"], dialogue["record"]["source"]] += 1

    def reject(self, record: str, scenario: str, reason: str, detail: str) -> None:
        """Write down why a record got no dialogue."""
        self._rejected.write(dump({"record": record, "scenario": scenario, "reason": reason, "detail": detail}) + "\n")
        self.refused[scenario, reason] += 1


class RunFolder:
    """The files of one run; see the module's text for what each holds."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.journal = self.path / "journal.sqlite"
        self.records_file = self.path / "records.jsonl"
        self.neighbours_file = self.path / "neighbours.json"
        self.bad_rows_file = self.path / "bad_rows.jsonl"
        self.dialogues_file = self.path / "dialogues.jsonl"
        self.rejected_file = self.path / "rejected.jsonl"
        self.candidates_file = self.path / "candidates.jsonl"
        self.history_file = self.path / "history.jsonl"
        self.report_file = self.path / "report.json"
        self.checks_file = self.path / "checks.jsonl"
        self.checks_summary_file = self.path / "checks.json"
        self.dropped_file = self.path / "dropped.jsonl"
        self.overlaps_file = self.path / "overlaps.jsonl"
        self.page_file = self.path / "report.html"
        self.coreset_file = self.path / "coreset.json"
        self.gradients = self.path / "gradients"

    def strangers(self) -> list[str]:
        """Names of files that a run writes and that are here, though none was ever begun here; sorted."""
        if self.begun or (self.path / ".lock").exists():
            return []
        own = {path.name for path in vars(self).values() if path != self.path}
        return sorted(name for name in own if (self.path / name).exists())

    @property
    def finished(self) -> bool:
        """Whether every record has its dialogue or its reason."""
        return self.dialogues_file.is_file() and bool(self._manifest_or_empty().get("finished"))

    @property
    def begun(self) -> bool:
        """Whether a run was begun here: its sources are read and its records written."""
        return bool(self._manifest_or_empty())

    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` holds.

        Raises:
            RunError: if the folder is no run.
        """
        manifest = self._manifest_or_empty()
        if not manifest:
            remedy = "Give a folder that `boost-qa generate` wrote."
            raise RunError(f"{self.path} is no run folder: it has no manifest.json", remedy)
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_whole(self.path / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        write_whole(self.recipe, yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))

    def write_records(self, records: Iterable[Record]) -> None:
        write_whole(self.records_file, "".join(dump(dataclasses.asdict(record)) + "\n" for record in records))

    def records(self) -> Iterator[Record]:
        """The records drawn for this run, in its order."""
        for row in self._rows(self.records_file):
            yield Record(**row)

    def dialogues(self) -> Iterator[dict[str, Any]]:
        """The dialogues: those of a finished run, or the ones so far of one that is under way.

        Each is a mapping of `id`, `scenario`, `record` and `related` (the fields of Record, or None),
        `turns` (the fields of Turn plus the model's `revision`), and `usage`.
        """
        yield from self._rows(self.dialogues_file)

    def rejected(self) -> Iterator[dict[str, Any]]:
        """The rejected records: mappings of `record` (its id), `scenario`, `reason`, `detail`."""
        yield from self._rows(self.rejected_file)

    def dropped(self) -> Iterator[dict[str, Any]]:
        """The dialogues that a check made leave; as `dialogues`."""
        yield from self._rows(self.dropped_file)

    def checks(self) -> Iterator[dict[str, Any]]:
        """What the checks saw in each dialogue: mappings of `id`, `record`, `scenario`, `kept`, `why`, `checks`."""
        yield from self._rows(self.checks_file)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Write dialogues and rejected records; both files appear, whole, when the block ends well."""
        with self.growing(self.dialogues_file, self.rejected_file) as opened:
            yield Writer(*opened)

    @contextmanager
    def writing_star(self) -> Iterator[tuple[TextIO, TextIO]]:
        """Write candidates and history; both files appear, whole, when the block ends well."""
        with self.growing(self.candidates_file, self.history_file) as (candidates, history):
            yield candidates, history

    @contextmanager
    def growing(self, *files: Path) -> Iterator[list[TextIO]]:
        """Write files of this folder line by line; all appear, whole, when the block ends well."""
        parts = [file.with_name(file.name + ".part") for file in files]
        with ExitStack() as stack:
            opened: list[TextIO] = [
                stack.enter_context(part.open("w", buffering=1, encoding="utf-8", newline="\n")) for part in parts
            ]
            try:
                yield opened
                for written in opened:
                    written.flush()
                    os.fsync(written.fileno())
            except BaseException:
                for written in opened:
                    with suppress(OSError):  # a full disk was told already
                        written.close()
                raise
        for part, file in zip(parts, files, strict=True):
            part.replace(file)

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Hold the folder alone, waiting up to `timeout` seconds (-1: for ever).

        Raises:
            RunError: if another process is working in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.path} cannot be a run folder: {error}", "Give another --output.") from error
        try:
            with filelock.FileLock(self.path / ".lock", timeout=timeout):
                yield
        except filelock.Timeout:
            remedy = "Wait for it, or give another folder with --output."
            raise RunError(f"another process is working in {self.path}", remedy) from None

    def _manifest_or_empty(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            remedy = "Delete it and run `boost-qa generate` again; the journal keeps all replies."
            raise RunError(f"{self.path / 'manifest.json'}: {error}", remedy) from error
        return found

    @staticmethod
    def _rows(path: Path) -> Iterator[dict[str, Any]]:
        file = path if path.exists() else path.with_name(path.name + ".part")
        if not file.exists():
            return
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # a line without its end is still being written
                    yield json.loads(line)
