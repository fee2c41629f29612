"""Packed rows: what a dialogue learns does not depend on what it is packed with, whatever the attention.

Models are tiny, in float64, and have large weights, so that attention is sharp and a leak is large. Of
`torch_varlen` everything runs but the CUDA kernel: torch's own operator gets a slow CPU kernel here.
"""

from __future__ import annotations

import random
from collections import Counter
from copy import deepcopy
from functools import cache

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.nn.attention import varlen as torchs
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config, StaticCache
from transformers.models.auto import AutoModelForCausalLM
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from boost_qa.errors import RecipeError
from boost_qa.train import varlen

ROW, PAD = 48, 0
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": PAD,
}
FAMILIES = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "mistral_window": MistralConfig(**SIZES, sliding_window=5),
}
ATTENTIONS = ("eager", "sdpa", varlen.NAME)
WINDOWS: list[list[int]] = []
"""The windows with which the kernel below was called, one for each layer."""


# --- the CPU kernels of torch's operator -----------------------------------------------------------


def softmax_of(query, key, cu, most, causal, scale, window):
    """For each document its slice, the slice of its keys for every query head, and softmax(scale q k)."""
    assert cu.dtype == torch.int32 and int(cu[0]) == 0 and int(cu[-1]) == len(query)
    assert int(cu.diff().max()) == most
    for start, end in zip(cu.tolist(), cu.tolist()[1:], strict=False):
        each = slice(start, end)
        keys = key[each].repeat_interleave(query.size(1) // key.size(1), 1)
        back = torch.arange(end - start)[:, None] - torch.arange(end - start)[None]
        unseen = (back < 0) if causal or window[1] == 0 else torch.zeros_like(back, dtype=torch.bool)
        if window[0] >= 0:
            unseen |= back > window[0]
        scores = torch.einsum("ihd,jhd->hij", query[each], keys) * scale
        yield each, keys, scores.masked_fill(unseen, float("-inf")).softmax(-1)


def forward(query, key, value, cu_q, cu_k, max_q, max_k, causal=False, scale=None, window=(-1, -1), *_):
    assert query.dtype == key.dtype == value.dtype and torch.equal(cu_q, cu_k) and max_q == max_k
    WINDOWS.append(list(window))
    out, group = torch.empty_like(query), query.size(1) // key.size(1)
    for each, _keys, weights in softmax_of(query, key, cu_q, max_q, causal, scale, window):
        out[each] = torch.einsum("hij,jhd->ihd", weights, value[each].repeat_interleave(group, 1))
    unused = torch.zeros(2, dtype=torch.uint64)
    return out, torch.zeros(query.size(1), len(query)), unused


def backward(grad, query, key, value, _out, _lse, cu, _k, max_q, _max_k, causal, _state, scale=None, window=(-1, -1)):
    of_query, of_key, of_value = (torch.empty_like(each) for each in (query, key, value))
    heads, group = key.size(1), query.size(1) // key.size(1)
    for each, keys, weights in softmax_of(query, key, cu, max_q, causal, scale, window):
        values = value[each].repeat_interleave(group, 1)
        of_weights = torch.einsum("ihd,jhd->hij", grad[each], values)
        of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True)) * scale
        of_query[each] = torch.einsum("hij,jhd->ihd", of_scores, keys)
        of_keys = torch.einsum("hij,ihd->jhd", of_scores, query[each])
        of_values = torch.einsum("hij,ihd->jhd", weights, grad[each])
        of_key[each] = of_keys.unflatten(1, (heads, group)).sum(2)
        of_value[each] = of_values.unflatten(1, (heads, group)).sum(2)
    return of_query, of_key, of_value


torchs._varlen_attn.register_kernel("cpu")(forward)
torchs._varlen_attn_backward.register_kernel("cpu")(backward)
varlen.register()


# --- models and rows ---------------------------------------------------------------------------------


