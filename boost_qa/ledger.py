"""What the checks of a run saw, on disk: a line for each dialogue, the sums of all labels, and the funnel.

    checks.jsonl     {id, record, scenario, kept, why, checks: [{check, version, label, turn, detail}]}
    overlaps.jsonl   each run of words that a benchmark has, too (`contamination.Hit`), in dialogues and in all records
    checks.json      {checks: {name: {version, labels: {label: what it means}}}, dialogues, counts, funnel}

`counts` are dialogues by check, label and scenario: one that has a label twice counts once. The funnel says how many
rows, records and dialogues there were after each step, from the source to what is kept. Where some checks are made
again, what the others saw is taken over, with the versions that saw it (`Earlier`).
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from boost_qa.bookkeeping import Played, row
from boost_qa.checks import contamination
from boost_qa.inspection import MODULES, Inspected, Inspection, rows
from boost_qa.run_folder import RunFolder, Writer, dump, write_whole
from boost_qa.types import Record, digest


@dataclass(frozen=True)
class Earlier:
    """What checks saw that are not made again.

    Args:
        seen: rows of `checks` by the dialogue's id.
        why: labels that it leaves for, likewise.
        drop: of those settings, the labels that make one leave.
        checks, settings, counts: parts of `checks.json`, by check.
        overlaps: lines of `overlaps.jsonl`, if contamination is not looked for again.
    """

    seen: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    why: dict[str, list[str]] = field(default_factory=dict)
    drop: Sequence[str] = ()
    checks: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    overlaps: Sequence[str] = ()


def earlier(folder: RunFolder, made: Collection[str]) -> Earlier:
    """What a run's files say of the checks that are not among `made`."""
    if not folder.checks_summary_file.is_file():
        return Earlier()
    before = json.loads(folder.checks_summary_file.read_text(encoding="utf-8"))
    others = before["checks"].keys() - set(made)
    labels = {label for name in others for label in before["checks"][name]["labels"]}
    seen, why = {}, {}
    for line in folder.checks():
        seen[line["id"]] = [each for each in line["checks"] if each["check"] in others]
        why[line["id"]] = [label for label in line["why"] if label in labels]
    drop = [label for label in before["settings"]["drop"] if label in labels]
    overlaps: list[str] = []
    if contamination.NAME in others:
        overlaps = folder.overlaps_file.read_text(encoding="utf-8").splitlines(keepends=True)

    def part(key: str) -> dict[str, Any]:
        return {name: before[key][name] for name in sorted(others)}

    return Earlier(seen, why, drop, part("checks"), part("settings"), part("counts"), overlaps)


