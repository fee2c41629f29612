"""How far a person who read the pairs and the judge agree: the share of pairs, and Cohen's kappa."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from boost_qa.analogies.figures import figures
from boost_qa.analogies.judging import GRADES
from boost_qa.errors import RunError
from boost_qa.evaluate.intervals import figure
from boost_qa.evaluate.kappa import kappa


def agreement(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What `agreement.json` holds: a person's verdicts beside the judge's.

    Agreement is about pairs that have a grade of both; where the judge's orders disagree or it could not be read, it
    has none, and such pairs are counted in `judge_without_grade`.

    Args:
        content: of `analogies.json`.
        file: verdicts, as the page gives them.

    Returns:
        `agree`, a share with its exact interval; `kappa`, see `boost_qa.evaluate.kappa`; `table`, counts by the
        person's and then the judge's grade; `figures`, those of the person's verdicts alone.

    Raises:
        RunError: there is no judge, the verdicts are of other pairs, cannot be read, or share none with the judge.
    """
    if content["judge"] is None:
        raise RunError("no judge was asked about these pairs", "Ask one first: boost-qa analogies RUN --judge MODEL.")
    given = verdicts(file, content)
    said = {row["id"]: row["outcome"] for row in content["pairs"]}
    both = [id for id in said if id in given and said[id] in GRADES]
    if not both:
        what = f"{file}: none of its {len(given)} verdicts is about a pair that has a grade of the judge"
        raise RunError(what, "Read more of the pairs in pairs.html.")
    theirs, ours = [given[id] for id in both], [said[id] for id in both]
    cells = Counter(zip(theirs, ours, strict=True))
    return {
        "drawn": content["drawn"]["digest"],
        "judge": content["judge"],
        "read": len(given),
        "judge_without_grade": len(given) - len(both),
        "agree": dataclasses.asdict(figure([float(one == other) for one, other in zip(theirs, ours, strict=True)])),
        "kappa": dataclasses.asdict(kappa(theirs, ours)),
        "table": {one: {other: cells[one, other] for other in GRADES} for one in GRADES},
        "figures": figures(content["pairs"], given),
    }


def verdicts(file: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """A person's grade of each pair that has one.

    Raises:
        RunError: the file cannot be read, or is about other pairs.
    """
    remedy = "Give the file that `Download my verdicts` of pairs.html saved."
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: {error}", remedy) from error
    if not isinstance(whole, dict) or not isinstance(whole.get("verdicts"), dict):
        raise RunError(f"{file} holds no `verdicts`", remedy)
    if whole.get("drawn") != content["drawn"]["digest"]:
        what = f"{file} is about the drawing {str(whole.get('drawn'))[:12]}, not {content['drawn']['digest'][:12]}"
        raise RunError(what, "Give the same --limit, --seed and --output as for the page that was read.")
    known = {row["id"] for row in content["pairs"]}
    for id, grade in whole["verdicts"].items():
        if id not in known or grade not in GRADES:
            raise RunError(f"{file}: verdicts.{id} is {grade!r}", f"A verdict is one of {', '.join(GRADES)}. {remedy}")
    return dict(whole["verdicts"])


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What there is to say of it."""
    agree, k = found["agree"], found["kappa"]
    yield (
        f"reader and judge agree about {100 * agree['mean']:.0f} % ({100 * agree['low']:.0f} to "
        f"{100 * agree['high']:.0f}) of {agree['n']} pairs; {found['judge_without_grade']} more that were read have no "
        "grade of the judge"
    )
    if k["kappa"] is None:
        yield "Cohen's kappa is not defined: both gave every pair the same grade"
    else:
        yield f"Cohen's kappa {k['kappa']:.2f} ({k['low']:.2f} to {k['high']:.2f})"