def fresh(family: str, attention: str, dtype: torch.dtype) -> PreTrainedModel:
    """A new model of seed 0. transformers writes the attention into the config that it is given: hence the copy."""
    torch.manual_seed(0)
    config = deepcopy(FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    assert model.config._attn_implementation == attention
    return model


@cache
def tiny(family: str, attention: str) -> PreTrainedModel:
    model = fresh(family, attention, torch.float64)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model.train()


def documents(lengths=(30, 9, 17, 1, 12, 7, 8), seed=0) -> list[dict[str, list[int]]]:
    """Random tokens; about half of them carry loss, in runs as turns do."""
    rng = random.Random(seed)
    made = []
    for length in lengths:
        ids = [rng.randrange(1, SIZES["vocab_size"]) for _ in range(length)]
        made.append({"input_ids": ids, "labels": [-100 if at // 3 % 2 else id for at, id in enumerate(ids)]})
    return made


def batches(docs, row=ROW, rows=1, multiple=None) -> list[dict]:
    """The batches that TRL makes of `docs`: `rows` packed rows each, flattened to one."""
    packed = list(pack_dataset(Dataset.from_list(docs), row, "bfd"))
    collate = DataCollatorForLanguageModeling(pad_token_id=PAD, padding_free=True, pad_to_multiple_of=multiple)
    return [collate(packed[at : at + rows]) for at in range(0, len(packed), rows)]


def inputs(batch: dict) -> dict:
    return {name: value for name, value in batch.items() if name != "labels"}


def pieces(batch: dict) -> list[slice]:
    starts = batch["cu_seq_lens_q"].tolist()
    return [slice(start, end) for start, end in zip(starts, starts[1:], strict=False)]


def alone(family: str, ids: torch.Tensor) -> torch.Tensor:
    """Logits of one document by itself: the reference, without any packing."""
    return tiny(family, "eager")(input_ids=ids[None], use_cache=False).logits[0]


def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")


def gradients(model: PreTrainedModel, total: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(total, parameters), strict=True))


def furthest(family: str, batch: dict, logits: torch.Tensor) -> float:
    """Largest difference between a document's logits in the row and alone."""
    ids = batch["input_ids"][0]
    return max(float((logits[each] - alone(family, ids[each])).abs().max()) for each in pieces(batch))


# --- no dialogue sees another --------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("rows", "multiple"), [(1, None), (1, ROW), (2, 7)])
def test_packed_logits_are_those_of_each_dialogue_alone(family, attention, rows, multiple):
    model = tiny(family, attention)
    with torch.no_grad():
        for batch in batches(documents(), rows=rows, multiple=multiple):
            assert furthest(family, batch, model(**inputs(batch), use_cache=False).logits[0]) < 1e-4


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_are_the_sum_of_those_of_each_dialogue_alone(family, attention):
    docs, model, reference = documents(), tiny(family, attention), tiny(family, "eager")
    apart = sum(loss(alone(family, torch.tensor(doc["input_ids"])), torch.tensor(doc["labels"])) for doc in docs)
    packed = batches(docs, multiple=ROW)
    together = sum(loss(model(**inputs(batch), use_cache=False).logits[0], batch["labels"][0]) for batch in packed)
    expected, found = gradients(reference, apart), gradients(model, together)
    assert len(packed) > 1
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) < 1e-4 * float(gradient.abs().max()), name


@pytest.mark.parametrize("attention", ("eager", "sdpa"))
@pytest.mark.parametrize("family", ("llama", "qwen2", "mistral"))
def test_plain_concatenation_leaks_so_the_tests_above_can_fail(family, attention):
    batch = batches(documents())[0]
    everything = torch.ones_like(batch["input_ids"])
    naive = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "attention_mask": everything}
    with torch.no_grad():
        assert furthest(family, batch, tiny(family, attention)(**naive, use_cache=False).logits[0]) > 1


def test_the_window_of_mistral_matters_here():
    ids = torch.tensor(documents()[0]["input_ids"])
    with torch.no_grad():
        assert float((alone("mistral", ids) - alone("mistral_window", ids)).abs().max()) > 1


# --- torch_varlen ----------------------------------------------------------------------------------------


def test_packed_rows_go_through_the_kernel_and_nothing_else_does():
    batch, plain = batches(documents())[0], torch.tensor([documents()[0]["input_ids"]])
    for family, window in (("llama", [-1, 0]), ("mistral", [-1, 0]), ("mistral_window", [4, 0])):
        WINDOWS.clear()
        with torch.no_grad():
            tiny(family, varlen.NAME)(**inputs(batch), use_cache=False)
            assert WINDOWS == [window] * SIZES["num_hidden_layers"]
            tiny(family, varlen.NAME)(input_ids=plain, use_cache=False)
            assert len(WINDOWS) == SIZES["num_hidden_layers"]


def test_a_window_that_no_dialogue_outgrows_is_left_out():
    WINDOWS.clear()
    with torch.no_grad():
        tiny("mistral_window", varlen.NAME)(**inputs(batches(documents((5, 3, 4)))[0]), use_cache=False)
    assert WINDOWS == [[-1, 0]] * SIZES["num_hidden_layers"]


def test_packed_positions_without_boundaries_are_refused_instead_of_leaking():
    batch = batches(documents())[0]
    with pytest.raises(RecipeError, match="cu_seq_lens_q"):
        tiny("llama", varlen.NAME)(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)


def test_attention_dropout_is_refused():
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, attention_dropout=0.1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=varlen.NAME).train()
    with pytest.raises(RecipeError, match="without dropout"):
        model(**inputs(batches(documents())[0]), use_cache=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_under_torch_varlen_equals_sdpa(family):
    """Left-padded prompts, some longer than the window, with growing and with static caches."""
    prompts = [doc["input_ids"] for doc in documents((11, 4, 8), seed=1)]
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(each)) + each for each in prompts])
    for settings in ({}, {"cache_implementation": "static", "disable_compile": True}):
        greedy = {"attention_mask": (ids != PAD).long(), "max_new_tokens": 12, "do_sample": False} | settings
        answers = [tiny(family, each).generate(ids, **greedy) for each in ("sdpa", varlen.NAME)]
        assert answers[0].shape == (3, longest + 12)
        assert torch.equal(*answers)


