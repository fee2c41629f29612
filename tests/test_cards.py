"""Cards of datasets and models, what licences come to, evaluation results, and that no path of this machine leaves."""

from __future__ import annotations

import configparser
import copy
import json
import math
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from fabricate import make_run
from huggingface_hub import DatasetCard, ModelCard, parse_eval_result_entries
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError, meta

from boost_qa.cards import adapter, dataset
from boost_qa.cards.adapter import Base, Data, render
from boost_qa.cards.evaluations import Score, eval_results_yaml, hub_results, read_scores
from boost_qa.cards.licences import KNOWN, PERMISSIVE, terms, together
from boost_qa.cards.markup import address, environment, template_folder
from boost_qa.config import Recipe
from boost_qa.contents import survey
from boost_qa.errors import RunError
from boost_qa.export import content_digest, export, write_parquet
from boost_qa.plan import plan
from boost_qa.portable import SERVER, names_files, portable, portable_value
from boost_qa.recipe_file import load_recipe, recipe_folder

EVIL = "</td><script>alert(1)</script>|`a`|\n---\n# Top\n[x](http://evil.example) {{ 7 * 7 }} www.evil.example"
EVIL += " \u2028 \x85 '"
FORBIDDEN = ("<script", "\n# Top", "[x](", "`a`", " 49 ", "http://evil", "www.evil", "\n---\n")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def check_tables(text: str) -> None:
    """Every row of a table has as many cells as its head."""
    for table in text.split("\n\n"):
        lines = [line for line in table.split("\n") if line.startswith("|")]
        assert len({re.sub(r"\\.", "", line).count("|") for line in lines}) <= 1, table


def variables(template: str) -> set[str]:
    """The variables that a template and those that it includes need."""
    source = (template_folder() / template).read_text("utf-8")
    tree = environment().parse(source)
    included = {name for name in meta.find_referenced_templates(tree) if name}
    needed = meta.find_undeclared_variables(tree)
    set_here = set(re.findall(r"{% set (\w+)", source))
    return needed.union(*(variables(name) for name in included)) - set_here


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/jo/private/rows.jsonl", "rows.jsonl"),
        ("/data", "data"),
        ("/data/", "data"),
        ("//server/share/x", "x"),
        ("/data/my rows/*.parquet", "*.parquet"),
        ("~/x/y", "y"),
        ("~jo/x", "x"),
        ("./x/y", "y"),
        ("../../private/y", "y"),
        (r"C:\Users\jo\model.gguf", "model.gguf"),
        ("d:/work/model.gguf", "model.gguf"),
        (r"\\server\share\x", "x"),
        ("file:///home/jo/a%20b.json", "a b.json"),
    ],
)
def test_a_path_becomes_a_name(path, name):
    assert portable_value(path) == name
    deep = {"a": [1, {"b": path, "c": [path, None, True]}]}
    assert portable_value(deep) == {"a": [1, {"b": name, "c": [name, None, True]}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "org/model",
        "train[:5%]",
        "</s>",
        "https://a.b/c",
        "hf://x/y",
        "and/or",
        "a / b",
        "/ or",
        "x\n/y/z",
        "~",
    ],
)
def test_what_is_no_path_stays(text):
    assert portable_value(text) == text


def test_the_home_directory_is_nobodys_business(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jo")
    assert portable_value("cannot read /home/jo/x: no such file") == "cannot read ~/x: no such file"
    assert portable_value("in (/home/jo), /home/joanna, /mnt/home/jo") == "in (~), /home/joanna, /mnt/home/jo"
    assert portable_value({"/home/jo": "/home/jo"}) == {"~": "~"}
    monkeypatch.setenv("HOME", "/")
    assert portable_value("a / b, and a/b") == "a / b, and a/b"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_twice_is_once(value):
    once = portable_value(value)
    assert portable_value(once) == once


@given(
    st.lists(st.text("abc .-_%~ü", min_size=1), min_size=1), st.sampled_from(["/", "~/", "./", "../", "c:/", "file://"])
)
def test_nothing_but_a_name_is_left(parts, root):
    assert "/" not in portable_value(f"{root}x/{'/'.join(parts)}")


@pytest.mark.parametrize("name", sorted(path.stem for path in recipe_folder().glob("*.yaml")))
def test_a_portable_recipe_is_a_recipe(name, tmp_path):
    recipe = load_recipe(name)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(portable(recipe.model_dump(mode="json"))), encoding="utf-8")
    assert load_recipe(file).content() == recipe.content() and not names_files(recipe.model_dump(mode="json"))
    assert "//" not in file.read_text("utf-8").replace(SERVER, "")


def private_recipe() -> dict:
    """A recipe with a path wherever there can be one."""
    cast = {"model": "local", "temperature": 0.5, "prompt": "/home/jo/private/prompt.yaml"}
    judge = {"model": "server", "temperature": 0.2, "prompt": "/home/jo/private/judge.yaml"}
    benchmark = {"name": "mine", "path": "/home/jo/private/bench.jsonl"}
    return {
        "name": "private",
        "checks": {"answers": {"judge": judge}, "contamination": {"benchmarks": [benchmark]}},
        "sources": [
            {"source": "orca_math", "path": "/home/jo/private/orca.jsonl", "n": 3},
            {"source": "procqa", "path": "private/procqa"},
            {"source": "reasoning_gym", "n": 2, "tasks": {"chain_sum": {"file": "/home/jo/private/sums"}}},
        ],
        "models": {
            "local": {"engine": "embedded", "model": "/home/jo/private/model.gguf"},
            "server": {
                "engine": "openai",
                "base_url": "http://10.0.0.7:8000/v1",
                "model": "/home/jo/private/served",
                "tokenizer": "private/tokenizer",
                "extra_body": {"lora_path": "/home/jo/private/lora"},
                "api_key_env": "OUR_KEY",
            },
        },
        "scenarios": {
            "error_correction": None,
            "debate": {"cast": {"student_a": cast, "student_b": cast, "student_c": cast | {"model": "server"}}},
            "analogical_reasoning": {
                "cast": {"teacher": cast, "student": cast},
                "embedder": "/home/jo/private/embedder",
                "separator": "/",
                "bridge": "/now/ this",
            },
        },
    }


