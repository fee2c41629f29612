"""A run for the human eye: tables of what came out, and dialogues coloured by speaker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from boost_qa.run_folder import RunFolder

COLOURS = {
    "question": "white",
    "weak_student": "red",
    "teacher": "cyan",
    "strong_student": "green",
    "student": "green",
    "student_a": "yellow",
    "student_b": "magenta",
    "student_c": "green",
    "writer": "green",
}


def summary(folder: RunFolder) -> RenderableType:
    """What a finished run holds: dialogues by scenario and source, what was rejected and why, and the cost."""
    manifest = folder.manifest()
    kept, rejected = manifest["dialogues"], manifest["rejected"]
    scenarios = sorted({*kept, *rejected})
    sources = sorted({source for counts in kept.values() for source in counts})
    table = Table(title=f"run {manifest['name']}", title_style="bold", header_style="dim")
    table.add_column("dialogues")
    for scenario in (*scenarios, "all"):
        table.add_column(scenario.replace("_", " "), justify="right")

    def add(name: str, counts: Sequence[int], **style: Any) -> None:
        table.add_row(name, *(f"{count:,}" for count in (*counts, sum(counts))), **style)

    for source in sources:
        counts = [kept.get(scenario, {}).get(source, 0) for scenario in scenarios]
        add(source, counts, end_section=source == sources[-1])
    add("kept", [sum(kept.get(scenario, {}).values()) for scenario in scenarios])
    add("rejected", [sum(rejected.get(scenario, {}).values()) for scenario in scenarios])
    parts: list[RenderableType] = [table]
    reasons = [(scenario, reason, count) for scenario, each in rejected.items() for reason, count in each.items()]
    if reasons:
        why = Table(title="rejected", title_style="bold", header_style="dim")
        for name in ("scenario", "reason", "records"):
            why.add_column(name, justify="right" if name == "records" else "left")
        for scenario, reason, count in reasons:
            why.add_row(scenario, Text(reason), str(count))
        parts.append(why)
    if "checks" in manifest:
        parts.append(labels(manifest["checks"]))
    if folder.report_file.is_file():
        parts.append(agent_pairs(json.loads(folder.report_file.read_text(encoding="utf-8"))["pairs"]))
    bad = sum(count for source in manifest["sources"] for count in source["bad"].values())
    usage, sessions = manifest["usage"], manifest["sessions"]
    seconds = sum(session["seconds"] for session in sessions)
    tokens = sum(session["completion_tokens"] for session in sessions)
    rate = f", {tokens / seconds:,.0f} tokens/s over {seconds:,.0f} s" if seconds else ""
    cost = (
        f"{usage['requests']:,} replies; {usage['prompt_tokens']:,} tokens read, "
        f"{usage['completion_tokens']:,} written{rate}\n"
        f"rows of the sources that could not be used: {bad:,}\n"
        f"run folder: {folder.path}"
    )
    parts.append(Text(cost, no_wrap=True, overflow="ignore"))  # not wrapped, so that the path can be copied
    return Group(*parts)


def labels(summary: Mapping[str, Any]) -> RenderableType:
    """What the checks of a run saw, from its `checks.json`: dialogues by label and scenario."""
    scenarios = sorted(summary["dialogues"])
    table = Table(title="dialogues by what the checks saw", title_style="bold", header_style="dim")
    for name in ("check", "label", *(scenario.replace("_", " ") for scenario in scenarios), "all"):
        table.add_column(name, justify="left" if name in ("check", "label") else "right")
    for name, found in summary["counts"].items():
        for label, counts in found.items() or [("nothing", {})]:
            row = [counts.get(scenario, 0) for scenario in scenarios]
            table.add_row(name, label, *(f"{count:,}" for count in (*row, sum(row))))
        table.add_section()
    row = [summary["dialogues"][scenario] for scenario in scenarios]
    table.add_row("", "dialogues", *(f"{count:,}" for count in (*row, sum(row))))
    return table


def agent_pairs(pairs: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """The agent pairs of a star run, from its report; the rest of that is in the run folder."""
    table = Table(title="agent pairs (more in report.json)", title_style="bold", header_style="dim")
    for name in ("pair", "drawn", "chosen", "probability", "mean score", "without a score"):
        table.add_column(name, justify="left" if name in ("pair", "without a score") else "right")
    for name, pair in pairs.items():
        share, score = pair["probability"], pair["mean_score"]
        table.add_row(
            name,
            "base" if pair["base"] else f"{pair['drawn']:,}",
            f"{pair['chosen']:,}",
            "" if share is None else f"{share:.3f}",
            "" if score is None else f"{score:.3f}",
            Text(", ".join(f"{why} ({count:,})" for why, count in pair["unscored"].items())),
        )
    return table


def browse(
    folder: RunFolder,
    *,
    scenario: str | None = None,
    source: str | None = None,
    find: str | None = None,
    limit: int = 10,
    one_per_scenario: bool = False,
) -> Iterator[RenderableType]:
    """The dialogues of a run that fit, each ready to be printed."""
    seen: set[str] = set()

    def fits(dialogue: Mapping[str, Any]) -> bool:
        fit = (
            scenario in (None, dialogue["scenario"])
            and source in (None, dialogue["record"]["source"])
            and (find is None or any(find.lower() in turn["text"].lower() for turn in dialogue["turns"]))
            and not (one_per_scenario and dialogue["scenario"] in seen)
        )
        if fit:
            seen.add(dialogue["scenario"])
        return fit

    yield from map(page, islice(filter(fits, folder.dialogues()), limit))


def page(dialogue: Mapping[str, Any]) -> RenderableType:
    """One dialogue, each turn under its speaker's name and in its colour."""
    lines: list[RenderableType] = []
    for turn in dialogue["turns"]:
        colour = COLOURS.get(turn["speaker"], "white")
        who = Text(f"{turn['side']}  {turn['speaker'].replace('_', ' ')}", style=f"bold {colour}")
        if turn["model"]:
            who.append(f"  {turn['model']} at {turn['temperature']}", style="dim")
        lines += [who, Text(turn["text"], style=colour), Text()]
    reference = Text("reference answer\n", style="dim bold").append(Text(dialogue["record"]["answer"], style="dim"))
    return Panel(
        Group(*lines, Rule(style="dim"), reference),
        title=f"{dialogue['scenario']} · {dialogue['record']['id']}",
        title_align="left",
    )


def refusals(folder: RunFolder, limit: int) -> RenderableType:
    """The rejected records of a run, with reasons and the beginning of the details."""
    table = Table(header_style="dim")
    for name in ("record", "scenario", "reason", "detail"):
        table.add_column(name, overflow="fold")  # whole, to be copied
    for row in islice(folder.rejected(), limit):
        detail = " ".join(row["detail"].split())[:160]
        table.add_row(*map(Text, (row["record"], row["scenario"], row["reason"], detail)))
    return table


def model_table(rows: Sequence[Any]) -> RenderableType:
    """The models known by name."""
    table = Table(header_style="dim")
    for name in ("name", "for", "licence", "download", "here"):
        table.add_column(name, no_wrap=name == "name")
    for row in rows:
        table.add_row(row.name, row.purpose, row.licence, f"{row.bytes / 1e6:,.0f} MB", "yes" if row.fetched else "no")
    return table