@pytest.mark.parametrize("static", (False, True))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_without_any_mask_gives_the_same_logits_piece_by_piece(family, static):
    ids, model = torch.tensor(documents()[0]["input_ids"]), tiny(family, varlen.NAME)
    past = StaticCache(model.config, max_cache_len=40) if static else None
    found = []
    with torch.no_grad():
        for start, end in ((0, 9), (9, 20), (20, 21), (21, 30)):
            out = model(input_ids=ids[None, start:end], past_key_values=past, use_cache=True)
            past = out.past_key_values
            found.append(out.logits[0])
        assert float((torch.cat(found) - alone(family, ids)).abs().max()) < 1e-4


def test_a_padded_batch_goes_to_sdpa_with_its_mask():
    docs = documents((12, 5))
    batch = DataCollatorForLanguageModeling(pad_token_id=PAD)([dict(doc) for doc in docs])
    with torch.no_grad():
        logits = tiny("mistral_window", varlen.NAME)(**inputs(batch), use_cache=False).logits
        for row, doc in zip(logits, docs, strict=True):
            ids = torch.tensor(doc["input_ids"])
            assert float((row[: len(ids)] - alone("mistral_window", ids)).abs().max()) < 1e-4


def test_under_autocast_the_kernel_gets_one_half_precision_type(monkeypatch):
    """The kernel knows float16 and bfloat16 only, and rotary embeddings of a float32 model widen q and k."""
    types = []

    def spy(query, key, value, *rest, **named):
        types.extend((query.dtype, key.dtype, value.dtype))
        return torchs.varlen_attn(query, key, value, *rest, **named)

    monkeypatch.setattr(varlen, "varlen_attn", spy)
    model = fresh("llama", varlen.NAME, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**inputs(batches(documents())[0]), use_cache=False)
    assert set(types) == {torch.bfloat16}


