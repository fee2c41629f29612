"""The keys of a training recipe that are ours; all others are TRL's."""

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from boost_qa.train.gpus import gpu as known_gpu

LossOn = Literal["all", "not_weak", "last"]
TooLong = Literal["error", "drop", "cut"]
TemplateName = Literal["plain", "llama3", "chatml"]


@dataclass
class DialogueArguments:
    """Our keys; each help text is what `--help` prints."""

    dataset: str = field(
        default="",
        metadata={
            "help": "What to train on: `boost_qa`, a folder that `boost-qa export` wrote, a run folder, a file (.json, "
            ".jsonl, .parquet), or a dataset on the Hub. Rows have `messages` (role/content) or `conversations` "
            "(from/value), and `speakers` where `loss_on` is `not_weak`."
        },
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Config of the dataset, such as `debate`; by default its own default (`all`)."}
    )
    dataset_split: str = field(
        default="train", metadata={"help": "Split to train on; slices such as train[:50%%] work."}
    )
    dataset_rows: int | None = field(
        default=None,
        metadata={
            "help": "Train on so many rows only, drawn at random, the same ones each time; smaller sets are parts of "
            "larger ones. By default all."
        },
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Commit, tag or branch of a dataset on the Hub; run.json keeps the commit."}
    )
    dataset_recipe: str = field(
        default="demo", metadata={"help": "With `dataset: boost_qa`, the recipe whose dialogues are meant."}
    )
    validation: float = field(
        default=0.0,
        metadata={
            "help": "Share of the records to hold out from training and evaluate on. A record is held out with all of "
            "its dialogues, the same ones each time."
        },
    )
    validation_split: str | None = field(
        default=None, metadata={"help": "A split of the dataset to evaluate on, instead of holding some out."}
    )
    validation_seed: int = field(default=0, metadata={"help": "Another seed holds other records out."})
    template: str = field(
        default="plain",
        metadata={
            "help": "How a dialogue is written for the model. `plain`: role names as text, and the base model's own "
            "end-of-text token after each answer. `llama3`, `chatml`: for models that were trained on those turn "
            "tokens; LoRA does not teach them to a base model, which then may never stop.",
            "choices": list(get_args(TemplateName)),
        },
    )
    loss_on: str = field(
        default="all",
        metadata={
            "help": "Which assistant turns the model learns to write. `all`: each one, the weak student's wrong answer "
            "included. `not_weak`: the weak student's and the debaters' turns are context only. `last`: the last one.",
            "choices": list(get_args(LossOn)),
        },
    )
    too_long: str = field(
        default="error",
        metadata={
            "help": "What to do with a dialogue of more than `max_length` tokens: stop with an `error`, `drop` it, or "
            "`cut` it off (its last answer then has no end).",
            "choices": list(get_args(TooLong)),
        },
    )
    dialogues_per_step: int | None = field(
        default=None,
        metadata={
            "help": "With `packing`, where a row holds many dialogues: choose gradient_accumulation_steps so that a "
            "step sees about so many."
        },
    )
    checkpoint_every: str = field(
        default="auto",
        metadata={
            "help": "Recompute the activations of every n-th layer instead of keeping them: 0 none, 1 each layer. "
            "`auto`: as few as the plan says this GPU's memory needs."
        },
    )
    input_casts: bool = field(
        default=False,
        metadata={"help": "Keep PEFT's float32 copies of each adapter's input. Under autocast they change no digit."},
    )
    compile_layers: bool = field(
        default=False, metadata={"help": "Compile each decoder layer; the first steps are slow."}
    )
    dry_run: bool = field(default=False, metadata={"help": "Read, tokenise, count and plan; load and train nothing."})
    gpu: str | None = field(
        default=None,
        metadata={"help": "GPU that the plan reckons with, such as h200 or 4090; by default the one here."},
    )

    def __post_init__(self) -> None:
        for name in ("template", "loss_on", "too_long"):
            choices = next(each.metadata["choices"] for each in fields(self) if each.name == name)
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {getattr(self, name)!r} is none of {', '.join(choices)}")
        if self.checkpoint_every != "auto" and not self.checkpoint_every.isdigit():
            raise ValueError(f"checkpoint_every: {self.checkpoint_every!r} is neither `auto` nor a number of layers")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation: {self.validation} is no share from 0 to below 1")
        if self.validation and self.validation_split:
            raise ValueError("validation and validation_split: give one of them, not both")
        if self.dataset_rows is not None and self.dataset_rows < 1:
            raise ValueError(f"dataset_rows: {self.dataset_rows} is not positive")
        if self.dialogues_per_step is not None and self.dialogues_per_step < 1:
            raise ValueError(f"dialogues_per_step: {self.dialogues_per_step} is not positive")
        if self.gpu is not None:
            known_gpu(self.gpu)
