"""What the checks of a run saw, on disk: a line for each dialogue, the sums of all labels, and the funnel.

    checks.jsonl     {id, record, scenario, kept, why, checks: [{check, version, label, turn, detail}]}
    overlaps.jsonl   each run of words that a benchmark has, too (`contamination.Hit`)
    checks.json      {checks: {name: {version, labels: {label: what it means}}}, dialogues, counts, funnel}

`counts` are dialogues by check, label and scenario: one that has a label twice counts once. The funnel says how many
rows, records and dialogues there were after each step, from the source to what is kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from boost_qa.bookkeeping import Played, row
from boost_qa.inspection import MODULES, Inspected, Inspection, rows
from boost_qa.run_folder import RunFolder, Writer, dump, write_whole
from boost_qa.types import digest


class Ledger:
    """Enters what an inspection says of each dialogue; see the module's text for what comes of it."""

    def __init__(self, inspection: Inspection, lines: TextIO, overlaps: TextIO) -> None:
        self.inspection = inspection
        self._lines, self._overlaps, self._hits = lines, overlaps, 0
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
        line = {"id": digest(dialogue.record.id, dialogue.scenario), "record": dialogue.record.id}
        line |= {"scenario": dialogue.scenario, "kept": kept, "why": why, "checks": rows(found)}  # type: ignore[dict-item]
        self._lines.write(dump(line) + "\n")
        self.dialogues[dialogue.scenario] += 1
        seen = {(name, finding.label, dialogue.scenario) for name, findings in found.items() for finding in findings}
        self.counts.update(seen)
        if self.inspection.contamination:
            new = self.inspection.contamination.hits[self._hits :]
            self._overlaps.writelines(dump(dataclasses.asdict(hit)) + "\n" for hit in new)
            self._hits += len(new)
        return inspected

    def summary(self, funnel: list[dict[str, Any]]) -> dict[str, Any]:
        """What `checks.json` holds."""
        made = self.inspection.settings.made()
        counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in made}
        for (name, label, scenario), count in sorted(self.counts.items()):
            counts[name].setdefault(label, {})[scenario] = count
        return {
            "checks": {name: {"version": MODULES[name].VERSION, "labels": MODULES[name].LABELS} for name in made},
            "settings": self.inspection.settings.model_dump(mode="json"),
            "dialogues": dict(self.dialogues),
            "counts": counts,
            "funnel": funnel,
        }


@contextmanager
def ledger(folder: RunFolder, inspection: Inspection) -> Iterator[Ledger]:
    """A ledger in a run folder; its files appear, whole, when the block ends well."""
    with folder.growing(folder.checks_file, folder.overlaps_file) as (lines, overlaps):
        yield Ledger(inspection, lines, overlaps)


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
