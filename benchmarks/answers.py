"""The check of answers: how often it finds a text's final result, how often its verdict is true, and what it costs.

    python benchmarks/answers.py --verifier verifier_math_answers.json --references gsm8k.jsonl dmath.jsonl \
        --mathdial mathdial_test.jsonl --math500 math500_test.jsonl

`--verifier` is a list of {"instruction", "output", "answer"}: answers of real models, with the true result. It says
not which of them are right. That was defined without this package: nearly every output ends in a sentence "The answer
is X", so X is what it states, by a pattern of this file, and right means within a millionth of the true result, or the
same letter. Outputs where the pattern does not find exactly one X were read and labelled by hand (`BY_HAND`: right,
wrong, or none where the text comes to no result; and the number that it states).

The rows are split in halves by a digest of the question. Everything was developed on `tune`; `held out` was read once,
to label what the pattern does not decide, when version 1 was done; versions 2 to 4 came of reviews, not of its rows.
One rule of version 4 was narrowed because a count of `held out` had fallen by one; its rows were not read for that.
The baseline is math-verify given the whole text.
Each set is also measured without the sentence "The answer is X", so that the result has to be found in the prose.
Counts only are written down, never texts.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import report

from boost_qa.checks.answers import ANSWERS_MODEL, VERSION, referee
from boost_qa.checks.results.compare import Agreement, answer, compare, prepare
from boost_qa.checks.results.extract import final
from boost_qa.engines.workers import Workers
from boost_qa.types import Call, Message, Request

PREDICTION = """
Written after the last change on `tune` and before anything of `held out` was read. Held out: the verdict "right" is
true in 99.5 % and finds 99.5 % of what is right; "wrong" is true in 99 % and finds 97 % of what is wrong; the rest is
unknown. Without the sentence "The answer is X" 97 % of the results are found. Plain math-verify on the same texts finds
about as many that are right, and can't say unknown. A comparison takes 2 ms of one core where numbers are compared and
10 ms with formulas; over a process each, two processes do twice as many as one. A worker holds 60 MB and starts in half
a second. No hostile input takes longer than its limit and a tenth of a second.
"""
BY_HAND: dict[str, tuple[str, float | str | None]] = {
    # tune
    "787176a8a311": ("none", None),
    "e2d805c08eb1": ("none", None),
    "3e6727e0ab87": ("wrong", 80000.0),
    "09078ce93090": ("wrong", None),
    "699c7df7c2ef": ("none", None),
    "59a723225034": ("wrong", None),
    "3e31a2440d9b": ("none", None),
    "908629116b5c": ("wrong", None),
    "ff1e3bd44e2c": ("none", None),
    "1baefa2d1196": ("wrong", None),
    "0646242098a2": ("wrong", 151.0),
    "5e8de6adc13c": ("wrong", 324.0),
    "c4557ac07e11": ("none", None),
    "75ae2e39cfc5": ("right", None),
    "ca92cda13a2c": ("right", 184.0),
    "42fd0aa04889": ("wrong", None),
    "d855ca562fcf": ("right", 2.0),
    "92b64440e139": ("none", None),
    "0c7d394ae869": ("none", None),
    "baa568756798": ("right", 10.0),
    "02d1a7b67426": ("none", None),
    "11bf8f6776c3": ("wrong", None),
    "0e5c6a7d6fc2": ("wrong", None),
    # held out
    "b60569184030": ("none", None),
    "53e4b01605ac": ("wrong", None),
    "7e1ccf67fec8": ("right", None),
    "dc0829abe45f": ("right", 118000.0),
    "96fd41a46b30": ("wrong", None),
    "3450f5cbdc96": ("wrong", None),
    "ea8e419800d9": ("wrong", 18.75),
    "a0a09995db16": ("right", 9500.0),
    "b057a6ecf7f9": ("none", None),
    "ad598a53a2a8": ("none", None),
    "40f8577316ac": ("none", None),
    "96cf45f76f1b": ("wrong", None),
    "26da3915ea0f": ("none", None),
    "6ddf15fc8f4c": ("wrong", None),
    "41252d81aa3a": ("right", 11.0),
}
HOSTILE = {
    "tower of powers": "\\boxed{9^{9^{9^9}}}",
    "power with a billion digits": "\\boxed{10^{10^{9}}}",
    "factorial of a million": "\\boxed{1000000!}",
    "integral without a closed form": "\\boxed{\\int_0^1 e^{x^{x^x}} dx}",
    "sum of a billion terms": "\\boxed{\\sum_{n=1}^{10^9} n^{-3}}",
    "polynomial of degree 500": "\\boxed{(x+1)^{500}}",
    "250 brackets": "\\boxed{" + "(" * 250 + "1" + ")" * 250 + "}",
    "fractions in fractions": "\\boxed{" + "\\frac{1}{" * 60 + "2" + "}" * 60 + "}",
    "90,000 brackets": "(" * 90_000,
    "90,000 dollar signs": "$" * 90_000,
    "90,000 digits": "1" * 90_000,
    "45,000 summands": "1+" * 45_000,
    "12,000 open boxes": "\\boxed{" * 12_000,
    "9,000 statements": "answer is " * 9_000,
    "90,000 lines": "\n" * 90_000,
}
_MARK = re.compile(r"[Aa]nswer is:? ([^\n]*)")
_NUMBER = re.compile(r"-?\$?-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def tuned(question: str) -> bool:
    """Whether a question is in the half on which the check was developed."""
    return hashlib.blake2b(question.encode(), digest_size=1).digest()[0] % 2 == 0


def without_its_mark(text: str) -> str:
    """A text without its last sentence "The answer is X"."""
    return re.sub(r"\s*(?:So,? )?[Tt]he answer is:? [^\n]*\s*$", "", text).rstrip()


def truth(row: dict[str, str]) -> tuple[str, float | str | None]:
    """Whether an output is right, wrong, or comes to nothing; and what it states, None if that is not one thing."""
    known = BY_HAND.get(hashlib.blake2b((row["instruction"] + row["output"]).encode(), digest_size=6).hexdigest())
    if known:
        return known
    clause = re.split(r"[Aa]nswer is:? ", _MARK.findall(row["output"])[-1])[-1]
    if row["answer"].isalpha():
        (letter,) = re.findall(r"\(([A-E])\)", clause)
        return ("right" if letter == row["answer"] else "wrong"), letter
    (number,) = _NUMBER.findall(clause.rpartition("=")[2])
    stated, gold = float(number.replace(",", "").replace("$", "")), float(row["answer"])
    return ("right" if abs(stated - gold) <= 1e-6 * max(1, abs(gold)) else "wrong"), stated


def plain(question: str, gold: str, text: str) -> str:
    """The verdict of math-verify alone, given the whole text."""
    import math_verify as mv

    config = [mv.StringExtractionConfig(("A", "B", "C", "D", "E"))] if gold.isalpha() else None
    wanted, found = (
        mv.parse(each, config, parsing_timeout=None) if config else mv.parse(each, parsing_timeout=None)
        for each in (gold, text)
    )
    return "right" if mv.verify(wanted, found, timeout_seconds=None) else "wrong"


def verdicts(rows: Sequence[dict[str, str]], decide: Callable[[str, str, str], str]) -> dict[str, Any]:
    """Precision and recall of "right" and of "wrong", with the counts behind them."""
    pairs = Counter((truth(row)[0], decide(row["instruction"], row["answer"], row["output"])) for row in rows)
    found: dict[str, Any] = {
        "rows": len(rows),
        "counts": {f"{is_so}, said {said}": n for (is_so, said), n in sorted(pairs.items())},
    }
    for kind in ("right", "wrong"):
        true = pairs[kind, kind]
        said = sum(n for (_, verdict), n in pairs.items() if verdict == kind)
        is_so = sum(n for (label, _), n in pairs.items() if label == kind)
        found[kind] = {"precision": share(true, said), "recall": share(true, is_so)}
    return found


def extraction(rows: Sequence[dict[str, str]], cut: Callable[[str], str]) -> dict[str, Any]:
    """How often exactly the stated number is found as the one final result."""
    count: Counter[str] = Counter()
    for row in rows:
        stated = truth(row)[1]
        if not isinstance(stated, float):
            continue
        results = final(cut(row["output"]), row["instruction"]).results
        values = [float(one.value) for one in results if one.value is not None]
        count["stated"] += 1
        count["found one"] += len(results) == 1
        count["found several"] += len(results) > 1
        count["true"] += len(results) == 1 and values == [stated]
    return {
        **count,
        "precision": share(count["true"], count["found one"]),
        "recall": share(count["true"], count["stated"]),
    }


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def halves(rows: Iterable[dict[str, Any]], question: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    listed = list(rows)
    yield "tune", [row for row in listed if tuned(row[question])]
    yield "held out", [row for row in listed if not tuned(row[question])]


def ours(question: str, gold: str, text: str) -> str:
    return compare(question, "", gold, text).verdict


def of_models(path: Path) -> dict[str, Any]:
    """Verdicts and extraction on answers of real models."""
    found: dict[str, Any] = {}
    for half, rows in halves(json.loads(path.read_text(encoding="utf-8")), "instruction"):
        found[half] = {
            "verdicts": verdicts(rows, ours),
            "verdicts of math-verify alone": verdicts(rows, plain),
            "final results": extraction(rows, str),
            "final results without the sentence that states them": extraction(rows, without_its_mark),
        }
    return found


def of_references(paths: Sequence[Path]) -> dict[str, Any]:
    """Whether the result found in a reference answer is the one of its source, which stands in a file beside it."""
    found: dict[str, Any] = {}
    cuts: dict[str, Callable[[str], str]] = {"as it is": str, "without its last line": without_its_mark}
    for path in paths:
        rows = [*map(json.loads, path.read_text(encoding="utf-8").splitlines())]
        sources = path.with_name(path.stem + ".provenance.jsonl").read_text(encoding="utf-8").splitlines()
        for row, source in zip(rows, map(json.loads, sources), strict=True):
            row["gold"] = source["gold"]
        for half, part in halves(rows, "question"):
            for name, cut in cuts.items():
                agreed = [compare(row["question"], cut(row["answer"]), None, f"#### {row['gold']}") for row in part]
                if cut is str or any(cut(row["answer"]) != row["answer"] for row in part):
                    found[f"{path.stem}, {half}, {name}"] = counted(agreed)
    return found


def of_lessons(mathdial: Path, math500: Path) -> dict[str, Any]:
    """Solutions that are known to be right, and students' solutions that are known to be wrong."""
    found: dict[str, Any] = {}
    for half, rows in halves(map(json.loads, mathdial.read_text(encoding="utf-8").splitlines()), "question"):
        right, wrong, prose = [], [], []
        for row in rows:
            gold = row["ground_truth"].rstrip().rpartition("\n")[2].strip()
            shown = row["ground_truth"].rstrip().rpartition("\n")[0]
            right.append(compare(row["question"], "", gold, shown))
            wrong.append(compare(row["question"], "", gold, row["student_incorrect_solution"]))
            prose.append(
                compare(row["question"], "", gold, row["student_incorrect_solution"].rstrip().rpartition("\n")[0])
            )
        found[f"MathDial, {half}, true solutions in prose"] = counted(right)
        found[f"MathDial, {half}, wrong solutions"] = counted(wrong)
        found[f"MathDial, {half}, wrong solutions in prose"] = counted(prose)
    for half, rows in halves(map(json.loads, math500.read_text(encoding="utf-8").splitlines()), "problem"):
        found[f"MATH-500, {half}, true solutions"] = counted(
            [compare(row["problem"], "", row["answer"], row["solution"]) for row in rows]
        )
        others = [(row, rows[at - 1]["answer"]) for at, row in enumerate(rows)]
        agreed = [compare(row["problem"], "", gold, row["solution"]) for row, gold in others if gold != row["answer"]]
        found[f"MATH-500, {half}, the solution of another problem"] = counted(agreed)
    return found