class Ledger:
    """Enters what an inspection says of each dialogue; see the module's text for what comes of it."""

    def __init__(self, inspection: Inspection, lines: TextIO, overlaps: TextIO, before: Earlier) -> None:
        self.inspection, self.before = inspection, before
        self._lines, self._overlaps, self._hits = lines, overlaps, 0
        overlaps.writelines(before.overlaps)
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.dialogues: Counter[str] = Counter()

    def enter(self, played: Played, *, leaves: bool) -> Inspected:
        """Look at the next dialogue of the run, and write down what is seen.

        Args:
            leaves: whether labels of `drop` make it leave; otherwise it stays, whatever is seen.
        """
        inspected = self.inspection.look(played)
        dialogue, found, why = inspected
        kept = not (leaves and why)
        id = digest(dialogue.record.id, dialogue.scenario)
        line = {
            "id": id,
            "record": dialogue.record.id,
            "scenario": dialogue.scenario,
            "kept": kept,
            "why": [*self.before.why.get(id, ()), *why],
            "checks": [*self.before.seen.get(id, ()), *rows(found)],
        }
        self._lines.write(dump(line) + "\n")
        self.dialogues[dialogue.scenario] += 1
        seen = {(name, finding.label, dialogue.scenario) for name, findings in found.items() for finding in findings}
        self.counts.update(seen)
        self._write_hits()
        return inspected

    def enter_sources(self, records: Iterable[Record]) -> None:
        """Look for benchmarks in all records of the run, those without a dialogue included, and write down the hits."""
        if self.inspection.contamination:
            for record in records:
                self.inspection.look_at_source(record)
                self._write_hits()

    def _write_hits(self) -> None:
        if self.inspection.contamination:
            new = self.inspection.contamination.hits[self._hits :]
            self._overlaps.writelines(dump(dataclasses.asdict(hit)) + "\n" for hit in new)
            self._hits += len(new)

    def summary(self, funnel: list[dict[str, Any]]) -> dict[str, Any]:
        """What `checks.json` holds."""
        made = self.inspection.settings.made()
        counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in made}
        for (name, label, scenario), count in sorted(self.counts.items()):
            counts[name].setdefault(label, {})[scenario] = count
        before, settings = self.before, self.inspection.settings.model_dump(mode="json")
        checks = before.checks | {
            name: {"version": MODULES[name].VERSION, "labels": MODULES[name].LABELS} for name in made
        }
        return {
            "checks": {name: checks[name] for name in MODULES if name in checks},
            "settings": settings | before.settings | {"drop": [*before.drop, *settings["drop"]]},
            "dialogues": dict(self.dialogues),
            "counts": before.counts | counts,
            "funnel": funnel,
        }


@contextmanager
def ledger(folder: RunFolder, inspection: Inspection, before: Earlier | None = None) -> Iterator[Ledger]:
    """A ledger in a run folder; its files appear, whole, when the block ends well."""
    with folder.growing(folder.checks_file, folder.overlaps_file) as (lines, overlaps):
        entries = Ledger(inspection, lines, overlaps, before or Earlier())
        yield entries
        entries.enter_sources(folder.records())


@contextmanager
def checked(
    folder: RunFolder,
    inspection: Inspection,
    manifest: dict[str, Any],
    records: int,
    out: Writer,
    facts: Mapping[str, Mapping[str, Any]],
) -> Iterator[Callable[[Played], None]]:
    """Gives what keeps a dialogue of a run, or drops it for what the checks see; their files appear at the end.

    Args:
        manifest: gets `checks`, what `checks.json` holds.
        records: that a dialogue is made of.
        facts: as for `bookkeeping.row`.
    """
    with ledger(folder, inspection) as entries, folder.growing(folder.dropped_file) as (dropped,):

        def keep(played: Played) -> None:
            dialogue, found, why = entries.enter(played, leaves=True)
            line = row(dialogue, facts) | {"checks": rows(found)}
            if not why:
                out.keep(line)
                return
            name, detail = next(
                (name, finding.detail) for name, each in found.items() for finding in each if finding.label == why[0]
            )
            dropped.write(dump(line) + "\n")
            out.reject(dialogue.record.id, dialogue.scenario, f"{name}: {why[0]}", detail)

        yield keep
        stages = funnel(manifest, records, entries.dialogues.total(), out.kept.total())
        manifest["checks"] = entries.summary(stages)
    write_summary(folder, manifest["checks"])


def write_summary(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    write_whole(folder.checks_summary_file, json.dumps(summary, ensure_ascii=False, indent=2) + "\n")


def funnel(manifest: Mapping[str, Any], records: int, played: int, kept: int) -> list[dict[str, Any]]:
    """From the rows of the sources to what is kept.

    Args:
        records: that a dialogue was to be made of.
        played: dialogues that came of them.
        kept: dialogues that no check made leave.
    """
    sources = manifest["sources"]
    stages = {
        "rows read": sum(source["read"] for source in sources),
        "records": sum(source["taken"] for source in sources),
        "assigned": records,
        "played": played,
        "kept": kept,
    }
    return [{"stage": stage, "n": n} for stage, n in stages.items()]
