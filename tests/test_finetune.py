"""Whole fine-tunings of tiny models through `accelerate launch`, as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from boost_qa.errors import RunError
from boost_qa.train.finetune import cast_files, finetune, is_whole
from boost_qa.train.settings import read_settings

ROOT = Path(__file__).parent.parent
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ANSWERS = {"What is the capital of France?": "It is Paris.", "What is six times seven?": "It is 42."}
LORA = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target_modules": PROJECTIONS}
METHOD = {
    "lora": LORA | {"dtype": "float32", "learning_rate": 1e-2},
    "qlora": LORA | {"dtype": "bfloat16", "learning_rate": 1e-2, "load_in_4bit": True},
    "full": {"use_peft": False, "dtype": "float32", "learning_rate": 1e-2},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("data") / "dialogues.jsonl"
    turns = [
        [{"from": "human", "value": question}, {"from": "gpt", "value": answer}] for question, answer in ANSWERS.items()
    ]
    file.write_text("".join(json.dumps({"conversations": each}) + "\n" for each in turns * 8))
    return file


def recipe(folder: Path, dataset: Path, model: Path, method: str, **changes) -> list[str]:
    """The command line of a small recipe."""
    keys = {
        "dataset": str(dataset),
        "model_name_or_path": str(model),
        "attn_implementation": "torch_varlen",
        "max_length": 128,
        "packing": True,
        "num_train_epochs": 4,
        "per_device_train_batch_size": 1,
        "bf16": method == "qlora",
        "use_cpu": True,
        "logging_steps": 1,
        "save_steps": 4,
        "report_to": "none",
        "output_dir": str(folder / "out"),
    }
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(keys | METHOD[method] | changes))
    config = ROOT / "recipes" / "accelerate" / "cpu.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launch, "-m", "boost_qa.train", "--config", str(file)]


def straight(command: list[str]) -> list[str]:
    """The command without accelerate."""
    return [sys.executable, *command[command.index("-m", 2) :]]


def train(command: list[str], **more) -> subprocess.CompletedProcess:
    # one thread: tiny matrices only wait for each other, and sums are always added in the same order
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240, **more)


def report(folder: Path) -> dict:
    return json.loads((folder / "out" / "run.json").read_text())


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in report(folder)["losses"] if "loss" in entry]


def answer(model, tokenizer, question: str) -> list[int]:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    return model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :].tolist()


def test_a_full_fine_tuning_learns_its_answers_and_stops_by_itself(dataset, tmp_path):
    base = tiny("mistral", tmp_path / "base")
    changes = {"num_train_epochs": 60, "save_strategy": "no", "packing": False, "max_length": 64}
    done = train(recipe(tmp_path, dataset, base, "full", **changes, per_device_train_batch_size=8))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    before = AutoModelForCausalLM.from_pretrained(base)
    for question, expected in ANSWERS.items():
        said = answer(model, tokenizer, question)
        assert tokenizer.decode(said) == f"{expected}</s>"
        assert answer(before, tokenizer, question) != said
    assert losses(tmp_path)[-1] < 0.1 < losses(tmp_path)[0]
    console = Console(record=True, width=200)
    assert finetune(read_settings(["--config", str(tmp_path / "recipe.yaml")]), console) == out
    assert "trained already" in console.export_text()


def test_a_killed_run_goes_on_to_the_same_losses(dataset, tmp_path):
    base = tiny("llama", tmp_path / "base")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    done = train(straight(recipe(tmp_path / "whole", dataset, base, "lora", num_train_epochs=20)))
    assert done.returncode == 0, done.stderr
    command = straight(recipe(tmp_path / "killed", dataset, base, "lora", num_train_epochs=20))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    first = tmp_path / "killed" / "out" / "checkpoint-4" / "trainer_state.json"
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert first.exists() and not report(tmp_path / "killed")["finished"]
    # the kill may have come while a checkpoint was being written
    torn = tmp_path / "killed" / "out" / "checkpoint-999"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match="learning_rate: 0.01 there, 0.5 now"):
        finetune(read_settings(["--config", str(tmp_path / "killed" / "recipe.yaml"), "--learning_rate", "0.5"]))
    resumed = train(command)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert report(tmp_path / "killed")["measured"]["steps"] < report(tmp_path / "whole")["measured"]["steps"]
    killed, whole = (load_file(tmp_path / name / "out" / "adapter_model.safetensors") for name in ("killed", "whole"))
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in whole)


def test_a_qlora_adapter_loads_anywhere(dataset, tmp_path):
    base = tiny("qwen2", tmp_path / "base")
    done = train(recipe(tmp_path, dataset, base, "qlora", eval_strategy="epoch", validation=0.5))
    assert done.returncode == 0, done.stderr
    check_adapter(tmp_path, base)
    assert [entry for entry in report(tmp_path)["losses"] if "eval_loss" in entry]


def check_adapter(folder: Path, base: Path) -> None:
    """What a run must leave: an adapter that plain PEFT loads, nothing that a server refuses, and the whole story."""
    out = folder / "out"
    kept = {path.name for path in out.iterdir() if path.is_file()}
    expected = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
                "chat_template.jinja", "generation_config.json", "run.json", "loss.png"}  # fmt: skip
    assert kept == expected
    assert not [path for path in out.iterdir() if path.is_dir() and not path.name.startswith("checkpoint-")]
    with safe_open(out / "adapter_model.safetensors", "pt") as adapter:
        names = list(adapter.keys())
    assert names and all(name.split(".")[-3] in PROJECTIONS and ".lora_" in name for name in names)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [tokenizer.eos_token_id]
    plain = AutoModelForCausalLM.from_pretrained(base)
    prompt = tokenizer("six times seven", return_tensors="pt")
    with torch.no_grad():
        assert not torch.equal(model(**prompt).logits, plain(**prompt).logits)
    told = report(folder)
    assert told["finished"] and told["measured"]["tokens_per_second"] > 0 and told["measured"]["peak_memory_bytes"] > 0
    assert told["versions"]["trl"] and told["data"]["fingerprint"]
    resolved = told["recipe"]["resolved"]
    assert (resolved["lora_r"], resolved["loss_on"], resolved["adam_beta1"], resolved["max_length"]) == (
        4,
        "all",
        0.9,
        128,
    )
    assert losses(folder)[-1] < losses(folder)[0]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_each_family_trains_with_each_method(family, method, dataset, tmp_path):
    base = tiny(family, tmp_path / "base")
    done = train(recipe(tmp_path, dataset, base, method))
    assert done.returncode == 0, done.stderr
    if method == "full":
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    else:
        check_adapter(tmp_path, base)


@pytest.mark.slow
def test_two_processes_share_the_work(dataset, tmp_path):
    base = tiny("llama", tmp_path / "base")
    command = recipe(tmp_path, dataset, base, "lora", packing=False, ddp_backend="gloo")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]  # accelerate's needs GPUs or MPI
    done = train([*launch, *straight(command)[1:]])
    assert done.returncode == 0, done.stderr
    told = report(tmp_path)
    assert told["measured"]["processes"] == 2 and told["measured"]["distributed"] == "MULTI_CPU"
    assert told["plan"]["counts"]["steps"] == told["measured"]["steps"] == len(losses(tmp_path)) == 32
    check_adapter(tmp_path, base)


@pytest.mark.slow
def test_input_casts_and_checkpointing_change_no_digit(dataset, tmp_path):
    base = tiny("llama", tmp_path / "base", num_hidden_layers=4)
    found = []
    ways = [{}, {"input_casts": True}, {"checkpoint_every": 2}, {"checkpoint_every": 1}, {"compile_layers": True}]
    for number, changes in enumerate(ways):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = train(recipe(folder, dataset, base, "lora", bf16=True, pad_to_multiple_of=128, **changes))
        assert done.returncode == 0, done.stderr
        found.append(losses(folder))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[4] == pytest.approx(found[0], abs=1e-2)  # compiled sums are rounded elsewhere


# --- in this process -----------------------------------------------------------------------------


def here(folder: Path, dataset: Path, base: Path, method: str = "lora", **changes) -> Path | None:
    recipe(folder, dataset, base, method, num_train_epochs=1, save_strategy="no", **changes)
    return finetune(read_settings(["--config", str(folder / "recipe.yaml")]), Console(quiet=True))


def test_a_start_that_failed_binds_nobody(dataset, tmp_path):
    base = tiny("llama", tmp_path / "base")
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(Exception, match=r"(?i)header|safetensors"):
        here(tmp_path, dataset, base)
    assert not report(tmp_path)["finished"]
    (base / "model.safetensors").write_bytes(weights)
    assert here(tmp_path, dataset, base, lora_r=2)
    with pytest.raises(RunError, match="lora_r: 2 there, 3 now"):
        here(tmp_path, dataset, base, lora_r=3)


def test_a_base_in_bfloat16_trains_without_autocast(dataset, tmp_path):
    base = tiny("qwen2", tmp_path / "base")
    assert here(tmp_path, dataset, base, dtype="bfloat16", bf16=False)


def test_a_base_whose_generation_config_contradicts_itself_is_still_saved(dataset, tmp_path):
    base = tiny("mistral", tmp_path / "base")
    odd = json.loads((base / "generation_config.json").read_text()) | {"do_sample": False, "temperature": 0.3}
    (base / "generation_config.json").write_text(json.dumps(odd))
    out = here(tmp_path, dataset, base)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [2]


def test_a_checkpoint_is_whole_when_all_is_there(tmp_path):
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    for name in ("optimizer.pt", "rng_state_0.pth", "rng_state_1.pth"):
        (folder / name).touch()
    assert not is_whole(folder, 2)
    (folder / "trainer_state.json").write_text('{"global_step": 7')
    assert not is_whole(folder, 2)
    (folder / "trainer_state.json").write_text('{"global_step": 7}')
    assert is_whole(folder, 2) and not is_whole(folder, 3)
    (folder / "optimizer.pt").unlink()
    assert not is_whole(folder, 2)


def test_whole_models_are_written_in_the_type_of_the_recipe(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    cast_files(tmp_path, torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
