"""Reading a training recipe: strict, and every error names the key and what to do."""

from __future__ import annotations

import pytest

from boost_qa.errors import RecipeError
from boost_qa.train.keys import known_keys
from boost_qa.train.settings import find_recipe, read_settings

RECIPE = """
dataset: some/where
model_name_or_path: some/model
dtype: bfloat16
use_peft: true
lora_target_modules: [q_proj, v_proj]
learning_rate: 1e-4
max_length: 512
use_cpu: true
"""


@pytest.fixture
def recipe(tmp_path):
    def write(text=RECIPE):
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
        return str(file)

    return write


def refused(arguments: list[str]) -> str:
    with pytest.raises(RecipeError) as error:
        read_settings(arguments)
    return str(error.value)


def test_keys_of_all_three_kinds_are_read_with_their_types(recipe):
    settings = read_settings(["--config", recipe(), "--loss_on", "last", "--num-train-epochs=2", "--bf16", "true"])
    assert (settings.sft.learning_rate, settings.model.dtype, settings.ours.loss_on) == (1e-4, "bfloat16", "last")
    assert (settings.sft.num_train_epochs, settings.sft.bf16, settings.method) == (2, True, "lora")
    assert settings.model.lora_target_modules == ["q_proj", "v_proj"]


def test_the_command_line_changes_the_file(recipe):
    assert read_settings(["--config", recipe(), "--learning_rate", "0.5"]).sft.learning_rate == 0.5


def test_null_takes_a_key_of_the_recipe_away(recipe):
    settings = read_settings(["--config", recipe(), "--learning_rate", "null", "--loss_on=null"])
    assert (
        "learning_rate" not in settings.given
        and settings.sft.learning_rate
        == read_settings(["--config", recipe(RECIPE.replace("learning_rate: 1e-4", ""))]).sft.learning_rate
    )
    assert "nearest known key: 'learning_rate'" in refused(["--config", recipe(), "--learning_rat", "null"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("learning_rat: 1e-4", "unknown key 'learning_rat' (nearest known key: 'learning_rate')"),
        ("lora_rank: 8", "It is called lora_r"),
        ("cutoff_len: 8", "It is called max_length"),
        ("warmup_ratio: 0.1", "Write warmup_steps: 0.1"),
        ("max_seq_length: 9", "called max_length now"),
        ("torch_dtype: bfloat16", "called dtype now"),
        ("loss_on: some", "loss_on: 'some' is none of all, not_weak, last"),
        ("template: llama2", "template: 'llama2' is none of plain, llama3, chatml"),
        ("validation: 1.5", "validation: 1.5"),
        ("checkpoint_every: often", "checkpoint_every: 'often'"),
        ("num_train_epochs: two", "num_train_epochs"),
        ("lora_r: 8.5", "lora_r"),
        ("packing: perhaps", "packing"),
        ("lr_scheduler_type: cosin", "cosin"),
        ("gpu: h2000", "nearest name: 'h200'"),
        ("dialogues_per_step: 32", "dialogues_per_step is for packing: true"),
        ("assistant_only_loss: true", "loss_on"),
        ("chat_template_path: x.jinja", "template"),
        ("gradient_checkpointing: true", "checkpoint_every"),
        ("push_to_hub: true", "hub_model_id: user/name"),
        ("push_to_hub: true\nhub_model_id: name", "hub_model_id is name"),
        ("hub_strategy: every_save", "published, once and in one commit"),
        ("push_to_hub_model_id: name", "It is called hub_model_id now"),
        ("save_only_model: true", "resumes to other losses"),
        ("eval_packing: true", "Its work is done by: packing"),
        ("packing_strategy: wrapped", "lets dialogues of a row see each other"),
        ("eval_strategy: epoch", "eval_strategy needs something to evaluate on"),
        ("lora_r: 0", "lora_r: 0"),
        ("gradient_accumulation_steps: 0", "gradient_accumulation_steps: 0"),
        ("lora_target_modules: all-linear", "Name the linear layers within the decoder"),
        ("lora_target_modules: [q_proj, lm_head]", "lora_target_modules: lm_head"),
        ("model_init_kwargs: {token: hf_secret}", "token: a secret is no part of a recipe"),
        ('model_init_kwargs: \'{"hub": {"api_key": "hf_secret"}}\'', "api_key: a secret is no part of a recipe"),
        ("hub_token: hf_secret", "a secret is no part of a recipe"),
        ("max_length: null", "max_length"),
        ("dataset: ''", "dataset is missing"),
        ("lora_target_modules: null", "lora_target_modules is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(recipe, line, said):
    key = line.partition(":")[0]
    kept = "\n".join(each for each in RECIPE.splitlines() if not each.startswith(f"{key}:"))
    message = refused(["--config", recipe(f"{kept}\n{line}\n")])
    assert said in message and "hf_secret" not in message


def test_a_wrong_key_on_the_command_line_is_no_abbreviation_of_a_right_one(recipe):
    assert "nearest known key: 'learning_rate'" in refused(["--config", recipe(), "--learning_rat", "1"])


def test_a_file_that_is_not_there_or_no_mapping(recipe, tmp_path):
    assert "llama-3-8b/lora" in refused(["--config", str(tmp_path / "none.yaml")])
    assert "holds no mapping" in refused(["--config", recipe("- 1\n")])
    assert "recipe.yaml" in refused(["--config", recipe("a: [\n")])


def test_packaged_recipes_have_names():
    assert find_recipe("qwen2.5-7b/full").name == "full.yaml"


def test_a_gpu_recipe_without_a_gpu_says_so_and_still_plans(recipe):
    text = RECIPE.replace("use_cpu: true", "bf16: true")
    assert "there is no GPU here" in refused(["--config", recipe(text)])
    assert read_settings(["--config", recipe(text), "--dry_run", "true"]).ours.dry_run
    assert read_settings(["--config", recipe(text)], plan_only=True).sft.bf16


def test_what_decides_the_weights_is_told_from_what_does_not(recipe):
    one = read_settings(["--config", recipe()])
    same = read_settings(
        ["--config", recipe(), "--learning_rate", "0.0001", "--logging_steps", "7", "--output_dir", "x"]
    )
    other = read_settings(["--config", recipe(), "--seed", "7"])
    assert one.material() == same.material() != other.material()


def test_one_layer_is_a_list_of_one(recipe):
    for written in ("q_proj", "[q_proj]"):
        text = RECIPE.replace("lora_target_modules: [q_proj, v_proj]", f"lora_target_modules: {written}")
        assert read_settings(["--config", recipe(text)]).model.lora_target_modules == ["q_proj"]


def test_no_known_key_is_one_that_we_replace():
    assert {"loss_on", "learning_rate", "lora_r"} <= known_keys()
    assert not known_keys() & {"assistant_only_loss", "hub_strategy", "eos_token"}
