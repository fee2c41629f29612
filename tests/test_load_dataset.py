"""`load_dataset("boost_qa")` as users call it: real calls of `datasets`, each test with a cache of its own."""

import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from fabricate import make_run

REGISTER = importlib.import_module("boost_qa.register")  # `boost_qa.register` is the function
ROOT = Path(__file__).parents[1]
OWN = ["all", "error_correction", "debate", "analogical_reasoning", "direct", "star", "original"]
DERIVED = [
    "taught",
    "error_correction+original",
    "debate+original",
    "analogical_reasoning+original",
    "error_correction+debate+original",
    "error_correction+analogical_reasoning+original",
    "debate+analogical_reasoning+original",
    "closing",
    "error_correction+original+closing",
    "debate+original+closing",
    "analogical_reasoning+original+closing",
    "error_correction+debate+original+closing",
    "error_correction+analogical_reasoning+original+closing",
    "debate+analogical_reasoning+original+closing",
    "random_aug",
    "spelling_aug",
    "long",
    "tagcos",
]
CONFIGS = OWN + DERIVED
SERVED = [config for config in OWN if config not in ("star", "direct")]  # those have runs of their own
BOTH_ORDERS = (
    "from datasets import load_dataset\nimport boost_qa",
    "import boost_qa\nfrom datasets import load_dataset",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def cache(tmp_path) -> str:
    return str(tmp_path / "cache")


def python(code: str, tmp_path: Path, cwd: Path, *, path: bool = True) -> subprocess.CompletedProcess:
    """`code` in a Python of its own, with its own cache; `path` puts the checkout on its import path."""
    env = {
        "PATH": os.environ["PATH"],
        "HF_HOME": str(tmp_path / "home"),
        "BOOST_QA_HOME": str(tmp_path / "boost_qa"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    env |= {"PYTHONPATH": str(ROOT)} if path else {}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True)


def result(done: subprocess.CompletedProcess):
    """What the code printed last, as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def expected(run: Path, config: str, split: str) -> list[dict]:
    from boost_qa.contents import survey
    from boost_qa.run_folder import RunFolder

    return [row for shard in survey(RunFolder(run)).shards(config, split) for row in shard.rows()]


# --- the name ------------------------------------------------------------------------------------


@pytest.mark.parametrize("imports", BOTH_ORDERS)
@pytest.mark.parametrize("place", ["empty folder", "repository"])
def test_the_bare_name_from_anywhere_in_any_order_of_imports(run, tmp_path, imports, place):
    code = f"""
import json
{imports}
from datasets import get_dataset_config_names, get_dataset_default_config_name, get_dataset_split_names
found = {{"names": get_dataset_config_names("boost_qa"), "default": get_dataset_default_config_name("boost_qa")}}
found["splits"] = get_dataset_split_names("boost_qa", "debate", run={str(run)!r})
found["rows"] = load_dataset("boost_qa", run={str(run)!r}).num_rows
print(json.dumps(found))
"""
    empty = tmp_path / "empty"
    empty.mkdir()
    found = result(python(code, tmp_path, ROOT if place == "repository" else empty))
    assert found["names"] == CONFIGS and found["default"] == "all" and found["splits"] == ["train", "validation"]
    assert found["rows"] == {split: len(expected(run, "all", split)) for split in ("train", "validation")}


def test_without_the_import_the_package_folder_is_not_taken_for_data(tmp_path):
    code = (
        "import sys\nfrom datasets import load_dataset\nassert 'boost_qa' not in sys.modules\nload_dataset('boost_qa')"
    )
    done = python(code, tmp_path, ROOT, path=False)
    assert done.returncode == 1 and "DataFilesNotFoundError" in done.stderr.splitlines()[-1], done.stderr


def test_registering_twice_wraps_once_and_leaves_other_names_alone(tmp_path, cache):
    import datasets

    from boost_qa.register import register

    before = datasets.load.dataset_module_factory
    register()
    assert datasets.load.dataset_module_factory is before is datasets.inspect.dataset_module_factory
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"a": 1}\n')
    assert datasets.load_dataset(str(folder), cache_dir=cache)["train"].to_list() == [{"a": 1}]
    with pytest.raises(ValueError, match="no data_files or data_dir"):
        datasets.load_dataset("boost_qa", data_files=str(folder / "rows.jsonl"), cache_dir=cache)


def test_where_datasets_has_moved_its_factory_there_is_a_warning(monkeypatch):
    import datasets

    from boost_qa.register import register

    monkeypatch.delattr(datasets.load, "DatasetModule")
    with pytest.warns(UserWarning, match=r"boost_qa\.load"):
        register()


def test_the_import_is_light(tmp_path):
    code = "import json, sys, boost_qa\nprint(json.dumps([name for name in sys.modules if '.' not in name]))"
    heavy = {"torch", "transformers", "sentence_transformers", "openvino_genai", "openvino", "jinja2", "reasoning_gym"}
    assert heavy.isdisjoint(result(python(code, tmp_path, tmp_path)))


def test_other_splits_of_the_same_dialogues_are_another_dataset(tmp_path, cache):
    import boost_qa

    run = make_run(tmp_path / "run", validation=0.25)
    before = boost_qa.load("all", run=run.path, cache_dir=cache)
    manifest = run.manifest()
    run.write_manifest(manifest | {"recipe": manifest["recipe"] | {"validation": 0.6}})
    after = boost_qa.load("all", run=run.path, cache_dir=cache)
    assert len(after["validation"]) > len(before["validation"]) > 0
    assert sum(after.num_rows.values()) == sum(before.num_rows.values())


# --- serving a finished run ----------------------------------------------------------------------


@pytest.mark.parametrize("config", [*SERVED, "debate+original"])  # test_derived has the other ones
def test_rows_are_those_of_the_run_in_every_way_of_loading(run, cache, config):
    from datasets import load_dataset

    import boost_qa
    from boost_qa.rows import FEATURES

    loaded = load_dataset("boost_qa", config, run=str(run), cache_dir=cache)
    for split in ("train", "validation"):
        rows = expected(run, config, split)
        assert loaded[split].to_list() == rows and loaded[split].features == FEATURES
        assert list(load_dataset("boost_qa", config, run=run, split=split, streaming=True)) == rows
    ours = boost_qa.load(config, run=run, split="train", cache_dir=cache)
    assert ours.cache_files == loaded["train"].cache_files
    assert list(boost_qa.load(config, run=run, streaming=True)["train"]) == expected(run, config, "train")


def test_an_export_has_the_same_rows_and_types(run, cache, tmp_path):
    from datasets import get_dataset_config_names, load_dataset

    import boost_qa

    folder = boost_qa.export(run, tmp_path / "export")
    for config in get_dataset_config_names(str(folder)):
        ours = load_dataset("boost_qa", config, run=str(run), cache_dir=cache)
        plain = load_dataset(str(folder), config, cache_dir=cache)
        assert list(ours) == list(plain)
        for split in ours:
            assert ours[split].features == plain[split].features and ours[split].to_list() == plain[split].to_list()


def test_slices(run, cache):
    from datasets import load_dataset

    train, validation = (expected(run, "all", split) for split in ("train", "validation"))
    quarter = load_dataset("boost_qa", run=str(run), split="train[:25%]", cache_dir=cache)
    assert quarter.to_list() == train[: round(len(train) / 4)]
    both = load_dataset("boost_qa", run=str(run), split="train[2:4]+validation", cache_dir=cache)
    assert both.to_list() == train[2:4] + validation


def test_several_processes_and_workers(run, tmp_path):
    code = f"""
import json
import boost_qa
from datasets import load_dataset
from torch.utils.data import DataLoader

if __name__ == "__main__":
    found = {{"rows": load_dataset("boost_qa", run={str(run)!r}, split="train", num_proc=2)["id"][:]}}
    stream = load_dataset("boost_qa", run={str(run)!r}, split="train", streaming=True)
    found["shards"] = stream.num_shards
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    found["worked"] = sorted(row["id"] for row in loader)
    print(json.dumps(found))
"""
    found = result(python(code, tmp_path, tmp_path))
    ids = [row["id"] for row in expected(run, "all", "train")]
    assert found["rows"] == ids and found["worked"] == sorted(ids) and found["shards"] == 16


def test_builder_and_stream_can_be_pickled(run, cache):
    from datasets import load_dataset, load_dataset_builder

    builder = pickle.loads(pickle.dumps(load_dataset_builder("boost_qa", "debate", run=str(run), cache_dir=cache)))
    builder.download_and_prepare()
    assert builder.as_dataset("train").to_list() == expected(run, "debate", "train")
    stream = load_dataset("boost_qa", "debate", run=str(run), split="train", streaming=True)
    assert list(pickle.loads(pickle.dumps(stream))) == expected(run, "debate", "train")


def test_features_may_be_chosen(run, cache):
    from datasets import Value, load_dataset, load_dataset_builder

    from boost_qa.rows import FEATURES

    wide = FEATURES.copy()
    wide["question"] = Value("large_string")
    loaded = load_dataset("boost_qa", run=str(run), features=wide, split="train", cache_dir=cache)
    assert loaded.features["question"] == Value("large_string")
    plain = load_dataset_builder("boost_qa", run=str(run), cache_dir=cache)
    assert plain.cache_dir not in loaded.cache_files[0]["filename"]


# --- the cache -----------------------------------------------------------------------------------


def test_the_second_call_is_served_from_the_cache(tmp_path, cache):
    from datasets import load_dataset

    run = make_run(tmp_path / "run")
    first = load_dataset("boost_qa", run=str(run.path), split="train", cache_dir=cache)
    written = Path(first.cache_files[0]["filename"]).stat().st_mtime_ns
    run.records_file.unlink()  # nothing of the run is read again but its manifest
    second = load_dataset("boost_qa", run=str(run.path), split="train", cache_dir=cache)
    assert second.cache_files == first.cache_files and second.to_list() == first.to_list()
    assert Path(second.cache_files[0]["filename"]).stat().st_mtime_ns == written


def test_the_cache_is_named_after_the_dialogues_not_the_folder(tmp_path, cache):
    from datasets import load_dataset_builder

    def name(folder: Path) -> str:
        return load_dataset_builder("boost_qa", "debate", run=str(folder), cache_dir=cache).cache_dir

    run = make_run(tmp_path / "run")
    before = name(run.path)
    assert name(run.path.rename(tmp_path / "moved")) == before
    other = make_run(tmp_path / "run", dialogues=39)
    assert name(other.path) != before


def test_recipe_prompts_and_code_name_the_cache_and_no_setting_does(tmp_path, cache, monkeypatch):
    from datasets import load_dataset_builder

    from boost_qa.plan import plan

    def name(config: str = "debate", **settings) -> str:
        return load_dataset_builder("boost_qa", config, cache_dir=cache, **settings).cache_dir

    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "boost_qa"))
    demo = name()
    assert demo == name(recipe="demo") == name(overrides=["runner.in_flight=3"])
    seeds = {name(seed=7), name(overrides=["seed=7"]), name(overrides="seed=7")}
    assert len(seeds) == 1 and demo not in seeds
    assert (
        len({demo, name("all"), name(n=5), name(overrides=["language=French"]), name(recipe="demo_small"), *seeds}) == 6
    )
    assert Path(demo).parts[-3].startswith("debate-") and "=" not in demo
    prompt = tmp_path / "prompt.yaml"
    packaged = sorted((ROOT / "boost_qa" / "prompts" / "debate").glob("*"))[0]
    prompt.write_bytes(packaged.read_bytes())
    own = [f"scenarios.debate.cast.student_a.prompt={prompt}"]
    first, digest = name(overrides=own), plan("demo", own).digest
    prompt.write_text(prompt.read_text("utf-8").replace("Student", "Pupil"), encoding="utf-8")
    assert plan("demo", own).digest != digest and name(overrides=own) != first
    monkeypatch.setattr(REGISTER, "code_hash", lambda: "other")
    assert Path(name()).parts[-3] == Path(demo).parts[-3] and Path(name()).parts[-1] == "other"


def test_the_code_hash_covers_code_prompts_and_sample_records(tmp_path, monkeypatch):
    package = shutil.copytree(ROOT / "boost_qa", tmp_path / "boost_qa")
    monkeypatch.setattr(REGISTER, "__file__", str(package / "register.py"))
    prompts = [path for path in (package / "prompts").rglob("*") if path.suffix in {".yaml", ".jinja"}]
    seen = {REGISTER.code_hash.__wrapped__()}
    for file in (package / "rows.py", package / "sources" / "sample.yaml", prompts[0]):
        file.write_bytes(file.read_bytes() + b"\n")
        seen.add(REGISTER.code_hash.__wrapped__())
    assert len(seen) == 4
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert REGISTER.code_hash.__wrapped__() in seen


# --- what is refused -----------------------------------------------------------------------------


def test_a_setting_that_does_not_exist(run, cache):
    from datasets import load_dataset

    with pytest.raises(ValueError, match="doesn't have a 'bogus' key"):
        load_dataset("boost_qa", run=str(run), bogus=1, cache_dir=cache)
    with pytest.raises(ValueError, match="'nope' not found"):
        load_dataset("boost_qa", "nope", run=str(run), cache_dir=cache)


def test_secrets_are_refused_and_appear_nowhere(run, tmp_path, cache):
    from datasets import load_dataset

    from boost_qa.errors import RecipeError

    secret = "sk-4f8a9b2c"
    with pytest.raises(ValueError, match="api_key") as error:
        load_dataset("boost_qa", api_key=secret, cache_dir=cache)
    assert secret not in str(error.value)
    for override in (f"models.strong.api_key={secret}", f"models.strong.extra_body.auth.token={secret}"):
        with pytest.raises(RecipeError, match="environment variable") as error:
            load_dataset("boost_qa", run=str(run), overrides=[override], cache_dir=cache)
        assert secret not in str(error.value)
    assert not any(secret in str(path) for path in tmp_path.rglob("*"))


def test_our_errors_are_the_ones_seen(run, tmp_path, cache):
    from datasets import load_dataset

    from boost_qa.errors import RecipeError, RunError

    small = make_run(tmp_path / "small", scenarios=("error_correction",))
    for streaming in (False, True):
        with pytest.raises(RunError, match=r"(?s)no rows for debate.*all, error_correction, original"):
            load_dataset("boost_qa", "debate", run=str(small.path), cache_dir=cache, streaming=streaming)
    with pytest.raises(RunError, match="there is no run in"):
        load_dataset("boost_qa", run=str(tmp_path / "typo"), cache_dir=cache)
    assert not (tmp_path / "typo").exists()
    with pytest.raises(RecipeError, match="nearest known key: 'dialogues'"):
        load_dataset("boost_qa", overrides=["dialoges=3"], cache_dir=cache)
    lines = small.dialogues_file.read_text("utf-8").split("\n")
    small.dialogues_file.write_text("\n".join([lines[0], "{", *lines[2:]]), encoding="utf-8", newline="\n")
    with pytest.raises(RunError, match=r"dialogues\.jsonl, line 2"):
        load_dataset("boost_qa", run=str(small.path), cache_dir=cache)


# --- generating ----------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A model server that invents replies, in another process; gives its base URL."""
    command = [sys.executable, str(ROOT / "benchmarks" / "server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()


def asked(server: str) -> int:
    with urllib.request.urlopen(server.removesuffix("/v1") + "/stats") as answer:
        return json.load(answer)["completions"]


def test_it_generates_where_there_is_no_run_and_only_there(server, tmp_path, cache, monkeypatch):
    from datasets import load_dataset

    import boost_qa
    from boost_qa.errors import BoostQAError

    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "boost_qa"))
    with urllib.request.urlopen(server + "/models") as answer:
        model = {"engine": "openai", "base_url": server, "model": json.load(answer)["data"][0]["id"]}
    recipe = tmp_path / "small.yaml"
    settings = {"error_correction": {}, "debate": {"rounds": [1]}, "analogical_reasoning": None}
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "sources": [{"source": "sample"}],
                "dialogues": 8,
                "scenarios": settings,
                "models": dict.fromkeys(("weak", "middle", "strong"), model),
                "validation": 0.2,
            }
        )
    )

    def load(config: str = "all", **settings):
        return load_dataset("boost_qa", config, recipe=str(recipe), cache_dir=cache, **settings)

    first = load()
    assert asked(server) == 24 and sum(first.num_rows.values()) == 8
    assert load()["train"].cache_files == first["train"].cache_files
    debate = load("debate", split="train", streaming=True)
    assert all(row["scenario"] == "debate" for row in debate)
    assert sum(load("original").num_rows.values()) >= 48
    assert asked(server) == 24
    folder = boost_qa.generate(recipe).path
    assert boost_qa.load(run=folder, cache_dir=cache)["train"].to_list() == first["train"].to_list()
    assert sum(load(n=4).num_rows.values()) == 4 and asked(server) > 24

    exported = boost_qa.export(folder, tmp_path / "export")
    assert load_dataset(str(exported), cache_dir=cache)["train"].to_list() == first["train"].to_list()
    assert f"`{model['model']}`" in (exported / "README.md").read_text("utf-8")

    # a run that was stopped: what it was told is not asked again
    now = asked(server)
    resumed = tmp_path / "resumed"
    os.rename(folder, resumed)
    manifest = json.loads((resumed / "manifest.json").read_text())
    (resumed / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    (resumed / "dialogues.jsonl").unlink()
    assert load_dataset("boost_qa", run=str(resumed), cache_dir=cache)["train"].to_list() == first["train"].to_list()
    assert asked(server) == now

    with pytest.raises(BoostQAError) as error:
        load(run=str(tmp_path / "new"), overrides=["models.strong.model=unknown", "models.strong.retries=0"])
    assert type(error.value).__module__ == "boost_qa.errors" and error.value.remedy
