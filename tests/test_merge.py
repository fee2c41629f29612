"""Merged weights say what base and adapter say together, and the folder is whole or not there."""

import json

import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_gguf import exact, write_gguf
from tiny_models import FAMILIES, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig, GgufConfig

from boost_qa.errors import ModelError, RunError
from boost_qa.models.trainable import trainable
from boost_qa.train.merge import merge, merge_to_gguf

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEMPLATE = "{% for m in messages %}{{ m.role + ':\n' + m.content + eos_token }}{% endfor %}"
PROMPT = "User:\nWhat is 7 + 12?\n"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Tiny bases of each family, not to be changed. With larger weights, float32 alone would differ by 1e-5."""
    folder = tmp_path_factory.mktemp("bases")
    return {family: tiny(family, folder / family, initializer_range=0.1) for family in FAMILIES}


def train(base, folder, quantised=False, seed=1, **lora):
    """An adapter as training leaves it, of random weights, which ends its turns with a token of its own."""
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4") if quantised else None
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=nf4)
    model = get_peft_model(model, LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": ALL_LINEAR} | lora))
    torch.manual_seed(seed)
    for name, weights in model.named_parameters():
        if weights.requires_grad and "magnitude" not in name:
            weights.data = torch.randn_like(weights) * 0.05
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("Ġis") if "Ġis" in tokenizer.get_vocab() else 700
    GenerationConfig(eos_token_id=[end, tokenizer.eos_token_id]).save_pretrained(folder)
    return folder


def together(base, adapter, dtype=torch.float32):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), adapter)


def logits(model, base):
    ids = AutoTokenizer.from_pretrained(base)(PROMPT, return_tensors="pt")
    with torch.no_grad():
        return model(**ids).logits


def said(model, base):
    ids = AutoTokenizer.from_pretrained(base)(PROMPT, return_tensors="pt")
    return model.generate(**ids, do_sample=False, max_new_tokens=24, eos_token_id=-1).tolist()


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        *((family, {}) for family in FAMILIES),
        ("llama", {"use_rslora": True}),
        ("qwen2", {"use_dora": True}),
        ("mistral", {"modules_to_save": ["lm_head"], "target_modules": ["q_proj", "down_proj"]}),
    ],
)
def test_says_what_base_and_adapter_say(family, lora, bases, tmp_path):
    base = bases[family]
    adapter = train(base, tmp_path / "adapter", **lora)
    merged = AutoModelForCausalLM.from_pretrained(merge(adapter, tmp_path / "merged", dtype="float32"))
    both = together(base, adapter)
    assert torch.allclose(logits(merged, base), logits(both, base), atol=1e-5, rtol=1e-5)
    assert said(merged, base) == said(both, base)
    alone = logits(AutoModelForCausalLM.from_pretrained(base), base)
    assert not torch.allclose(logits(merged, base), alone, atol=0.05)


def test_tied_embeddings_stay_tied(tmp_path):
    base = tiny("llama", tmp_path / "base", tie_word_embeddings=True)
    merged = merge(train(base, tmp_path / "adapter"), tmp_path / "merged")
    assert json.loads((merged / "config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(merged / "model.safetensors")


def test_a_base_quantised_in_training_is_merged_as_it_was_before(bases, tmp_path):
    adapter = train(bases["llama"], tmp_path / "adapter", quantised=True)
    merged = AutoModelForCausalLM.from_pretrained(merge(adapter, tmp_path / "merged", dtype="float32"))
    assert not hasattr(merged.config, "quantization_config")
    expected = logits(together(bases["llama"], adapter), bases["llama"])
    assert torch.allclose(logits(merged, bases["llama"]), expected, atol=1e-5, rtol=1e-5)


def test_sums_are_rounded_once(tmp_path):
    base = tiny("llama", tmp_path / "base", dtype="bfloat16", initializer_range=0.2)
    adapter = train(base, tmp_path / "adapter")
    weights = load_file(merge(adapter, tmp_path / "merged") / "model.safetensors")
    exact = load_file(merge(adapter, tmp_path / "exact", dtype="float32") / "model.safetensors")
    before = load_file(base / "model.safetensors")
    added = load_file(adapter / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.1.mlp.up_proj"
    name = "model.layers.1.mlp.up_proj.weight"
    summed = before[name].float() + 2 * added[f"{prefix}.lora_B.weight"] @ added[f"{prefix}.lora_A.weight"]
    assert torch.equal(weights[name], summed.bfloat16())
    assert exact.keys() == weights.keys() == before.keys()
    assert all(torch.equal(weights[each], exact[each].bfloat16()) for each in exact)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"


def test_ends_as_the_adapter_was_taught(bases, tmp_path):
    adapter = train(bases["qwen2"], tmp_path / "adapter")
    merged = merge(adapter, tmp_path / "merged")
    taught = GenerationConfig.from_pretrained(adapter).eos_token_id
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert len(taught) == 2 and model.generation_config.eos_token_id == taught
    assert model.config.eos_token_id == taught[0]
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(adapter).get_vocab()
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], return_dict=False)
    assert ids == AutoTokenizer.from_pretrained(adapter).apply_chat_template(
        [{"role": "user", "content": "Hi"}], return_dict=False
    )


def test_an_adapter_without_a_tokenizer_takes_that_of_its_base(bases, tmp_path):
    adapter = train(bases["llama"], tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (adapter / name).unlink()
    merged = merge(adapter, tmp_path / "merged")
    own, theirs = AutoTokenizer.from_pretrained(merged), AutoTokenizer.from_pretrained(bases["llama"])
    assert own(PROMPT) == theirs(PROMPT) and own.eos_token == theirs.eos_token
    assert AutoModelForCausalLM.from_pretrained(merged).generation_config.eos_token_id == theirs.eos_token_id


def test_is_there_whole_or_not_at_all(bases, tmp_path, monkeypatch):
    adapter, output, part = (
        train(bases["mistral"], tmp_path / "adapter"),
        tmp_path / "merged",
        tmp_path / ".merged.merging",
    )
    seen = []

    def stop(*args, **more):
        seen.append((output.exists(), (part / "model.safetensors").is_file()))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AutoTokenizer, "from_pretrained", stop)
        with pytest.raises(KeyboardInterrupt):
            merge(adapter, output)
    assert seen == [(False, True)]  # what a kill would have left at that moment
    assert not output.exists() and not part.exists()
    part.mkdir()
    (part / "torn.safetensors").write_text("")  # and what it leaves is not taken up
    output.mkdir()
    assert merge(adapter, output) == output
    assert AutoModelForCausalLM.from_pretrained(output) and not (output / "torn.safetensors").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "merged"}


def test_what_cannot_be_merged(bases, tmp_path):
    adapter = train(bases["llama"], tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())

    def changed(**changes):
        (adapter / "adapter_config.json").write_text(json.dumps(config | changes))
        return adapter

    with pytest.raises(RunError, match="not empty") as caught:
        merge(adapter, bases["llama"])
    assert "another folder" in caught.value.remedy
    with pytest.raises(RunError, match="no adapter_config.json.*whole model"):
        merge(bases["llama"], tmp_path / "merged")
    with pytest.raises(RunError, match="type IA3"):
        merge(changed(peft_type="IA3"), tmp_path / "merged")
    with pytest.raises(RunError, match="names no base model"):
        merge(changed(base_model_name_or_path=None), tmp_path / "merged")
    gone = changed(base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match=f"{tmp_path}/gone"):
        merge(gone, tmp_path / "merged")
    for name, change in {"narrow": {"hidden_size": 32}, "deep": {"num_hidden_layers": 3}}.items():
        with pytest.raises(RunError, match="cannot be merged into") as caught:
            merge(adapter, tmp_path / "merged", base=str(tiny("llama", tmp_path / name, **change)))
        assert "base=" in caught.value.remedy
    with pytest.raises(RunError, match=r"only one of them has .*layers\.1\."):
        merge(adapter, tmp_path / "merged", base=str(tiny("llama", tmp_path / "flat", num_hidden_layers=1)))
    quantised = tiny("llama", tmp_path / "quantised")
    settings = json.loads((quantised / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantised / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match="is quantised"):
        merge(adapter, tmp_path / "merged", base=str(quantised))
    assert merge(adapter, tmp_path / "merged", base=str(bases["llama"]))  # though the adapter names another
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(RunError, match="holds no weights"):
        merge(adapter, tmp_path / "second")
    assert not (tmp_path / "second").exists() and not list(tmp_path.glob(".*"))


def test_weights_that_are_no_numbers_are_refused(bases, tmp_path):
    adapter = train(bases["llama"], tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="cannot be merged"):
        merge(adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# --- one GGUF file -------------------------------------------------------------------------------


@pytest.fixture
def file_of(tmp_path, monkeypatch):
    """The GGUF file of a tiny base, and the folder that is trained."""
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))

    def made(family, **changes):
        file = write_gguf(exact(family, tmp_path / "source", **changes), tmp_path / "base.gguf")
        return file, trainable(str(file))

    return made


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("qwen2", True)])
def test_a_gguf_file_has_the_weights_that_a_folder_has(family, tied, file_of, tmp_path):
    """Read back by transformers: what llama keeps in another order is in its order again."""
    _, base = file_of(family, tie_word_embeddings=tied)
    adapter = train(base, tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(merge(adapter, tmp_path / "merged", dtype="float32")).state_dict()
    written = merge_to_gguf(adapter, tmp_path / "merged.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=written.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    found = model.state_dict()
    assert found.keys() == merged.keys() and model.config.tie_word_embeddings is tied
    assert all(torch.equal(found[name], weights.half().float()) for name, weights in merged.items() if weights.ndim > 1)
    assert all(torch.equal(found[name], weights) for name, weights in merged.items() if weights.ndim == 1)


def test_a_gguf_file_speaks_as_the_adapter_was_taught(file_of, tmp_path):
    """Its template has not what only transformers understands, and its turns end where they end in training."""
    file, base = file_of("qwen2")
    adapter = train(base, tmp_path / "adapter")
    marked = "{% for m in messages %} {%- generation %} {{ m.content }} {%- endgeneration -%} {% endfor %}"
    (adapter / "chat_template.jinja").write_text(marked)
    reader = GGUFReader(merge_to_gguf(adapter, tmp_path / "merged.gguf"))
    template = reader.get_field("tokenizer.chat_template").contents()
    assert template == "{% for m in messages %} {%- if true %} {{ m.content }} {%- endif -%} {% endfor %}"
    ends = GenerationConfig.from_pretrained(adapter).eos_token_id
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == ends[0]
    kept = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "qwen2.rope.freq_base", "qwen2.block_count"}
    before = GGUFReader(file)
    assert all(reader.get_field(key).contents() == before.get_field(key).contents() for key in kept)


def test_what_cannot_be_one_gguf_file(bases, file_of, tmp_path):
    output = tmp_path / "merged.gguf"
    with pytest.raises(ModelError, match="was not made of a GGUF file"):
        merge_to_gguf(train(bases["qwen2"], tmp_path / "of-a-folder"), output)
    file, base = file_of("qwen2")
    adapter = train(base, tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    tokenizer.add_tokens(["<|thought|>"])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(RunError, match=r"has a token that .* has not: <\|thought\|>"):
        merge_to_gguf(adapter, output)
    assert not list(tmp_path.glob("*merged.gguf*"))
    other = train(base, tmp_path / "other")
    output.write_text("mine")
    with pytest.raises(RunError, match="is there already"):
        merge_to_gguf(other, output)
    file.write_bytes(write_gguf(exact("qwen2", tmp_path / "another", seed=5), tmp_path / "5.gguf").read_bytes())
    with pytest.raises(ModelError, match="was made of"):
        merge_to_gguf(other, tmp_path / "changed.gguf")
    assert output.read_text() == "mine"