def test_of_a_private_recipe_names_are_left(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(private_recipe()), encoding="utf-8")
    recipe = load_recipe(tmp_path / "a.yaml").model_dump(mode="json")
    before = copy.deepcopy(recipe)
    public = portable(recipe)
    assert recipe == before and names_files(recipe)
    text = yaml.safe_dump(public)
    assert "private/" not in text and "/home" not in text and "10.0.0.7" not in text
    (tmp_path / "b.yaml").write_text(text, encoding="utf-8")
    read = load_recipe(tmp_path / "b.yaml")
    assert [getattr(source, "path", None) for source in read.sources] == ["orca.jsonl", "procqa", None]
    assert read.models["local"].model == "model.gguf" and read.models["server"].base_url == SERVER
    assert read.models["server"].tokenizer == "tokenizer" and read.models["server"].extra_body == {"lora_path": "lora"}
    assert read.scenarios.debate.cast.student_a.prompt == "prompt.yaml"
    analogy = read.scenarios.analogical_reasoning
    assert (analogy.embedder, analogy.separator, analogy.bridge) == ("embedder", "/", "/now/ this")
    assert portable(public) == public and not names_files(public)


# --- licences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licences", "id"),
    [
        (["MIT"], "mit"),
        (["mit", "MIT ", "mit"], "mit"),
        (["CC-BY-NC-4.0"], "cc-by-nc-4.0"),
        (["CC-BY-SA-4.0"], "cc-by-sa-4.0"),
        (["CC-BY-SA-4.0", "MIT"], "cc-by-sa-4.0"),
        (["Apache-2.0", "cc-by-sa-3.0", "cc0-1.0", "cc-by-4.0", "bsd-3-clause"], "cc-by-sa-3.0"),
        (["cc-by-sa-3.0", "cc-by-sa-4.0", "mit"], "cc-by-sa-4.0"),
        (["mit", "apache-2.0"], "other"),
        (["unknown"], "other"),
        (["unknown", "MIT", "CC-BY-SA-4.0"], "other"),
        ([None], "other"),
        (["CC-BY-SA-4.0", "cc-by-nc-4.0"], "other"),
        (["CC-BY-SA-4.0", "gpl-3.0"], "other"),
        (["my own"], "other"),
        ([EVIL], "other"),
    ],
)
def test_what_licences_come_to(licences, id):
    found = together(licences)
    assert found.id == id and found.why.endswith(".")
    assert together(reversed(licences)) == found
    assert ("declares no licence" in found.why) == (id == "other" and licences not in NO_UNKNOWN)


NO_UNKNOWN = (["mit", "apache-2.0"], ["CC-BY-SA-4.0", "cc-by-nc-4.0"], ["CC-BY-SA-4.0", "gpl-3.0"])


def test_licences_are_names_of_the_hub():
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in KNOWN)
    assert not [name for name in PERMISSIVE if re.search("-nc|-nd|-sa|gpl", name)]


def test_what_the_sources_allow():
    names = ("orca_math", "procqa", "openhermes", "sample_mathematics", "mine")
    found = terms([{"source": name, "licence": "X-1.0"} for name in names])
    assert [each.source for each in found] == list(names)
    assert [each.title is None for each in found] == [False, False, False, False, True]
    said = dict(zip(names, (each.allows for each in found), strict=True))
    assert "educational" in said["orca_math"] and "OpenAI" in said["orca_math"]
    assert "CC BY-SA" in said["procqa"] and "attribution" in said["procqa"]
    assert "No licence" in said["openhermes"]
    assert "X-1.0" in said["mine"] and "not looked up" in said["mine"]
    assert all(each.url.startswith("https://") and address(each.url) == each.url for each in found[:4])


def test_a_table_with_the_name_of_a_known_source_is_not_taken_for_it(tmp_path):
    facts = {"where": "a.jsonl", "licence": "mit", "revision": "v1", "read": 3, "taken": 3, "bad": {}}
    columns = {"source": "columns", "name": "orca_math", "path": "a.jsonl", "question": "q", "answer": "a"}
    recipe = make_run(tmp_path / "plain").manifest()["recipe"] | {"sources": [columns]}
    found = dataset_context(tmp_path, sources=[{"source": "orca_math", **facts}], recipe=recipe)["terms"]
    assert [(each.source, each.url) for each in found] == [("orca_math", None)] and "not looked up" in found[0].allows


# --- the dataset card ----------------------------------------------------------------------------


def dataset_context(folder: Path, **manifest) -> dict:
    run = make_run(folder / "run", manifest=manifest)
    contents = survey(run)
    figures = write_parquet(contents, folder / "data")
    return dataset.context(run.manifest(), contents, figures, digest=content_digest(folder / "data"))


