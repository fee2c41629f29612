"""What a star run found out: `report.json` and three pictures.

pairs      how often each was drawn and chosen, what it scored, and why some candidates have no score
signal     what the gap between the scorers goes along with, and how well it repeats, which the paper does not say
ablation   what the paper's policies come to on this run's candidates; only where every pair was asked
regret     of the run, against uniform drawing and the best fixed set of pairs; only there, too
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boost_qa.config import Recipe, Star
from boost_qa.run_folder import RunFolder, write_whole
from boost_qa.star_agents.ifd import Likelihood
from boost_qa.star_policies import AGAINST, MEASURES, Candidate, Matrix, Seed, ablation
from boost_qa.star_signal import Numbers, correlation, reliability, rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGNAL = (
    "Rank correlations over all scored candidates, and within seeds, whose candidates alone compete; 95 % intervals by "
    "drawing seeds again. The gap is ifd_small - ifd_large, not clipped, so ifd_small is a part of it. The base sample "
    "is left out of `judged`: its verdict is a definition."
)
ABLATION = (
    "Scores are normalised over all candidates of a seed, so that policies can be compared; a base sample counts as "
    "judged 0.5. Standard errors are over seeds; those of uniform draws are of their mean over redraws. `difference`: "
    f"to {AGAINST!r}, seed by seed. Policies select by the score that is compared here; a trained model was not asked."
)
HALVES = (
    "The first, third, ... of an answer's tokens against the others, from the same pass; `whole`: stepped up to all "
    "tokens by Spearman and Brown. It says how far the gap is more than noise of single tokens. It is no retest: both "
    "halves have the same text, layout and models, and tokens beside each other are likely together, so it is nearer "
    "to the most than to the least that a retest gives. Where the scorers' tokenizers differ, so do their halves."
)
REARRANGED = (
    "The same texts scored once more with other role lines (star.retest): what of the gap does not hang on the layout. "
    "Models and wording are the same, so this too is no proof that the gap means what it is taken for."
)
NO_HALVES = "not measured: the journal is from before halves were kept; a new run in another --output has them"
NO_RETEST = "not measured: only with star.retest each candidate is scored twice"
_POINTS = 2000  # of a line in a picture


def report(folder: RunFolder, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Write the report of a run whose `candidates.jsonl` and `history.jsonl` are there; the same for the same run.

    Without matplotlib it has no pictures, and `say` is told so.
    """
    assert recipe.star is not None
    star, seeds = recipe.star, read(folder)
    found: dict[str, Any] = {"pairs": pairs(seeds, star), "signal": signal(seeds, star)}
    courses: dict[str, Numbers] = {}
    if star.every_pair:
        matrix = Matrix(seeds, star)
        policies, redraws = matrix.policies(recipe.seed)
        counts = {"seeds": len(matrix.seeds), "left_out": len(seeds) - len(matrix.seeds), "redraws": redraws}
        found["ablation"] = {"what": ABLATION, **counts, "policies": ablation(policies)}
        found["regret"], courses = regret(matrix, policies)
    else:
        found["ablation"] = found["regret"] = "not measured: only some pairs were asked (star.every_pair)"
    try:
        pictures = _pictures(seeds, star, courses)
    except ImportError:
        pictures = {}
        say("no pictures of the run without matplotlib: pip install 'boost_qa[train]'")
    for name, figure in pictures.items():
        _save(figure, folder.path / name)
    found["pictures"] = list(pictures)
    write_whole(folder.report_file, json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read(folder: RunFolder) -> list[Seed]:
    """The seeds of a run in their order, with their candidates."""
    with folder.history_file.open(encoding="utf-8") as lines:
        fields = ("record", "drawn", "chosen", "probabilities")
        seeds = [Seed(*map(json.loads(line).get, fields)) for line in lines]
    by_record = {seed.record: seed for seed in seeds}
    with folder.candidates_file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            by_record[row["record"]].candidates.append(_candidate(row))
    return seeds


def _candidate(row: Mapping[str, Any]) -> Candidate:
    small, large, *again = (
        Likelihood(**row[name]) if row.get(name) else None for name in ("small", "large", "small_again", "large_again")
    )
    return Candidate(row["pair"], small, large, row["judged"], row["score"], row["why"], *again)


# --- figures -------------------------------------------------------------------------------------


def pairs(seeds: Sequence[Seed], star: Star) -> dict[str, dict[str, Any]]:
    """Of each pair, the base pairs first; `mean_score` is of the candidates that competed, as the run scored them."""
    drawn = Counter(pair for seed in seeds for pair in seed.drawn)
    chosen = Counter(seed.chosen for seed in seeds)
    last = seeds[-1].probabilities if seeds else {}
    unscored = Counter(
        (one.pair, one.why or "no base sample")
        for seed in seeds
        for one in seed.candidates
        if one.why or one.gap is None
    )
    scores: dict[str, list[float]] = {}
    for one in (one for seed in seeds for one in seed.candidates if one.score is not None):
        scores.setdefault(one.pair, []).append(one.score)  # type: ignore[arg-type]
    return {
        pair: {
            "base": pair in star.base,
            "drawn": drawn[pair],
            "chosen": chosen[pair],
            "probability": last.get(pair),
            "scored": len(scores.get(pair, ())),
            "mean_score": rounded(float(np.mean(scores[pair]))) if pair in scores else None,
            "unscored": {why: count for (name, why), count in sorted(unscored.items()) if name == pair},
        }
        for pair in (*star.base, *star.drawable)
    }


def signal(seeds: Sequence[Seed], star: Star) -> dict[str, Any]:
    """What the gap goes along with, over the candidates that have one."""
    scored = [(at, one) for at, seed in enumerate(seeds) for one in seed.candidates if one.gap is not None]
    groups = [at for at, _ in scored]
    small: list[Likelihood] = [one.small for _, one in scored if one.small is not None]
    large: list[Likelihood] = [one.large for _, one in scored if one.large is not None]
    gaps = [one.gap for _, one in scored if one.gap is not None]
    others: dict[str, list[float]] = {
        "tokens": [each.tokens for each in small],
        # nats have the ranks of perplexities, and are never too large
        "perplexity": [each.conditioned / each.tokens for each in small],
        "perplexity_alone": [each.alone / each.tokens for each in small],
        "ifd_small": [each.ifd for each in small],
    }
    found = {name: correlation(gaps, values, groups) for name, values in others.items()}
    rated = [
        (gap, one.judged, at)
        for gap, (at, one) in zip(gaps, scored, strict=True)
        if one.judged is not None and one.pair != star.base[0]
    ]
    found["judged"] = correlation(
        [gap for gap, _, _ in rated], [value for _, value, _ in rated], [at for *_, at in rated]
    )
    return {
        "what": SIGNAL,
        "candidates": len(scored),
        "not_above_0": rounded(sum(gap <= 0 for gap in gaps) / len(gaps)) if gaps else None,
        "cut": sum(each.prompt_left_out + each.answer_left_out > 0 for each in small),
        "gap_with": found,
        "ifd_small_with_ifd_large": correlation(others["ifd_small"], [each.ifd for each in large], groups),
        "halves": halves(seeds),
        "retest": retest(seeds),
    }


def halves(seeds: Sequence[Seed]) -> dict[str, Any] | str:
    """How well both halves of the answers' tokens agree on the gap and on the small scorer's IFD."""
    found = [
        (at, small, large)
        for at, seed in enumerate(seeds)
        for one in seed.candidates
        if one.small and one.large and (small := one.small.halves) and (large := one.large.halves)
    ]
    pairs = [(at, (small[0], large[0]), (small[1], large[1])) for at, small, large in found]
    return {"what": HALVES, **_repeated(pairs, half=True)} if pairs else NO_HALVES


def retest(seeds: Sequence[Seed]) -> dict[str, Any] | str:
    """How well the gap and the small scorer's IFD repeat under another layout."""
    pairs = [
        (at, (one.small, one.large), (one.small_again, one.large_again))
        for at, seed in enumerate(seeds)
        for one in seed.candidates
        if one.small and one.large and one.small_again and one.large_again
    ]
    return {"what": REARRANGED, **_repeated(pairs, half=False)} if pairs else NO_RETEST


Both = tuple[Likelihood, Likelihood]
"""By the small scorer, and by the large one."""


def _repeated(pairs: Sequence[tuple[int, Both, Both]], half: bool) -> dict[str, Any]:
    """Two measurements of each candidate, with the number of its seed; those that overflow are left out."""
    rows = np.array([(at, *(one.ifd for both in measured for one in both)) for at, *measured in pairs])
    rows = rows[np.isfinite(rows).all(axis=1)]
    groups, small, large, small_again, large_again = rows.T
    return {
        "candidates": len(rows),
        "gap": reliability(small - large, small_again - large_again, groups, half=half),
        "ifd_small": reliability(small, small_again, groups, half=half),
        "ifd_large": reliability(large, large_again, groups, half=half),
    }


def regret(matrix: Matrix, policies: Mapping[str, Numbers]) -> tuple[dict[str, Any], dict[str, Numbers]]:
    """Score that the run missed in all, and after each seed, against two ways of drawing; below 0 it did better."""
    at = MEASURES.index("score")
    run, best = policies["full"][:, at], matrix.best_set()
    courses = {"uniform drawing": np.cumsum(policies[AGAINST][:, at] - run)}
    if best is not None:
        courses["the best fixed set"] = np.cumsum(best[1] - run)
    totals = {name: rounded(float(course[-1])) for name, course in courses.items() if len(course)}
    return {"against": totals, "best_set": list(best[0]) if best else None}, courses


# --- pictures ------------------------------------------------------------------------------------


def _pictures(seeds: Sequence[Seed], star: Star, courses: Mapping[str, Numbers]) -> dict[str, Figure]:
    """By file name. Raises ImportError without matplotlib."""
    import matplotlib.figure  # noqa: F401

    found = {"probabilities.png": _probabilities(seeds, star), "scores.png": _scores(seeds, star)}
    return found | ({"regret.png": _regret(courses)} if courses else {})


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")  # draws with Agg, whatever a notebook draws with


def _probabilities(seeds: Sequence[Seed], star: Star) -> Figure:
    figure = _figure(8, 4.5)
    axes = figure.add_subplot(xlabel="seed records", ylabel="probability of a draw")
    places = _thinned(len(seeds))
    for number, pair in enumerate(star.drawable):
        course = [1 / len(star.drawable), *(seeds[at].probabilities[pair] for at in places)]
        style, width = ("-", "--", ":")[number // 10 % 3], 5.0 - 3.8 * number / len(star.drawable)
        # pairs that never won have the same course: the thinner, drawn later, must not hide the others
        axes.plot([0, *(places + 1)], course, style, linewidth=width, label=pair)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _scores(seeds: Sequence[Seed], star: Star) -> Figure:
    names = [*star.base, *star.drawable]
    figure = _figure(3 + 0.9 * len(names), 4.5)
    candidates = [one for seed in seeds for one in seed.candidates]
    for place, (what, key) in enumerate((("score, where it competed", "score"), ("gap between the scorers", "gap")), 1):
        axes = figure.add_subplot(1, 2, place, ylabel=what)
        values: dict[str, list[float]] = {pair: [] for pair in names}
        for one in candidates:
            if (value := getattr(one, key)) is not None:
                values[one.pair].append(value)
        axes.axhline(0, color="0.8", zorder=0)
        axes.boxplot(list(values.values()), widths=0.6, showmeans=True, flierprops={"markersize": 3})
        labels = [f"{pair} ({len(values[pair])})" for pair in names]
        axes.set_title("line: median, triangle: mean", fontsize="small")
        axes.set_xticks(range(1, len(names) + 1), labels, rotation=40, ha="right")
    return figure


def _regret(courses: Mapping[str, Numbers]) -> Figure:
    figure = _figure(8, 4.5)
    axes = figure.add_subplot(xlabel="seed records", ylabel="score missed so far (below 0: gained)")
    axes.axhline(0, color="0.8", zorder=0)
    for name, course in courses.items():
        places = _thinned(len(course))
        axes.plot([0, *(places + 1)], [0.0, *course[places]], label=f"against {name}")
    axes.legend(frameon=False)
    return figure


def _thinned(n: int) -> Any:
    """Places of at most `_POINTS` of `n`, the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, _POINTS)).astype(int)) if n else np.array([], int)


def _save(figure: Figure, file: Path) -> None:
    part = file.with_name(file.name + ".part")
    figure.savefig(part, format="png", dpi=120, metadata={"Software": None})
    part.replace(file)