@pytest.mark.parametrize("family", ("mistral_window",))
def test_each_layer_compiles_to_whole_graphs_with_the_same_logits_and_gradients(family):
    base = fresh(family, varlen.NAME, torch.float64)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(base, lora).train()
    rows = [batches(documents(lengths), multiple=ROW)[0] for lengths in ((20, 15, 9), (30, 8), (9, 9, 9, 8, 6, 2))]

    def run() -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        outs = [model(**inputs(batch), use_cache=False).logits for batch in rows]
        parameters = [each for each in model.parameters() if each.requires_grad]
        return [(out.detach(), torch.autograd.grad(out.square().mean(), parameters)) for out in outs]

    expected = run()
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    for layer in base.model.layers:
        layer.compile(fullgraph=True, backend="aot_eager")
    found = run()
    assert not counters["graph_break"]
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
    for (logits, slopes), (same_logits, same_slopes) in zip(expected, found, strict=True):
        torch.testing.assert_close(same_logits, logits, rtol=0, atol=1e-5)
        for slope, same in zip(slopes, same_slopes, strict=True):
            torch.testing.assert_close(same, slope, rtol=0, atol=1e-5 * float(slope.abs().max()))


# --- what this machine can run -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("sdpa", "eager", "flash_attention_2", "kernels-community/flash-attn"))
def test_other_names_are_passed_on(name):
    assert varlen.attention(name) == varlen.Attention(name, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch_varlen can run here")
def test_without_a_gpu_sdpa_takes_its_place_and_the_reason_is_said(caplog):
    chosen = varlen.attention(varlen.NAME)
    assert chosen.name == "sdpa" and "no CUDA GPU" in chosen.reason
    assert chosen.reason in caplog.text


def test_an_older_torch_is_named_and_an_installed_flash_attention_preferred(monkeypatch):
    monkeypatch.setattr(varlen, "_ARGUMENTS", frozenset({"query", "is_causal"}))  # of torch 2.10
    monkeypatch.setattr(varlen, "is_flash_attn_2_available", lambda: True)
    chosen = varlen.attention(varlen.NAME)
    assert chosen.name == "flash_attention_2" and "older than 2.11" in chosen.reason


# --- TRL's packing -------------------------------------------------------------------------------------------


def numbered(lengths: list[int], seed: int) -> list[dict[str, list[int]]]:
    """Documents in which no token occurs twice, so that each can be found again."""
    rng, made, first = random.Random(seed), [], 1
    for length in lengths:
        ids = list(range(first, first + length))
        made.append({"input_ids": ids, "labels": [id if rng.random() < 0.5 else -100 for id in ids]})
        first += length
    return made


def learned(batch: dict) -> Counter:
    """Tokens with loss; the first of a row is predicted by nothing."""
    labels, ids = batch["labels"][:, 1:], batch["input_ids"][:, 1:]
    return Counter(ids[labels != -100].tolist())


@pytest.mark.parametrize(("count", "seed", "multiple"), [(7, 0, None), (60, 1, ROW), (60, 2, 16), (1100, 3, None)])
def test_packing_keeps_each_dialogue_whole_and_supervises_the_same_tokens(count, seed, multiple):
    rng = random.Random(seed)
    docs = numbered([rng.randint(1, ROW) for _ in range(count - 2)] + [1, ROW], seed)
    packed = batches(docs, multiple=multiple)
    found = Counter(tuple(batch["input_ids"][0, each].tolist()) for batch in packed for each in pieces(batch))
    found.pop((PAD,), None)
    assert found == Counter(tuple(doc["input_ids"]) for doc in docs)
    assert len(packed) < count
    assert all(batch["input_ids"].size(1) <= ROW for batch in packed)
    unpacked = DataCollatorForLanguageModeling(pad_token_id=PAD)([dict(doc) for doc in docs])
    assert sum(map(learned, packed), Counter()) == learned(unpacked)


def test_a_dialogue_longer_than_a_row_is_cut_so_it_must_be_refused_or_counted_before():
    docs = numbered([ROW + 5, 3], 0)
    ids = [batch["input_ids"][0, each].tolist() for batch in batches(docs) for each in pieces(batch)]
    assert sorted(ids) == [docs[0]["input_ids"][:ROW], docs[1]["input_ids"]]


def test_pads_of_a_row_are_dialogues_of_one_token_without_loss():
    batch = batches(documents((10, 4)), multiple=ROW)[0]
    assert batch["cu_seq_lens_q"].diff().tolist() == [10, 4] + [1] * (ROW - 14)
    assert (batch["labels"][0, 14:] == -100).all() and batch["max_length_q"] == 10
