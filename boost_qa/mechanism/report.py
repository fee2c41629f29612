"""The measures of an adapter as a short table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from boost_qa.errors import RunError


def read(path: Path) -> dict[str, Any]:
    """What `measure` wrote.

    Raises:
        RunError: it is not there, or cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}", "Give a file that `boost-qa mechanism` wrote.") from error


def shown(measures: Mapping[str, Any]) -> Table:
    """One line for each figure, with its interval and what it is over."""
    model, data = measures["model"], measures["data"]
    table = Table(title=f"{model['adapter']} on {model['base']}; 95 % intervals", min_width=90)
    for name in ("measure", "of", "value", "interval", "over"):
        table.add_column(name, justify="left" if name in ("measure", "of") else "right")
    for row in (*_noise(measures["noise"]), *_landscape(measures["landscape"]), *_transfer(measures["transfer"])):
        table.add_row(*row)
    if data["as_trained"] is False:
        table.caption = f"{data['dataset']}: not the rows that the adapter was trained on"
    return table


def _noise(noise: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name in ("trained", "fresh"):
        one = noise[name]
        value = "no bound" if one["scale"] is None else f"{one['scale']:,.1f}"
        low = "?" if one["low"] is None else f"{one['low']:,.1f}"
        high = "no bound" if one["high"] is None else f"{one['high']:,.1f}"
        label = "noise scale (dialogues)" if name == "trained" else ""
        yield label, f"{name} adapter", value, f"{low} to {high}", f"{one['dialogues']:,} dialogues"


def _landscape(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    over = f"{len(one['curvatures'])} directions"
    interval = f"{one['low']:.4g} to {one['high']:.4g}"
    yield "curvature of the loss", "held-out dialogues", f"{one['curvature']:.4g}", interval, over
    yield "length of the update", "by that of the weights", f"{one['update']:.3g}", "", ""


def _transfer(transfer: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    label = "gain (nats a token)"
    for band in transfer["bands"]:
        gain = band["gain"]
        of = "trained questions" if band["low"] is None else band_name(band)
        interval = f"{gain['low']:+.3f} to {gain['high']:+.3f}"
        yield label, of, f"{gain['mean']:+.3f}", interval, f"{gain['n']:,} of {band['available']:,} questions"
        label = ""
    if (one := transfer["correlation"]) is not None:
        interval = f"{one['low']:+.2f} to {one['high']:+.2f}"
        yield "rank correlation", "gain and similarity", f"{one['rho']:+.2f}", interval, f"{one['n']:,} questions"


def band_name(band: Mapping[str, Any]) -> str:
    """A band of similarity in words."""
    if band["high"] is None:
        return f"similarity from {band['low']:g}"
    return f"similarity below {band['high']:g}" if band["low"] <= -1 else f"{band['low']:g} to {band['high']:g}"