@pytest.fixture(scope="module")
def of_dataset(tmp_path_factory) -> dict:
    return dataset_context(tmp_path_factory.mktemp("cards"))


def test_the_dataset_card_has_every_variable_and_needs_each(of_dataset):
    template = environment().get_template(dataset.TEMPLATE)
    assert variables(dataset.TEMPLATE) == set(of_dataset)
    template.render(of_dataset)
    for name in of_dataset:
        with pytest.raises(UndefinedError, match=name):
            template.render({key: value for key, value in of_dataset.items() if key != name})
    torn = [{key: value for key, value in source.items() if key != "where"} for source in of_dataset["sources"]]
    with pytest.raises(UndefinedError, match="where"):
        template.render(of_dataset | {"sources": torn})


def test_the_dataset_card_says_whose_words_the_answers_are(of_dataset):
    text = " ".join(environment().get_template(dataset.TEMPLATE).render(of_dataset).split())
    assert "except in the config `original`: its answers are those of the sources" in text


NO_ANALOGY = {"scenarios": {"analogical_reasoning": None}}


def extras_of_package() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
    return set(setup["options.extras_require"])


@pytest.mark.parametrize(
    ("recipe", "extras"),
    [
        ("demo", ["embedded", "retrieval"]),
        ("paper", ["retrieval"]),
        ("star_demo", ["embedded", "retrieval", "train"]),
        (NO_ANALOGY | {"sources": [{"source": "reasoning_gym", "tasks": {"gcd": {}}, "n": 5}]}, ["reasoning-gym"]),
        ({"scenarios": {"analogical_reasoning": {"share": 0}}}, []),
    ],
)
def test_the_dataset_card_installs_what_its_recipe_needs(recipe, extras, tmp_path):
    if isinstance(recipe, str):
        whole = load_recipe(recipe)
    else:
        server = {"engine": "openai", "base_url": SERVER, "model": "org/model"}
        models = dict.fromkeys(("weak", "middle", "strong"), server)
        whole = Recipe.model_validate({"name": "x", "sources": [{"source": "sample"}], "models": models} | recipe)
    context = dataset_context(tmp_path, recipe=whole.model_dump(mode="json"))
    text = environment().get_template(dataset.TEMPLATE).render(context)
    [line] = [line for line in text.splitlines() if line.startswith("pip install")]
    assert line == f"pip install 'boost_qa[{','.join(extras)}]'" if extras else line == "pip install boost_qa"
    assert set(extras) <= extras_of_package() and f"{line}\nhf download" in text


def test_the_dataset_card_says_what_a_star_run_is(of_dataset):
    template = environment().get_template(dataset.TEMPLATE)
    star = template.render(of_dataset | {"configs": {"star": of_dataset["configs"]["all"]}})
    for text, method in ((template.render(of_dataset), "2506.02689"), (star, "2411.14497")):
        intro = body(text).split("```python")[0]
        assert re.findall(r"arxiv.org/abs/([\d.]+)", intro) == [method] and "\n\n\n" not in text
        assert "config `original`" in intro


SOURCES = {
    "orca_math": ("microsoft/orca-math-word-problems-200k", "MIT"),
    "procqa": ("procqa", "CC-BY-SA-4.0"),
    "openhermes": ("teknium/OpenHermes-2.5", "unknown"),
    "sample_general": ("sample.yaml", "Apache-2.0"),
}


@pytest.mark.parametrize(
    ("names", "licence"),
    [(("orca_math", "procqa", "sample_general"), "cc-by-sa-4.0"), (tuple(SOURCES), "other"), (("orca_math",), "mit")],
)
def test_the_yaml_licence_follows_from_the_sources(names, licence, tmp_path):
    facts = {"revision": "v1", "read": 3, "taken": 3, "bad": {}}
    sources = [{"source": name, "where": SOURCES[name][0], "licence": SOURCES[name][1], **facts} for name in names]
    target = export(make_run(tmp_path / "run", manifest={"sources": sources}), tmp_path / "dataset")
    card = DatasetCard.load(target / "README.md")
    data = card.data.to_dict()
    assert data["license"] == licence and f"is `{licence}`" in card.text
    for name in names:
        assert f"* `{name}` ([" in card.text
    if licence == "other":
        assert re.fullmatch(r"[a-z0-9-]+", data["license_name"])
        published = (target / "README.md").read_text("utf-8").replace(dataset.PLACE, "alice/rows")
        link = DatasetCard(published).data.to_dict()["license_link"]
        assert link == "https://huggingface.co/datasets/alice/rows#sources" and "\n## Sources\n" in published
    else:
        assert "license_name" not in data and "license_link" not in data


def test_the_place_is_replaced_everywhere(of_dataset):
    text = environment().get_template(dataset.TEMPLATE).render(of_dataset)
    code = "".join(re.findall(r"```\w+\n(.*?)```", text, re.DOTALL))
    assert code.count(dataset.PLACE) == 3
    assert "path/of" not in text.replace(dataset.PLACE, "alice/rows")


@pytest.mark.parametrize("star", [True, False])
def test_both_papers_are_cited(of_dataset, star):
    configs = of_dataset["configs"] | ({"star": of_dataset["configs"]["all"]} if star else {})
    text = environment().get_template(dataset.TEMPLATE).render(of_dataset | {"configs": configs})
    assert text.count("@inproceedings{") == 2 and "arXiv:2506.02689" in text and "arXiv:2411.14497" in text
    assert ("The method of the config `star`" in text, "A related method" in text) == (star, not star)


