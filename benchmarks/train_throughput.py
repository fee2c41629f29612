"""Tokens per second of LoRA fine-tuning in real shapes with random weights, on one GPU, and where they come from.

A ladder: each rung changes one thing of the rung before, from TRL's defaults to our recipe.

    trl_defaults       bfloat16 weights, a padded batch of 8, sdpa, lora_dropout 0.05, checkpointing in every layer
    no_dropout         lora_dropout 0
    packed             rows of --row-tokens instead of padded batches
    no_checkpointing   all activations kept
    no_input_casts     PEFT's float32 copies of what enters an adapter switched off
    torch_varlen       attention on torch's own variable-length kernel
    compiled           decoder layers compiled one by one, every row of the same length: our recipe

and `check`: torch_varlen in bfloat16 must be as near to sdpa in float64 as sdpa in bfloat16 is. Everything is
trained by TRL's SFTTrainer on synthetic dialogues. Each rung runs in a process of its own; the result is
written after each. Our recipe and the defaults of all models come first, then the rungs between.

    python benchmarks/train_throughput.py                      # three models, as far as 580 seconds go
    python benchmarks/train_throughput.py --resume             # the rest
    python benchmarks/train_throughput.py --models tiny --steps 3 --output /tmp/cpu.json     # without a GPU
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report

PREDICTION = """
Llama-3-8B on one H200, tokens a second with pads: trl_defaults 8.0k, no_dropout 9.5k, no_checkpointing 13.4k,
no_input_casts 14.8k, compiled 19.1k (60 % MFU). A third of a padded batch of 8 is pads, so `packed` should raise
the real tokens by half, less what sdpa loses with a mask, for which it has no flash kernel; torch_varlen wins that
back. Qwen2.5-7B and Mistral-7B are 5 to 8 % faster. Without checkpointing some 80 GiB at the peak. From FLOPs and
memory traffic counted on one layer. On a CPU nothing is predicted: there the run only proves the program.
"""
SEED = 7
RANK = 16
BATCH = 8  # TRL's and transformers' default
SHORTEST, TURN = 64, 80  # tokens of a dialogue at least, and of a turn about
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "triton")


@dataclass(frozen=True, slots=True)
class Rung:
    """What differs between rungs."""

    dropout: float = 0.0
    packed: bool = True
    checkpointing: bool = False
    input_casts: bool = False
    attention: str = "sdpa"
    compiled: bool = False


RUNGS = {
    "trl_defaults": Rung(dropout=0.05, packed=False, checkpointing=True, input_casts=True),
    "no_dropout": Rung(packed=False, checkpointing=True, input_casts=True),
    "packed": Rung(checkpointing=True, input_casts=True),
    "no_checkpointing": Rung(input_casts=True),
    "no_input_casts": Rung(),
    "torch_varlen": Rung(attention="torch_varlen"),
    "compiled": Rung(attention="torch_varlen", compiled=True),
}

# Names as in boost_qa/train/shapes.yaml
LARGE = ("Meta-Llama-3-8B", "Qwen2.5-7B", "Mistral-7B-v0.3")
TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


# --- dialogues --------------------------------------------------------------------------------------------


def dialogues(count: int, vocabulary: int, longest: int, shrink: int = 1) -> list[dict[str, list[int]]]:
    """Dialogues of random tokens, every second turn with loss; lengths log-normal, median 750, 80 % from 480 to 1,170.

    Args:
        longest: none is longer, in tokens.
        shrink: divides all lengths.
    """
    rng = random.Random(SEED)
    made = []
    for _ in range(count):
        length = round(rng.lognormvariate(math.log(750 / shrink), 0.35))
        length = min(max(length, SHORTEST // shrink), longest)
        ids = [rng.randrange(2, vocabulary) for _ in range(length)]
        labels: list[int] = []
        taught = False
        while len(labels) < length:
            turn = round(rng.lognormvariate(math.log(TURN / shrink), 0.4))
            begin, end = len(labels), min(length, len(labels) + max(turn, 1))
            labels += ids[begin:end] if taught else [-100] * (end - begin)
            taught = not taught
        made.append({"input_ids": ids, "labels": labels})
    return made


class Counted:
    """TRL's collator, and for each batch that it made: tokens without and with pads, with loss, and squared lengths."""

    def __init__(self, collate: Callable[[Any], dict[str, Any]]) -> None:
        self._collate = collate
        self.batches: list[dict[str, int]] = []

    def __call__(self, rows: Any) -> dict[str, Any]:
        batch = self._collate(rows)
        if "attention_mask" in batch:
            lengths = batch["attention_mask"].sum(1)
        else:
            lengths = batch["cu_seq_lens_q"].diff()
            lengths = lengths[lengths > 1]  # pads of a packed row are documents of one token
        self.batches.append(
            {
                "real": int(lengths.sum()),
                "padded": batch["input_ids"].numel(),
                "supervised": int((batch["labels"][:, 1:] != -100).sum()),
                "squares": int(lengths.long().square().sum()),
            }
        )
        return batch


