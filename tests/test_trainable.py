"""GGUF models as folders that can be trained: the same weights, the same tokens, whole or not there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGUFReader
from tiny_gguf import exact, gguf_name, write_gguf
from tiny_models import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from boost_qa import models
from boost_qa.engines.chat import ChatTokenizer
from boost_qa.errors import ModelError
from boost_qa.models import trainable as module
from boost_qa.models.trainable import revision, trainable
from boost_qa.types import Message

SMALL = "smollm2-135m-instruct"
TEXTS = [
    "Hello world",
    "a  b   c    d",
    "  7  8 12 345 3.14159",
    "line\n\n\n  indented\ttabs\r\n",
    "def f(x):\n    return x**2  # 12\n",
    "it's we're I'LL DON'T",
    "naïve café e\u0301 日本語 Привет नमस्ते 😀\u200d👧",
    "²³½ Ⅷ ① ｆｕｌｌ \\frac{1}{2} ***",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("qwen2", True), ("qwen2", False)])
def test_trains_and_speaks_as_the_model_that_the_file_was_made_of(family, tied, tmp_path):
    source = exact(family, tmp_path / "source", tie_word_embeddings=tied)
    folder = Path(trainable(str(write_gguf(source, tmp_path / "m.gguf"))))
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is tied and config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    before, after = AutoModelForCausalLM.from_pretrained(source), AutoModelForCausalLM.from_pretrained(folder)
    theirs = before.state_dict()
    assert after.state_dict().keys() == theirs.keys()
    assert all(torch.equal(weights, theirs[name]) for name, weights in after.state_dict().items())
    assert not getattr(after, "is_quantized", False)
    prompt = AutoTokenizer.from_pretrained(folder)("User:\nWhat is 7 + 12?\n", return_tensors="pt")
    said = [model.generate(**prompt, do_sample=False, max_new_tokens=24) for model in (before, after)]
    assert torch.equal(*said)


def test_quantised_weights_are_what_they_stand_for(tmp_path):
    file = write_gguf(exact("llama", tmp_path / "source"), tmp_path / "m.gguf", "Q8_0")
    model = AutoModelForCausalLM.from_pretrained(trainable(str(file)))
    stored = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    for name, weights in model.state_dict().items():
        tensor = stored[gguf_name(name)]
        numbers = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).reshape(weights.shape)
        if heads := {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2]):
            numbers = numbers.reshape(heads, -1, 2, numbers.shape[-1]).transpose(1, 2).reshape(weights.shape)
        assert torch.equal(weights, numbers.bfloat16()), name


def test_its_tokens_are_those_of_our_engine(tmp_path):
    for family in ("llama", "qwen2"):
        file = write_gguf(exact(family, tmp_path / family), tmp_path / f"{family}.gguf")
        tokenizer = AutoTokenizer.from_pretrained(trainable(str(file)))
        ours = ChatTokenizer(models.resolve(file).tokenizer)
        for text in TEXTS:
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == ours._control(text)
        messages = [Message("user", "What is 7 + 12?"), Message("assistant", "19"), Message("user", "No.")]
        spoken = [{"role": message.role, "content": message.content} for message in messages]
        assert tokenizer.apply_chat_template(spoken, return_dict=False) == ours.encode(messages)


@pytest.mark.parametrize(
    ("family", "fields", "bos", "front"),
    [
        ("llama", {}, "<|begin_of_text|>", [1200]),  # as llama.cpp does where the file does not say
        ("llama", {"add_bos_token": True}, "<|begin_of_text|>", [1200]),
        ("llama", {"add_bos_token": False}, None, []),
        ("llama", {"add_bos_token": False, "template": "{{ bos_token }}"}, "<|begin_of_text|>", []),
        ("qwen2", {}, None, []),
        ("qwen2", {"add_bos_token": True}, "<|endoftext|>", [1200]),
    ],
)
def test_begins_a_text_only_as_the_model_does(family, fields, bos, front, tmp_path):
    file = write_gguf(exact(family, tmp_path / "source"), tmp_path / "m.gguf", pad_token_id=1202, **fields)
    tokenizer = AutoTokenizer.from_pretrained(trainable(str(file)))
    assert (tokenizer.bos_token, tokenizer("")["input_ids"]) == (bos, front)
    assert tokenizer.eos_token == {"llama": "<|end_of_text|>", "qwen2": "<|endoftext|>"}[family]
    assert tokenizer.pad_token_id == 1202 and tokenizer.model_max_length == 4096
    ends = AutoModelForCausalLM.from_pretrained(trainable(str(file))).generation_config
    assert (ends.eos_token_id, ends.pad_token_id) == (tokenizer.eos_token_id, 1202)
    assert not ends._from_model_config


def test_is_made_once_whole_and_names_its_source(tmp_path, home, monkeypatch):
    file = str(write_gguf(exact("qwen2", tmp_path / "source"), tmp_path / "m.gguf"))
    broken = home / "own" / f"{models.resolve(file).tokenizer.name}-trainable.part"
    broken.mkdir()
    (broken / "config.json").write_text("{}")  # what a kill leaves
    folder = Path(trainable(file))
    assert revision(folder) == models.resolve(file).revision and not broken.exists()
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "_turn", None)
        assert trainable(file) == str(folder)
    note = folder / "model.yaml"  # of another version of the model under the same name
    note.write_text(note.read_text().replace("sha256:", "sha256:0"))
    assert Path(trainable(file)) == folder and revision(folder) == models.resolve(file).revision


def test_nothing_is_there_if_it_cannot_be_written_whole(tmp_path, home, monkeypatch):
    file = str(write_gguf(exact("qwen2", tmp_path / "source"), tmp_path / "m.gguf"))

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_tokenizer", full)  # the weights are written by then
        with pytest.raises(ModelError, match="is full"):
            trainable(file)
    assert not [path for path in (home / "own").iterdir() if path.name.endswith("-trainable")]
    assert revision(trainable(file))


def test_hugging_face_folders_and_hub_ids_are_taken_as_they_are(tmp_path):
    folder = tiny("mistral", tmp_path / "model")
    assert trainable(str(folder)) == str(folder) and revision(folder) is None
    assert trainable("meta-llama/Meta-Llama-3-8B") == "meta-llama/Meta-Llama-3-8B"
    assert revision("meta-llama/Meta-Llama-3-8B") is None


def test_what_cannot_be_trained(tmp_path, home):
    with pytest.raises(ModelError, match="all-minilm-l6-v2 is no language model") as caught:
        trainable("all-minilm-l6-v2")
    assert SMALL in caught.value.remedy and "all-minilm" not in caught.value.remedy and not home.exists()
    for name in (str(tmp_path), str(tmp_path / "absent"), "./absent/model", "smollm"):
        with pytest.raises(ModelError, match="no model that can be trained"):
            trainable(name)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is an adapter"):
        trainable(str(tmp_path))


def test_architecture_that_transformers_does_not_read(tmp_path):
    file = write_gguf(exact("qwen2", tmp_path / "source"), tmp_path / "m.gguf")
    content = file.read_bytes().replace(b"qwen2", b"qwen9")
    file.write_bytes(re.sub(rb"(?s)(tokenizer\.ggml\.pre.{12})qwen9", rb"\1qwen2", content))
    with pytest.raises(ModelError, match="m.gguf cannot be turned into a model to train"):
        trainable(str(file))


def test_stays_light():
    code = "import sys, boost_qa.models.trainable; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "tokenizers", "gguf"} & set(done.stdout.split())


@pytest.mark.slow
def test_the_small_model_of_the_catalogue(monkeypatch):
    """In the user's own cache: 93 MB are fetched, 270 MB written."""
    monkeypatch.delenv("BOOST_QA_HOME")
    folder, model = trainable(SMALL), models.fetch(SMALL)
    tokenizer, ours = AutoTokenizer.from_pretrained(folder), ChatTokenizer(model.tokenizer)
    assert [tokenizer(text)["input_ids"] for text in TEXTS] == [ours._control(text) for text in TEXTS]
    straight = AutoModelForCausalLM.from_pretrained(model.path.parent, gguf_file=model.path.name, dtype=torch.bfloat16)
    prompt = torch.tensor([ours.encode([Message("user", "What is the capital of France?")])])
    said = [
        each.generate(prompt, do_sample=False, max_new_tokens=24)
        for each in (straight, AutoModelForCausalLM.from_pretrained(folder))
    ]
    assert torch.equal(*said) and "Paris" in tokenizer.decode(said[0][0])