def test_no_path_of_this_machine_is_in_an_export(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(private_recipe()), encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml").model_dump(mode="json")
    answers = {
        alias: {"engine": model["engine"], "model": model["model"], "revision": "sha256:aa"}
        for alias, model in recipe["models"].items()
    }
    run = make_run(tmp_path / "run", manifest={"recipe": recipe, "models": answers})
    text = run.dialogues_file.read_text("utf-8").replace("Qwen/Qwen2.5-14B-Instruct", "/home/jo/private/model.gguf")
    run.dialogues_file.write_text(text, encoding="utf-8", newline="\n")
    target = export(run, tmp_path / "dataset")
    for name in ("README.md", "recipe.yaml"):
        said = (target / name).read_text("utf-8")
        assert "/home" not in said and "private/" not in said and "10.0.0.7" not in said and str(tmp_path) not in said
    assert "only the last names are left" in (target / "README.md").read_text("utf-8")
    rows = pq.read_table(target / "data" / "all").to_pylist()
    assert {agent["model"] for row in rows for agent in row["agents"]} == {"model.gguf", None}


def test_the_recipe_travels_with_the_dataset(tmp_path):
    run = make_run(tmp_path / "run")
    target = export(run, tmp_path / "dataset")
    recipe = load_recipe(target / "recipe.yaml")
    assert recipe.model_dump(mode="json") == run.manifest()["recipe"] and plan(recipe).recipe.name == "made-up"
    assert (target / "recipe.yaml").read_text("utf-8").startswith("# ")
    text = (target / "README.md").read_text("utf-8")
    assert "boost-qa generate recipe.yaml" in text and "only the last names are left" not in text


def test_an_export_from_before_recipes_is_replaced(tmp_path):
    run = make_run(tmp_path / "run")
    target = export(run, tmp_path / "dataset")
    (target / "recipe.yaml").unlink()
    for _ in range(2):  # without, and with one
        assert (export(run, target) / "recipe.yaml").is_file()


# --- evaluations ---------------------------------------------------------------------------------


def harness_file(folder: Path, name: str = "results_2026-11-20T12-49-09.744599.json", **changes) -> Path:
    """A file such as lm-evaluation-harness 0.4.13 writes, cut to what says something."""
    arc = {"dataset_path": "allenai/ai2_arc", "dataset_name": "ARC-Challenge", "test_split": "test", "num_fewshot": 25}
    gsm = {"dataset_path": "openai/gsm8k", "dataset_name": "main", "test_split": "test", "num_fewshot": 5}
    content = {
        "results": {
            "gsm8k": {
                "name": "gsm8k",
                "alias": "gsm8k",
                "sample_len": 100,
                "exact_match,strict-match": 0.31,
                "exact_match_stderr,strict-match": 0.0465,
                "exact_match,flexible-extract": 0.4,
                "exact_match_stderr,flexible-extract": "N/A",
            },
            "arc_challenge": {"alias": " - arc_challenge", "acc,none": 0.25, "acc_stderr,none": 0.0126},
            "arc_again": {"alias": "arc_again", "acc,none": 0.5, "acc_stderr,none": math.nan, "acc_norm,none": 1},
            "group": {"alias": "group", "sample_len": 20, "acc,none": 0.7, "sample_count": {"acc,none": 10}},
            "tag": {"alias": "tag", " ": " "},
            "local": {"alias": "local", "acc,none": 0.0, "acc_stderr,none": 0.0},
        },
        "group_subtasks": {"group": ["arc_challenge", "arc_again"]},
        "configs": {
            "gsm8k": gsm | {"dataset_kwargs": {"revision": COMMIT}},
            "arc_challenge": arc,
            "arc_again": arc | {"dataset_kwargs": {"revision": "main"}, "num_fewshot": 0},
            "local": {"dataset_path": "json", "dataset_kwargs": {"data_files": "/home/jo/private/x.json"}},
        },
        "versions": {"gsm8k": 3.0},
        "n-shot": {"gsm8k": 5, "arc_challenge": 25, "arc_again": 0, "local": 0},
        "higher_is_better": {"gsm8k": {"exact_match": True}},
        "n-samples": {"gsm8k": {"original": 1319, "effective": 100}, "arc_challenge": {"original": 9, "effective": 8}},
        "config": {"model": "hf", "model_args": {"pretrained": "/home/jo/private/model"}},
        "git_hash": None,
        "date": 1795178946.664182,
        "lm_eval_version": "0.4.13",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content | changes), encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> list[Score]:
    return read_scores([harness_file(tmp_path_factory.mktemp("scores"))])


def test_scores_of_a_results_file(scores):
    common = {"date": "2026-11-20T12:49:06Z", "harness": "lm-evaluation-harness 0.4.13"}
    arc = {"dataset_id": "allenai/ai2_arc", "dataset_config": "ARC-Challenge", "split": "test"} | common
    gsm = {"dataset_id": "openai/gsm8k", "dataset_config": "main", "dataset_revision": COMMIT, "split": "test"} | common
    assert scores == [
        Score("arc_again", "acc", 0.5, shots=0, **arc, dataset_revision="main"),
        Score("arc_again", "acc_norm", 1.0, shots=0, **arc, dataset_revision="main"),
        Score("arc_challenge", "acc", 0.25, 0.0126, samples=8, shots=25, **arc),
        Score("group", "acc", 0.7, samples=10, **common),
        Score("gsm8k", "exact_match", 0.4, samples=100, shots=5, filter="flexible-extract", **gsm),
        Score("gsm8k", "exact_match", 0.31, 0.0465, samples=100, shots=5, filter="strict-match", **gsm),
        Score("local", "acc", 0.0, 0.0, shots=0, **common),
    ]


def test_of_two_files_the_later_one_counts(tmp_path):
    def at(date: int, value: float, name: str, **more) -> Path:
        return harness_file(tmp_path, name, results={"gsm8k": {"exact_match,none": value}}, date=date, **more)

    files = [at(1_700_000_900, 0.9, "results_a.json"), at(1_700_000_100, 0.1, "results_b.json")]
    other = at(1_700_000_200, 0.2, "results_c.json", **{"n-shot": {"gsm8k": 0}})
    for order in ([*files, other], [other, *reversed(files)]):
        assert [(score.shots, score.value) for score in read_scores(order)] == [(0, 0.2), (5, 0.9)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"results": {}}, "has no results"),
        ({"results": None}, "has no results"),
        ({"configs": None}, "has no configs"),
        ({"results": {"gsm8k": 3}}, "no metrics of gsm8k"),
        ({"results": {"gsm8k": {"acc,none": "N/A"}}}, "acc,none of gsm8k is no number"),
        ({"results": {"gsm8k": {"acc,none": math.nan}}}, "acc,none of gsm8k is no number"),
        ({"results": {"gsm8k": {"acc,none": True}}}, "acc,none of gsm8k is no number"),
    ],
)
def test_a_results_file_that_says_nothing_is_named(tmp_path, changes, message):
    with pytest.raises(RunError, match=message) as error:
        read_scores([harness_file(tmp_path, **changes)])
    assert "results_2026" in str(error.value) and error.value.remedy


