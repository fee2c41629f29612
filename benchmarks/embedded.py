"""Embedded engine: tokens per second through scenarios, as a share of the engine's own batch generation.

The scenarios wait for each other's replies, write a journal, and tokenise their own prompts. The
baseline gets the very same prompts, out of that journal, all at once, and does nothing but generate:
`ContinuousBatchingPipeline.generate` in a process of its own. Both use the same model, seeds and limits,
and take turns.

    python benchmarks/embedded.py --model smollm2-135m-instruct --records 48
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random

import report

from boost_qa import models, sources
from boost_qa.config import Embedded, Recipe
from boost_qa.engines.chat import ChatTokenizer
from boost_qa.engines.embedded import EmbeddedEngine
from boost_qa.journal import Journal
from boost_qa.plan import plan
from boost_qa.runner import Job, Stats, run
from boost_qa.scenarios import error_correction
from boost_qa.types import Dialogue, Message

PREDICTION = """
0.9: three dependent turns leave few slots empty while more dialogues are in flight than slots, prompts and
replies pass through pipes once a token's step, and the journal is idle most of the time. The baseline has
all prompts in its batch from the start, which only helps it.
"""


def recipe(model: str, slots: int, tokens: int) -> Recipe:
    """Error correction with one model in every role."""
    agent = {"model": "one", "max_tokens": tokens}
    cast = {"weak_student": agent | {"temperature": 0.8}} | {
        role: agent | {"temperature": 0.2} for role in ("teacher", "strong_student")
    }
    return Recipe.model_validate(
        {
            "name": "embedded",
            "sources": [{"source": "sample"}],
            "scenarios": {"error_correction": {"cast": cast}, "debate": None, "analogical_reasoning": None},
            "models": {"one": {"engine": "embedded", "model": model, "slots": slots, "cache_gb": 2}},
            "runner": {"in_flight": 4 * slots, "attempts": 1},
        }
    )


def through_scenarios(used: Recipe, model: models.Model, records: int, seed: int, journal_path: Path) -> float:
    """Tokens per second of a run, from its first request to its last reply, loading left out."""
    settings = used.models["one"]
    assert isinstance(settings, Embedded)
    cast = plan(used).casts["error_correction"]
    taught = sources.read(used.sources, seed)[0][:records]
    engine = _Timed(settings, model)
    stats = Stats()
    jobs: list[Job[Dialogue]] = [
        Job(record.id, "error_correction", partial(error_correction, record, cast, Random(seed)), 3, "three")
        for record in taught
    ]
    with Journal(journal_path) as journal:
        for _ in run(jobs, {settings.model: engine}, journal, in_flight=used.runner.in_flight, seed=seed, stats=stats):
            pass
        ended = time.perf_counter()
        usage = journal.usage()
    return usage["completion_tokens"] / (engine.ended(ended) - engine.began)


class _Timed(EmbeddedEngine):
    """Notes when the model was loaded, and when it was let go."""

    began = 0.0
    closed = 0.0

    async def open(self) -> None:
        await super().open()
        self.began = time.perf_counter()

    async def close(self) -> None:
        self.closed = time.perf_counter()
        await super().close()

    def ended(self, otherwise: float) -> float:
        return self.closed or otherwise


BATCH = """
import json, sys, time
sys.modules["openvino_telemetry"] = None
import numpy, openvino, openvino_genai as genai
job = json.load(sys.stdin)
scheduler = genai.SchedulerConfig()
scheduler.cache_size, scheduler.enable_prefix_caching = 2, True
scheduler.max_num_seqs, scheduler.max_num_batched_tokens = job["slots"], 512 + job["slots"]
pipeline = genai.ContinuousBatchingPipeline(job["path"], scheduler, "CPU", {}, {})
configs = []
for each in job["calls"]:
    config = genai.GenerationConfig()
    config.max_new_tokens, config.stop_token_ids = each["tokens"], set(job["stop"])
    config.do_sample, config.temperature, config.rng_seed = True, each["temperature"], each["seed"]
    configs.append(config)
inputs = [openvino.Tensor(numpy.array([each["ids"]], dtype=numpy.int64)) for each in job["calls"]]
began = time.perf_counter()
results = pipeline.generate(inputs, configs)
seconds = time.perf_counter() - began
print(json.dumps(sum(len(result.m_generation_ids[0]) for result in results) / seconds))
"""


def in_one_batch(used: Recipe, model: models.Model, journal_path: Path) -> float:
    """Tokens per second of plain batch generation on the prompts in a journal."""
    settings = used.models["one"]
    assert isinstance(settings, Embedded)
    chat = ChatTokenizer(model.tokenizer)
    calls = []
    with sqlite3.connect(journal_path) as journal:
        for seed, body in journal.execute("SELECT seed, request FROM replies"):
            request = json.loads(body)
            ids = chat.encode([Message(role, content) for role, content in request["messages"]])
            temperature, _, tokens = request["sampling"]
            calls.append({"ids": ids, "seed": seed, "temperature": temperature, "tokens": tokens})
    job = {"path": str(model.path), "slots": settings.slots, "stop": sorted(chat.stop_ids), "calls": calls}
    done = subprocess.run([sys.executable, "-c", BATCH], input=json.dumps(job), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> None:
    used = recipe(options.model, options.slots, options.tokens)
    model = models.resolve(options.model)
    ours, batch = [], []
    for seed in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            journal_path = Path(folder) / "journal.sqlite"
            ours.append(through_scenarios(used, model, options.records, seed, journal_path))
            batch.append(in_one_batch(used, model, journal_path))
    shares = [one / other for one, other in zip(ours, batch, strict=True)]
    result = {
        "tokens_per_s": report.spread(ours, 1),
        "tokens_per_s_in_one_batch": report.spread(batch, 1),
        "share": report.spread(shares),
    }
    settings = {name: getattr(options, name) for name in ("model", "records", "slots", "tokens", "repeats")}
    report.show(
        f"{options.model}, {options.records} dialogues, {options.slots} slots",
        ("", "median", "min", "max"),
        [(name, *(f"{each[key]:g}" for key in ("median", "min", "max"))) for name, each in result.items()],
    )
    report.write(options.output, PREDICTION, settings, result)


def main() -> None:
    parser = report.parser("embedded", __doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="name or path (default: %(default)s)")
    parser.add_argument("--records", type=int, default=48, help="dialogues of three turns (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=32, help="requests in the batch (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=192, help="most tokens of a reply (default: %(default)s)")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