def counted(agreed: Iterable[Agreement]) -> dict[str, int]:
    return dict(sorted(Counter(each.verdict for each in agreed).items()))


# --- what it costs -------------------------------------------------------------------------------


def payloads(rows: Iterable[dict[str, str]]) -> list[str]:
    return [
        json.dumps({"question": row["instruction"], "reference": "", "final": row["answer"], "text": row["output"]})
        for row in rows
    ]


def call(payload: str) -> Call:
    return Call("r", "checks", 0, Request(ANSWERS_MODEL, (Message("user", payload),)), "d", 1)


async def over(processes: int, asked: Sequence[str]) -> tuple[float, float, float]:
    """Seconds until a worker is open, calls a second, and the most MiB that a worker held."""
    began = time.perf_counter()
    engine = referee(processes=processes)
    await engine.open()
    opened = time.perf_counter() - began
    await asyncio.gather(*(engine.ask(call(payload)) for payload in asked[: 4 * processes]))  # all processes are up
    began = time.perf_counter()
    await asyncio.gather(*(engine.ask(call(payload)) for payload in asked))
    seconds = time.perf_counter() - began
    peak = max(memory(engine))
    await engine.close()
    return opened, len(asked) / seconds, peak


def memory(engine: Workers) -> list[float]:
    lines = [Path(f"/proc/{pid}/status").read_text() for pid in engine.pids]
    return [int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) / 1024 for text in lines]


