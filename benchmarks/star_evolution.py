"""Which pairs evolution favours, how fast, and what that is worth: simulated, where the true qualities are known.

Ten agent pairs whose samples have known mean qualities; of each seed five pairs are drawn, the best sample is
kept, and its pair is rewarded (Eq. 8). What draws, chooses and learns is `boost_qa.star_agents`; only the
scores are made up. In world "scores" a sample's final score is its quality, from a beta distribution. In world
"verdicts" a sample has an advantage over the base sample, a verdict that follows from it, and an IFD gap that has
nothing to do with it; the final score comes from Eq. 5 and 7, and the base sample competes.

    python benchmarks/star_evolution.py --repeats 10

Share of draws: of all calls, so at most 1 in 5 for a pair that is drawn for every seed. Regret, summed over the seeds:
quality of what a fixed policy keeps minus quality of what evolution keeps, on the same samples. The fixed policies
are uniform drawing, the best set (the five best pairs each time: no way of drawing different pairs does better),
the best pair called once, and the best pair called five times. Every figure has its standard error over repeats.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import report
from rich.console import Console
from rich.table import Table

from boost_qa.star_agents.bank import MemoryBank
from boost_qa.star_agents.evolution import Evolution, Update
from boost_qa.star_agents.selection import BASE_JUDGED, choose, dual_scores, final_scores

PREDICTION = """
Scores, 70,000 seeds, winner only, no floor: the best pair's p ends at 0.145 with rate 0.7 (beta 1e-5), 0.21 with 2.1
(3e-5; the notes say 0.25), 0.30 with 7 (1e-4; the notes say 0.35) and no higher than 0.33 with 70, for the five best
are drawn nearly always by then and the best of them wins a third of the seeds. So Fig. 5 (0.30) is met at rate 7 and
bounds the rate from below only. As a share of draws 0.30 is impossible with five different pairs of ten: at most
0.20; about 0.18 at the end. Worst pair below 0.005. Rewarding all: saturates at 0.22. Floor of 1 %: the best ends
0.02 lower, regret 5 % higher. Of what the best set is better than uniform drawing, rate 6 gains 60 % over the
run, rate 70 gains 90 %. Batches with rate 6: final p the same to 0.01 up to 4096; regret 1 % higher at 512, 10 %
at 4096. With 2,000 seeds the same mean p, but a standard deviation between runs of 0.02 instead of 0.003; there batches
hurt from 64 on (5 % more regret), and 512 gains half of what 1 does. Verdicts: the same order of pairs, lower
rewards, so a higher rate for 0.30, around 10.
"""
PAIRS, DRAWN = 10, 5
NAMES = [f"pair {number}" for number in range(PAIRS)]  # the best first
POINTS = 100
BATCHES = (1, 8, 64, 512, 4096)
Numbers = npt.NDArray[np.float64]


class Scores:
    """Samples whose final score is their quality; mean 0.45 for the best pair, 0.08 for the worst."""

    base_competes = False

    def __init__(self, seeds: int, repeat: int, concentration: float = 2.0, best_only: bool = False) -> None:
        means = np.full(PAIRS, 0.45) if best_only else np.linspace(0.45, 0.08, PAIRS)
        rng = np.random.default_rng([repeat, seeds])
        self.table = rng.beta(means * concentration, (1 - means) * concentration, (seeds, PAIRS)).tolist()

    def quality(self, seed: int, pair: int | None) -> float:
        return float(self.table[seed][pair])

    def finals(self, seed: int, pairs: Sequence[int]) -> list[float]:
        row = self.table[seed]
        return [row[pair] for pair in pairs]


class Verdicts:
    """Advantages in standard deviations of one pair's samples; the base sample has 0. The last column is its own."""

    base_competes = True

    def __init__(self, seeds: int, repeat: int, best_only: bool = False) -> None:
        means = np.full(PAIRS, 0.25) if best_only else np.linspace(0.25, -1.25, PAIRS)
        rng = np.random.default_rng([repeat, seeds, 1])
        advantages = np.hstack([rng.normal(means, 1.0, (seeds, PAIRS)), np.zeros((seeds, 1))])
        judged = np.where(advantages > 0.5, 1.0, np.where(advantages < -0.5, 0.0, 0.5))
        judged[:, -1] = BASE_JUDGED
        large = rng.uniform(0.4, 0.9, judged.shape)
        small = np.maximum(0.0, large + rng.normal(0.03, 0.06, judged.shape))
        self.advantages, self.judged = advantages.tolist(), judged.tolist()
        self.small, self.large = small.tolist(), large.tolist()

    def quality(self, seed: int, pair: int | None) -> float:
        return 0.0 if pair is None else float(self.advantages[seed][pair])

    def finals(self, seed: int, pairs: Sequence[int]) -> list[float]:
        columns = [*pairs, PAIRS]
        small, large, judged = (
            [table[seed][column] for column in columns] for table in (self.small, self.large, self.judged)
        )
        return final_scores(dual_scores(small, large), judged)


