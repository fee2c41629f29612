"""Recipes: what they default to, what they refuse, and what counts as a change of their content."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boost_qa.config import AnalogyCast, DebateCast, ErrorCorrectionCast, Recipe
from boost_qa.errors import RecipeError
from boost_qa.recipe_file import find_recipe, load_recipe, recipe_folder

RECIPES = sorted((Path(__file__).parent.parent / "recipes" / "generate").rglob("*.yaml"))
SERVER = {"engine": "openai", "base_url": "http://localhost:8001/v1", "model": "some/model"}
SMALL: dict[str, Any] = {
    "name": "small",
    "sources": [{"source": "sample", "n": 3}],
    "models": {"weak": SERVER, "middle": SERVER, "strong": SERVER},
}

# MASTER: who speaks with which model at which temperature (methods, A1.0; models and temperatures: section 4.1)
CLASSROOM = [
    # scenario, role, alias, model in the paper, temperature
    ("error_correction", "weak_student", "weak", "Qwen/Qwen2.5-0.5B-Instruct", 0.8),
    ("error_correction", "teacher", "strong", "Qwen/Qwen2.5-14B-Instruct", 0.2),
    ("error_correction", "strong_student", "strong", "Qwen/Qwen2.5-14B-Instruct", 0.2),
    ("debate", "student_a", "middle", "Qwen/Qwen2.5-7B-Instruct", 0.6),
    ("debate", "student_b", "middle", "Qwen/Qwen2.5-7B-Instruct", 0.6),
    ("debate", "student_c", "strong", "Qwen/Qwen2.5-14B-Instruct", 0.2),
    ("analogical_reasoning", "teacher", "strong", "Qwen/Qwen2.5-14B-Instruct", 0.2),
    ("analogical_reasoning", "student", "strong", "Qwen/Qwen2.5-14B-Instruct", 0.2),
]
CASTS = {"error_correction": ErrorCorrectionCast, "debate": DebateCast, "analogical_reasoning": AnalogyCast}

# What the paper leaves UNKNOWN (methods, A1-A4), the setting that decides it, and its default there.
UNKNOWN = [
    # section, setting, default
    ("A1.2 one or two rounds", "scenarios.debate.rounds", [1, 2]),
    ("A1.3 size of the first subset", "scenarios.analogical_reasoning.share", 1.0),
    ("A1.3 k", "scenarios.analogical_reasoning.k", 5),
    ("A1.3 threshold", "scenarios.analogical_reasoning.max_similarity", 0.95),
    ("A1.3 threshold", "scenarios.analogical_reasoning.min_similarity", -1.0),
    ("A1.3 across the sources", "scenarios.analogical_reasoning.across_sources", False),
    ("A1.0 what the teacher sees", "scenarios.analogical_reasoning.teacher_sees_answer", False),
    ("A2 what the student recalls", "scenarios.analogical_reasoning.student_recalls", False),
    ("A2 system or user message", "layout", "system_and_user"),
    ("A3 top_p", "scenarios.error_correction.cast.weak_student.top_p", 1.0),
    ("A3 max_new_tokens", "scenarios.error_correction.cast.weak_student.max_tokens", 1024),
    ("A3 seeds", "seed", 0),
    ("A4 split over the scenarios", "scenarios.error_correction.share", 1.0),
    ("A4 split over the scenarios", "scenarios.debate.share", 1.0),
    ("A4 one dialogue for each record", "assign", "one"),
    ("A4 languages", "sources.1.languages", None),
    ("A4 multi-turn rows", "sources.2.multi_turn", "first"),
    ("A4 system prompts", "sources.2.system", "prepend"),
]


def everything() -> dict[str, Any]:
    """A recipe with every setting of every source, engine and scenario in it."""
    raw = copy.deepcopy(SMALL) | {
        "sources": [
            {"source": "sample"},
            {"source": "orca_math"},
            {"source": "procqa"},
            {"source": "openhermes"},
            {"source": "columns", "name": "mine", "question": "q", "answer": "a"},
            {"source": "reasoning_gym", "n": 2, "tasks": {"leg_counting": {}}},
        ],
        "models": {
            "weak": {"engine": "embedded", "model": "tiny"},
            "middle": {"engine": "embedded", "model": "old"},
            "strong": SERVER,
        },
    }
    return Recipe.model_validate(raw).model_dump(mode="json")


def write(folder: Path, raw: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw), encoding="utf-8")
    return path


def at(value: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def levels(value: Any, dotted: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every mapping of settings in a recipe, with its dotted key."""
    free = re.fullmatch(r"models|sources\.\d+\.tasks(\..*)?|models\.\w+\.extra_body", dotted)
    found = [(dotted, value)] if isinstance(value, dict) and not free else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += levels(item, f"{dotted}.{key}".lstrip("."))
    return found


