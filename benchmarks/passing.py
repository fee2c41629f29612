"""What share of generated dialogues passes the checks, by scenario and source.

Each run is checked with the defaults (without a judge, so free text stays unknown), and a dialogue passes if it has
none of the labels that `verified` drops. Of the answers, shares are of those that could be told.

    boost-qa generate demo
    boost-qa generate demo_small dialogues=null sources='[{source: orca_math, path: A.jsonl, n: 300}, ...]' -o RUN
    python benchmarks/passing.py demo RUN
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import report

from boost_qa.check import check
from boost_qa.inspection import MODULES
from boost_qa.plan import find_run
from boost_qa.recipe_file import load_recipe

PREDICTION = """
The demo's cast (1.5B): of the last turns that can be told 75 % are right, fewest in debates; of the weak student's 90 %
are wrong; 70 % of its dialogues pass. SmolLM2-135M in every role on 900 real rows: half of the records are rejected
before any check; of what is left a third of the last turns that can be told is right, 95 % of the weak student's are
wrong; 50 % pass, most in analogies, whose student has the reference before it.

Written when 410 of about 2,700 replies of the demo's cast on the same 900 rows were there, none of them counted: 780
dialogues come of them, and 72 % pass: 80 % of the debates, 70 % of the corrections, 66 % of the analogies, and fewest
of the programming questions, whose answers are cut off. Of the last turns that can be told 80 % are right, of the weak
student's 92 % wrong. Most that goes is truncated.
"""


def counted(name: str) -> dict[str, Any]:
    """Of one run: dialogues, how many pass, and what the answers came to, by scenario and by source."""
    folder = find_run(name)
    dropping = load_recipe("verified").checks
    assert dropping is not None
    check(folder, overrides=[f"drop={list(dropping.drop)}"], show=False)
    sources = {line["id"]: line["record"]["source"] for line in folder.dialogues()}
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    why: Counter[str] = Counter()
    for entry in folder.checks():
        labels = {row["label"] for row in entry["checks"]}
        for group in ("all", entry["scenario"], sources[entry["id"]]):
            groups[group].update({"dialogues": 1, "pass": not entry["why"]})
            groups[group].update(label for label in labels if label and label.split()[0] in ("final", "weak"))
        why.update(entry["why"])
    rejected = Counter(row["reason"] for row in folder.rejected())
    shares = {group: _shares(counts) for group, counts in sorted(groups.items())}
    return {"groups": shares, "dropped_for": dict(why.most_common()), "rejected_before": dict(rejected.most_common())}


def _shares(counts: Counter[str]) -> dict[str, Any]:
    found: dict[str, Any] = dict(sorted(counts.items()))
    found["share that passes"] = round(counts["pass"] / counts["dialogues"], 3)
    for who in ("final", "weak"):
        told = counts[f"{who} right"] + counts[f"{who} wrong"]
        found[f"{who} right, of those told"] = round(counts[f"{who} right"] / told, 3) if told else None
    return found


def main() -> None:
    parser = report.parser("passing", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or the recipe name of a run")
    options = parser.parse_args()
    result = {name.rstrip("/").rpartition("/")[2]: counted(name) for name in options.runs}
    rows = [
        (name, group, *(str(each.get(key, 0)) for key in ("dialogues", "share that passes")),
         str(each["final right, of those told"]), str(each["weak right, of those told"]))
        for name, of in result.items()
        for group, each in of["groups"].items()
    ]  # fmt: skip
    report.show("what passes", ("run", "group", "dialogues", "passes", "final right", "weak right"), rows)
    settings = {
        "versions": {name: module.VERSION for name, module in MODULES.items()},
        "runs": {name: find_run(given).manifest()["name"] for name, given in zip(result, options.runs, strict=True)},
    }
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
