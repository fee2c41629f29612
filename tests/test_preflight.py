"""What is wrong with a model is said before anything large is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from tiny_models import tiny, tiny_tokenizer
from transformers import AutoConfig

from boost_qa.errors import ModelError, RecipeError
from boost_qa.train.layer import profile_layer
from boost_qa.train.preflight import read_parts
from boost_qa.train.settings import read_settings
from boost_qa.train.workload import Training

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("models") / "llama", max_position_embeddings=512)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def parts(model: Path | str, **changes):
    keys = {"dataset": "x", "model_name_or_path": str(model), "max_length": 256, "use_cpu": "true"} | changes
    words = [word for key, value in keys.items() for word in (f"--{key}", *str(value).split())]
    return read_parts(read_settings(words))


def refused(model: Path | str, kind=ModelError, **changes) -> str:
    with pytest.raises(kind) as error:
        parts(model, **changes)
    return str(error.value)


def test_a_sound_model_is_read(model):
    read = parts(model, use_peft="true", lora_target_modules="q_proj down_proj")
    assert (read.source, read.revision, read.config.model_type) == (str(model), None, "llama")
    assert read.tokenizer.tokenizer.eos_token == "<|end_of_text|>"


def test_a_model_that_is_not_there(tmp_path):
    assert "neither here nor to be had from the Hub" in refused("nobody/nothing")
    assert "no-such-model" in refused("no-such-model")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(tmp_path / "empty")


def test_a_folder_without_weights(tmp_path):
    folder = tiny("qwen2", tmp_path / "model")
    next(folder.glob("*.safetensors")).unlink()
    assert "a config.json and no weights" in refused(folder)


def test_a_model_that_does_not_write(tmp_path):
    AutoConfig.for_model("vit").save_pretrained(tmp_path)
    tiny_tokenizer("llama").save_pretrained(tmp_path)
    assert "not a causal language model: vit" in refused(tmp_path)


def test_layers_that_the_model_does_not_have(model):
    said = refused(model, RecipeError, use_peft="true", lora_target_modules="q_proj query_key_value")
    assert "has no query_key_value" in said and "gate_proj" in said


def test_one_layer_is_looked_for_by_its_name(model):
    parts(model, use_peft="true", lora_target_modules="q_proj")


def test_an_attention_that_does_not_exist(model):
    assert "attn_implementation" in refused(model, RecipeError, attn_implementation="sdap")
    assert "attn_implementation" in refused(model, RecipeError, attn_implementation="flash_attention_2")
    parts(model, attn_implementation="torch_varlen")


def test_looking_at_a_model_does_not_shard_it(model, monkeypatch):
    """DeepSpeed's ZeRO-3 takes hold of every model that transformers makes from a config."""
    monkeypatch.setattr("transformers.modeling_utils.is_deepspeed_zero3_enabled", lambda: True)
    config = parts(model, use_peft="true", lora_target_modules="q_proj").config
    profile_layer(config, Training(method="lora", rank=4, targets=("q_proj",), row_tokens=64))


def test_code_of_its_own_is_not_run(model, tmp_path):
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "odd.py").write_text("raise SystemExit('code of the model was run')")
    assert "brings code of its own" in refused(tmp_path)


def test_a_tracker_that_is_not_installed(model):
    assert "pip install trackio" in refused(model, RecipeError, report_to="trackio")


PUSH = """
import sys
from huggingface_hub import HfApi
for kind, name, folder in (("model", "alice/tiny", sys.argv[1]), ("dataset", "alice/rows", sys.argv[2])):
    HfApi().create_repo(name, repo_type=kind)
    print(HfApi().upload_folder(repo_id=name, repo_type=kind, folder_path=folder).oid)
"""


def test_gated_and_open_models_and_datasets_of_the_hub(model, tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    said = [{"role": "user", "content": "One and one?"}, {"role": "assistant", "content": "Two."}]
    (rows / "train.jsonl").write_text((json.dumps({"messages": said}) + "\n") * 4)
    words = "--dataset alice/rows --model_name_or_path alice/tiny --max_length 64 --use_cpu true --bf16 false "
    words += "--logging_steps 1 --num_train_epochs 1 --save_strategy no --report_to none"
    words += f" --output_dir {tmp_path / 'out'}"

    with HubServer(tmp_path / "hub") as hub:

        def client(user: str, arguments: list[str]) -> subprocess.CompletedProcess:
            chosen = {"HF_ENDPOINT": hub.url, "HF_TOKEN": user, "HF_HOME": str(tmp_path / user)}
            chosen |= {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
            return subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, env=kept | chosen, capture_output=True, text=True, timeout=240
            )

        pushed = client("hf_alice", ["-c", PUSH, str(model), str(rows)])
        assert pushed.returncode == 0, pushed.stderr
        commits = pushed.stdout.split()
        trained = client("hf_bob", ["-m", "boost_qa.train", *words.split()])
        assert trained.returncode == 0, trained.stderr
        told = json.loads((tmp_path / "out" / "run.json").read_text())
        assert [told["model"]["revision"], told["data"]["revision"]] == commits
        assert "hf_bob" not in json.dumps(told)

        hub.repos["model", "alice/tiny"].gated = True
        refused = client("hf_carol", ["-m", "boost_qa.train", *words.split()])
        assert refused.returncode == 2 and "Traceback" not in refused.stderr, refused.stderr
        assert "hf_carol" not in refused.stderr + refused.stdout
        assert "alice/tiny is gated" in refused.stderr and "hf auth login" in refused.stderr
