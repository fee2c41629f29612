"""Duplicates and contamination: dialogues per second, memory, and what is found of what was planted.

Real rows and benchmarks lie in a folder, as files named below; `eval/` in it holds the benchmarks. Four measurements:

    scale     both checks at once, a process each, on dialogues made of the rows: a question of half of the sentences
              of two rows, an attempt that is another row's answer, guidance of half of the sentences of two rows, and
              the first row's answer; but for the attempt with every number drawn anew, as long as it was. One in a
              hundred has its question from an earlier one with a word left out, one in a thousand is a benchmark's.
              Only the checks are timed.
    planted   items of every benchmark, changed in known ways: how many are labelled. Beside it the rule of s1 and
              Open-R1: any eight words in a row, text split at spaces and in lower case.
    real      the rows as they are: what is labelled in them. `--show` prints it, to be looked at.
    numbers   questions with one number changed, and with a word or two left out, against themselves; with the rule
              about numbers, and without.

    BOOST_QA_REAL_DATA=FOLDER python benchmarks/contamination.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import report

from boost_qa.checks.benchmarks import Item, read_benchmarks
from boost_qa.checks.contamination import LONG, Contamination, Index
from boost_qa.checks.duplicates import Duplicates, Seen
from boost_qa.checks.words import END, tokens
from boost_qa.config import AnySource, Benchmark, Columns, OpenHermes, OrcaMath, ProcQA
from boost_qa.sources import read
from boost_qa.types import Dialogue, Record, Turn

PREDICTION = """
By trials of 6,000 dialogues and 30 items of each benchmark: a processor second is enough for 2,000 dialogues of
duplicates and 1,700 of contamination, so that 200,000 take two minutes where both have a core of their own. Duplicates
need 1.7 GB, two thirds of it the index; contamination hardly more than the benchmarks. What keeps its words is found
always, with one number changed nine in ten times, with all numbers changed or one word in twelve replaced in 70 to
75 %, first of all in long items. Of real questions 0.15 % are labelled, all in OpenHermes-like rows and mostly tasks
that anybody sets; one run of eight words labels six times as many. No question with another number is a duplicate;
without the rule about numbers three quarters are.
"""
CHUNK = 500
BENCHMARKS = ("HumanEval.jsonl.gz", "arc_easy_test.json", "math500_test.jsonl", "mbpp.jsonl", "mt_bench_question.jsonl",
              "tal_scq5k_en_test.jsonl", "vicuna_bench_question.jsonl")  # fmt: skip


def benchmarks(folder: Path) -> list[Item]:
    return read_benchmarks(
        [Benchmark(name=name.split(".")[0], path=str(folder / "eval" / name)) for name in BENCHMARKS]
    )


def real(folder: Path) -> dict[str, list[Record]]:
    def path(pattern: str) -> str:
        return str(next(folder.glob(pattern)))

    sources: dict[str, AnySource] = {
        "gsm8k train": OrcaMath(source="orca_math", path=path("orca_math_like.gsm8k*[0-9].jsonl")),
        "dmath": OrcaMath(source="orca_math", path=path("orca_math_like.dmath*[0-9].jsonl")),
        "stackeval": ProcQA(source="procqa", path=path("procqa_like.*[0-9].jsonl")),
        "gpteacher, oasst": OpenHermes(source="openhermes", path=path("openhermes_like.*[0-9].jsonl")),
        "mathdial": Columns(
            source="columns", name="mathdial", path=path("mathdial_test.jsonl"), question="question",
            answer="ground_truth",
        ),
    }  # fmt: skip
    return {name: read([source], seed=0).records for name, source in sources.items()}


def dialogue(record: Record, *said: str) -> Dialogue:
    turns = [Turn(f"speaker {at}", "human" if at % 2 else "gpt", text) for at, text in enumerate(said)]
    return Dialogue(record, "error_correction", (Turn("question", "human", record.question), *turns))


def asked(question: str, answer: str = "", id: str = "planted") -> Record:
    return Record(id, "made", question, answer, id)


# --- scale ---------------------------------------------------------------------------------------


def made(rows: Sequence[Record], items: Sequence[Item], count: int) -> Iterator[Dialogue]:
    """Dialogues as the module's text describes."""
    draw = random.Random(0)
    earlier: list[str] = []
    for number in range(count):
        row, attempt, one, other = draw.choices(rows, k=4)
        question = renumbered(" ".join([*some(row.question, draw), *some(other.question, draw)]), draw)
        answer = renumbered(row.answer, draw)
        if number % 1000 == 999:
            question = draw.choice(items).text
        elif number % 100 == 99:
            question = without_words(draw.choice(earlier), draw, 1)
        elif number % 100 == 0:
            earlier.append(question)
        guidance = " ".join([*some(one.answer, draw), *some(other.question, draw), "What do you know?"])
        yield dialogue(asked(question, answer, f"made:{number}"), attempt.answer, renumbered(guidance, draw), answer)


