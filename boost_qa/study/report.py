"""The report of a study: one Markdown text, and the same as one HTML file with its pictures inside."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from boost_qa.analogies.figures import sentences, table_rows
from boost_qa.mechanism.report import band_name
from boost_qa.run_folder import write_whole
from boost_qa.study import plots
from boost_qa.study.gather import gather
from boost_qa.study.paper import Table, paper_file, read_tables
from boost_qa.study.settings import Study
from boost_qa.study.steps import HELD_OUT

INTERVALS = (
    "Intervals are 95 %. With several seeds they hold for other questions and other trainings alike (Student's t over "
    "the sum of both variances); differences are paired by question. p is adjusted for the number of differences in "
    "this report (Holm)."
)
ONE_SEED = (
    "**One seed:** where a trained arm has a single one, intervals and p are not about its trainings. What another "
    "would come to is not in them, so a difference may be chance of training even where its interval excludes 0."
)
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;display:block;overflow-x:auto;margin:1rem 0}
th,td{border-bottom:1px solid #ccc;padding:.25rem .6rem;text-align:left;font-variant-numeric:tabular-nums}
code,pre{background:#f3f3f3;padding:.1rem .3rem}pre{overflow-x:auto;padding:.6rem}img{max-width:100%;background:#fff}
@media(prefers-color-scheme:dark){body{color:#e4e4e4;background:#161616}th,td{border-color:#444}
code,pre{background:#262626}a{color:#8ab4f8}}
"""


