"""Checks that only look at a dialogue: how many a core looks at in a second, and how often each label is given.

Rows of three sources are looked at as a question with one answer; what is found there is mostly a false alarm, for
people or a large model wrote them and nobody played a role. Dialogues of human teachers with a simulated student
(MathDial) and those of a local run are what the labels are for. One fault can be made: answers that are cut off
behind a random word, of which `truncated` should find many, and of the whole ones none.

    python benchmarks/dialogue_checks.py --data ../shared/data --run demo_small-b0ac754159c1

Counts only; no text of a source is written.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

import report

from boost_qa.checks import injection, personal_data, roles
from boost_qa.checks.finding import Finding
from boost_qa.checks.speech.endings import cut_off
from boost_qa.config import AnySource, OpenHermes, OrcaMath, ProcQA
from boost_qa.models import home
from boost_qa.prompts import load_prompt
from boost_qa.scenarios import SCENARIOS
from boost_qa.sources import read
from boost_qa.types import Dialogue, Record, Turn

PREDICTION = """
Written after the rules were made, with their hits on all rows looked at, and before this program's first run. Speed,
a core: roles 300 to 500 rows a second, most of it py3langid's walk over the text; injection and personal data a
thousand and more on mathematics, and a third of that on StackOverflow's longer text. False alarms: under 1 % of the
rows for every label, none in mathematics. MathDial: every eighth dialogue has a teacher who tells the result. Of
answers cut off at random, under half of the prose is found, for a sentence that ends in a noun without a full stop
is not told from a careless one; of answers with code two thirds.
"""
CHECKS = {"roles": roles, "injection": injection, "personal_data": personal_data}
FILES: dict[str, Callable[[str, int], AnySource]] = {
    "orca_math_like.gsm8k_train_1200.jsonl": lambda path, n: OrcaMath(source="orca_math", path=path, n=n),
    "procqa_like.stackeval_925.jsonl": lambda path, n: ProcQA(source="procqa", path=path, n=n),
    "openhermes_like.gpteacher_oasst_1295.jsonl": lambda path, n: OpenHermes(source="openhermes", path=path, n=n),
}
MATHDIAL = "mathdial_test.jsonl"


def answered(path: Path, source: Callable[[str, int], AnySource], n: int) -> list[Dialogue]:
    """`n` rows of a source, each a question and the reference answer as if an agent had given it."""
    return [
        Dialogue(
            record, "original",
            (Turn("question", "human", record.question), Turn("respond", "gpt", record.answer, "reference")),
        )
        for record in read([source(str(path), n)], 0).records
    ]  # fmt: skip


def tutored(path: Path, n: int) -> list[Dialogue]:
    """`n` dialogues of MathDial: an attempt that is wrong, then a teacher and the student by turns."""
    dialogues = []
    for line in path.read_text(encoding="utf-8").splitlines()[:n]:
        row = json.loads(line)
        final = row["ground_truth"].strip().splitlines()[-1].strip()
        record = Record(f"mathdial-{row['qid']}", "mathdial", row["question"], row["ground_truth"], "", final)
        turns = [Turn("question", "human", record.question)]
        turns.append(Turn("student", "gpt", row["student_incorrect_solution"].strip(), "simulated"))
        for said in row["conversation"].split("|EOM|"):
            who, _, text = said.partition(": ")
            speaker = "teacher" if who == "Teacher" else "student"
            turns.append(Turn(speaker, "gpt", re.sub(r"^\(\w+\)", "", text).strip(), "human"))
        dialogues.append(Dialogue(record, "error_correction", tuple(turns)))
    return dialogues


def played(run: str) -> list[Dialogue]:
    """The dialogues of a local run."""
    rows = (home() / "runs" / run / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        Dialogue(
            Record(**row["record"]),
            row["scenario"],
            tuple(Turn(turn["speaker"], turn["side"], turn["text"], turn["model"]) for turn in row["turns"]),
            Record(**row["related"]) if row["related"] else None,
        )
        for row in map(json.loads, rows)
    ]


def prompts() -> dict[str, dict[str, str]]:
    """The packaged role prompts, by scenario and speaker."""
    casts = {
        "error_correction": ("weak_student", "teacher", "strong_student"),
        "debate": ("student_a", "student_b", "student_c"),
        "analogical_reasoning": ("teacher", "student"),
        "direct": ("writer",),
    }
    assert set(casts) == set(SCENARIOS)
    return {name: {role: load_prompt(name, role).role for role in cast} for name, cast in casts.items()}


def looks(told: Mapping[str, Mapping[str, str]]) -> dict[str, Callable[[Dialogue], list[Finding]]]:
    """What each check is asked, as in a run."""

    def role_faults(dialogue: Dialogue) -> list[Finding]:
        return roles.look(dialogue, told.get(dialogue.scenario, {}))

    def injected(dialogue: Dialogue) -> list[Finding]:
        speakers = {turn.speaker for turn in dialogue.turns}
        return injection.look(dialogue, {name: injection.canary(0, dialogue.record.id, name) for name in speakers})

    return {"roles": role_faults, "injection": injected, "personal_data": personal_data.look}


def hits(dialogues: Sequence[Dialogue], look: Callable[[Dialogue], list[Finding]]) -> Counter[str]:
    """How many dialogues have each label."""
    return Counter(label for dialogue in dialogues for label in {finding.label for finding in look(dialogue)})


def rate(dialogues: Sequence[Dialogue], look: Callable[[Dialogue], list[Finding]], repeats: int) -> dict[str, Any]:
    """Dialogues per second of one core's time."""
    rates = []
    for _ in range(repeats):
        began = time.process_time()
        for dialogue in dialogues:
            look(dialogue)
        rates.append(len(dialogues) / (time.process_time() - began))
    return report.spread(rates, 0)


