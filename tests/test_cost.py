"""What a fine-tuning will cost: counts against real runs of small models, and against what is published."""

from __future__ import annotations

import itertools
import json
import weakref
from dataclasses import replace
from inspect import signature

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from boost_qa import cli
from boost_qa.errors import RecipeError
from boost_qa.train.cost import Prediction, checkpoint_for, predict
from boost_qa.train.gpus import gpu, gpus
from boost_qa.train.keys import known_keys
from boost_qa.train.layer import profile_layer
from boost_qa.train.memory import GIB
from boost_qa.train.remedies import WORDS
from boost_qa.train.shapes import shape
from boost_qa.train.telling import as_dict, describe
from boost_qa.train.workload import LINEAR, Training, Work

LLAMA, QWEN, MISTRAL = "meta-llama/Meta-Llama-3-8B", "Qwen/Qwen2.5-7B", "mistralai/Mistral-7B-v0.3"
EPOCH = 10_000_000


def work(tokens: int = EPOCH, document: int = 1024, supervised: float = 0.5) -> Work:
    return Work(tokens, tokens, int(tokens * supervised), tokens * document / 2, tokens // 65536, 1)


def plan(training: Training, card: str = "h200", model: str = LLAMA) -> Prediction:
    return predict(shape(model), training, work(), gpu(card))


# --- the real shapes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "whole", "linear", "trained", "flops"),
    [
        (LLAMA, 8.03e9, 7.505e9, 41_943_040, (30.22, 33.8, 37.3, 44.3)),
        (QWEN, 7.62e9, 7.070e9, 40_370_176, (28.49, 31.8, 35.1, 41.65)),
        (MISTRAL, 7.25e9, 7.114e9, 41_943_040, (28.66, 32.2, 35.7, 42.7)),
    ],
)
def test_the_counts_of_the_three_models_are_those_of_the_whole_models(model, whole, linear, trained, flops):
    """The numbers were counted with FlopCounterMode on all layers at once, on the meta device."""
    predictions = [plan(Training(checkpoint_every=every), model=model) for every in (0, 4, 2, 1)]
    assert predictions[0].parameters == pytest.approx(whole, rel=0.002)
    assert predictions[0].linear == pytest.approx(linear, rel=0.001)
    counted = [(each.flops_per_token + each.recompute_per_token) / 1e9 for each in predictions]
    assert counted == pytest.approx(flops, rel=0.01)
    assert predictions[0].trainable == trained


def test_the_first_mistral_has_a_smaller_vocabulary():
    assert plan(Training(), model="mistralai/Mistral-7B-v0.1").parameters == 7_241_732_096


def test_rank_256_costs_an_eighth_more():
    assert plan(Training(rank=256)).trainable == 671_088_640
    assert plan(Training(rank=256)).flops_per_token / plan(Training()).linear == pytest.approx(4.53, rel=0.01)


def test_full_fine_tuning_costs_half_as_much_again():
    full = plan(Training(method="full"))
    assert full.flops_per_token / full.linear == pytest.approx(6, rel=0.01)
    assert full.trainable == full.parameters


@pytest.mark.parametrize(
    ("training", "megabytes"),
    [
        (Training(), 6.97),
        (Training(input_casts=True), 8.02),
        (Training(input_casts=True, dropout=0.05), 13.0),
    ],
)
def test_what_llama_keeps_for_each_token_agrees_with_a_real_layer_of_its_size(training, megabytes):
    """A bfloat16 model of one layer, of the real width, was run on the CPU and what it kept multiplied by 32.

    That counts the final norm, and the float32 copy that its loss made (4 bytes x 4,096), 32 times.
    """
    layer = profile_layer(shape(LLAMA), training, fused_dropout=False)
    assert 32 * (layer.saved + layer.outside_saved + 4 * 4096) / 1e6 == pytest.approx(megabytes, rel=0.005)