def report(study: Study, folder: Path, file: Path | None = None) -> list[Path]:
    """Write `results.json`, `report.md`, `report.html` and `figures/`; the same study gives the same bytes.

    Args:
        file: the study's YAML, beside which the paper's figures are looked for.

    Raises:
        RunError: an evaluation cannot be read.
    """
    found = gather(study, folder)
    pictures = plots.draw(found, folder / "figures")
    paper = paper_file(file) if file else None
    tables = read_tables(paper.read_text(encoding="utf-8")) if paper and paper.is_file() else []
    text = "\n".join(_text(study, found, pictures, tables)) + "\n"
    written = [folder / name for name in ("results.json", "report.md", "report.html")]
    write_whole(written[0], json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    write_whole(written[1], text)
    write_whole(written[2], _page(study, text, folder))
    return written


def _text(
    study: Study, found: Mapping[str, Any], pictures: Mapping[str, str], tables: Sequence[Table]
) -> Iterator[str]:
    yield f"# Study {study.name}, scale {study.scale}\n"
    yield f"{study.question}\n"
    if study.notes:
        yield f"{study.notes.strip()}\n"
    if left := found["unfinished"]:
        more = f", and {len(left) - 10:,} more" if len(left) > 10 else ""
        yield f"**Not finished:** {'; '.join(left[:10])}{more}. Figures are of what there is.\n"
    if found["left_out"]:
        yield f"**Not asked:** {'; '.join(found['left_out'].values())}.\n"
    if study.arms:
        yield "## Differences\n"
        yield f"{INTERVALS}\n"
        if any(not row["trained"] for row in found["differences"]):
            yield f"{ONE_SEED}\n"
        yield from _differences(found)
        yield from (f"![{what}](figures/{name})\n" for name, what in pictures.items())
        yield "## Figures\n"
        yield from _figures(found)
        yield from _kinds(found)
        yield "## What was trained on\n"
        yield from _arms(found)
    if tables:
        yield "## Beside the paper\n"
        yield from _beside(found, tables)
    yield from _mechanism(found)
    yield from _checks(found)
    yield from _analogies(found)
    yield "## Generations\n"
    yield from _runs(found)


def _differences(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _table(
        ("difference", "task", "metric", "points", "interval", "p", "p adjusted", "questions", "seeds"),
        (
            (
                f"{row['second']} - {row['first']}", row["task"], row["metric"], f"{100 * row['mean']:+.1f}",
                f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}", f"{row['p']:.2g}", f"{row['p_adjusted']:.2g}",
                f"{row['items']:,}", " / ".join(map(str, row["seeds"])),
            )
            for row in found["differences"]
        ),
    )  # fmt: skip


def _figures(found: Mapping[str, Any]) -> Iterator[str]:
    """A table for each task: arms by metrics."""
    rows = found["figures"]
    for task in dict.fromkeys(row["task"] for row in rows):
        metrics = list(dict.fromkeys(row["metric"] for row in rows if row["task"] == task))
        cells = {(row["arm"], row["metric"]): row for row in rows if row["task"] == task}
        arms = list(dict.fromkeys(arm for arm, _ in cells))
        yield f"### {task}\n"
        yield from _table(
            ("arm", *metrics, "questions", "seeds"),
            (
                (
                    arm,
                    *(_cell(cells.get((arm, metric))) for metric in metrics),
                    *((f"{one['items']:,}", one["seeds"]) if (one := cells.get((arm, metrics[0]))) else ("-", "-")),
                )
                for arm in arms
            ),
        )


def _kinds(found: Mapping[str, Any]) -> Iterator[str]:
    """The headline figure of the held-out questions: arms by kinds of questions."""
    rows = found["kinds"]
    names = list(dict.fromkeys(row["kind"] for row in rows))
    if len(names) < 2:
        return
    cells = {(row["arm"], row["kind"]): row for row in rows}
    yield f"### {HELD_OUT} by kind: {found['headline'][HELD_OUT]}\n"
    arms = dict.fromkeys(arm for arm, _ in cells)
    rows_of_arms = ((arm, *(_cell(cells.get((arm, name))) for name in names)) for arm in arms)
    same = ("always the commonest result", *(f"{100 * found['commonest'][name]:.1f}" for name in names))
    yield from _table(("arm", *names), chain(rows_of_arms, [same]))
    sizes = {name: next(row["items"] for row in rows if row["kind"] == name) for name in names}
    yield f"Questions: {', '.join(f'{name} {size:,}' for name, size in sizes.items())}.\n"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{100 * row['mean']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def _arms(found: Mapping[str, Any]) -> Iterator[str]:
    def line(name: str, arm: Mapping[str, Any]) -> tuple[object, ...]:
        told = [arm["trained"][seed] for seed in arm["trained"]]
        what = "no training" if "run" not in arm else f"{arm['run']}: {arm.get('config', 'all')}"
        if not told:
            return name, what, "-", "-", "-", "-", "-", "-"
        one, losses = told[0], [each["last_loss"] for each in told if each["last_loss"] is not None]
        loss = f"{sum(losses) / len(losses):.3f}" if losses else "-"
        minutes = sum(each["seconds"] for each in told) / 60 / len(told)
        counts = [f"{one[key]:,}" for key in ("dialogues", "tokens", "supervised", "steps")]
        return name, what, *counts, loss, f"{minutes:,.1f}"

    yield (
        "Tokens are those of one epoch; the loss is the last one that was logged; minutes are of one training, or of "
        "what was left of it when it was started last.\n"
    )
    names = ("arm", "dataset", "rows", "tokens", "with loss", "steps", "loss", "minutes")
    yield from _table(names, (line(name, arm) for name, arm in found["arms"].items()))


def _beside(found: Mapping[str, Any], tables: Sequence[Table]) -> Iterator[str]:
    """Each of the paper's tables; where an arm and a task are ours as well, our figure follows in brackets."""
    headline = found["headline"]
    ours = {(row["arm"], row["task"]): row for row in found["figures"] if headline.get(row["task"]) == row["metric"]}

    def cells(arm: str | None, figures: Sequence[float | None], table: Table) -> list[str]:
        tasks = [task for task, _ in table.columns]
        return [_both(one, ours.get((str(arm), str(task)))) for one, task in zip(figures, tasks, strict=True)]

    yield "Figures of the paper, in percent; ours, where there is one, in brackets. Models and sizes may differ.\n"
    for table in tables:
        yield f"### {table.title}\n\n{table.source}\n"
        rows = ((shown, *cells(arm, figures, table)) for arm, shown, figures in table.rows)
        yield from _table(("", *(name for _, name in table.columns)), rows)


def _both(theirs: float | None, ours: Mapping[str, Any] | None) -> str:
    shown = "-" if theirs is None else f"{theirs:.2f}"
    return shown if ours is None else f"{shown} [{100 * ours['mean']:.1f}]"


def _mechanism(found: Mapping[str, Any]) -> Iterator[str]:
    """Noise scale, curvature and transfer of each adapter; see `boost_qa.mechanism`."""
    if not found["mechanism"]:
        return
    yield "## What training did\n\nNoise scales in dialogues, gains in nats a token; 95 % intervals.\n"

    def line(name: str, one: Mapping[str, Any]) -> tuple[object, ...]:
        noise, around, transfer = one["noise"], one["landscape"], one["transfer"]
        scales = [_span(noise[when], "scale") for when in ("fresh", "trained")]
        with_likeness = _span(transfer["correlation"], "rho") if transfer["correlation"] else "-"
        return name, *scales, _span(around, "curvature"), f"{around['update']:.2g}", with_likeness

    names = ("adapter", "noise scale, fresh", "noise scale, trained", "curvature", "length of the update")
    yield from _table((*names, "gain with similarity"), (line(*one) for one in found["mechanism"].items()))
    others = [name for name, one in found["mechanism"].items() if one["data"]["as_trained"] is False]
    if others:
        yield f"**Measured on other rows than were trained on:** {', '.join(others)}.\n"
    gains = [
        (name, "trained on" if band["low"] is None else band_name(band), band)
        for name, one in found["mechanism"].items()
        for band in one["transfer"]["bands"]
    ]
    yield "Gain on questions by their similarity to the nearest that was trained on:\n"
    cells = ((name, band, _span(of["gain"], "mean"), of["gain"]["n"], of["available"]) for name, band, of in gains)
    yield from _table(("adapter", "similarity", "gain", "questions", "of"), cells)


def _span(one: Mapping[str, Any], key: str) -> str:
    if one[key] is None:
        return "-"
    low, high = (None if one[name] is None else f"{one[name]:.3g}" for name in ("low", "high"))
    return f"{one[key]:.3g} ({low or '?'} to {high or 'no bound'})"


def _checks(found: Mapping[str, Any]) -> Iterator[str]:
    """How many dialogues of each run have a label."""
    if not found["checks"]:
        return
    runs = found["checks"]
    counts = {
        name: {label: sum(by.values()) for labels in run["counts"].values() for label, by in labels.items()}
        for name, run in runs.items()
    }
    yield "## What the checks saw\n\nDialogues with each label, and how many there are.\n"
    seen = dict.fromkeys(label for of in counts.values() for label in of)
    yield from _table(("label", *runs), ((label, *(of.get(label, 0) for of in counts.values())) for label in seen))
    totals = {name: sum(run["dialogues"].values()) for name, run in runs.items()}
    yield f"All dialogues: {', '.join(f'{name} {total:,}' for name, total in totals.items())}.\n"


def _analogies(found: Mapping[str, Any]) -> Iterator[str]:
    """What a judge says of the retrieved pairs, beside random ones."""
    if found["analogies"]:
        yield "## Analogies\n"
    for name, content in found["analogies"].items():
        yield f"### {name}\n\nTo read, and to judge oneself: `runs/{name}/analogies/pairs.html`.\n"
        if content["judge"]:
            names, *rows = table_rows(content["figures"])
            yield f"Judge: {content['judge']['model']}. Shares in percent, with exact 95 % intervals.\n"
            yield from _table(names, iter(rows))
            yield from (f"{sentence}\n" for sentence in sentences(content["figures"]))


def _runs(found: Mapping[str, Any]) -> Iterator[str]:
    def line(name: str, run: Mapping[str, Any] | None) -> tuple[object, ...]:
        if run is None:
            return name, "not generated", "-", "-", "-"
        kept = sum(count for of in run.get("dialogues", {}).values() for count in of.values())
        gone = sum(count for of in run.get("rejected", {}).values() for count in of.values())
        models = ", ".join(f"{alias}: {one.get('model')}" for alias, one in run.get("models", {}).items())
        return name, models or "-", f"{kept:,}", f"{gone:,}", f"{run.get('usage', {}).get('completion_tokens', 0):,}"

    names = ("run", "models", "dialogues", "rejected", "tokens written")
    yield from _table(names, (line(name, run) for name, run in found["runs"].items()))


def _table(names: Sequence[str], rows: Iterator[tuple[object, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"
    yield ""


def _page(study: Study, text: str, folder: Path) -> str:
    """The Markdown as HTML; raw HTML in it stays text."""
    body = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    for picture in sorted((folder / "figures").glob("*.svg")):
        data = base64.b64encode(picture.read_bytes()).decode()
        body = body.replace(f'src="figures/{picture.name}"', f'src="data:image/svg+xml;base64,{data}"')
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>Study {study.name}</title><style>{STYLE}</style></head><body>\n{body}</body></html>\n"
    )