@pytest.mark.parametrize("text", ["{", "[]", '"results"', "\xff"])
def test_what_is_no_results_file_is_named(tmp_path, text):
    file = tmp_path / "results_x.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"results_x\.json"):
        read_scores([file])
    with pytest.raises(RunError, match="nowhere"):
        read_scores([tmp_path / "nowhere.json"])


def test_eval_results_files_are_what_the_hub_reads(scores):
    files = eval_results_yaml(scores)
    names = ["arc_again", "arc_challenge", "gsm8k"]  # not the group, nor the local dataset
    assert list(files) == [f".eval_results/{name}.yaml" for name in names]
    entries = [entry for text in files.values() for entry in parse_eval_result_entries(yaml.safe_load(text))]
    on_hub = list({score.task: score for score in reversed(scores) if score.dataset_id}.values())[::-1]
    assert len(entries) == len(on_hub) == 3  # of each task the first
    for entry, score in zip(entries, on_hub, strict=True):
        assert (entry.dataset_id, entry.task_id, entry.value) == (score.dataset_id, score.task, score.value)
        assert entry.date == score.date and score.metric in entry.notes and score.harness in entry.notes
        assert (score.filter or "") in entry.notes
        assert entry.dataset_revision == (COMMIT if score.task == "gsm8k" else None)
    assert "5-shot, 100 samples" in files[".eval_results/gsm8k.yaml"]


def test_names_of_tasks_stay_in_their_folder():
    tasks = ["../../etc/passwd", "a/b", "a b", "...", ".hidden", EVIL]
    files = eval_results_yaml([Score(task, "acc", 0.5, dataset_id="a/b") for task in tasks])
    assert all(re.fullmatch(r"\.eval_results/[A-Za-z0-9][\w.-]*\.yaml", path) for path in files)
    entries = [entry for text in files.values() for entry in parse_eval_result_entries(yaml.safe_load(text))]
    assert sorted(entry.task_id for entry in entries) == sorted(tasks)


# --- the adapter card ----------------------------------------------------------------------------

