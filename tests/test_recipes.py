"""Every recipe under recipes/ is read and planned with a tiny model of its own architecture."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from fabricate import make_run
from rich.console import Console
from tiny_models import tiny

from boost_qa.train import telling
from boost_qa.train.finetune import finetune
from boost_qa.train.plan import plan_recipe
from boost_qa.train.settings import read_settings

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes" / "sft").rglob("*.yaml"))
FAMILY = {"llama-3-8b": "llama", "qwen2.5-7b": "qwen2", "mistral-7b": "mistral", "smollm2-135m": "llama"}
PREDICTED = re.compile(
    r"^# Predicted, not measured: (\d+) GiB, (.+) on (\d+) x (\S+)\n"
    r"#   \(boost-qa plan (\S+) --gpu (\S+) --gpus (\d+)(?: --sharding (\S+))? --dialogues (\d+) --tokens (\d+)\)$",
    re.MULTILINE,
)
COMMAND = re.compile(
    r"^#   accelerate launch --quiet --config_file (\S+)(?: --num_processes \d)? -m boost_qa.train --config (\S+)$",
    re.MULTILINE,
)


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", dialogues=12)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {family: tiny(family, folder / family) for family in ("llama", "qwen2", "mistral")}


def test_there_are_the_recipes_that_the_readme_names():
    kinds = ("lora", "lora_best", "qlora", "full")
    expected = {f"{model}/{kind}" for model in FAMILY for kind in kinds if model != "smollm2-135m"}
    found = {file.relative_to(ROOT / "recipes" / "sft").with_suffix("").as_posix() for file in RECIPES}
    assert found == expected | {"smollm2-135m/lora_cpu"}


@pytest.mark.parametrize("file", RECIPES, ids=name)
def test_a_recipe_dry_runs_with_a_tiny_model_of_its_architecture(file, run, models, tmp_path):
    family = "qwen2" if "smollm2" in str(file) else FAMILY[file.parent.name]  # SmolLM2's recipe needs ChatML's tokens
    words = f"--config {file} --model_name_or_path {models[family]} --dataset {run.path} --gpu h200 --dry_run true"
    console = Console(record=True, width=120)
    settings = read_settings(
        [*words.split(), "--validation", "0", "--eval_strategy", "no", "--output_dir", str(tmp_path / "out")]
    )
    assert finetune(settings, console) is None and not (tmp_path / "out").exists()
    said = console.export_text()
    assert "with loss" in said and "memory of one device" in said and "weak_student" in said
    assert settings.method == {"q": "qlora", "f": "full"}.get(file.stem[0], "lora")


@pytest.mark.parametrize("file", RECIPES, ids=name)
def test_a_recipe_begins_with_the_command_that_runs_it(file):
    config, recipe = COMMAND.search(file.read_text()).groups()
    assert recipe == name(file) and (ROOT / config).is_file()


@pytest.mark.parametrize("file", [file for file in RECIPES if "smollm2" not in str(file)], ids=name)
def test_what_a_recipe_is_said_to_cost_is_what_the_plan_says(file):
    found = PREDICTED.search(file.read_text())
    gib, time, gpus, gpu, recipe, same_gpu, same_gpus, sharding, dialogues, tokens = found.groups()
    assert (recipe, same_gpu, same_gpus) == (name(file), gpu, gpus)
    settings = read_settings(["--config", str(file), "--gpu", gpu], plan_only=True)
    plan = plan_recipe(settings, int(gpus), sharding, int(dialogues), int(tokens))
    assert plan.prediction.fits
    said = f"{plan.prediction.total / 2**30:.0f} GiB, {dict(telling.describe(plan.prediction))['time']}"
    assert f"{gib} GiB, {time}" == said


@pytest.mark.parametrize("model", ["llama-3-8b", "qwen2.5-7b", "mistral-7b"])
def test_the_faithful_recipe_has_every_published_number(model):
    recipe = yaml.safe_load((ROOT / "recipes" / "sft" / model / "lora.yaml").read_text())
    published = {
        "num_train_epochs": 2,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "optim": "adamw_torch_fused",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "use_peft": True,
    }
    assert {key: recipe[key] for key in published} == published
    text = (ROOT / "recipes" / "sft" / model / "lora.yaml").read_text()
    unknown = set(re.findall(r"^(\w+):.*# UNKNOWN", text, re.MULTILINE))
    assert unknown == set("dtype template loss_on max_length too_long packing lora_r lora_alpha lora_dropout "
                          "lora_target_modules weight_decay max_grad_norm bf16 seed".split())  # fmt: skip


@pytest.mark.parametrize("file", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=name)
def test_accelerate_reads_its_configs(file):
    config = load_config_from_file(str(file))
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED", "fsdp2_multinode": "FSDP"}
    assert getattr(config.distributed_type, "value", config.distributed_type) == kinds.get(file.stem, "NO")


def test_the_launcher_for_several_nodes_is_sound_and_uses_what_is_there():
    script = ROOT / "recipes" / "slurm" / "train.slurm"
    subprocess.run(["bash", "-n", script], check=True)
    assert (ROOT / re.search(r"--config_file (\S+)", script.read_text())[1]).is_file()
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr
