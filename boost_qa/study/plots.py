"""Pictures of a study: differences with their intervals, and what becomes of a figure with more rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(found: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write the pictures of what `gather` found as SVG; gives what each shows, by its file's name.

    The same figures give the same bytes.
    """
    folder.mkdir(exist_ok=True)
    pictures = {}
    if found["differences"]:
        pictures["differences.svg"] = _differences(found["differences"]), "differences with 95 % intervals, in points"
    if (sizes := _sizes(found)) and len({rows for rows, *_ in sizes}) > 2:
        pictures["rows.svg"] = _rows(sizes), "the headline figures by the number of rows that were trained on"
    for name, (figure, _) in pictures.items():
        _save(figure, folder / name)
    return {name: what for name, (_, what) in pictures.items()}


def _differences(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each task; a line for each pair."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    figure = _figure(3.2 + 2.6 * len(tasks), 1.2 + 0.4 * len(pairs))
    panels: Any = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        axes.axvline(0, color="0.7", linewidth=1)
        for row in rows:
            if row["task"] == task:
                place = pairs.index((row["first"], row["second"]))
                middle, low, high = (100 * row[name] for name in ("mean", "low", "high"))
                axes.errorbar(
                    middle, place, xerr=[[middle - low], [high - middle]], fmt="o", markersize=4, capsize=3, color="C0"
                )
        axes.set_title(f"{task}\n{rows[0]['metric'] if len(tasks) == 1 else ''}".strip(), fontsize="small")
        axes.set_xlabel("points")
    panels[0].set_yticks(range(len(pairs)), [f"{second} - {first}" for first, second in pairs], fontsize="small")
    panels[0].invert_yaxis()
    return figure


def _sizes(found: Mapping[str, Any]) -> list[tuple[int, str, Mapping[str, Any]]]:
    """Rows trained on, name of the line, and figure of each arm of a dataset that some arm has a part of."""
    arms: dict[str, tuple[int, str]] = {
        name: (next(iter(arm["trained"].values()))["dialogues"], f"{arm['run']}: {arm.get('config', 'all')}")
        for name, arm in found["arms"].items()
        if arm["trained"] and not arm.get("change")
    }
    parted = {arms[name][1] for name, arm in found["arms"].items() if name in arms and arm.get("rows")}
    return [
        (rows, f"{row['task']}, {dataset}", row)
        for row in found["figures"]
        if found["headline"].get(row["task"]) == row["metric"]
        for rows, dataset in [arms.get(row["arm"], (0, ""))]
        if dataset in parted
    ]


def _rows(sizes: Sequence[tuple[int, str, Mapping[str, Any]]]) -> Figure:
    figure = _figure(7, 4.5)
    axes: Axes = figure.add_subplot(xlabel="rows", ylabel="%", xscale="log")
    for line in dict.fromkeys(line for _, line, _ in sizes):
        points = sorted(((rows, row) for rows, of, row in sizes if of == line), key=lambda point: point[0])
        middle = [100 * row["mean"] for _, row in points]
        below = [100 * (row["mean"] - row["low"]) for _, row in points]
        above = [100 * (row["high"] - row["mean"]) for _, row in points]
        axes.errorbar([rows for rows, _ in points], middle, yerr=[below, above], fmt="o-", capsize=3, label=line)
    axes.legend(frameon=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, file: Path) -> None:
    import matplotlib

    part = file.with_name(file.name + ".part")
    with matplotlib.rc_context({"svg.hashsalt": "boost_qa", "svg.fonttype": "path"}):
        figure.savefig(part, format="svg", metadata={"Date": None, "Creator": None})
    part.replace(file)
