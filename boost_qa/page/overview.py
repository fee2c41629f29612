"""What the template shows above the dialogues: rows, shares and places, with nothing left to reckon."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

from boost_qa.page.figures import WHOLE, By, Figures, Lengths
from boost_qa.portable import portable_model, portable_value

VERDICTS = ("right", "wrong", "unknown")

BINS = 8
"""Bars from one power of ten to the next."""

BY: tuple[By, ...] = ("scenario", "source", "model")

WHOSE = {
    "final": "The last turn, which should be right",
    "weak": "The weak student, who should be wrong",
    "student": "Other students",
}


@dataclass(frozen=True)
class Loss:
    """What left the run at a stage; `link` leads to those dialogues."""

    reason: str
    count: int
    link: str | None = None


@dataclass(frozen=True)
class Stage:
    """A stage of the funnel; `share` of the largest one, `lost` on the way to the next."""

    name: str
    count: int
    share: float
    lost: list[Loss] = field(default_factory=list)


@dataclass(frozen=True)
class Strip:
    """A histogram over a logarithmic axis; places and widths are percentages, heights shares of the highest bar."""

    count: int
    low: int
    median: int
    high: int
    at: float
    bars: list[tuple[float, float, float]]


@dataclass(frozen=True)
class Spoken:
    """The turn lengths of one speaker in one scenario."""

    scenario: str
    speaker: str
    colour: int
    again: int
    characters: Strip | None
    tokens: Strip | None


@dataclass(frozen=True)
class Agreement:
    """A row of answers: how many of each verdict, and the link to each."""

    name: str
    counts: list[int]
    links: list[str | None]

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def parts(self) -> list[tuple[str, float]]:
        """Each verdict with its share in percent."""
        return [(name, 100 * count / self.total) for name, count in zip(VERDICTS, self.counts, strict=True)]


@dataclass(frozen=True)
class Seen:
    """A label with how often it was seen in each speaker's turns, and in which share of them."""

    label: str
    meaning: str
    dialogues: int
    link: str
    cells: list[tuple[int, float]]


def link(**filters: str) -> str:
    """The address, within the page, of the dialogues that fit."""
    return "#dialogues?" + urlencode({name: value for name, value in filters.items() if value})


def facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Name, models, sources, versions and cost of a run; places on this machine become names."""
    models = [
        {"alias": alias, **facts, "model": portable_model(facts["model"])}
        for alias, facts in manifest.get("models", {}).items()
    ]
    sessions = manifest.get("sessions", [])
    recipe = manifest.get("recipe", {})
    return {
        "name": portable_value(manifest["name"]),
        "digest": manifest["digest"],
        "finished": bool(manifest.get("finished")),
        "seed": recipe.get("seed"),
        "language": recipe.get("language"),
        "models": models,
        "scorers": portable_value(manifest.get("scorers", {})),
        "sources": portable_value(manifest.get("sources", [])),
        "versions": manifest.get("versions", {}),
        "prompts": manifest.get("prompts", {}),
        "usage": manifest.get("usage"),
        "started": min((session["started"] for session in sessions), default=None),
        "seconds": sum(session["seconds"] for session in sessions),
    }


def funnel(manifest: Mapping[str, Any], figures: Figures) -> list[Stage]:
    """From the rows of the sources to what was kept, and what was lost for which reason."""
    sources = manifest.get("sources", [])
    read, drawn = (sum(source[name] for source in sources) for name in ("read", "taken"))
    bad: Counter[str] = Counter()
    for source in sources:
        bad.update(source["bad"])
    unusable = [Loss(reason, count) for reason, count in bad.most_common()]
    rejected, dropped, kept = (figures.count(status) for status in ("rejected", "dropped", "kept"))
    played = kept + dropped + rejected
    finished, once = manifest.get("finished"), manifest.get("recipe", {}).get("assign", "one") == "one"
    stages = [
        ("rows read", read, [*unusable, Loss("good, but not drawn", read - drawn - bad.total())]),
        (
            "records drawn",
            drawn,
            [Loss("not assigned" if finished else "not played yet", drawn - played)] if once else [],
        ),
        ("assigned to a scenario" if finished else "played so far", played, _losses(figures, "rejected")),
        *([("dialogues", kept + dropped, _losses(figures, "dropped"))] if figures.checked else []),
        ("kept" if figures.checked else "dialogues", kept, []),
    ]
    most = max(1, *(count for _, count, _ in stages))
    return [
        Stage(name, count, 100 * count / most, [loss for loss in lost if loss.count > 0])
        for name, count, lost in stages
    ]


def by_scenario_and_source(figures: Figures, status: str = "kept") -> list[tuple[str, list[int], int, list[str]]]:
    """For each source its dialogues by scenario, in all, and links to them; the last row has the sums."""
    scenarios = figures.scenarios()
    found = []
    for source in figures.sources():
        counts = [figures.count(status, scenario, source) for scenario in scenarios]
        links = [link(status=status, scenario=scenario, source=source) for scenario in scenarios]
        found.append((source, counts, sum(counts), links))
    counts = [figures.count(status, scenario) for scenario in scenarios]
    return [*found, ("all", counts, sum(counts), [link(status=status, scenario=scenario) for scenario in scenarios])]


def spoken(figures: Figures) -> tuple[list[Spoken], dict[str, list[tuple[str, float]]]]:
    """Turn lengths by scenario and speaker, and the ticks of the two axes."""
    tops = {unit: _top(figures.lengths.values(), unit) for unit in _UNITS}
    rows = [
        Spoken(
            scenario,
            speaker,
            figures.colours[speaker],
            figures.again[scenario, speaker],
            *(strip(getattr(lengths, unit), tops[unit]) for unit in _UNITS),
        )
        for (scenario, speaker), lengths in sorted(figures.lengths.items(), key=lambda item: item[0][0])
    ]
    return rows, {unit: ticks(top) for unit, top in tops.items()}


def strip(values: Sequence[int], top: float) -> Strip | None:
    """The histogram of some lengths between 1 and `top`; None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    count = len(ordered)
    decades = math.log10(top)
    width = 1 / (BINS * decades)
    bins = Counter(int(math.log10(max(1, value)) * BINS) for value in ordered)
    highest = max(bins.values())
    bars = [(100 * number * width, 100 * width, share / highest) for number, share in sorted(bins.items())]
    low, median, high = (ordered[int(share * (count - 1))] for share in (0.05, 0.5, 0.95))
    return Strip(count, low, median, high, 100 * math.log10(max(1, median)) / decades, bars)