# --- one rung, in a process of its own ----------------------------------------------------------------------


def measure(model_name: str, rung: Rung, options: argparse.Namespace) -> dict[str, Any]:
    """Train for some steps and measure; see the module for the rungs."""
    import torch
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from boost_qa.train.finetune import quick
    from boost_qa.train.varlen import attention

    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shrink = 8 if model_name == "tiny" else 1
    row = options.row_tokens // shrink
    chosen = attention(rung.attention)
    model = random_model(model_name, chosen.name, device)
    size = sizes(model)
    steps = options.warmup + options.steps
    count = math.ceil(1.3 * (steps + 2) * max(BATCH, row / (750 / shrink)))
    made = dialogues(count, model.config.vocab_size, row, shrink)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, lora_dropout=rung.dropout, target_modules=list(LINEAR)
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=1 if rung.packed else BATCH,
                gradient_accumulation_steps=1,
                packing=rung.packed,
                max_length=row,
                pad_to_multiple_of=row if rung.compiled else None,
                gradient_checkpointing=rung.checkpointing,
                learning_rate=1e-4,
                bf16=True,
                use_cpu=device == "cpu",
                dataloader_drop_last=True,
                dataloader_pin_memory=device == "cuda",
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=SEED,
            ),
            train_dataset=Dataset.from_list(made),
            processing_class=tokenizer(),
            peft_config=lora,
        )
        quick(trainer.model, input_casts=rung.input_casts, compile_layers=rung.compiled)
        counted = trainer.data_collator = Counted(trainer.data_collator)
        clock = make_clock(options.warmup, device)
        trainer.add_callback(clock)
        trainer.train()
    batches = counted.batches[options.warmup : steps]
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {
        **rates(clock.seconds(), batches, size, options.peak_tflops),
        "peak_gib": peak_gib(device),
        "loss": {"first": round(losses[0], 4), "last": round(losses[-1], 4)},
        "attention": chosen.name,
        **({"attention_because": chosen.reason} if chosen.reason else {}),
        **(compilation() if rung.compiled else {}),
    }