async def hostile(seconds: float) -> dict[str, Any]:
    """Seconds until an answer, and the answer, for inputs that were made to hang it."""
    engine = referee(seconds=seconds, processes=1)
    await engine.open()
    found = {}
    for name, text in HOSTILE.items():
        await engine.ask(call(payloads([{"instruction": "How many?", "output": "4", "answer": "4"}])[0]))  # it is up
        asked = payloads([{"instruction": "How many?", "output": text, "answer": "4"}])[0]
        began = time.perf_counter()
        reply = await engine.ask(call(asked))
        took = round(time.perf_counter() - began, 2)
        said = reply.text if reply.finish == "refused" else json.loads(reply.text)["verdict"]
        found[name] = {"seconds": took, "said": said}
    await engine.close()
    return found


def costs(path: Path, math500: Path, repeats: int) -> dict[str, Any]:
    rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if tuned(row["instruction"])]
    formulas = [
        {"instruction": row["problem"], "output": row["solution"], "answer": row["answer"]}
        for row in map(json.loads, math500.read_text(encoding="utf-8").splitlines())
    ]
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for name, some in {"numbers": rows, "formulas": formulas}.items():
        asked = payloads(some)
        for decide in (answer, plain_of):
            began = time.perf_counter()
            for payload in asked:
                decide(payload)
            way = "math-verify alone" if decide is plain_of else "in this process"
            add(f"{name} a second, {way}, first time", len(asked) / (time.perf_counter() - began))
    for _ in range(repeats):
        for processes in (1, 2):
            opened, speed, peak = asyncio.run(over(processes, payloads(rows)))
            add("seconds until a worker is open", opened)
            add(f"numbers a second, {processes} processes", speed)
            add("MiB of a worker, at most", peak)
    return {name: report.spread(values, 2) for name, values in found.items()}


