"""Replies of one evaluation a second, by torch and by the embedded engine, in turns on the same questions.

SmolLM2-135M answers sums of reasoning-gym (`pip install 'boost_qa[evaluate,embedded,reasoning-gym]'`), on the CPU.

    python benchmarks/evaluation_backends.py --questions 64 --max-tokens 128 --repeats 2
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import report

from boost_qa import sources
from boost_qa.config import ReasoningGym
from boost_qa.evaluate import results
from boost_qa.evaluate.loading import Backend, load
from boost_qa.evaluate.run import Settings, evaluate

PREDICTION = """
torch: 60 tokens a second in batches of 64, for it copies the keys and values of the whole batch at every step. The
embedded engine: 600, with 5 s to load against 2 s.
"""
MODEL = "smollm2-135m-instruct"
BACKENDS: tuple[Backend, ...] = ("hf", "embedded")


def questions(file: Path, n: int) -> None:
    """Sums of two to four numbers."""
    options = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2}
    drawn = ReasoningGym(source="reasoning_gym", n=n, tasks={"chain_sum": options})
    rows = [
        {"question": one.question, "answer": one.answer, "final": one.final}
        for one in sources.read((drawn,), 0).records
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measured(backend: Backend, file: Path, output: Path, max_tokens: int, batch_size: int) -> dict[str, float]:
    """Seconds to load and to answer, the tokens of the replies, and the share that is right."""
    seconds: dict[str, float] = {}
    tokenizer: list[Any] = []

    def timed(*given: Any, **options: Any) -> Any:
        began = time.perf_counter()
        model = load(*given, **options)
        seconds["loading"] = time.perf_counter() - began
        tokenizer.append(model.tokenizer)
        return model

    began = time.perf_counter()
    settings = Settings(
        base=MODEL, tasks=("boost_questions",), data=(f"boost_questions={file}",), backend=backend,
        max_tokens=max_tokens, batch_size=batch_size,
    )  # fmt: skip
    path = evaluate(settings, output, load_model=timed)
    answering = time.perf_counter() - began - seconds["loading"]
    items = results.read(path)[1]
    tokens = sum(len(tokenizer[0](one.reply)["input_ids"]) for one in items)
    right = sum(one.scores["acc,none"] for one in items) / len(items)
    return {
        "loading_s": seconds["loading"],
        "answering_s": answering,
        "tokens": tokens,
        "tokens_per_s": tokens / answering,
        "right": right,
    }


def main() -> None:
    parser = report.parser("evaluation_backends", __doc__)
    parser.add_argument("--questions", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--max-tokens", type=int, default=128, help="of a reply (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="of both (default: %(default)s)")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {backend: [] for backend in BACKENDS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "questions.jsonl"
        questions(file, options.questions)
        for turn in range(options.repeats):
            for backend in BACKENDS:
                output = Path(folder) / f"{backend}-{turn}"
                found[backend].append(measured(backend, file, output, options.max_tokens, options.batch_size))
    result: dict[str, Any] = {
        backend: {key: report.spread([one[key] for one in each], 2) for key in each[0]}
        for backend, each in found.items()
    }
    ratios = [e["tokens_per_s"] / h["tokens_per_s"] for h, e in zip(found["hf"], found["embedded"], strict=True)]
    result["embedded over hf, tokens a second"] = report.spread(ratios, 2)
    rows = [
        (backend, *(f"{result[backend][key]['median']:g}" for key in ("loading_s", "answering_s", "tokens_per_s")))
        for backend in BACKENDS
    ]
    report.show("backends of an evaluation", ("backend", "loading, s", "answering, s", "tokens/s"), rows)
    asked = {"model": MODEL, "questions": options.questions, "max_tokens": options.max_tokens}
    report.write(options.output, PREDICTION, asked | {"batch_size": options.batch_size}, result)


if __name__ == "__main__":
    main()