def random_model(name: str, attention: str, device: str) -> Any:
    """Random weights in bfloat16, made on the device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from boost_qa.train.shapes import shape

    config = LlamaConfig(**TINY) if name == "tiny" else shape(name)
    torch.manual_seed(SEED)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)


def tokenizer() -> Any:
    """TRL wants one for its pad token; the dialogues are tokens already."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def sizes(model: Any) -> dict[str, int]:
    """Parameters of all matrices but the embedding, those of the head among them, and attention's width x layers."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    matrices = {name: each.numel() for name, each in model.named_parameters() if each.ndim == 2}
    return {
        "linear": sum(number for name, number in matrices.items() if "embed_tokens" not in name),
        "head": config.vocab_size * config.hidden_size,
        "attention": config.num_hidden_layers * config.num_attention_heads * width,
    }


def rates(seconds: list[float], batches: list[dict[str, int]], size: dict[str, int], peak: float) -> dict[str, Any]:
    """Tokens and FLOPs a second over the measured steps.

    A token costs 4 FLOPs for each parameter of a frozen matrix (2 forward, 2 for the gradient of its input), and
    attention 6 x width x layers for each pair of tokens, causal, forward and backward; recomputing is not counted,
    nor are pads and adapters. TRL runs the head on supervised tokens only, hence a second, lower number.
    """
    total = sum(seconds)
    tokens = {key: sum(batch[key] for batch in batches) for key in batches[0]}
    real, padded, supervised, squares = tokens.values()
    flops = 4 * size["linear"] * real + 6 * size["attention"] * squares
    less = 4 * size["head"] * (real - supervised)
    found: dict[str, Any] = {
        "real_tokens_per_second": round(real / total, 1),
        "padded_tokens_per_second": round(padded / total, 1),
        "supervised_tokens_per_second": round(supervised / total, 1),
        "ms_per_step": report.spread([1000 * each for each in seconds], 1),
        "tokens": tokens,
        "largest_batch": max(batch["padded"] for batch in batches),
        "tflops": round(flops / total / 1e12, 3),
    }
    if peak:
        found["mfu"] = round(flops / total / peak / 1e12, 4)
        found["mfu_head_on_supervised"] = round((flops - less) / total / peak / 1e12, 4)
    return found


def predicted(model: str, rung: Rung, found: dict[str, Any]) -> dict[str, float] | None:
    """What `boost_qa.train.cost` says of the measured steps; None for a GPU or a model that it does not know."""
    from boost_qa.train.cost import predict
    from boost_qa.train.plan import this_gpu
    from boost_qa.train.shapes import shape
    from boost_qa.train.workload import Training, Work

    gpu, config, name = this_gpu(), shape(model), found["attention"]
    if gpu is None or config is None:
        return None
    training = Training(
        rank=RANK,
        dropout=rung.dropout,
        input_casts=rung.input_casts,
        checkpoint_every=int(rung.checkpointing),
        compile_layers=rung.compiled,
        row_tokens=found["largest_batch"],
        attention="flash" if name.startswith("flash") else "torch_varlen" if name == "torch_varlen" else "sdpa",
    )
    tokens, steps = found["tokens"], len(found["ms_per_step"]["repeats"])
    work = Work(tokens["real"], tokens["padded"], tokens["supervised"], tokens["squares"] / 2, steps)
    said = predict(config, training, work, gpu)
    return {
        "real_tokens_per_second": round(said.tokens_per_second, 1),
        "mfu": round(said.mfu, 4),
        "allocated_gib": round(said.allocated / 2**30, 2),
    }


def make_clock(warmup: int, device: str) -> Any:
    """A callback that notes when each step ends; on a GPU in its own stream, without making it wait."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._marks: list[Any] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if device == "cuda":
                self._marks.append(torch.cuda.Event(enable_timing=True))
                self._marks[-1].record()
                if len(self._marks) == warmup:
                    torch.cuda.reset_peak_memory_stats()
            else:
                self._marks.append(time.perf_counter())

        def seconds(self) -> list[float]:
            """Of each step after the warm-up."""
            marks = self._marks[warmup - 1 :]
            if device == "cuda":
                torch.cuda.synchronize()
                return [one.elapsed_time(other) / 1000 for one, other in itertools.pairwise(marks)]
            return [other - one for one, other in itertools.pairwise(marks)]

    return Clock()