# --- the packaged recipes ------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_packaged_recipe_is_read(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert find_recipe(path.stem).samefile(path)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_packaged_recipe_names_models_that_are_known(path):
    from boost_qa.models import catalogue

    recipe, known = load_recipe(path), {listing.name for listing in catalogue()}
    embedded = {model.model for model in recipe.models.values() if model.engine == "embedded"}
    analogy, star = recipe.scenarios.analogical_reasoning, recipe.star
    others = {analogy.embedder} if analogy else {star.small, star.large, star.bank.embedder}
    on_hub = {name for name in others if "/" in name}
    assert (embedded | others) - on_hub <= known


def test_all_recipes_are_found():
    assert {"demo", "demo_small", "laptop", "paper"} <= {path.stem for path in RECIPES}
    assert recipe_folder().is_dir()


def test_written_recipe_reads_the_same(tmp_path):
    recipe = Recipe.model_validate(everything())
    assert load_recipe(write(tmp_path, recipe.model_dump(mode="json"))) == recipe


# --- what is published ---------------------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "role", "alias", "model", "temperature"), CLASSROOM)
def test_casts_are_those_of_the_paper(scenario, role, alias, model, temperature):
    default = getattr(CASTS[scenario](), role)
    assert (default.model, default.temperature) == (alias, temperature)
    paper = load_recipe("paper")
    agent = getattr(paper.scenarios.active()[scenario].cast, role)
    assert (paper.models[agent.model].model, agent.temperature) == (model, temperature)


def test_no_role_is_missing_from_the_table():
    roles = [(scenario, role) for scenario, cast in CASTS.items() for role in cast.model_fields]
    assert roles == [(scenario, role) for scenario, role, *_ in CLASSROOM]


def test_paper_draws_the_published_sample():
    """5,000 + 5,000 + 9,000 rows (section 4.2), one dialogue each, nothing held out (appendix D.1)."""
    paper = load_recipe("paper")
    assert [(source.source, source.n) for source in paper.sources] == [
        ("orca_math", 5000),
        ("procqa", 5000),
        ("openhermes", 9000),
    ]
    assert (paper.dialogues, paper.validation, paper.language) == (None, 0.0, "English")
    assert [settings.share for settings in paper.scenarios.active().values()] == [1.0, 1.0, 1.0]
    analogy = paper.scenarios.analogical_reasoning
    assert "all-minilm-l6-v2" in analogy.embedder.lower() and analogy.separator == ""


@pytest.mark.parametrize(("section", "setting", "default"), UNKNOWN)
def test_what_the_paper_leaves_open_is_a_setting(section, setting, default):
    paper = load_recipe("paper").model_dump(mode="json")
    assert at(paper, setting) == default
    assert load_recipe("paper", [f"{setting}={yaml.safe_dump(default, default_flow_style=True).strip()}"])


@pytest.mark.parametrize("setting", sorted({setting.rpartition(".")[2] for _, setting, _ in UNKNOWN}))
def test_paper_recipe_marks_what_is_unknown(setting):
    lines = find_recipe("paper").read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if re.search(rf"\b{setting}s?\b", line)]
    # the temperature table and section numbers are published; everything in the list above is not
    assert any("UNKNOWN" in line for line in named) or any("section 3.2" in line for line in named)


# --- strictness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [dotted for dotted, _ in levels(everything())], ids=lambda dotted: dotted or "top")
def test_unknown_key_is_named_at_every_level(tmp_path, level):
    mapping = dict(levels(everything()))[level]
    for key in mapping:
        raw, wrong = everything(), f"{key}x"
        dict(levels(raw))[level][wrong] = 1
        path = write(tmp_path, raw)
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        dotted = f"{level}.{wrong}".lstrip(".")
        assert str(path) in caught.value.what
        assert f"unknown key {dotted!r} (nearest known key: {key!r})" in caught.value.what


def test_a_list_of_which_an_entry_is_wrong_is_not_called_empty(tmp_path):
    raw = copy.deepcopy(SMALL)
    raw["sources"][0]["nn"] = 3
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, raw))
    assert "'sources.0.nn' (nearest known key: 'n')" in caught.value.what and "at least" not in caught.value.what