def cut(dialogues: Sequence[Dialogue], chance: Random) -> dict[str, int]:
    """Answers of 30 words and more, cut off behind a random word between a third and nine tenths of their length:
    how many are found, and by what."""
    found: Counter[str] = Counter()
    for dialogue in dialogues:
        ends = [word.end() for word in re.finditer(r"\S+", dialogue.record.answer)]
        if len(ends) >= 30:
            place = ends[chance.randrange(len(ends) // 3, len(ends) * 9 // 10)]
            what = cut_off(dialogue.record.answer[:place])
            found["cut"] += 1
            found["found"] += what is not None
            found[what or "not found"] += 1
    return dict(sorted(found.items()))


def main() -> None:
    parser = report.parser("dialogue_checks", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files that are named in this program")
    parser.add_argument("--rows", type=int, default=300, help="of each source (default: %(default)s)")
    parser.add_argument("--run", help="folder name of a local run whose dialogues are looked at, too")
    options: argparse.Namespace = parser.parse_args()
    sets: dict[str, Callable[[], list[Dialogue]]] = {
        name.partition(".")[0]: partial(answered, options.data / name, source, options.rows)
        for name, source in FILES.items()
    }
    sets["mathdial"] = partial(tutored, options.data / MATHDIAL, options.rows)
    if options.run:
        sets[options.run] = partial(played, options.run)
    ways = looks(prompts())
    result: dict[str, Any] = {}
    for name, make in sets.items():
        dialogues = make()
        letters = sum(len(turn.text) for dialogue in dialogues for turn in dialogue.turns)
        found = {check: hits(dialogues, look) for check, look in ways.items()}  # and what they need is loaded now
        counted = {check: {label: found[check][label] for label in CHECKS[check].LABELS} for check in CHECKS}
        speed = {check: rate(dialogues, look, options.repeats) for check, look in ways.items()}
        result[name] = {
            "dialogues": len(dialogues),
            "characters_each": round(letters / len(dialogues)),
            "per_second_per_core": speed,
            "dialogues_with": counted,
        }
        if name.endswith("_like"):
            result[name]["cut_off"] = cut(dialogues, Random(0))
        rows = [(label, str(count)) for labels in counted.values() for label, count in labels.items() if count]
        rows += [(f"{check}, a second", f"{speed[check]['median']:g}") for check in speed]
        report.show(f"{name}: {len(dialogues)} dialogues", ("", "dialogues"), rows)
    versions = {name: check.VERSION for name, check in CHECKS.items()}
    versions |= {name: metadata.version(name) for name in ("phonenumbers", "py3langid")}
    settings = {"rows": options.rows, "versions": versions}
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
