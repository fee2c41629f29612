"""The plan before a fine-tuning: what it counts is what the run does, and what it says is understood."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fabricate import make_run
from rich.console import Console
from tiny_models import tiny
from typer.testing import CliRunner

from boost_qa.cli import app
from boost_qa.errors import RecipeError
from boost_qa.train.finetune import finetune
from boost_qa.train.gpus import gpus
from boost_qa.train.plan import make_plan, plan_recipe, recognise, shown
from boost_qa.train.prepare import assume
from boost_qa.train.settings import read_settings
from boost_qa.train.shapes import shape
from boost_qa.train.varlen import Attention

PROJECTIONS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
LORA = f"--use_peft true --lora_target_modules {PROJECTIONS} --lora_dropout 0 --lora_r 4"


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("plan")
    run, model = make_run(folder / "run"), tiny("qwen2", folder / "model", num_hidden_layers=4)
    return f"--dataset {run.path} --model_name_or_path {model} --max_length 512 --packing true {LORA}".split()


def text(plan) -> str:
    console = Console(record=True, width=150)
    console.print(shown(plan))
    return console.export_text()


@pytest.mark.parametrize(
    ("name", "gib", "key"),
    [
        ("NVIDIA H200", 139.8, "h200"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100"),
        ("NVIDIA H100 PCIe", 79.1, "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", 79.1, "a100-80"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "a100-40"),
        ("NVIDIA GeForce RTX 4090", 23.5, "4090"),
        ("NVIDIA RTX 6000 Ada Generation", 47.5, "rtx-6000-ada"),
        ("NVIDIA L40S", 44.0, "l40s"),
        ("NVIDIA GeForce RTX 4070", 11.6, None),
        ("Radeon VII", 16.0, None),
    ],
)
def test_a_gpu_is_known_by_the_name_its_driver_gives(name, gib, key):
    found = recognise(name, gib)
    assert (found and found.name) == key and (found is None or found.memory_gib == gib)


def test_a_run_takes_the_steps_and_tokens_that_were_planned(words, tmp_path):
    more = ["--use_cpu", "true", "--bf16", "false", "--per_device_train_batch_size", "2", "--num_train_epochs", "1"]
    more += [
        "--save_strategy",
        "no",
        "--logging_steps",
        "1",
        "--report_to",
        "none",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    planned = plan_recipe(read_settings([*words, *more]), 1, None).counts
    finetune(read_settings([*words, *more]), Console(quiet=True))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len([entry for entry in run["losses"] if "loss" in entry]) == planned.steps == run["measured"]["steps"]
    assert run["plan"]["counts"]["tokens"] == planned.tokens and planned.fill > 0.8


def test_the_command_says_what_it_will_cost(words, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    keys = dict(zip(words[::2], words[1::2], strict=False))
    recipe.write_text(
        f"dataset: {keys['--dataset']}\nmodel_name_or_path: {keys['--model_name_or_path']}\nmax_length: 512\n"
        "bf16: true\n"
        f"packing: true\nuse_peft: true\nlora_target_modules: [{PROJECTIONS.replace(' ', ', ')}]\n"
    )
    arguments = ["plan", str(recipe), "loss_on=last", "--gpu", "h100", "--gpus", "2", "--sharding", "fsdp"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0 and "2 x h100" in said.output and "tokens a second" in said.output
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (
        told["gpu"] == "h100" and told["prediction"]["fits"] and told["counts"]["supervised"] < told["counts"]["tokens"]
    )
    assert told["counts"]["speakers"]["weak_student"][1] == 0
    with pytest.raises(RecipeError, match="nearest known key: 'loss_on'"):
        CliRunner().invoke(app, ["plan", str(recipe), "loss_in=last"], catch_exceptions=False)


def test_what_does_not_fit_says_what_would():
    recipe = ["--config", "llama-3-8b/lora_best", "--checkpoint_every", "0", "--attn_implementation", "sdpa"]
    plan = plan_recipe(read_settings([*recipe, "--gpu", "l40s"], plan_only=True), 1, None, dialogues=200)
    assert not plan.prediction.fits and "this does not fit" in text(plan) and "checkpoint_every" in text(plan)
    chosen = plan_recipe(
        read_settings([*recipe, "--checkpoint_every", "auto", "--gpu", "l40s"], plan_only=True), 1, None, dialogues=200
    )
    assert chosen.prediction.fits and chosen.checkpoint_every > 0


def test_what_trains_here_has_the_memory_of_this_gpu_whatever_its_speed_is_reckoned_with(monkeypatch):
    """A card of 24 GiB whose speed is not in gpus.yaml, told to reckon with that of an H100."""
    card = SimpleNamespace(name="NVIDIA Unheard-of 24GB", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    settings = read_settings(["--config", "llama-3-8b/lora_best", "--gpu", "h100"], plan_only=True)
    config, counts = shape(settings.model.model_name_or_path), assume(2000, 600, settings, 1)
    planned, trained = (make_plan(settings, config, counts, 1, None, here) for here in (None, Attention("sdpa")))
    assert (planned.gpu.memory_gib, trained.gpu.memory_gib) == (gpus()["h100"].memory_gib, 24)
    assert planned.prediction.fits and trained.prediction.fits and trained.gpu.name == "h100"
    assert trained.checkpoint_every == 1 and planned.checkpoint_every != 1, "it would have been out of memory"


def test_turn_tokens_that_lora_does_not_train_are_warned_of(words):
    warned = plan_recipe(read_settings([*words, "--template", "chatml", "--use_cpu", "true"]), 1, None)
    assert "or generation may never stop" in text(warned) or "template: plain" in text(warned)
    assert not plan_recipe(read_settings([*words, "--use_cpu", "true"]), 1, None).warnings


def test_more_checkpointing_than_layers_is_refused(words):
    with pytest.raises(RecipeError, match="checkpoint_every: 9, but the model has 4 layers"):
        plan_recipe(read_settings([*words, "--checkpoint_every", "9", "--use_cpu", "true"]), 1, None)


def test_dialogues_longer_than_the_model_was_made_for(words, tmp_path):
    small = tiny("qwen2", tmp_path / "small", max_position_embeddings=64)
    chosen = [str(small) if word.endswith("/model") else word for word in words]
    with pytest.raises(RecipeError, match="the model was made for 64"):
        plan_recipe(read_settings([*chosen, "--use_cpu", "true"]), 1, None)


def test_recipes_lie_where_the_package_finds_them():
    assert Path(read_settings(["--config", "mistral-7b/qlora"], plan_only=True).file).is_file()