def test_unknown_key_is_compared_with_the_keys_of_its_level(tmp_path):
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "temperature": 0.5}
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, raw))
    assert "unknown key 'models.weak.temperature'" in caught.value.what
    assert "nearest known key: 'temperature'" not in caught.value.what


def test_alias_that_is_also_an_engine_stays_in_the_key(tmp_path):
    raw = copy.deepcopy(SMALL)
    raw["models"]["openai"] = {**SERVER, "tokeniser": "x"}
    with pytest.raises(
        RecipeError, match=r"unknown key 'models\.openai\.tokeniser' \(nearest known key: 'tokenizer'\)"
    ):
        load_recipe(write(tmp_path, raw))


def test_all_faults_are_named_at_once(tmp_path):
    raw = copy.deepcopy(SMALL) | {"sed": 1, "validation": 2}
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, raw))
    assert "unknown key 'sed' (nearest known key: 'seed')" in caught.value.what
    assert "validation: Input should be less than 1" in caught.value.what


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": {}}, "models: "),
        (
            {"models": {"weak": SERVER}},
            "scenarios.error_correction.cast.teacher.model: 'strong' is not in models (weak)",
        ),
        ({"sources": []}, "sources: "),
        ({"sources": [{"source": "wikipedia"}]}, "sources.0: "),
        ({"sources": [{"source": "sample", "n": 0}]}, "sources.0.n: "),
        ({"sources": [{"source": "reasoning_gym", "tasks": {}}]}, "sources.0: reasoning_gym is endless: give n"),
        ({"scenarios": {"error_correction": None, "debate": None, "analogical_reasoning": None}}, "none is left"),
        ({"scenarios": {"debate": {"rounds": [3]}}}, "scenarios.debate.rounds.0: "),
        ({"scenarios": {"debate": {"rounds": []}}}, "scenarios.debate.rounds: "),
        ({"scenarios": {"debate": {"share": -1}}}, "scenarios.debate.share: "),
        ({"name": "has space"}, "name: "),
        ({"name": "../up"}, "name: "),
        ({"runner": {"in_flight": 0}}, "runner.in_flight: "),
        ({"models": SMALL["models"] | {"weak": {"engine": "replay", "model": "m"}}}, "models.weak: "),
        *(
            ({"models": SMALL["models"] | {"weak": {"engine": "embedded", "model": "m", "cache_gb": size}}}, said)
            for size, said in ((0, "models.weak.cache_gb: "), (1.5, "models.weak.cache_gb: "))
        ),
        ({"layout": "assistant"}, "layout: "),
        ({1: 2}, "1: Keys should be strings"),
    ],
)
def test_bad_value_is_refused_with_its_key(tmp_path, change, said):
    path = write(tmp_path, copy.deepcopy(SMALL) | change)
    with pytest.raises(RecipeError, match=re.escape(said)) as caught:
        load_recipe(path)
    assert str(path) in caught.value.what and caught.value.exit_code == 2


def test_agent_without_a_model_of_the_recipe_is_refused(tmp_path):
    raw = copy.deepcopy(SMALL) | {
        "scenarios": {"debate": {"cast": {"student_a": {"model": "nobody", "temperature": 0.6}}}}
    }
    with pytest.raises(RecipeError, match=r"scenarios\.debate\.cast\.student_a\.model: 'nobody' is not in models"):
        load_recipe(write(tmp_path, raw))


def test_scenario_without_a_share_needs_no_models(tmp_path):
    raw = copy.deepcopy(SMALL)
    del raw["models"]["weak"]
    raw["scenarios"] = {"error_correction": {"share": 0}}
    assert list(load_recipe(write(tmp_path, raw)).scenarios.active()) == ["debate", "analogical_reasoning"]


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "just words", "a: [", "\tname: x", "a: &x [*x]", "!!python/object:os.system {}"]
)
def test_file_that_is_no_recipe(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(RecipeError, match=re.escape(str(path))):
        load_recipe(path)


def test_file_that_is_no_text(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RecipeError, match="binary.yaml"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["no_such_recipe", "", "..", "demo.yaml", "x" * 5000])
def test_missing_recipe_names_the_packaged_ones(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="demo, demo_small, laptop, paper"):
        load_recipe(name)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=10,
    )
)
def test_nothing_else_is_a_recipe(tmp_path_factory, raw):
    path = write(tmp_path_factory.mktemp("any"), raw)
    with pytest.raises(RecipeError):
        load_recipe(path)


