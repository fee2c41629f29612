"""One fine-tuning, from a recipe to a folder with an adapter and `run.json`.

The folder is also where a stopped run goes on: the same command finds the last whole checkpoint. It belongs
to one recipe; another one is refused.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState
from peft.tuners.tuners_utils import BaseTunerLayer
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, PreTrainedModel
from trl import SFTTrainer, get_peft_config, get_quantization_config

from boost_qa.train.dialogues import load_dialogues
from boost_qa.train.plan import Plan, make_plan, shown
from boost_qa.train.preflight import Parts, read_parts
from boost_qa.train.prepare import Rows, prepare
from boost_qa.train.push import check_base, check_rights, push, target_of
from boost_qa.train.report import Meter, Report
from boost_qa.train.settings import Settings
from boost_qa.train.varlen import attention

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# What an adapter or model folder consists of. TRL and PEFT also leave a card with gaps, and a pickle of all arguments.
_KEPT = re.compile(
    r".*\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json|chat_template\.jinja"
    r"|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|tokenizer\.model|merges\.txt"
)


def finetune(settings: Settings, console: Console | None = None) -> Path | None:
    """Train as the recipe says; go on where a stopped run was.

    Returns:
        The folder with the adapter (or the whole model), tokenizer, generation config, run.json and loss.png;
        None after a dry run.

    Raises:
        BoostQAError: for whatever is wrong beforehand, before weights are loaded.
        RunError: if the folder belongs to another recipe.
        HubError: if `push_to_hub` fails; the folder is whole, and the same command publishes it.
    """
    state = PartialState()
    console = console or Console()
    folder = Path(settings.sft.output_dir)
    target = target_of(settings)
    chosen = None if settings.ours.dry_run else attention(settings.model.attn_implementation or "sdpa")
    if target and state.is_main_process:
        check_rights(target)
    parts = read_parts(settings)
    if target and state.is_main_process:
        check_base(target, settings, parts)
    with _quiet(state.is_main_process):
        dialogues = load_dialogues(settings.ours)
        report = Report(folder, settings, parts, dialogues.facts, state.num_processes)
        if chosen and report.is_done():
            if state.is_main_process:
                console.print(f"{folder}: this recipe is trained already; delete the folder to train it again")
                if target:
                    push(folder, target, console)
            return folder
        rows = prepare(dialogues.train, dialogues.validation, parts.tokenizer, settings, state.num_processes)
    plan = make_plan(settings, parts.config, rows.counts, state.num_processes, attention=chosen)
    if state.is_main_process:
        console.print(shown(plan))
    if chosen is None:
        return None
    state.wait_for_everyone()  # all have looked at the folder before it is written to
    with state.main_process_first():
        if state.is_main_process:
            report.begin(plan)
        checkpoint = last_checkpoint(folder, state.num_processes)
    trainer = make_trainer(settings, parts, rows, plan)
    meter = Meter(trainer)
    trainer.add_callback(meter)
    trainer.train(resume_from_checkpoint=checkpoint)
    _save(trainer, folder, settings)
    if state.is_main_process:
        report.finish(plan, trainer.state.log_history, meter.measured())
        console.print(f"written: {folder}")
        if target:
            push(folder, target, console)
    return folder


def make_trainer(settings: Settings, parts: Parts, rows: Rows, plan: Plan, model: PreTrainedModel | None = None) -> Any:
    """TRL's trainer for prepared rows.

    Args:
        model: weights to train instead of those the recipe names.
    """
    args = settings.sft
    args.gradient_accumulation_steps = rows.counts.accumulation
    args.gradient_checkpointing = plan.checkpoint_every > 0
    if plan.checkpoint_every:
        args.gradient_checkpointing_kwargs = {"use_reentrant": False, "every_n_layers": plan.checkpoint_every}
    args.dataset_kwargs = {"skip_prepare_dataset": True}  # the rows are tokenised, marked and packed
    args.push_to_hub = False  # `push` does it, when the folder is whole
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False  # transformers knows it of its own models, not of PEFT's
    if model is None:
        args.model_init_kwargs = {
            **(args.model_init_kwargs or {}),
            "revision": parts.revision,
            "dtype": settings.model.dtype,
            "attn_implementation": plan.attention,
        }
    peft = get_peft_config(settings.model)
    if peft is not None:
        peft.revision = parts.revision  # so that the adapter names the very base it was trained on
    trainer = _Trainer(
        model=model or parts.source,
        args=args,
        train_dataset=rows.train,
        eval_dataset=rows.validation,
        processing_class=parts.tokenizer.tokenizer,
        peft_config=peft,
        quantization_config=get_quantization_config(settings.model),
    )
    _stop_at(trainer.model, parts.tokenizer.stop)
    _stay_trainable(trainer.model)
    autocast = args.bf16 or args.fp16  # without it float32 adapters need their input in float32
    quick(
        trainer.model,
        input_casts=settings.ours.input_casts or not autocast,
        compile_layers=settings.ours.compile_layers,
    )
    return trainer


def quick(model: Any, *, input_casts: bool, compile_layers: bool) -> None:
    """Switch PEFT's float32 copies of adapter inputs off, and compile the decoder layers one by one.

    Under autocast the copies are cast straight back, so without them the losses are the same to the last digit.
    """
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = input_casts
    if compile_layers:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        for layer in base.model.layers:
            layer.compile()


def last_checkpoint(folder: Path, processes: int) -> str | None:
    """The newest checkpoint that was written to its end; those that were not are deleted."""
    found = [
        (int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(path.name))
    ]
    for _, path in sorted(found, reverse=True):
        if is_whole(path, processes):
            return str(path)
        shutil.rmtree(path, ignore_errors=True)
    return None


def is_whole(checkpoint: Path, processes: int) -> bool:
    """Whether all is there that a run needs to go on to the same losses."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    optimizer = any(any(checkpoint.glob(pattern)) for pattern in ("optimizer*", "global_step*"))
    return optimizer and len(list(checkpoint.glob("rng_state*.pth"))) == processes