def test_dropout_on_a_gpu_keeps_a_mask_of_bytes():
    dropped = Training(dropout=0.05)
    on_cpu = profile_layer(shape(LLAMA), dropped, fused_dropout=False)
    on_gpu = profile_layer(shape(LLAMA), dropped)
    none = profile_layer(shape(LLAMA), Training())
    assert none.saved < on_gpu.saved < on_cpu.saved


# --- a real run of a small model -------------------------------------------------------------------

ROW = 127  # a prime, so that tensors with a token axis are known by it


class Alive(TorchDispatchMode):
    """The bytes of tensors with a token axis that are alive, now and at most."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor) and ROW in each.shape:
                storage = each.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def gone(self, key, size):
        self.known.discard(key)
        self.now -= size


def small(kind: str = "llama"):
    return AutoConfig.for_model(
        kind, vocab_size=128, hidden_size=32, intermediate_size=88, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=None, tie_word_embeddings=False,
    )  # fmt: skip


def real(config, training: Training):
    """The model with its adapters, as finetuning sets it up."""
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, training.dtype), attn_implementation="sdpa")
    trained = model
    if training.method != "full":
        lora = LoraConfig(task_type="CAUSAL_LM", r=training.rank, lora_dropout=training.dropout, target_modules=LINEAR)
        trained = get_peft_model(model, lora)
        for part in trained.modules():
            if isinstance(part, BaseTunerLayer):
                part.cast_input_dtype_enabled = training.input_casts
        model.enable_input_require_grads()
    if training.checkpoint_every:
        model.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=training.checkpoint_every)
    trained.train()
    return model.model


@pytest.fixture
def one_thread():
    """On busy cores, threads wait for each other far longer than they compute on so small a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("kind", "training"),
    [
        ("llama", Training()),
        ("qwen2", Training()),
        ("llama", Training(input_casts=True)),
        ("llama", Training(dropout=0.05)),
        ("llama", Training(checkpoint_every=1)),
        ("llama", Training(checkpoint_every=4)),
        ("llama", Training(method="full")),
        ("llama", Training(method="full", dtype="float32")),
    ],
)
def test_memory_is_what_a_real_run_of_the_whole_model_holds(kind, training):
    config, training = small(kind), replace(training, row_tokens=ROW, rank=4)
    decoder, alive = real(config, training), Alive()
    with alive:
        with torch.autocast("cpu", torch.bfloat16):
            output = decoder(input_ids=torch.zeros(1, ROW, dtype=torch.long), use_cache=False).last_hidden_state
        kept = alive.now
        output.backward(torch.ones_like(output))
    # weights in another type have no token axis
    layer = replace(profile_layer(config, training, fused_dropout=False), copies=0)
    memory = predict(config, training, work(supervised=0), gpu("h200"), layer).memory
    assert memory["activations"] == pytest.approx(kept, rel=0.05)
    assert memory["activations"] + memory["working"] == pytest.approx(alive.most, rel=0.08)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("training", [Training(checkpoint_every=2), Training(method="full")])
def test_flops_are_what_a_real_run_of_the_whole_model_computes(training):
    config, training = small(), replace(training, row_tokens=ROW, rank=4)
    decoder = real(config, training)
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        output = decoder(input_ids=torch.zeros(1, ROW, dtype=torch.long), use_cache=False).last_hidden_state
        output.backward(torch.ones_like(output))
    counted = sum(count for kind, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(kind))
    predicted = predict(config, training, work(), gpu("h200"))
    head = (6 if training.method == "full" else 4) * config.vocab_size * config.hidden_size
    assert predicted.flops_per_token + predicted.recompute_per_token - head == pytest.approx(counted / ROW, rel=0.01)


def test_float32_weights_under_autocast_are_kept_twice():
    layer = profile_layer(shape(LLAMA), Training(method="full", dtype="float32"))
    assert layer.copies == 2 * layer.linear
    assert profile_layer(shape(LLAMA), Training(method="full")).copies == 0


# --- predictions -----------------------------------------------------------------------------------