# --- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "setting", "value"),
    [
        ("seed=7", "seed", 7),
        ("sources.0.n=2", "sources.0.n", 2),
        ("sources.0={source: sample, n: 1}", "sources.0.n", 1),
        ("sources.1={source: sample, n: 1}", "sources.1.n", 1),
        ("scenarios.debate=null", "scenarios.debate", None),
        ("scenarios.debate.rounds=[2]", "scenarios.debate.rounds", [2]),
        ("runner.in_flight=3", "runner.in_flight", 3),
        ("models.weak.model=a/b=c", "models.weak.model", "a/b=c"),
        ("models.extra={engine: embedded, model: m}", "models.extra.model", "m"),
        ("language=Old Norse", "language", "Old Norse"),
        ("scenarios.analogical_reasoning.bridge='Now: '", "scenarios.analogical_reasoning.bridge", "Now: "),
    ],
)
def test_override(tmp_path, override, setting, value):
    path = write(tmp_path, SMALL)
    changed = load_recipe(path, [override])
    assert at(changed.model_dump(mode="json"), setting) == value
    assert load_recipe(path) != changed


def test_later_override_wins_and_null_is_opened_again(tmp_path):
    changes = ["seed=1", "scenarios.debate=null", "seed=2", "scenarios.debate.share=0.5"]
    recipe = load_recipe(write(tmp_path, SMALL), changes)
    assert recipe.seed == 2 and recipe.scenarios.debate is not None and recipe.scenarios.debate.share == 0.5


@pytest.mark.parametrize(
    "override",
    ["seed", "=3", "", "sources.x.n=1", "sources.7.n=1", "sources.-1.n=1", "seed.deep=1", "seed=[", "sources.0.m=1",
     "sed=1", "scenarios.debat.share=1", "name=null", "sources.0.n=many", "models.weak.api_key=abc", "sources..n=1",
     "sources.1={}", "sources.2={source: sample}"],
)  # fmt: skip
def test_bad_override(tmp_path, override):
    path = write(tmp_path, SMALL)
    with pytest.raises(RecipeError):
        load_recipe(path, [override])


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://user:hunter2@host/v1", "https://user:hunter2@host:8000/v1", "https://hunter2@host/v1",
     "https://host/v1?api_key=hunter2", "https://us\\er:hunter2@host", "HTTPS://user:hunter2@host/v1"],
)  # fmt: skip
def test_address_with_a_secret_is_refused_and_not_repeated(tmp_path, url):
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "base_url": url}
    with pytest.raises(RecipeError, match=r"models\.weak\.base_url") as caught:
        load_recipe(write(tmp_path, raw))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "file:///etc/passwd", ""])
def test_address_must_be_http(tmp_path, url):
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "base_url": url}
    with pytest.raises(RecipeError, match="must begin with http"):
        load_recipe(write(tmp_path, raw))


@pytest.mark.parametrize("key", ["api_key", "key", "token", "authorization", "headers"])
def test_no_setting_takes_a_key(tmp_path, key):
    for alias, model in (("weak", SERVER), ("strong", {"engine": "embedded", "model": "m"})):
        raw = copy.deepcopy(SMALL)
        raw["models"][alias] = {**model, key: "hunter2"}
        with pytest.raises(RecipeError, match=rf"unknown key 'models\.{alias}\.{key}'") as caught:
            load_recipe(write(tmp_path, raw))
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["api_key", "apiKey", "x_api_key", "auth-token", "Authorization", "password"])
def test_field_of_a_request_that_looks_like_a_secret_is_refused_and_not_repeated(tmp_path, key):
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "extra_body": {"top_k": 5, key: "hunter2"}}
    with pytest.raises(RecipeError, match=rf"models\.weak\.extra_body: {key} looks like a secret") as caught:
        load_recipe(write(tmp_path, raw))
    assert "hunter2" not in str(caught.value) and "api_key_env" in str(caught.value)


def test_a_secret_inside_a_field_of_a_request_is_refused_too(tmp_path):
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "extra_body": {"provider": [{"headers": {"x-api-key": "hunter2"}}]}}
    with pytest.raises(RecipeError, match=r"models\.weak\.extra_body: x-api-key looks like a secret") as caught:
        load_recipe(write(tmp_path, raw))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["sk-proj-hunter2", "hf_hunter2hunter2hunter2hunter2", "gsk_hunter2hunter2hunter2", "hunter2!", ""]
)
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(tmp_path, key):
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "api_key_env": key}
    with pytest.raises(RecipeError, match=r"models\.weak\.api_key_env: must be the name") as caught:
        load_recipe(write(tmp_path, raw))
    assert "hunter2" not in str(caught.value)