def peak_gib(device: str) -> dict[str, float]:
    """Most memory during the measured steps: in tensors, and held by the process."""
    import torch

    if device == "cuda":
        found = {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    else:
        found = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    return {name: round(number / 2**30, 2) for name, number in found.items()}


def compilation() -> dict[str, Any]:
    """What torch.compile says that it did: a graph break or many graphs would cost what compiling gains."""
    from torch._dynamo.utils import counters

    return {
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }


# --- is torch_varlen right? ---------------------------------------------------------------------------------


def check(device: str) -> dict[str, Any]:
    """Logits and gradients of one packed row: relative error against sdpa in float64, without and with a window."""
    from boost_qa.train.varlen import NAME, attention

    chosen = attention(NAME)
    if chosen.reason:
        return {"skipped": chosen.reason}
    found: dict[str, Any] = {}
    for window in (None, 256):
        errors = {
            "sdpa": _error(window, "sdpa", device),
            "torch_varlen": _error(window, NAME, device),
            "sdpa without boundaries": _error(window, "sdpa", device, boundaries=False),
        }
        worst = max(errors["torch_varlen"][key] / errors["sdpa"][key] for key in ("logits", "gradients"))
        found[f"window {window}"] = errors | {"as_near_as_sdpa": worst < 1.5}
    return found


def _error(window: int | None, attention: str, device: str, boundaries: bool = True) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM, MistralConfig
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    config = MistralConfig(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=2048,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=128,
        sliding_window=window,
        initializer_range=0.05,
    )
    rng = random.Random(SEED)
    lengths = (700, 301, 45, 900, 64)
    ids = [rng.randrange(1024) for _ in range(sum(lengths))]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True, pad_to_multiple_of=2048)
    batch = collate([{"input_ids": ids, "seq_lengths": list(lengths)}])
    batch.pop("labels")
    right = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in batch.items()}
    models = []
    for name in ("sdpa", attention):
        torch.manual_seed(SEED)
        own = copy.deepcopy(config)  # transformers writes the attention into it
        models.append(AutoModelForCausalLM.from_config(own, dtype=torch.bfloat16, attn_implementation=name).to(device))
    reference, model = models
    given = right if boundaries else {"input_ids": right["input_ids"]}
    pairs = zip(_results(model, given), _results(reference.double(), right), strict=True)
    errors = [float((found.double() - exact).norm() / exact.norm()) for found, exact in pairs]
    return dict(zip(("logits", "gradients"), errors, strict=True))


