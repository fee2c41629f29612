"""What isolation costs, what it holds, and what there is to say of the code in real answers.

Four measurements: an empty Python program in isolation against the same program without it, in turns; the tests'
escapes, tried and held; the check of code over all answers of a file, in one process; and how often the marks of a
language tell it, against the tags of the questions. The marks were chosen while looking at the file's even rows
(from 0), so the odd ones are counted apart. Only counts are written down.

    python benchmarks/isolation.py --data ../shared/data/procqa_like.stackeval_925.jsonl
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import report

from boost_qa.checks.code import CODE_MODEL, look_here
from boost_qa.checks.programs.fences import blocks
from boost_qa.checks.programs.programming import guess
from boost_qa.checks.programs.toolchains import COMPILERS
from boost_qa.isolation import Isolation
from boost_qa.types import Dialogue, Record, Turn

PREDICTION = """
An isolated run costs some 25 ms more than a bare one (five programs are started in the place of one, and eight
namespaces are made): twice to three times as much for an empty program. While the check was written, one isolated run
took 35 ms on the idle machine and 80 ms beside others. Most answers need no compiler: ten a second and core with
compilers, of which C++ (a second a block) and Java (half a second) take the most, and some hundreds a second without.
Of blocks without a tag the marks tell four in ten, three in four of those rightly, as on the even rows. Every escape
is held.
"""
ROOT = Path(__file__).parent.parent
TAGS = {"bash/shell": "bash"}


def empty_runs(isolation: Isolation, repeats: int, runs: int) -> dict[str, Any]:
    """Seconds of an empty program, isolated and bare."""
    program = [isolation.python, "-c", "pass"]
    measured: dict[str, list[float]] = {"isolated": [], "bare": []}
    for _ in range(repeats):
        for way, taken in measured.items():
            each = []
            for _ in range(runs):
                began = time.perf_counter()
                if way == "bare":
                    subprocess.run(program, check=True, capture_output=True)
                else:
                    assert isolation.run(program).exit == 0
                each.append(time.perf_counter() - began)
            taken.append(statistics.median(each))
    ratios = [isolated / bare for isolated, bare in zip(measured["isolated"], measured["bare"], strict=True)]
    return {
        "isolated_seconds": report.spread(measured["isolated"], 4),
        "bare_seconds": report.spread(measured["bare"], 4),
        "ratio": report.spread(ratios, 2),
    }


def escapes() -> dict[str, int]:
    """How many of the tests' escapes were tried, and how many were held."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "escapes.xml"
        command = [sys.executable, "-m", "pytest", "tests/test_isolation.py", "-k", "escape", f"--junitxml={file}"]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        suite = next(ElementTree.parse(file).getroot().iter("testsuite"))
    tried = int(suite.attrib["tests"]) - int(suite.attrib["skipped"])
    return {"tried": tried, "held": tried - int(suite.attrib["failures"]) - int(suite.attrib["errors"])}


def checked(texts: list[str], isolation: Isolation | None) -> dict[str, Any]:
    """The check over all texts: its speed, and its labels by language."""
    labels: Counter[tuple[str, str]] = Counter()
    record = Record("id", "benchmark", "?", "", "0")
    began = time.perf_counter()
    for text in texts:
        for finding in look_here(Dialogue(record, "benchmark", (Turn("x", "gpt", text),)), isolation):
            language = finding.detail.partition(", ")[2].partition(":")[0]
            labels[language, finding.label] += 1
    seconds = time.perf_counter() - began
    languages: dict[str, dict[str, int]] = {}
    total: dict[str, int] = {}
    for (language, label), count in sorted(labels.items(), key=lambda each: (-each[1], each[0])):
        languages.setdefault(language, {})[label] = count
        total[label] = total.get(label, 0) + count
    return {
        "texts_per_second": round(len(texts) / seconds, 1),
        "blocks_per_second": round(sum(labels.values()) / seconds, 1),
        "labels": total,
        "labels_by_language": languages,
    }


def told(texts: list[str], tags: list[str]) -> dict[str, int]:
    """Blocks whose language the marks tell rightly, wrongly or not at all, by the tag of their question."""
    counts: Counter[str] = Counter()
    for text, tag in zip(texts, tags, strict=True):
        for block in blocks(text):
            found = guess(block.code)
            right = found == TAGS.get(tag, tag)
            counts["not told" if found == "unknown" else "rightly" if right else "otherwise"] += 1
    return dict(counts)


def main() -> None:
    parser = report.parser("isolation", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with `answer`; provenance beside it")
    parser.add_argument("--runs", type=int, default=20, help="of an empty program in a repeat (default: %(default)s)")
    options = parser.parse_args()
    lines = options.data.read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    beside = options.data.with_suffix(".provenance.jsonl").read_text(encoding="utf-8").splitlines()
    tags = [json.loads(line)["meta"]["tag"] for line in beside]
    began = time.perf_counter()
    isolation = Isolation.find()
    found = time.perf_counter() - began
    empty = empty_runs(isolation, options.repeats, options.runs)
    result = {
        "find_seconds": round(found, 3),
        "empty_program": empty,
        "escapes": escapes(),
        "answers": len(answers),
        "answers_with_code": sum(bool(blocks(answer)) for answer in answers),
        "blocks": sum(len(blocks(answer)) for answer in answers),
        "check": checked(answers, isolation),
        "check_without_compilers": checked(answers, None),
        "language_by_tag_of_the_question_odd_rows": told(answers[1::2], tags[1::2]),
    }
    settings = {
        "data": options.data.name,
        "check": CODE_MODEL,
        "compilers": list(COMPILERS),
        "load_average_at_the_end": round(os.getloadavg()[1], 1),
    }
    rows = [(name, f"{value['median']:g}") for name, value in empty.items()]
    report.show("an empty program", ("", "median"), rows)
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