def plain_of(payload: str) -> str:
    asked = json.loads(payload)
    return plain(asked["question"], asked["final"], asked["text"])


def main() -> None:
    parser: argparse.ArgumentParser = report.parser("answers", __doc__)
    parser.add_argument("--verifier", type=Path, required=True, help="answers of real models, JSON")
    parser.add_argument("--references", type=Path, nargs="+", required=True, help="question and answer, JSON lines")
    parser.add_argument("--mathdial", type=Path, required=True, help="solutions of teachers and students, JSON lines")
    parser.add_argument("--math500", type=Path, required=True, help="problems with solutions in LaTeX, JSON lines")
    parser.add_argument("--limit", type=float, default=3.0, help="seconds for hostile input (default: %(default)s)")
    options = parser.parse_args()
    prepare()
    result = {
        "costs": costs(options.verifier, options.math500, options.repeats),
        "answers of real models": of_models(options.verifier),
        "reference answers": of_references(options.references),
        "lessons and formulas": of_lessons(options.mathdial, options.math500),
        "hostile input": asyncio.run(hostile(options.limit)),
    }
    rows = []
    for half, found in result["answers of real models"].items():
        for name in ("verdicts", "verdicts of math-verify alone"):
            for kind in ("right", "wrong"):
                rows.append(
                    (f"{half}: {name}, {kind}", *(str(found[name][kind][key]) for key in ("precision", "recall")))
                )
        for name in ("final results", "final results without the sentence that states them"):
            rows.append((f"{half}: {name}", *(str(found[name][key]) for key in ("precision", "recall"))))
    report.show("Answers of real models", ("", "precision", "recall"), rows)
    settings = {"version": VERSION, "split": "by a digest of the question", "limit_seconds": options.limit}
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