class _Trainer(SFTTrainer):  # type: ignore[misc]
    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: TRL's card names no base model, and a wrong licence key."""

    def _send_telemetry(self) -> None:
        """Nothing: TRL would tell the Hub about each run."""


def _stop_at(model: Any, stop: int) -> None:
    """Generation ends at our stop token, and at those the model had before. Saved with the adapter."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    had = base.generation_config.eos_token_id
    others = [] if had is None else had if isinstance(had, list) else [had]
    try:
        base.generation_config.validate(strict=True)
    except ValueError:  # such as a temperature without sampling: it could be read, and not be written
        kept = {name: getattr(base.generation_config, name) for name in ("bos_token_id", "pad_token_id")}
        base.generation_config = GenerationConfig(**kept)
    base.generation_config.eos_token_id = [stop, *(each for each in others if each != stop)]
    base.config.eos_token_id = stop


def _stay_trainable(model: Any) -> None:
    """On a CPU with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first evaluation; those have no backward."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _save(trainer: Any, folder: Path, settings: Settings) -> None:
    """The finished files, written beside and then moved into place."""
    beside = folder / ".writing"
    trainer.save_model(str(beside))
    if not trainer.args.should_save:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.generation_config.save_pretrained(beside)
    if settings.method == "full":
        cast_files(beside, getattr(torch, str(settings.model.dtype)))
    for file in sorted(beside.iterdir()):
        if _KEPT.fullmatch(file.name):
            file.replace(folder / file.name)
    shutil.rmtree(beside)


def cast_files(folder: Path, dtype: torch.dtype) -> None:
    """Weights in the recipe's type: FSDP trains, and writes, float32 copies of them."""
    for file in sorted(folder.glob("*.safetensors")):
        tensors = load_file(file)
        if any(tensor.dtype == torch.float32 != dtype for tensor in tensors.values()):
            save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


@contextlib.contextmanager
def _quiet(main: bool) -> Iterator[None]:
    """Progress bars on one process only."""
    if not main:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


__all__ = ["finetune", "last_checkpoint", "make_trainer", "quick"]