def test_more_checkpointing_takes_less_memory_and_more_time():
    ladder = [plan(Training(checkpoint_every=every)) for every in (0, 4, 2, 1)]
    for less, more in itertools.pairwise(ladder):
        assert more.total < less.total
        assert more.seconds > less.seconds
        assert more.mfu < less.mfu


def test_llama_with_adapters_fits_an_h200_without_checkpointing():
    prediction = plan(Training(row_tokens=8192))
    assert prediction.fits
    assert 60 < prediction.total / GIB < 80
    assert prediction.memory["weights"] == 2 * prediction.parameters


def test_nf4_fits_24_gib_with_checkpointing():
    training = Training(method="qlora", row_tokens=8192)
    every = checkpoint_for(shape(LLAMA), training, work(), gpu("4090"))
    assert every > 0
    assert plan(replace(training, checkpoint_every=every), "4090").fits
    assert 0.55 < plan(training).memory["weights"] / plan(training).parameters < 0.8


def test_as_little_is_recomputed_as_fits():
    training = Training(row_tokens=8192)
    chosen = {card: checkpoint_for(shape(LLAMA), training, work(), gpu(card)) for card in ("h200", "l40s", "4090")}
    assert chosen == {"h200": 0, "l40s": 2, "4090": 1}
    assert not plan(replace(training, checkpoint_every=4), "l40s").fits


@pytest.mark.parametrize(
    ("training", "card"),
    [
        (Training(), "4090"),
        (Training(), "l20"),
        (Training(method="qlora", row_tokens=16384), "4090"),
        (Training(attention="sdpa", dropout=0.05, input_casts=True, row_tokens=16384), "a100-80"),
        (Training(method="full", dtype="float32"), "h200"),
        (Training(method="full", sharding="fsdp", devices=8, accumulation=2), "h100"),
    ],
)
def test_every_remedy_makes_it_fit(training, card):
    prediction = plan(training, card)
    assert not prediction.fits
    assert prediction.changes
    for remedy in prediction.changes:
        after = plan(replace(training, **remedy.change), card)
        assert after.fits
        assert remedy.gib == pytest.approx(after.total / GIB)
        assert remedy.slower == pytest.approx(after.seconds / prediction.seconds)
        assert f"{remedy.gib:.1f} GiB" in str(remedy)
    assert len(prediction.remedies) == len(prediction.changes)


def test_remedies_are_written_in_keys_of_recipes_and_options_of_the_command():
    keys, options = set(), set()
    for words in WORDS.values():
        if words.startswith("--"):
            options.add(words.split()[0].removeprefix("--"))
        else:
            keys.update(words.partition(":")[0].split(" times "))
    assert keys <= known_keys()
    assert options == {"gpus", "sharding"} < set(signature(cli.training.plan).parameters)
    assert set(WORDS) <= set(Training.__slots__)


def test_of_each_kind_of_change_the_mildest_is_proposed():
    found = [remedy.change for remedy in plan(Training(row_tokens=16384), "h100").changes]
    kinds = [tuple(change) for change in found]
    assert len(set(kinds)) == len(kinds)
    assert {"checkpoint_every": 2} in found and {"row_tokens": 8192} in found


def test_what_fits_needs_no_remedy():
    assert plan(Training()).remedies == []


def test_the_deferred_reduction_of_fsdp_holds_whole_gradients():
    sharded = Training(method="full", sharding="fsdp", devices=8, checkpoint_every=1)
    once, often = plan(sharded), plan(replace(sharded, accumulation=4))
    assert often.memory["gradients"] - once.memory["gradients"] == 2 * once.parameters
    # float32 weights, gradients and two states, in eight parts
    states = sum(once.memory[name] for name in ("weights", "gradients", "optimizer"))
    assert states == pytest.approx(16 * once.parameters / 8)