def some(text: str, draw: random.Random) -> list[str]:
    """Half of the sentences, in another order."""
    sentences = re.split(r"(?<=[.?!\n])\s+", text)
    return draw.sample(sentences, (len(sentences) + 1) // 2)


def renumbered(text: str, draw: random.Random) -> str:
    return re.sub(
        r"\d+",
        lambda found: "".join([draw.choice("123456789"), *draw.choices("0123456789", k=9)])[: len(found[0])],
        text,
    )


def without_words(text: str, draw: random.Random, count: int) -> str:
    """`text` without `count` of its words of letters; those that decide what is asked stay mostly."""
    parts = re.split(r"(\s+)", text)
    plain = [at for at, part in enumerate(parts) if part.isalpha() and part.islower() and len(part) > 1]
    gone = set(draw.sample(plain, min(count, len(plain))))
    return "".join(part for at, part in enumerate(parts) if at not in gone)


def look_at_many(which: str, folder: Path, count: int) -> dict[str, Any]:
    """One check over all dialogues, in this process."""
    rows = [record for records in real(folder).values() for record in records]
    items = benchmarks(folder)
    began = time.perf_counter()
    check: Duplicates | Contamination = Duplicates() if which == "duplicates" else Contamination(Index(items))
    built = time.perf_counter() - began
    before, wall, cpu, characters = peak_mb(), 0.0, 0.0, 0
    labels: Counter[str] = Counter()
    dialogues = made(rows, items, count)
    while chunk := [each for _, each in zip(range(CHUNK), dialogues, strict=False)]:
        characters += sum(len(turn.text) for each in chunk for turn in each.turns)
        began, worked = time.perf_counter(), time.process_time()
        found = [{finding.label for finding in check.look(each)} for each in chunk]
        wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - worked
        labels.update(label for each in found for label in each)
    return {
        "seconds": round(wall, 1),
        "processor_seconds": round(cpu, 1),
        "dialogues_per_second_and_core": round(count / cpu),
        "peak_mb": round(peak_mb()),
        "peak_mb_before_the_first_dialogue": round(before),
        "seconds_to_build": round(built, 2),
        "characters_of_a_dialogue": round(characters / count),
        "dialogues_labelled": dict(sorted(labels.items())),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scale(options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--data", str(options.data), "--dialogues", str(options.dialogues), "--only"]
    began = time.perf_counter()
    checks = {
        name: subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True)
        for name in ("duplicates", "contamination")
    }
    found = {name: json.loads(process.communicate()[0]) for name, process in checks.items()}
    return {"dialogues": options.dialogues, "both_at_once_s": round(time.perf_counter() - began, 1), **found}


def one_form(count: int) -> dict[str, Any]:
    """The worst for duplicates: texts that are all alike, and none of them enough."""
    draw = random.Random(1)
    names = ["".join(draw.choices("bcdfghklmnprst", k=6)) for _ in range(3 * count)]
    check = Duplicates()
    began = time.process_time()
    for at in range(count):
        one, two, three = names[3 * at : 3 * at + 3]
        question = (
            f"Write a short poem about {one} and {two} in the style of an old sailor who came home after many years at "
            f"sea and found that {three} was gone from the harbour of the town"
        )
        check.look(dialogue(asked(question, id=str(at))))
    return {"questions_of_one_form": count, "processor_seconds": round(time.process_time() - began, 1)}


# --- planted -------------------------------------------------------------------------------------


def kinds(rows: Sequence[Record]) -> dict[str, Callable[[str, random.Random], Dialogue | None]]:
    """What becomes of an item's text; None where there is nothing to change."""

    def as_question(change: Callable[[str, random.Random], str]) -> Callable[[str, random.Random], Dialogue | None]:
        def planted(text: str, draw: random.Random) -> Dialogue | None:
            changed = change(text, draw)
            return None if changed == text and change is not same else dialogue(asked(changed))

        return planted

    def in_a_turn(text: str, draw: random.Random) -> Dialogue:
        around = draw.choices(rows, k=2)
        return dialogue(
            asked(around[0].question), f"{around[0].answer}\n\nNow one for you: {text}\n\n{around[1].answer}"
        )

    return {
        "verbatim": as_question(same),
        "other type": as_question(other_type),
        "inside a longer text": as_question(
            lambda text, draw: f"{draw.choice(rows).question}\n{text}\n{draw.choice(rows).question}"
        ),
        "in a generated turn": in_a_turn,
        "one number changed": as_question(lambda text, draw: new_numbers(text, draw, 1)),
        "all numbers changed": as_question(lambda text, draw: new_numbers(text, draw, None)),
        "one word in twelve replaced": as_question(lambda text, draw: other_words(text, draw, 12)),
        "one word in six replaced": as_question(lambda text, draw: other_words(text, draw, 6)),
        "first two thirds": as_question(lambda text, draw: " ".join(text.split()[: len(text.split()) * 2 // 3])),
    }


def same(text: str, draw: random.Random) -> str:
    return text


def other_type(text: str, draw: random.Random) -> str:
    """In capitals, on a line a word, long whole numbers with commas."""
    grouped = re.sub(r"(?<![\d.])\d{4,}\b", lambda found: f"{int(found[0]):,}", text)
    return grouped.upper().replace(" ", "\n ")


def new_numbers(text: str, draw: random.Random, count: int | None) -> str:
    """`count` of the numbers, or all, as others with as many digits."""
    places = list(re.finditer(r"\d+", text))
    for place in sorted(draw.sample(places, min(count or len(places), len(places))), key=lambda each: -each.start()):
        number = place[0]
        while number == place[0]:
            number = renumbered(place[0], draw)
        text = text[: place.start()] + number + text[place.end() :]
    return text


def other_words(text: str, draw: random.Random, every: int) -> str:
    """One in `every` words, at least one, replaced by a word that is nowhere else."""
    parts = re.split(r"(\s+)", text)
    plain = [at for at, part in enumerate(parts) if part.isalpha()]
    for at in draw.sample(plain, min(max(1, len(plain) // every), len(plain))):
        parts[at] = "zq" + "".join(draw.choices("aeiou", k=5))
    return "".join(parts)


def eight(text: str) -> set[tuple[str, ...]]:
    """Every eight words in a row, as s1 and Open-R1 split them."""
    split = text.lower().split()
    return set(zip(*(split[at:] for at in range(8)), strict=False))


def planted(index: Index, items: Sequence[Item], rows: Sequence[Record], each: int) -> dict[str, Any]:
    left_out = set(index.left_out)
    result: dict[str, Any] = {}
    for kind, change in kinds(rows).items():
        draw = random.Random(2)
        counts: Counter[str] = Counter()
        of: dict[str, list[int]] = {}
        for benchmark in dict.fromkeys(item.benchmark for item in items):
            pool = [item for item in items if item.benchmark == benchmark and item not in left_out]
            tried = there = 0
            for item in draw.sample(pool, min(each, len(pool))):
                changed = change(item.text, draw)
                if changed is None:
                    continue
                check = Contamination(index)
                check.look(changed)
                hits = [hit.n for hit in check.hits if (hit.benchmark, hit.item) == (benchmark, item.id)]
                text = "\n".join([changed.record.question, *(turn.text for turn in changed.turns[1:])])
                counts.update(items=1, thirteen=LONG in hits, one_run_of_8=not eight(item.text).isdisjoint(eight(text)))
                tried, there = tried + 1, there + any(n != LONG for n in hits)
            of[benchmark] = [there, tried]
        result[kind] = {
            "items": counts["items"],
            "benchmark 8-gram": sum(there for there, _ in of.values()),
            "benchmark 13-gram": counts["thirteen"],
            "one run of 8, as s1": counts["one_run_of_8"],
            "benchmark 8-gram, of items, by benchmark": {
                name: f"{there} of {tried}" for name, (there, tried) in of.items()
            },
        }
    return result


# --- real rows -----------------------------------------------------------------------------------


def as_they_are(index: Index, items: Sequence[Item], sources: dict[str, list[Record]], show: bool) -> dict[str, Any]:
    grams = set().union(*(eight(item.text) for item in items))
    result = {}
    for name, records in sources.items():
        check = Contamination(index)
        simple: Counter[str] = Counter()
        for record in records:
            check.look(Dialogue(record, "", ()))
            for where in ("question", "answer"):
                simple[where] += not eight(getattr(record, where)).isdisjoint(grams)
        labelled = {
            f"{where}s, {label}": len(
                {hit.record for hit in check.hits if hit.where == where and (hit.n == LONG) == long}
            )
            for where in ("question", "answer")
            for label, long in (("benchmark 8-gram", False), ("benchmark 13-gram", True))
        }
        simply = {f"{where}s, one run of 8, as s1": simple[where] for where in ("question", "answer")}
        result[name] = {"records": len(records), **labelled, **simply}
        if show:
            texts = {record.id: record for record in records}
            for hit in check.hits:
                print(f"\n{name} {hit}\n  {getattr(texts[hit.record], hit.where)[:300]!r}")
    return result


# --- numbers -------------------------------------------------------------------------------------


def numbers(sources: dict[str, list[Record]]) -> dict[str, Any]:
    """Each question as it is, then changed: how often it is a duplicate."""
    changes: dict[str, Callable[[str, random.Random], str]] = {
        "one number changed": lambda text, draw: new_numbers(text, draw, 1),
        "one word left out": lambda text, draw: without_words(text, draw, 1),
        "two words left out": lambda text, draw: without_words(text, draw, 2),
    }
    result: dict[str, Any] = {}
    for name, change in changes.items():
        draw, counts = random.Random(3), Counter[str]()
        for record in [*sources["gsm8k train"], *sources["dmath"]]:
            changed = change(record.question, draw)
            if changed == record.question:
                continue
            check, plain = Duplicates(), Seen(0.8, lambda text: [])
            check.look(dialogue(record))
            found = check.look(dialogue(asked(changed)))
            one, other = ([token for token in tokens(text) if token != END] for text in (record.question, changed))
            plain.look("", one)
            alike = plain.look("", other) is not None
            counts.update(questions=1, duplicates=bool(found), duplicates_without_the_rule_about_numbers=alike)
        result[name] = dict(counts)
    result["as they are"] = {}
    for source, records in sources.items():
        check, labels = Duplicates(), Counter[str]()
        for record in records:
            labels.update(finding.label for finding in check.look(dialogue(record, record.answer)))
        result["as they are"][source] = {"records": len(records), **labels}
    return result


def main() -> None:
    parser = report.parser("contamination", __doc__)
    data = os.environ.get("BOOST_QA_REAL_DATA")
    parser.add_argument("--data", type=Path, default=data, help="folder of real rows (default: $BOOST_QA_REAL_DATA)")
    parser.add_argument(
        "--dialogues", type=int, default=200_000, help="of the first measurement (default: %(default)s)"
    )
    parser.add_argument("--items", type=int, default=150, help="planted of each benchmark (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="print what is labelled in the real rows")
    parser.add_argument("--only", choices=["duplicates", "contamination"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data is None:
        parser.error("give --data, or set BOOST_QA_REAL_DATA")
    if options.only:
        print(json.dumps(look_at_many(options.only, options.data, options.dialogues)))
        return
    sources, items = real(options.data), benchmarks(options.data)
    rows = [record for records in sources.values() for record in records]
    index = Index(items)
    found = planted(index, items, rows, options.items)
    result = {
        "scale": scale(options),
        "worst_for_duplicates": [one_form(count) for count in (2000, 4000)],
        "benchmarks": {
            "items": len(items), "different": len(index.entries), "left_out": len(index.left_out),
            "without_a_run_of_their_own": len(index.whole),
        },
        "planted": found,
        "real": as_they_are(index, items, sources, options.show),
        "numbers": numbers(sources),
    }  # fmt: skip
    columns = ("", "items", "benchmark 8-gram", "benchmark 13-gram", "one run of 8, as s1")
    report.show("planted", columns, [(kind, *(f"{row[key]}" for key in columns[1:])) for kind, row in found.items()])
    settings = {"dialogues": options.dialogues, "items": options.items, "benchmarks": BENCHMARKS}
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