def ticks(top: float) -> list[tuple[str, float]]:
    """1, 10, 100, ... below `top`, with their places in percent."""
    decades = math.log10(top)
    return [(f"{10**power:,}", 100 * power / decades) for power in range(math.ceil(decades))]


def agreement(figures: Figures, whose: str, by: By) -> list[Agreement]:
    """How the answers of `whose` compare with the reference, by scenario, source or model."""
    names = sorted({name for who, counted, name, _ in figures.answers if (who, counted) == (whose, by)})
    return [
        Agreement(
            name,
            [figures.answers[whose, by, name, verdict] for verdict in VERDICTS],
            [link(**{by: name}, label=f"{whose} {verdict}") for verdict in VERDICTS],
        )
        for name in names
    ]


def seen(figures: Figures, meanings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each check but the answers its labels by speaker, with the speakers' names."""
    found = []
    for check in sorted({check for check, _, _ in figures.findings}):
        mine = {(label, speaker): n for (name, label, speaker), n in figures.findings.items() if name == check}
        speakers = [speaker for speaker in (*figures.colours, WHOLE) if any(who == speaker for _, who in mine)]
        labels = sorted({label for label, _ in mine}, key=lambda label: -figures.labels[check, label])
        known = meanings.get(check, {}).get("labels", {})
        rows = [
            Seen(
                label,
                known.get(label, ""),
                figures.labels[check, label],
                link(label=label),
                [
                    (
                        mine.get((label, speaker), 0),
                        figures.turns_with[check, label, speaker] / max(1, figures.turns[speaker]),
                    )
                    for speaker in speakers
                ],
            )
            for label in labels
        ]
        found.append({"check": check, "speakers": speakers, "rows": rows})
    return found


def checks(figures: Figures, meanings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each check with its version, and its labels with their meanings and how many dialogues have them."""
    return [
        {
            "name": name,
            "version": facts.get("version", ""),
            "labels": [
                (label, what, figures.labels[name, label], link(label=label))
                for label, what in facts.get("labels", {}).items()
            ],
        }
        for name, facts in meanings.items()
    ]


_UNITS: tuple[Literal["characters"], Literal["tokens"]] = ("characters", "tokens")


def _top(all_lengths: Iterable[Lengths], unit: Literal["characters", "tokens"]) -> float:
    """Where an axis ends: with the bin of the greatest length, or at 10 if none is longer."""
    longest = max((max(getattr(lengths, unit), default=0) for lengths in all_lengths), default=0)
    return max(10.0, 10 ** ((1 + math.floor(math.log10(max(1, longest)) * BINS)) / BINS))


def _losses(figures: Figures, status: str) -> list[Loss]:
    """Reasons by number, each with the scenarios it was met in."""
    reasons: Counter[str] = Counter()
    for (stands, reason, _), count in figures.losses.items():
        if stands == status:
            reasons[reason] += count
    return [Loss(reason, count, link(status=status, label=reason)) for reason, count in reasons.most_common()]