BASE = Base("org/base", COMMIT, "apache-2.0")
DATA = Data("alice/boost_qa", "f" * 40)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """What a real training of a tiny model leaves; base and dataset lie beside it."""
    from rich.console import Console
    from tiny_models import tiny

    from boost_qa.train.finetune import finetune
    from boost_qa.train.settings import read_settings

    folder = tmp_path_factory.mktemp("trained")
    rows = export(make_run(folder / "run"), folder / "rows")
    keys = {
        "dataset": str(rows / "data" / "all" / "train-00000-of-00001.parquet"),
        "validation": 0.25,
        "model_name_or_path": str(tiny("qwen2", folder / "base")),
        "template": "chatml",
        "loss_on": "not_weak",
        "max_length": 1024,
        "packing": True,
        "use_peft": True,
        "lora_r": 4,
        "lora_target_modules": ["q_proj", "v_proj"],
        "max_steps": 2,
        "per_device_train_batch_size": 1,
        "bf16": False,
        "dtype": "float32",
        "use_cpu": True,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "output_dir": str(folder / "out"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    finetune(read_settings(["--config", str(folder / "recipe.yaml")]), Console(quiet=True))
    return folder / "out"


@pytest.fixture(scope="module")
def run(trained) -> dict:
    return json.loads((trained / "run.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def config(trained) -> dict:
    return json.loads((trained / "adapter_config.json").read_text("utf-8"))


def card(run, **changes) -> str:
    given = {
        "repo_id": "alice/tutor",
        "kind": "adapter",
        "base": BASE,
        "data": DATA,
        "scores": [],
        "adapter_config": None,
    }
    return render(run, **(given | changes))


def changed(run: dict, key: str, value=...) -> dict:
    """A copy with another value of a dotted key, or without it."""
    copied = copy.deepcopy(run)
    *parents, last = key.split(".")
    level = copied
    for name in parents:
        level = level[name]
    if value is ...:
        del level[last]
    else:
        level[last] = value
    return copied


def test_the_adapter_card_has_every_variable_and_needs_each(run, config, scores):
    longer = changed(run, "losses", [{"step": step, "eval_loss": 1.0} for step in range(50)])
    base = Base("org/base", COMMIT, gated=True, trained_on="other weights")
    common = {"repo_id": "alice/tutor", "kind": "adapter", "base": base, "scores": scores, "adapter_config": config}
    several = changed(changed(longer, "measured.processes", 2), "measured.distributed", "FSDP")
    both = [adapter.context(several, data=data, **common) for data in (DATA, None)]
    template = environment().get_template(adapter.TEMPLATE)
    assert variables(adapter.TEMPLATE) == set(both[0])
    for name in both[0]:
        with pytest.raises(UndefinedError, match=name):
            for context in both:
                template.render({key: value for key, value in context.items() if key != name})


@pytest.mark.parametrize(
    ("distributed", "options"),
    [("FSDP", "--config_file fsdp2.yaml "), ("DEEPSPEED", "--config_file zero3.yaml "), ("MULTI_GPU", ""), (..., "")],
)
def test_the_command_shares_a_model_among_processes_as_the_training_did(run, distributed, options):
    several = changed(run, "measured.processes", 8)
    several["measured"].pop("distributed", None)
    if distributed is not ...:
        several["measured"]["distributed"] = distributed
    assert f"accelerate launch {options}--num_processes 8 -m boost_qa.train" in card(several)


def test_front_matter_of_an_adapter(run, config, scores):
    data = ModelCard(card(run, scores=scores, adapter_config=config)).data
    assert data.base_model == "org/base" and data["base_model_relation"] == "adapter" and data.library_name == "peft"
    assert (
        data.datasets == ["alice/boost_qa"] and data.pipeline_tag == "text-generation" and data.license == "apache-2.0"
    )
    assert data.tags == ["base_model:adapter:org/base", "lora", "sft", "trl", "boost-qa"] and data.language is None
    found = {(each.metric_name, each.metric_value): each for each in data.eval_results}
    assert data.model_name == "tutor" and len(found) == len(scores) == len(hub_results(scores))
    for score in scores:
        name = ", ".join(filter(None, (score.task, score.metric, score.filter)))
        entry = found[name, score.value]
        assert entry.dataset_type == (score.dataset_id or score.task) and entry.dataset_split == score.split
        assert entry.metric_args.get("stderr") == score.stderr and entry.metric_args["harness"] == score.harness


@pytest.mark.parametrize(("kind", "tags"), [("merged", ["lora", "sft"]), ("full", ["sft"])])
def test_front_matter_of_whole_models(run, kind, tags):
    text = card(run, kind=kind, data=None)
    data = ModelCard(text).data
    assert data.library_name == "transformers" and data["base_model_relation"] == "finetune"
    assert data.tags == [*tags, "trl", "boost-qa"] and data.datasets is None and data.eval_results is None
    assert "model-index" not in data.to_dict() and "PeftModel" not in text and "not evaluated" in text


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ({"licence": "mit"}, ("mit", None, None)),
        ({"licence": "llama3", "gated": True}, ("llama3", None, None)),
        ({"licence": None}, (None, None, None)),
        ({"licence": "other"}, ("other", "licence-of-the-base-model", "https://huggingface.co/org/base")),
        (
            {"licence": "other", "licence_name": "Its Own Licence", "licence_link": "LICENSE"},
            ("other", "its-own-licence", "https://huggingface.co/org/base/blob/main/LICENSE"),
        ),
        (
            {"licence": "other", "licence_name": "own", "licence_link": "https://own.example/terms"},
            ("other", "own", "https://own.example/terms"),
        ),
        ({"licence": ["mit", "apache-2.0"]}, ("other", "mit-apache-2.0", "https://huggingface.co/org/base")),
        ({"licence": "other", "licence_link": "javascript:alert(1)"}, ("other", "licence-of-the-base-model", None)),
    ],
)
def test_the_licence_is_that_of_the_base(run, base, expected):
    text = card(run, base=Base("org/base", COMMIT, **base))
    data = ModelCard(text).data
    licence, name, link = expected
    assert (data.license, data.license_name) == (licence, name)
    assert data.license_link == link or (
        link is None and data.license_link.startswith("https://huggingface.co/org/base/")
    )
    assert ("declares no licence" in text) == (licence is None) and ("gated" in text) == base.get("gated", False)


def test_figures_are_those_of_the_run(run, config, scores):
    text = card(run, scores=scores, adapter_config=config | {"target_modules": ["v_proj", "q_proj"]})
    counts, losses = run["plan"]["counts"], run["losses"]
    first, *_, last = [entry for entry in losses if "loss" in entry]
    evaluations = [entry for entry in losses if "eval_loss" in entry]
    assert 0 < counts["supervised"] < counts["tokens"] and len(evaluations) == 2
    for line in (
        f"Of {counts['tokens']:,} tokens of an epoch {counts['supervised']:,} carry loss.",
        f"| first training loss | {first['loss']:.4f} (step 1) |",
        f"| last training loss | {last['loss']:.4f} (step 2) |",
        *(f"| {entry['step']} | {entry['eval_loss']:.4f} |" for entry in evaluations),
        *(f"| `{name}` | {spoken:,} | {learned:,} |" for name, (spoken, learned) in counts["speakers"].items()),
        f"| dialogues of an epoch | {counts['dialogues']} |",
        f"| epochs | {last['epoch']:.4g} |",
        f"| held out | {run['data']['validation_rows']} rows (a share of 0.25 of the records) |",
        f"| digest of the rows trained on | {run['data']['fingerprint']} |",
        "| precision | weights float32 |",
        "| rank | `4` |",
        "| layers | `[q_proj, v_proj]` |",
        "| `loss_on` | `not_weak` |",
        f"`torch {run['versions']['torch']}`",
        "| `gsm8k` | exact\\_match (strict-match) | 0.3100 | 0.0465 | 100 | 5 "
        f"| openai/gsm8k, main, test, revision {COMMIT} |",
        f"revision `{COMMIT}`",
        f"revision `{'f' * 40}`",
        "arXiv:2506.02689",
        "arXiv:2411.14497",
    ):
        assert line in text, line
    check_tables(body(text))


def test_epochs_are_those_of_the_trainer_where_it_logged_the_last_step(run):
    assert run["plan"]["counts"]["steps"] == 2 and run["losses"][-1]["epoch"] > 0
    for losses, epochs in (
        ([{"step": 1, "epoch": 0.5, "loss": 1.0}, {"step": 2, "epoch": 0.75, "loss": 1.0}], "0.75"),
        ([{"step": 1, "epoch": 0.5, "loss": 1.0}], "1.5"),
        ([{"step": 2, "loss": 1.0}], "1.5"),
    ):
        planned = changed(run, "plan.counts.epochs", 1.5)
        assert f"| epochs | {epochs} |" in card(changed(planned, "losses", losses))


@pytest.mark.parametrize(
    ("speakers", "config", "method", "citation"),
    [
        (["weak_student", "strong_student"], None, "2506.02689", "A related method"),
        (["respond"], "star", "2411.14497", "The method of the config `star`"),
        (["respond", "weak_student"], "star", "2411.14497", "The method of the config `star`"),
        (["assistant"], None, None, "A related method"),
        (["reference"], "original", None, "A related method"),
    ],
)
def test_the_adapter_card_claims_no_method_that_its_data_is_not_of(run, speakers, config, method, citation):
    told = changed(run, "plan.counts.speakers", {name: [5, 5] for name in speakers})
    text = body(card(changed(told, "data.config", config)))
    intro, limits = text.split("## How")[0], text.split("## Limitations")[1].split("## Licence")[0]
    assert re.findall(r"arxiv.org/abs/([\d.]+)", intro) == ([method] if method else [])
    assert ("weak student" in limits) == ("weak_student" in speakers) and limits.count("\n* ") >= 3
    assert citation in text and text.count("@inproceedings{") == 2 and "\n\n\n" not in text


@pytest.mark.parametrize(
    ("keys", "dataset_name", "extras"),
    [
        ({}, "alice/boost_qa", "train"),
        ({"model_name_or_path": "smollm2-135m-instruct"}, "alice/boost_qa", "train,embedded"),
        ({"load_in_4bit": True}, "alice/boost_qa", "train,qlora"),
        ({"model_name_or_path": "smollm2-135m-instruct", "load_in_8bit": True}, "boost_qa", "all,qlora"),
    ],
)
def test_the_adapter_card_installs_what_its_recipe_needs(run, keys, dataset_name, extras):
    told = changed(run, "recipe.given", run["recipe"]["given"] | keys)
    assert f"pip install 'boost_qa[{extras}]'\nhf download" in card(changed(told, "data.dataset", dataset_name))
    assert set(extras.split(",")) <= extras_of_package()


def test_no_path_of_this_machine_is_in_the_card(run, trained, config, tmp_path):
    local = config | {"target_modules": ["/home/jo/x/q_proj"]}
    for data in (DATA, None):
        text = card(changed(run, "recipe.given.dataset", "clients/acme/rows"), data=data, adapter_config=local)
        assert str(trained.parent) not in text and "/tmp" not in text and "/home" not in text and "acme" not in text
        assert "| `model_name_or_path` | `base` |" in text and "| `output_dir` | `out` |" in text
    assert "not on the Hub, `train-00000-of-00001.parquet`:" in text and "| `dataset` | `rows` |" in text
    relative = changed(changed(run, "recipe.given.output_dir", "clients/acme/out"), "data.dataset", "clients/acme/rows")
    text = card(changed(relative, "recipe.given.dataset_recipe", "clients/acme/words.yaml"), data=None)
    assert "acme" not in text and "| `output_dir` | `out` |" in text and "| `dataset_recipe` | `words.yaml` |" in text


REQUIRED = [
    "finished", "recipe.given", "recipe.method", "recipe.file", "model.template", "model.stop_token", "data.dataset",
    "data.split", "data.rows", "plan.counts", "plan.counts.dropped", "plan.counts.tokens", "plan.counts.supervised",
    "plan.counts.speakers", "plan.counts.dialogues", "plan.counts.steps", "plan.counts.epochs", "plan.counts.rows",
    "versions",
]  # fmt: skip


@pytest.mark.parametrize("key", REQUIRED)
def test_a_figure_that_is_missing_is_named(run, key):
    with pytest.raises(RunError, match=rf"run\.json has no {re.escape(key)}\b"):
        card(changed(run, key))


OPTIONAL = ["losses", "measured", "measured.mfu", "measured.seconds", "machine", "data.fingerprint", "data.config"]


@pytest.mark.parametrize("key", [*OPTIONAL, "recipe.resolved", "data.validation_fingerprint", "plan.counts.fill"])
def test_a_figure_that_may_be_missing_is_said_to_be(run, key):
    whole, text = card(changed(run, "measured.mfu", 0.4)), card(changed(run, key))
    assert text != whole and "None" not in text
    assert key not in OPTIONAL or key == "data.config" or text.count("not recorded") > whole.count("not recorded")


def test_an_unfinished_training_has_no_card(run):
    with pytest.raises(RunError, match="not finished"):
        card(changed(run, "finished", False))


def test_a_resumed_training_says_what_its_seconds_are_of(run):
    assert "resumed" not in card(run) and "for the last 1 of 2 steps" in card(changed(run, "measured.steps", 1))


def test_many_evaluations_are_thinned_out(run):
    losses = [{"step": step, "eval_loss": 1 + step / 1000} for step in range(1, 101)]
    text = card(changed(run, "losses", losses))
    rows = re.findall(r"^\| (\d+) \| 1\.\d{4} \|$", text, re.MULTILINE)
    assert len(rows) == 20 and (rows[0], rows[-1]) == ("1", "100") and "20 of 100 evaluations" in text


def test_other_weights_are_owned_up_to(run):
    assert "Trained on other weights" not in card(run)
    text = card(run, base=Base("org/base", None, trained_on="smollm2-135m-instruct (sha256:ab+f16)"))
    assert "smollm2-135m-instruct (sha256:ab+f16)" in text and "Trained on other weights" in text
    assert "revision=" not in text


@pytest.mark.parametrize("id", ["/home/jo/model", "a/b/c", "a b", 'x"; import os', ""])
def test_what_is_no_repository_is_refused(run, id):
    for changes in ({"repo_id": id}, {"base": Base(id, None)}, {"data": Data(id, None)}):
        with pytest.raises(ValueError, match=r"(?i)repo"):
            card(run, **changes)


def test_nothing_enters_the_adapter_card_unescaped(run):
    plain = card(run, data=None)
    evil = changed(run, "recipe.given", {EVIL: EVIL, "loss_on": EVIL, "dtype": [EVIL]})
    for key in ("recipe.method", "recipe.file", "model.template", "model.stop_token", "data.dataset", "data.split"):
        evil = changed(evil, key, EVIL)
    for key in ("data.config", "data.fingerprint", "machine.gpus", "versions.python"):
        evil = changed(evil, key, [EVIL] if key == "machine.gpus" else EVIL)
    evil = changed(evil, "plan.counts.speakers", {EVIL: [1, 1]})
    evil = changed(evil, "plan.counts.dropped", {EVIL: 1})
    base = Base("org/base", EVIL, EVIL, EVIL, EVIL, trained_on=EVIL)
    score = Score(EVIL, EVIL, 0.5, None, 1, 1, None, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL)
    text = card(
        evil, base=base, data=Data("a/b", EVIL), scores=[score], adapter_config={"r": EVIL, "lora_alpha": [EVIL]}
    )
    read = ModelCard(text)
    assert read.data.license == "other" and re.fullmatch(r"[a-z0-9.-]+", read.data.license_name)
    assert read.data.eval_results[0].metric_type == EVIL
    for forbidden in FORBIDDEN:
        assert forbidden not in re.sub(r"```python\n.*?```", "", read.text, flags=re.DOTALL)
    check_tables(read.text)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, "card", "exec")
    assert re.findall(r"^#+ .*", read.text, re.MULTILINE) == re.findall(r"^#+ .*", body(plain), re.MULTILINE)


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_the_code_of_the_card_runs(run, trained, kind, tmp_path):
    """As it stands, but for the ids, which are folders here, and fewer tokens."""
    from boost_qa.train.merge import merge

    [block] = re.findall(r"```python\n(.*?)```", card(run, kind=kind), re.DOTALL)
    here = tmp_path / "model"
    shutil.copytree(trained, here) if kind == "adapter" else merge(trained, here, dtype="float32")
    places = {'"alice/tutor"': str(here), '"org/base"': str(trained.parent / "base")}

    def said() -> tuple[str, list[int]]:
        code, found = block.replace("max_new_tokens=400", "max_new_tokens=5"), {}
        for id, folder in places.items():
            code = code.replace(id, repr(folder))
        exec(code, found)
        prompt = found["prompt"]["input_ids"]
        return found["tokenizer"].decode(prompt[0]), found["said"][0, prompt.shape[1] :].tolist()

    prompt, first = said()
    assert prompt.endswith("assistant\n") and len(first) > 1
    ends = json.loads((here / "generation_config.json").read_text())
    (here / "generation_config.json").write_text(json.dumps(ends | {"eos_token_id": first[0]}))
    assert said() == (prompt, first[:1])


def test_templates_are_found_where_the_package_is_installed(tmp_path):
    package = tmp_path / "boost_qa" / "model_cards"
    shutil.copytree(template_folder(), package)
    assert {path.name for path in template_folder().iterdir()} == {path.name for path in package.iterdir()}
    assert {path.name for path in package.iterdir()} == {"adapter.md.jinja", "citation.md.jinja", "dataset.md.jinja"}
