"""IFD scoring against the loop of public implementations, and against the model's own forward pass.

The rows are the packaged records and every assistant turn of a local run's dialogues, given all before it. In
turns, on the same rows and one core unless told otherwise:

    loop, float32     one text at a time, `model(ids, labels=labels)` twice for each row, as public code loads models
    loop              the same with the scorer's own dtype
    scorer            `Scorer.score`
    scorer, apart     the same, where prompts that several answers share are computed for each (with --candidates)
    bare              the forward pass with all logits, in the scorer's batches; no softmax, no loss
    bare, answers     the same with logits for the answers' tokens only: the least that any scorer computes

Ratios are of processor seconds, which other work on the machine changes less than wall time (given as well). A
matrix product as large as the model's own gives the machine's rate, and so what no scorer could be quicker than.

    python benchmarks/ifd.py
    python benchmarks/ifd.py --threads 0 --rows 60
    python benchmarks/ifd.py --candidates 8 --prompt-tokens 800 --rows 16 --repeats 2 --output OTHER.json

With --candidates each row is an agent pair's answer to a seed's prompt, as in a star run: so many answers follow each
prompt. Tokens are then those of the loop, which knows no prompt twice: rates are of what has to be scored.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import report
import torch
import transformers
from transformers import AutoModelForCausalLM

from boost_qa.config import Sample
from boost_qa.models import home
from boost_qa.models.trainable import trainable
from boost_qa.sources import read
from boost_qa.star_agents.ifd import Likelihood
from boost_qa.star_agents.layout import Parts
from boost_qa.star_agents.scorer import Scorer, batches
from boost_qa.types import Message

PREDICTION = """
On this processor one core multiplies bfloat16 at 220 GFLOP/s and float32 at 100; a batch of one with 300 tokens of
SmolLM2-135M already reached 280 tokens/s in float32 and 480 in bfloat16, 75 and 60 % of these rates. Batches cannot
gain what is not lost: 2.6 times as fast as the loop in float32 and 1.5 times as fast as that in bfloat16, the latter
half from logits that are not computed for prompts. The target of 5 is out of reach on two such cores, for the
matrix products alone take more than a quarter of the loop's time. Against the bare pass 105 %, against that with the
answers' logits only 90 %.
"""
CANDIDATES_PREDICTION = """
Random tokens on a busy core: eight answers of 150 tokens to a prompt of 800 took 17.0 s apart and 7.5 s with the prompt
computed once; six of 250 to one of 100 took 7.8 and 7.1 s. So here 2.2 times as fast as apart, 2.5 times as fast as the
loop in bfloat16 and 4.3 times as fast as that in float32; 5 is passed where prompts are about eight times as long as
answers. IFD differs from that of float32 as much as before.
"""
MODEL = "smollm2-135m-instruct"
SIDES = {"human": "user", "gpt": "assistant"}
Pairs = list[Sequence[Message]]
Scores = list[tuple[int, float, float]]  # tokens, nats given the prompt, nats alone


def rows(run: str | None, limit: int) -> Pairs:
    """Records and turns, alternately, so that fewer rows are a sample of all."""
    sources = [
        [Message("user", r.question), Message("assistant", r.answer)]
        for r in read([Sample(source="sample")], 0).records
    ]
    dialogues = home() / "runs" / run / "dialogues.jsonl" if run else Path("/dev/null")
    turns = []
    for line in dialogues.read_text(encoding="utf-8").splitlines():
        spoken = [Message(SIDES[turn["side"]], turn["text"]) for turn in json.loads(line)["turns"]]  # type: ignore[arg-type]
        turns += [spoken[: place + 1] for place, message in enumerate(spoken) if message.role == "assistant"]
    mixed = [row for pair in itertools.zip_longest(sources, turns) for row in pair if row]
    return list(mixed[:limit])


def candidates(prompts: int, each: int, prompt_tokens: int, typeset: Callable[[Sequence[Message]], Parts]) -> Pairs:
    """`each` answers to each of so many prompts. A prompt is a record's question behind other records, as worked
    examples, until it has about `prompt_tokens`; its answers are those of records after it."""
    records = list(read([Sample(source="sample")], 0).records)
    found: Pairs = []
    for at in range(prompts):
        taken = [records[(at + step) % len(records)] for step in range(len(records))]
        prompt = taken[0].question
        for record in taken[each:]:
            if len(typeset([Message("user", prompt), Message("assistant", "x")]).prompt) >= prompt_tokens:
                break
            prompt = f"{record.question}\n\n{record.answer}\n\n{prompt}"
        found += [[Message("user", prompt), Message("assistant", record.answer)] for record in taken[:each]]
    return found


def loop(model: Any, typeset: Callable[[Sequence[Message]], Parts], pairs: Pairs, longest: int) -> Scores:
    """Each row's two texts through the model alone, the mean loss by the model's own code."""
    found: Scores = []
    for pair in pairs:
        parts = typeset(pair).cut(longest)
        sums = []
        for ids in (parts.conditioned, parts.alone):
            given = len(ids) - len(parts.answer)
            labels = torch.tensor([[-100] * given + parts.answer])
            with torch.no_grad():
                loss = model(torch.tensor([ids]), labels=labels).loss
            sums.append(float(loss) * len(parts.answer))
        found.append((len(parts.answer), sums[0], sums[1]))
    return found


def scored(scorer: Scorer, pairs: Pairs) -> Scores:
    likelihoods = [each for each in scorer.score(pairs) if isinstance(each, Likelihood)]
    return [(each.tokens, each.conditioned, each.alone) for each in likelihoods]


def bare(model: Any, laid: list[Parts], budget: int, answers_only: bool) -> None:
    """The forward pass alone, over the batches in which the scorer takes the rows."""
    texts = [(ids, len(parts.answer)) for parts in laid for ids in (parts.conditioned, parts.alone)]
    with torch.inference_mode():
        for batch in batches([len(ids) for ids, _ in texts], budget):
            longest = max(len(texts[place][0]) for place in batch)
            ids = torch.tensor([texts[place][0] + [0] * (longest - len(texts[place][0])) for place in batch])
            if answers_only:
                states = model.base_model(ids, use_cache=False).last_hidden_state
                chosen = [
                    states[at, len(texts[p][0]) - texts[p][1] - 1 : len(texts[p][0]) - 1] for at, p in enumerate(batch)
                ]
                for some in torch.cat(chosen).split(128):
                    model.lm_head(some)
            else:
                model(ids, use_cache=False)


def rate(dtype: torch.dtype) -> float:
    """GFLOP for a processor second of one matrix product in the shape of the model's larger ones."""
    left, right = torch.ones(1024, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
    with torch.inference_mode():
        seconds = [timed(lambda: [torch.nn.functional.linear(left, right) for _ in range(20)])[0] for _ in range(5)]
    return 20 * 2 * 1024 * 576 * 1536 / min(seconds) / 1e9


def least_flops(model: Any, laid: list[Parts]) -> int:
    """Of all products with weights that scoring needs: the layers for each token, the head for the answers'."""
    head = int(model.lm_head.weight.numel())
    layers = sum(int(weights.numel()) for name, weights in model.base_model.named_parameters() if "embed" not in name)
    tokens = sum(len(parts.conditioned) + len(parts.alone) for parts in laid)
    return 2 * (layers * tokens + head * sum(2 * len(parts.answer) for parts in laid))


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Processor seconds, wall seconds, and what came out."""
    processor, wall = time.process_time(), time.perf_counter()
    out = work()
    return time.process_time() - processor, time.perf_counter() - wall, out


def main() -> None:
    parser = report.parser("ifd", __doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument("--rows", type=int, default=200, help="at most (default: %(default)s)")
    parser.add_argument("--run", help="folder name of a run whose dialogues are scored, too")
    parser.add_argument("--candidates", type=int, default=0, help="answers to each prompt (default: another for each)")
    parser.add_argument("--prompt-tokens", type=int, default=0, help="of a prompt with --candidates, at least")
    parser.add_argument("--model", default=MODEL, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, 0 for all cores (default: %(default)s)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    scorer = Scorer(options.model, device="cpu", window=options.rows)
    typeset, answers = scorer.typeset, options.candidates
    if answers:
        pairs = candidates(options.rows // answers, answers, options.prompt_tokens, typeset)
    else:
        pairs = rows(options.run, options.rows)
    apart = copy.copy(scorer)
    apart._forward = replace(scorer._forward, before=None)
    laid = [parts for pair in pairs if (parts := typeset(pair).cut(scorer.max_tokens)).answer]
    plain = AutoModelForCausalLM.from_pretrained(trainable(options.model), dtype=torch.float32).eval()
    ways: dict[str, Callable[[], Any]] = {
        "loop_float32": lambda: loop(plain, typeset, pairs, scorer.max_tokens),
        "loop": lambda: loop(scorer.model, typeset, pairs, scorer.max_tokens),
        "scorer": lambda: scored(scorer, pairs),
        **({"scorer_apart": lambda: scored(apart, pairs)} if answers else {}),
        "bare": lambda: bare(scorer.model, laid, scorer.batch_tokens, answers_only=False),
        "bare_answers": lambda: bare(scorer.model, laid, scorer.batch_tokens, answers_only=True),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    out: dict[str, Any] = {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            processor, wall, out[name] = timed(way)
            times[name].append((processor, wall))
    tokens = sum(len(parts.conditioned) + len(parts.alone) for parts in laid)
    rates = {"float32": rate(torch.float32), scorer.dtype: rate(getattr(torch, scorer.dtype))}
    least = least_flops(scorer.model, laid) / 1e9 / rates[scorer.dtype]
    result: dict[str, Any] = {
        "tokens_per_processor_second": {name: per_second(tokens, each, 0) for name, each in times.items()},
        "tokens_per_second": {name: per_second(tokens, each, 1) for name, each in times.items()},
        "scorer_is_faster_than": {
            name: report.spread([each[0] / mine[0] for each, mine in zip(times[name], times["scorer"], strict=True)])
            for name in ways
            if name != "scorer"
        },
        "products_gflop_per_processor_second": {name: round(each, 1) for name, each in rates.items()},
        "difference_of_ifd_from_the_loop_in_float32": {
            name: difference(out["loop_float32"], out[name]) for name in ways if name.startswith(("loop", "scorer"))
        },
    }
    if not answers:  # with shared prompts less has to be computed
        result["no_scorer_could_be_faster_than_the_loop_by"] = {
            name: round(statistics.median(each[0] for each in times[name]) / least, 2)
            for name in ("loop_float32", "loop")
        }
    faster = result["scorer_is_faster_than"]
    table = [
        (
            name,
            *(str(result[key][name]["median"]) for key in list(result)[:2]),
            str(faster.get(name, {"median": 1})["median"]),
        )
        for name in ways
    ]
    report.show(f"IFD, {len(laid)} rows", ("", "tokens/processor s", "tokens/s", "scorer is faster by"), table)
    settings = {
        "model": options.model,
        "revision": scorer.revision,
        "rows": len(laid),
        "candidates": answers,
        "prompt_tokens": sum(len(parts.prompt) for parts in laid),
        "tokens": tokens,
        "answers": sum(len(parts.answer) for parts in laid),
        "longest": max(len(parts.conditioned) for parts in laid),
        "dtype": scorer.dtype,
        "batch_tokens": scorer.batch_tokens,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    report.write(options.output, CANDIDATES_PREDICTION if answers else PREDICTION, settings, result)


def per_second(tokens: int, times: Sequence[tuple[float, float]], clock: int) -> dict[str, Any]:
    return report.spread([tokens / each[clock] for each in times], 1)


def difference(right: Scores, found: Scores) -> dict[str, float]:
    """Of each row's IFD: standard deviation, and the largest."""
    ifds = [[math.exp((given - alone) / tokens) for tokens, given, alone in scores] for scores in (right, found)]
    apart = [mine - other for other, mine in zip(*ifds, strict=True)]
    return {"deviation": round(statistics.pstdev(apart), 5), "largest": round(max(map(abs, apart)), 5)}


if __name__ == "__main__":
    main()