@dataclass(frozen=True)
class Cell:
    """One way of drawing in one world."""

    world: str = "scores"
    seeds: int = 70_000
    rate: float = 6.0
    floor: float = 0.0
    update: Update = "winner"
    batch: int = 1
    concentration: float = 2.0


@dataclass
class Course:
    """One run: p of the pairs and summed quality at `POINTS` places; what was drawn and what won in its last tenth."""

    at: list[int]
    p: Numbers
    quality: Numbers
    drawn: Numbers
    won: Numbers


def simulate(world: Scores | Verdicts, policy: Evolution, seeds: int, batch: int, rng: Random, m: int) -> Course:
    """Go through all seeds, the draws of a batch by what was learned before it."""
    places = {name: place for place, name in enumerate(policy.probabilities)}
    kept, drawn, won = np.zeros(seeds), np.zeros(PAIRS), np.zeros(PAIRS)
    at, p, every, waiting = [], [], max(1, seeds // POINTS), []
    for seed in range(seeds):
        names = policy.draw(m, rng)
        pairs = [places[name] for name in names]
        finals = world.finals(seed, pairs)
        choice = choose(finals, rng, base_competes=world.base_competes)
        winner = None if choice.index is None else names[choice.index]
        waiting.append((dict(zip(names, finals, strict=False)), winner))  # the base sample's score is the last
        kept[seed] = world.quality(seed, None if choice.index is None else pairs[choice.index])
        if seed >= seeds - seeds // 10:
            drawn[pairs] += 1
            if winner is not None:
                won[places[winner]] += 1
        if len(waiting) == batch or seed + 1 == seeds:
            for scores, best in waiting:
                policy.learn(scores, best)
            waiting = []
        if (seed + 1) % every == 0:
            at.append(seed + 1)
            p.append(list(policy.probabilities.values()))
    summed = np.cumsum(kept)[np.array(at) - 1]
    return Course(at, np.array(p), summed, drawn / drawn.sum(), won / max(1.0, won.sum()))


def world_of(cell: Cell, repeat: int, best_only: bool = False) -> Scores | Verdicts:
    if cell.world == "scores":
        return Scores(cell.seeds, repeat, cell.concentration, best_only)
    return Verdicts(cell.seeds, repeat, best_only)


def evolution(cell: Cell) -> Evolution:
    return Evolution(NAMES, seeds=cell.seeds, rate=cell.rate, floor=cell.floor, update=cell.update)


def fixed(shares: Sequence[float]) -> Evolution:
    """A policy that never learns."""
    return Evolution(NAMES, seeds=1, rate=0, floor=0, probabilities=shares)


def against(cell: Cell, repeat: int) -> dict[str, Numbers]:
    """Summed quality of the fixed policies, at the places of a `Course`."""
    best, of_best = world_of(cell, repeat), world_of(cell, repeat, best_only=True)
    five = [1 / DRAWN] * DRAWN + [0.0] * (PAIRS - DRAWN)
    ways: dict[str, tuple[Scores | Verdicts, list[float], int]] = {
        "uniform": (best, [1 / PAIRS] * PAIRS, DRAWN),
        "best set": (best, five, DRAWN),
        "best pair once": (best, [1.0] + [0.0] * (PAIRS - 1), 1),
        "best pair five times": (of_best, [1 / PAIRS] * PAIRS, DRAWN),
    }
    return {
        name: simulate(world, fixed(shares), cell.seeds, 1, Random(f"{name} {repeat}"), m).quality
        for name, (world, shares, m) in ways.items()
    }


def play(task: tuple[list[Cell], int]) -> tuple[list[Course], dict[str, Numbers]]:
    """All cells of one world in one repeat, on the same samples, and the fixed policies."""
    cells, repeat = task
    world = world_of(cells[0], repeat)
    courses = [
        simulate(world, evolution(cell), cell.seeds, cell.batch, Random(f"evolution {repeat}"), DRAWN) for cell in cells
    ]
    return courses, against(cells[0], repeat)


def groups() -> list[list[Cell]]:
    """The cells, those that share samples together."""
    winner = [Cell(rate=rate) for rate in (0.7, 2.1, 4.0, 5.0, 6.0, 7.0, 20.0, 70.0, 700.0)]
    floor = [Cell(rate=rate, floor=0.01) for rate in (0.7, 2.1, 7.0, 20.0, 70.0, 700.0)]
    everyone = [Cell(rate=rate, update="all") for rate in (0.7, 2.1, 7.0, 70.0, 700.0)]
    batches = [Cell(floor=0.01, batch=batch) for batch in BATCHES]
    small = [Cell(seeds=2_000, rate=rate, floor=0.01) for rate in (2.1, 7.0, 20.0, 70.0)]
    small += [Cell(seeds=2_000, floor=0.01, batch=batch) for batch in BATCHES]
    verdicts = [Cell("verdicts", rate=rate) for rate in (2.1, 6.0, 20.0, 70.0)]
    narrow = [Cell(rate=rate, concentration=8.0) for rate in (2.1, 7.0, 70.0)]
    return [[*winner, *floor, *everyone, *batches], small, verdicts, narrow]


def mean(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard error, and standard deviation between the repeats."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    error = deviation / math.sqrt(len(values))
    return {
        "mean": float(f"{statistics.fmean(values):.5g}"),
        "se": float(f"{error:.2g}"),
        "sd": float(f"{deviation:.2g}"),
    }


def found(cell: Cell, courses: Sequence[Course], fixed_ones: Sequence[dict[str, Numbers]]) -> dict[str, Any]:
    """What came out of a cell over its repeats; `gained` is the share of (best set - uniform) that evolution got."""
    last = [course.quality[-1] for course in courses]
    gap = [ways["best set"][-1] - ways["uniform"][-1] for ways in fixed_ones]
    over = [own - ways["uniform"][-1] for own, ways in zip(last, fixed_ones, strict=True)]
    return {
        **vars(cell),
        "beta": cell.rate / cell.seeds,
        "p_best": mean([course.p[-1, 0] for course in courses]),
        "p_worst": mean([course.p[-1, -1] for course in courses]),
        "p": [round(float(np.mean([course.p[-1, pair] for course in courses])), 4) for pair in range(PAIRS)],
        "draws_best": mean([course.drawn[0] for course in courses]),
        "wins_best": mean([course.won[0] for course in courses]),
        "quality_per_seed": mean([own / cell.seeds for own in last]),
        "regret": {
            way: mean([float(ways[way][-1] - own) for own, ways in zip(last, fixed_ones, strict=True)])
            for way in fixed_ones[0]
        },
        "gained": mean([float(more / whole) for more, whole in zip(over, gap, strict=True)]),
    }


def matching(rows: Sequence[dict[str, Any]], target: float) -> float | None:
    """The rate at which p of the best pair ends at `target`, between the two rates around it on a logarithmic scale."""
    for low, high in itertools.pairwise(rows):
        below, above = low["p_best"]["mean"], high["p_best"]["mean"]
        if below <= target <= above:
            share = (target - below) / (above - below)
            return round(math.exp(math.log(low["rate"]) * (1 - share) + math.log(high["rate"]) * share), 2)
    return None


def seconds(repeats: int) -> dict[str, Any]:
    """Of one run of 70,000 seeds in world "scores", drawing, choosing and learning; the samples are there already."""
    cell, spent = Cell(rate=7.0, floor=0.01), []
    world = world_of(cell, 0)
    for _ in range(repeats):
        began = time.perf_counter()
        simulate(world, evolution(cell), cell.seeds, 1, Random(0), DRAWN)
        spent.append(time.perf_counter() - began)
    return report.spread(spent)


def bank(repeats: int, seeds: int = 10_000, dimensions: int = 384, n: int = 10) -> dict[str, Any]:
    """Seconds of the memory bank for a run in which every seed is kept, by seeds at once; and of the products alone."""
    drawn = np.random.default_rng(0).standard_normal((seeds, dimensions), dtype=np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def fill(at_once: int) -> None:
        kept = MemoryBank()
        for start in range(0, seeds, at_once):
            kept.near_each(vectors[start : start + at_once], n)
            for seed in range(start, min(seeds, start + at_once)):
                kept.add(str(seed), vectors[seed], NAMES[seed % PAIRS], 1.0)

    def multiply(at_once: int) -> None:
        for start in range(0, seeds, at_once):
            vectors[start : start + at_once] @ vectors[:start].T

    measured: dict[str, list[float]] = {}
    for _ in range(repeats):
        for at_once in (1, 64, 512):
            for name, what in (("bank", fill), ("products alone", multiply)):
                began = time.perf_counter()
                what(at_once)
                measured.setdefault(f"{name}, {at_once} at once", []).append(time.perf_counter() - began)
    return {name: report.spread(seconds) for name, seconds in measured.items()}


def draw_plots(curves: dict[Cell, list[Course]], ways: dict[Cell, list[dict[str, Numbers]]], file: Path) -> None:
    """p over the seeds, cumulative regret, and what batches do, as one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    shown = Cell(rate=7.0)
    for axis, cell in ((axes[0, 0], shown), (axes[0, 1], Cell(rate=7.0, floor=0.01))):
        for pair in range(PAIRS):
            runs = np.array([course.p[:, pair] for course in curves[cell]])
            axis.plot(curves[cell][0].at, runs.mean(axis=0), label=NAMES[pair])
        axis.set(title=f"p of each pair, rate {cell.rate:g}, floor {cell.floor:g}", xlabel="seeds", ylim=(0, 0.35))
        axis.axhline(0.3, color="grey", linestyle=":")
    axes[0, 0].legend(fontsize=7, ncol=2)
    for cell, style in ((Cell(rate=0.7), ":"), (shown, "-"), (Cell(rate=70.0), "--")):
        for way in ("uniform", "best set", "best pair five times"):
            runs = np.array([fix[way] - run.quality for run, fix in zip(curves[cell], ways[cell], strict=True)])
            colour = {"uniform": "C0", "best set": "C1", "best pair five times": "C2"}[way]
            axes[1, 0].plot(curves[cell][0].at, runs.mean(axis=0), style, color=colour, label=f"{way}, {cell.rate:g}")
    axes[1, 0].set(title="cumulative regret against a fixed policy, by rate", xlabel="seeds", ylabel="quality")
    axes[1, 0].legend(fontsize=7)
    for seeds in (70_000, 2_000):
        cells = [
            cell
            for cell in curves
            if cell.seeds == seeds and cell.rate == 6.0 and cell.floor and cell.world == "scores"
        ]
        cells = sorted({cell.batch: cell for cell in cells}.values(), key=lambda cell: cell.batch)
        regrets = [
            np.mean([fix["best set"][-1] - run.quality[-1] for run, fix in zip(curves[cell], ways[cell], strict=True)])
            for cell in cells
        ]
        axes[1, 1].plot(
            [cell.batch / seeds for cell in cells], np.array(regrets) / regrets[0], "o-", label=f"{seeds:,} seeds"
        )
    axes[1, 1].set(title="regret against the best set, batch of 1 = 1 (rate 6)", xlabel="batch / seeds", xscale="log")
    axes[1, 1].legend()
    fresh = file.with_name(f".{file.name}")
    figure.savefig(fresh, format="png", dpi=80)
    fresh.replace(file)


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Means with their standard errors, one line per cell."""
    keys = ("p_best", "p_worst", "draws_best", "wins_best", "gained")
    console = Console(width=200)
    shown = Table("world", "spread", "update", "seeds", "rate", "floor", "batch", *keys, "regret: best set", "uniform")
    for row in rows:
        figures = [row[key] for key in keys] + [row["regret"][way] for way in ("best set", "uniform")]
        shown.add_row(
            *(f"{row[key]}" for key in ("world", "concentration", "update", "seeds", "rate", "floor", "batch")),
            *(f"{each['mean']:.4g} ± {each['se']:.1g}" for each in figures),
        )
    console.print(shown)


def main() -> None:
    parser = report.parser("star_evolution", __doc__)
    parser.set_defaults(repeats=10)
    parser.add_argument("--processes", type=int, default=2, help="repeats at once (default: %(default)s)")
    options: argparse.Namespace = parser.parse_args()
    curves: dict[Cell, list[Course]] = {}
    ways: dict[Cell, list[dict[str, Numbers]]] = {}
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    with Pool(options.processes) as pool:
        for cells in groups():
            done = pool.map(play, [(cells, repeat) for repeat in range(options.repeats)], chunksize=1)
            for place, cell in enumerate(cells):
                curves[cell] = [courses[place] for courses, _ in done]
                ways[cell] = [fixed_ones for _, fixed_ones in done]
                rows.append(found(cell, curves[cell], ways[cell]))
    simulated = time.perf_counter() - began
    table(rows)
    plain = [row for row in rows if row["floor"] == 0 and row["update"] == "winner" and row["seeds"] == 70_000]
    rates = {
        f"{world}, concentration {concentration:g}": matching(
            [row for row in plain if (row["world"], row["concentration"]) == (world, concentration)], 0.30
        )
        for world, concentration in (("scores", 2.0), ("scores", 8.0), ("verdicts", 2.0))
    }
    result = {
        "rate_for_0.30": rates,
        "cells": rows,
        "seconds": {"all": round(simulated, 1), "70,000 seeds": seconds(min(5, options.repeats))},
        "memory_bank_seconds": bank(min(5, options.repeats)),
    }
    print(rates, result["memory_bank_seconds"], result["seconds"])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    draw_plots(curves, ways, options.output.with_suffix(".png"))
    settings = {"repeats": options.repeats, "pairs": PAIRS, "drawn": DRAWN, "processes": options.processes}
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
