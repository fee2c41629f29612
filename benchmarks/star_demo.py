"""What a star run of the packaged records came to: its report without texts, its cost, and the probabilities' course.

The run itself is made by the command, on the models that the recipe names:

    boost-qa generate star_demo star.retest=true

    python benchmarks/star_demo.py --run star_demo-...    # the folder's name under the cache's `runs`, or a path
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import report

from boost_qa.models import home
from boost_qa.run_folder import RunFolder
from boost_qa.star_policies import MEASURES

PREDICTION = """
The judge of 1.5B contradicts itself when the answers change places about two verdicts in three, so most candidates
are judged a tie. Mean verdict of the pairs: small and small_warm 0.3, warm and rewritten 0.45, from_reference 0.55.
By mean score: oracle 0.85, full and no evolution 0.65 and within one standard error of each other (four updates are
too few to matter), diversity only 0.3, base only 0.3. By mean verdict: diversity only 0.43, below base only (0.5 by
definition), no evolution 0.6. The gap is length in part: rho with tokens -0.3 within seeds, with ifd_small 0.6,
with the verdict no more than 0.1 either way. Halves: rho 0.6 within seeds, stepped up 0.75; under the other layout
0.8; the same candidate has the largest gap in two seeds of three.
"""


def course(folder: RunFolder, batch: int) -> list[dict[str, Any]]:
    """The probabilities after each batch of seeds."""
    passages = [json.loads(line) for line in folder.history_file.read_text(encoding="utf-8").splitlines()]
    ends = [*range(batch, len(passages), batch), len(passages)]
    return [
        {"seeds": end, **{pair: round(p, 4) for pair, p in passages[end - 1]["probabilities"].items()}} for end in ends
    ]


def verdicts(folder: RunFolder) -> dict[str, int]:
    """How often both orders agreed, and which place the judge favoured where they did not."""
    lines = (json.loads(line) for line in folder.candidates_file.read_text(encoding="utf-8").splitlines())
    found = [line["verdicts"] for line in lines if line["verdicts"]]
    opposite = {"A": "B", "B": "A", "C": "C"}
    return {
        "verdicts": len(found),
        "agreed": sum(opposite[first] == second for first, second in found),
        "both_for_the_first_place": sum(pair == ["A", "A"] for pair in found),
        "both_for_the_second_place": sum(pair == ["B", "B"] for pair in found),
    }


def table(policies: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{each[measure]['mean']:.3f} ± {each[measure]['se']:.3f}" for measure in MEASURES))
        for name, each in policies.items()
    ]


def main() -> None:
    parser = report.parser("star_demo", __doc__)
    parser.add_argument("--run", required=True, help="a finished star run with every_pair")
    options = parser.parse_args()
    there = home() / "runs" / options.run
    folder = RunFolder(there if there.is_dir() else Path(options.run))
    manifest, found = folder.manifest(), json.loads(folder.report_file.read_text(encoding="utf-8"))
    star = manifest["recipe"]["star"]
    sessions = manifest["sessions"]
    settings = {
        "recipe": manifest["name"],
        "digest": manifest["digest"],
        "models": manifest["models"],
        "scorers": manifest["scorers"],
        "versions": manifest["versions"],
        **{key: star.get(key, False) for key in ("draws", "rate", "floor", "batch", "base_competes", "retest")},
        "sessions": len(sessions),
        "seconds": round(sum(session["seconds"] for session in sessions)),
        "usage": manifest["usage"],
    }
    result = found | {"judge": verdicts(folder), "probabilities": course(folder, star["batch"])}
    report.show(f"{found['ablation']['seeds']} seeds", ("policy", *MEASURES), table(found["ablation"]["policies"]))
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