def _results(model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Logits, and the gradient of the first layer's queries."""
    import torch

    logits = model(**batch, use_cache=False).logits
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    weight = model.model.layers[0].self_attn.q_proj.weight
    (gradient,) = torch.autograd.grad((logits.double() * direction.to(logits.device)).sum(), weight)
    return logits.detach(), gradient


# --- all rungs ------------------------------------------------------------------------------------------------


def device() -> dict[str, Any]:
    """The GPU, its bfloat16 peak where it is known, and versions."""
    from importlib import metadata

    import torch

    from boost_qa.train.plan import this_gpu

    found: dict[str, Any] = {"name": "cpu"}
    if torch.cuda.is_available():
        gigabytes = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        found = {"name": torch.cuda.get_device_name(), "memory_gib": gigabytes, "cuda": torch.version.cuda}
        if known := this_gpu():
            found["bf16_tflops"] = known.bf16_tflops
    # reversed: of two on the path, the first is the one that is imported
    installed = {each.metadata["Name"]: each.version for each in reversed(list(metadata.distributions()))}
    return found | {"packages": {name: installed[name] for name in PACKAGES if name in installed}}


def in_process(job: list[str], options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """One job in a process of its own; what failed is a result too."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        same = ["--steps", options.steps, "--warmup", options.warmup, "--row-tokens", options.row_tokens]
        same += ["--peak-tflops", options.peak_tflops]
        command = [sys.executable, __file__, *map(str, same), "--one", *job, str(out)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        began = time.perf_counter()
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {seconds:.0f} s"}
        if not out.is_file():
            return {"failed": done.stderr.strip().splitlines()[-12:]}
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found | {"seconds_in_all": round(time.perf_counter() - began, 1)}


def jobs(models: list[str], rungs: list[str]) -> list[tuple[str, str]]:
    """(model, rung) in the order in which they matter."""
    ladder = [rung for rung in RUNGS if rung in rungs]
    first = [rung for rung in ("compiled", "trl_defaults") if rung in ladder]
    ordered = [("any", "check")] if "check" in rungs else []
    ordered += [(model, rung) for rung in first for model in models]
    return ordered + [(model, rung) for model in models for rung in ladder if rung not in first]


def show(result: dict[str, Any]) -> None:
    """The ladder as a table."""
    rows = []
    for model, found in result["models"].items():
        for rung in RUNGS:
            each = found.get(rung)
            if each and "failed" not in each:
                numbers = (each["real_tokens_per_second"], each["padded_tokens_per_second"])
                memory = next(iter(each["peak_gib"].values()))
                mfu = f"{each['mfu']:.1%}" if "mfu" in each else "-"
                ms = each["ms_per_step"]["median"]
                rows.append((f"{model} {rung}", *(f"{n:,.0f}" for n in numbers), mfu, f"{ms:,.0f}", f"{memory:.1f}"))
            elif each:
                rows.append((f"{model} {rung}", "failed", "", "", "", ""))
    report.show(result["device"]["name"], ("", "tok/s", "with pads", "MFU", "ms/step", "GiB"), rows)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    output = report.RESULTS / "train_throughput.json"
    parser.add_argument("--output", type=Path, default=output, help="JSON file (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=[*LARGE, "tiny"], default=LARGE, help="default: all but tiny")
    parser.add_argument("--rungs", nargs="+", choices=["check", *RUNGS], default=["check", *RUNGS], help="default: all")
    parser.add_argument("--steps", type=int, default=20, help="measured steps (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=5, help="steps before them, at least 1 (default: %(default)s)")
    parser.add_argument("--row-tokens", type=int, default=8192, help="of a packed row (default: %(default)s)")
    parser.add_argument("--peak-tflops", type=float, default=0, help="dense bfloat16; by default that of the GPU")
    parser.add_argument(
        "--limit-seconds", type=float, default=580, help="nothing runs longer than this (default: %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="keep what the output file has with the same settings")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "RUNG", "FILE"), help=argparse.SUPPRESS)
    return parser


def one(model: str, rung: str, file: Path, options: argparse.Namespace) -> None:
    """The whole work of a child process. What was measured is written before anything else can fail."""
    import torch

    if rung == "check":
        file.write_text(json.dumps(check("cuda" if torch.cuda.is_available() else "cpu")), encoding="utf-8")
        return
    found = measure(model, RUNGS[rung], options)
    file.write_text(json.dumps(found), encoding="utf-8")
    if said := predicted(model, RUNGS[rung], found):
        file.write_text(json.dumps(found | {"predicted": said}), encoding="utf-8")


def main() -> None:
    began = time.monotonic()
    options = arguments().parse_args()
    if options.one:
        model, rung, file = options.one
        one(model, rung, Path(file), options)
        return
    print(f"expected: {' '.join(PREDICTION.split())}")
    here = device()
    options.peak_tflops = options.peak_tflops or here.get("bf16_tflops", 0.0)
    settings = {
        **{name: getattr(options, name) for name in ("steps", "warmup", "row_tokens", "peak_tflops")},
        **{"seed": SEED, "padded_batch": BATCH, "lora_rank": RANK},
        "rungs": {name: dataclasses.asdict(rung) for name, rung in RUNGS.items()},
    }
    result: dict[str, Any] = {"device": here, "models": {}}
    if here["name"] == "cpu":
        result["note"] = "run on a CPU: this proves that the program works, and says nothing of speed on a GPU"
    if options.resume and options.output.is_file():
        earlier = json.loads(options.output.read_text(encoding="utf-8"))
        if earlier["settings"] == settings and earlier["result"]["device"] == here:
            result = earlier["result"]
    for model, rung in jobs(options.models, options.rungs):
        place = result if rung == "check" else result["models"].setdefault(model, {})
        left = options.limit_seconds - (time.monotonic() - began)
        if rung in place and "failed" not in place[rung]:
            continue
        if left < 15:
            print(f"{model} {rung}: no time left; --resume goes on here")
            continue
        place[rung] = in_process([model, rung], options, left)
        print(f"{model} {rung}: {json.dumps(place[rung])}", flush=True)
        report.write(options.output, PREDICTION, settings, result)
    show(result)


if __name__ == "__main__":
    main()