def test_zero3_keeps_bfloat16_weights_with_a_float32_copy_and_two_states():
    memory = plan(Training(method="full", sharding="zero3", devices=8)).memory
    share = plan(Training(method="full")).parameters / 8
    assert (memory["weights"], memory["optimizer"]) == (2 * share, 12 * share)
    assert memory["gradients"] == pytest.approx(2 * share + 4 * min(1e9, share))


def test_shards_get_smaller_with_devices():
    for sharding in ("fsdp", "zero3"):
        two, eight = (plan(Training(method="full", sharding=sharding, devices=n)) for n in (2, 8))
        assert eight.memory["optimizer"] == pytest.approx(two.memory["optimizer"] / 4)
        assert eight.tokens_per_second > two.tokens_per_second


def test_a_dense_mask_costs_memory_and_time():
    dense, aware = plan(Training(attention="sdpa")), plan(Training())
    assert dense.memory["attention_mask"] >= 8192**2 > aware.memory["attention_mask"] == 0
    assert dense.time["attention"] > 4 * aware.time["attention"]


def test_longer_documents_cost_more_attention():
    short, long = (
        predict(shape(LLAMA), Training(), work(document=each), gpu("h100")).time["attention"] for each in (512, 4096)
    )
    assert long == pytest.approx(8 * short)


def test_unsupervised_tokens_are_not_scored():
    some, all_ = (
        predict(shape(LLAMA), Training(), work(supervised=each), gpu("h100")).time["matmul"] for each in (0.5, 1)
    )
    assert all_ > some


def test_compiled_layers_are_faster_and_keep_less():
    plain, compiled = plan(Training()), plan(Training(compile_layers=True))
    assert compiled.seconds < plain.seconds
    assert compiled.memory["activations"] < plain.memory["activations"]


@pytest.mark.parametrize(("model", "published"), [(LLAMA, 12_473), (QWEN, 14_110)])
def test_the_model_brackets_a_published_throughput(model, published):
    """NeMo AutoModel, docs/performance-summary (2025-10): LoRA r16 on one H100, rows of 4,096 tokens, two a batch."""
    whole_rows = work(document=4096, supervised=1)
    eager, compiled = (
        predict(shape(model), Training(compile_layers=each), whole_rows, gpu("h100")).tokens_per_second
        for each in (False, True)
    )
    assert eager < published < compiled
    assert eager == pytest.approx(published, rel=0.15)


# --- names and words -------------------------------------------------------------------------------


def test_gpus_have_names_in_any_case():
    assert gpu("H100 PCIe").name == "h100-pcie"
    assert {"h200", "h100", "a100-80", "l40s", "l20", "4090", "t4"} <= set(gpus())


def test_an_unknown_gpu_is_told_the_nearest():
    with pytest.raises(RecipeError, match=r"'h2000' \(nearest name: 'h200'\)(.|\n)*a100-80"):
        gpu("h2000")


def test_a_card_without_bfloat16_is_refused():
    with pytest.raises(RecipeError, match="t4 has no bfloat16"):
        plan(Training(), "t4")


@pytest.mark.parametrize("name", ["NousResearch/Meta-Llama-3-8B", "meta-llama-3-8b", "/models/Meta-Llama-3-8B/"])
def test_mirrors_have_the_shape_of_the_original(name):
    assert shape(name).intermediate_size == 14336


def test_another_model_has_no_shape():
    assert shape("meta-llama/Meta-Llama-3-70B") is None
    assert shape("Qwen/Qwen2.5-7B-Instruct") is None


def test_the_table_and_the_json_say_the_same():
    prediction = plan(Training(row_tokens=16384), "4090")
    rows = describe(prediction)
    assert all(isinstance(each, str) for row in rows for each in row)
    facts = json.loads(json.dumps(as_dict(prediction)))
    assert dict(rows)["memory of one device"] == f"{facts['total'] / GIB:.1f} GiB of 23.6 GiB: does not fit"
    assert [text for label, text in rows if label == "would fit with"] == facts["remedies"]
    assert facts["training"]["row_tokens"] == 16384