def test_other_fields_of_a_request_are_free(tmp_path):
    body = {"min_tokens": 3, "stop_token_ids": [1], "skip_special_tokens": False, "chat_template_kwargs": {"x": None}}
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "extra_body": body}
    assert load_recipe(write(tmp_path, raw)).models["weak"].extra_body == body


def test_variable_of_the_key_is_named_and_never_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "hunter2")
    raw = copy.deepcopy(SMALL)
    raw["models"]["weak"] = {**SERVER, "api_key_env": "MY_KEY"}
    recipe = load_recipe(write(tmp_path, raw))
    assert recipe.models["weak"].api_key_env == "MY_KEY"
    assert "hunter2" not in str(recipe.model_dump(mode="json"))


# --- what counts as content ----------------------------------------------------------------------

SAME = ["models.strong.base_url=http://elsewhere:1/v1", "models.strong.api_key_env=KEY", "models.strong.concurrency=3",
        "models.strong.timeout=5", "models.strong.retries=1", "models.weak.device=GPU", "models.weak.slots=2",
        "models.weak.cache_gb=9", "models.weak.threads=4", "runner.in_flight=1", "validation=0.5",
        "name=other"]  # fmt: skip
OTHER = ["seed=5", "models.weak.model=other", "models.strong.model=other", "models.strong.revision=abc",
         "models.weak.context=512", "models.strong.tokenizer=folder", "models.strong.extra_body={top_k: 5}",
         "models.strong.extra_body={timeout: 5}", "layout=user", "language=French", "runner.attempts=1", "assign=all",
         "dialogues=5", "sources.0.n=3", "sources.3.system=drop", "scenarios.debate=null", "scenarios.debate.share=2",
         "scenarios.debate.rounds=[1]", "scenarios.error_correction.cast.weak_student.temperature=0.7",
         "scenarios.error_correction.cast.weak_student.top_p=0.9",
         "scenarios.error_correction.cast.teacher.max_tokens=5",
         "scenarios.error_correction.cast.teacher.prompt=mine.yaml",
         "scenarios.error_correction.cast.teacher.model=weak",
         "scenarios.analogical_reasoning.k=2", "scenarios.analogical_reasoning.separator=x",
         "sources.5.tasks={leg_counting: {threads: 3}}"]  # fmt: skip


@pytest.mark.parametrize("override", SAME)
def test_addresses_sizes_splits_and_the_name_are_no_content(tmp_path, override):
    path = write(tmp_path, everything())
    changed = load_recipe(path, [override])
    assert changed != load_recipe(path)
    assert changed.content() == load_recipe(path).content()


@pytest.mark.parametrize("override", OTHER)
def test_everything_else_is_content(tmp_path, override):
    path = write(tmp_path, everything())
    assert load_recipe(path, [override]).content() != load_recipe(path).content()


def test_names_that_users_choose_are_content(tmp_path):
    """An alias or a field of a request may have the name of a setting that is no content."""
    raw = everything()
    raw["models"]["device"] = {"engine": "embedded", "model": "one"}
    path = write(tmp_path, raw)
    assert load_recipe(path, ["models.device.model=two"]).content() != load_recipe(path).content()


# --- names of models -----------------------------------------------------------------------------


def names(models: dict[str, Any]) -> dict[str, str]:
    scenarios = {"debate": None, "analogical_reasoning": None}
    cast = {role: {"model": next(iter(models)), "temperature": 0} for role in ErrorCorrectionCast.model_fields}
    raw = SMALL | {"models": models, "scenarios": scenarios | {"error_correction": {"cast": cast}}}
    recipe = Recipe.model_validate(raw)
    return {alias: recipe.model_name(alias) for alias in recipe.models}


def test_aliases_of_one_model_share_its_name():
    assert names({"weak": SERVER, "strong": SERVER}) == {"weak": "some/model", "strong": "some/model"}


def test_one_model_reached_in_two_ways_has_two_names():
    elsewhere = {**SERVER, "base_url": "http://localhost:9/v1"}
    own = {"engine": "embedded", "model": "some/model"}
    found = names({"a": SERVER, "b": elsewhere, "c": own, "d": {**SERVER, "model": "other"}})
    assert found == {"a": "some/model (a)", "b": "some/model (b)", "c": "some/model (c)", "d": "other"}
