"""Datasets and adapters to the local Hub and back, with the real clients, as their users start them.

HF_ENDPOINT is read at import, and importing torch takes seconds: `client(function, ...)` calls a function of this
module in one process for all tests. Its token is looked for afterwards in all that was said and written.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import hub_accounts
import pytest
import yaml
from fabricate import SPEAKERS, make_run
from hub_server import Fault, HubServer
from huggingface_hub import DatasetCard, ModelCard

from boost_qa.export import export
from boost_qa.publish.results import find_results

ROOT = Path(__file__).parent.parent
TOKEN = "hf_" + ("Planted" * 5)[:34]
DATA, BASE, TUTOR = "alice/boost_qa", "alice/tiny", "alice/tutor"
CONFIGS = ["all", *sorted(SPEAKERS), "original"]


class Done(NamedTuple):
    """What a call in the client's process returned and wrote."""

    value: Any
    out: str
    err: str


class Client:
    """The process of the client; `said` is all that it wrote."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub, self.folder, self.said = hub, folder, [""]
        with pytest.MonkeyPatch.context() as patch:
            for key, value in surroundings(hub, folder).items():
                patch.setenv(key, value)
            patch.delenv("HF_HUB_OFFLINE", raising=False)
            self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            self.pool.submit(os.getpid).result()  # started while the environment is this one

    def __call__(self, function: Callable[..., Any], *arguments: Any, **environment: str) -> Done:
        done = self.pool.submit(captured, function, arguments, environment).result(timeout=240)
        self.said += [done.out, done.err]
        return done

    def publish(self, *words: object, **environment: str) -> Done:
        """`boost-qa publish ...`; its exit code is the value."""
        return self(command, "boost-qa publish", *map(str, words), **environment)

    def train(self, recipe: Path, *words: object, **environment: str) -> Done:
        return self(command, "boost_qa.train", "--config", str(recipe), *map(str, words), **environment)


def surroundings(hub: HubServer, folder: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "BOOST_QA_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1", "COLUMNS": "200",
    }  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[HubServer]:
    hub_accounts.TOKENS[TOKEN] = "alice"
    with HubServer(tmp_path_factory.mktemp("hub"), orgs={"alice": ["HuggingFaceTB"]}) as server:
        yield server
    del hub_accounts.TOKENS[TOKEN]


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory) -> Iterator[Client]:
    process = Client(hub, tmp_path_factory.mktemp("client"))
    with process.pool:
        yield process


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", dialogues=24).path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export(run, tmp_path_factory.mktemp("exports") / "one")


@pytest.fixture(scope="module")
def data(client, run) -> str:
    """The commit of a dataset on the Hub."""
    done = client.publish("dataset", run, DATA, "--tag", "v1.0")
    assert done.value == 0, done.err
    return head(client.hub, "dataset", DATA)


def head(hub: HubServer, kind: str, name: str) -> str:
    return hub.repos[kind, name].refs["main"]


def sent(hub: HubServer, since: int) -> list[str]:
    """The requests that change something, of those from number `since` on."""
    changing = ("/api/repos/create", "/commit/", "/tag/", "/branch/", "/_lfs/", "/info/lfs/")
    calls = (f"{call['method']} {call['path']}" for call in hub.calls[since:] if call["method"] not in ("GET", "HEAD"))
    return [call for call in calls if any(part in call for part in changing)]


# --- in the client's process ---------------------------------------------------------------------


def captured(function: Callable[..., Any], arguments: tuple[Any, ...], environment: Mapping[str, str]) -> Done:
    """Call the function with a changed environment, and keep all that comes to both outputs."""
    before = os.environ.copy()
    os.environ.update(environment)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with diverted(1, out), diverted(2, err):
            value = function(*arguments)
        out.seek(0), err.seek(0)
        os.environ.clear()
        os.environ.update(before)
        return Done(value, out.read(), err.read())


@contextlib.contextmanager
def diverted(number: int, file: Any) -> Iterator[None]:
    stream, kept = (sys.stdout, sys.stderr)[number - 1], os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, number)
        os.close(kept)


def command(name: str, *words: str) -> int:
    """The exit code of a command."""
    try:
        if name == "boost_qa.train":
            from boost_qa.train.__main__ import main as train

            train(list(words))
        else:
            from boost_qa.cli import main

            sys.argv = [*name.split(), *words]
            main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def push_folder(folder: str, name: str) -> str:
    from huggingface_hub import HfApi

    HfApi().create_repo(name, exist_ok=True)
    return HfApi().upload_folder(repo_id=name, folder_path=folder).oid


def make_base(folder: str, family: str, changes: dict[str, Any]) -> None:
    from tiny_models import tiny

    tiny(family, Path(folder), **changes)


def rows_equal(folder: str, name: str, revisions: list[str | None]) -> dict[str, list[int | bool]]:
    """By config and split: how many rows the folder has, and whether the Hub gives the same by each revision."""
    from datasets import load_dataset

    found: dict[str, list[int | bool]] = {}
    for config in CONFIGS:
        here = load_dataset(folder, config)
        there = [load_dataset(name, config, revision=revision) for revision in revisions]
        for split, rows in here.items():
            streamed = load_dataset(name, config, split=split, streaming=True, revision=revisions[0])
            wanted = list(rows)
            same = [each.keys() == here.keys() and list(each[split]) == wanted for each in there]
            found[f"{config}/{split}"] = [len(wanted), *same, list(streamed) == wanted]
    return found


def ids(name: str, config: str) -> list[str]:
    from datasets import load_dataset

    return load_dataset(name, config, split="train")["id"][:]


def in_folder(folder: str, function: Callable[..., Any], *arguments: Any) -> Any:
    with contextlib.chdir(folder):
        return function(*arguments)


# --- datasets ------------------------------------------------------------------------------------


def test_every_config_and_split_loads_back_with_the_same_rows(client, exported, data):
    found = client(rows_equal, str(exported), DATA, ["v1.0", data, None]).value
    assert found.keys() == {f"{config}/{split}" for config in CONFIGS for split in ("train", "validation")}
    assert all(all(same) for _, *same in found.values()), found
    assert sum(found[f"all/{split}"][0] for split in ("train", "validation")) == 24


def test_an_exported_folder_is_the_same_release_as_its_run(client, exported, data):
    since = len(client.hub.calls)
    done = client.publish("dataset", exported, DATA, "--tag", "v1.0")
    assert (done.value, head(client.hub, "dataset", DATA)) == (0, data)
    assert "nothing to do" in done.out and not sent(client.hub, since)


def test_what_is_committed_names_the_repository_and_no_place_here(client, data, tmp_path_factory):
    files = client.hub.files("dataset", DATA)
    card = files["README.md"].decode()
    assert card.count(f'load_dataset("{DATA}"') == 2 and f"hf download {DATA} recipe.yaml" in card
    parsed = DatasetCard(card).data
    assert [config["config_name"] for config in parsed.configs] == CONFIGS
    places = (b"path/of/this", str(tmp_path_factory.getbasetemp()).encode(), str(ROOT).encode(), b"/tmp/")
    assert not [(path, place) for path, content in files.items() for place in places if place in content]
    commit = client.hub.repos["dataset", DATA].commits[data]
    assert commit["title"] == f"{parsed.pretty_name}: 24 dialogues" and "/" not in commit["title"]


def test_a_second_release_serves_its_own_rows(client, run, tmp_path):
    name, more = "alice/again", make_run(tmp_path / "more", dialogues=30).path
    assert client.publish("dataset", run, name).value == 0
    first = client(ids, name, "debate").value
    assert client.publish("dataset", more, name).value == 0
    second = client(ids, name, "debate").value
    assert len(second) > len(first) and second == client(ids, str(export(more, tmp_path / "export")), "debate").value


def test_rows_are_read_back_from_the_hub_even_beside_a_folder_of_that_name(client, run, tmp_path):
    export(make_run(tmp_path / "other", dialogues=9).path, tmp_path / "alice" / "shadow")
    done = client(in_folder, str(tmp_path), command, "boost-qa publish", "dataset", str(run), "alice/shadow")
    assert done.value == 0, done.err


def push_file(name: str, path: str, content: bytes) -> None:
    from huggingface_hub import HfApi

    HfApi().upload_file(repo_id=name, repo_type="dataset", path_in_repo=path, path_or_fileobj=content)


def test_a_shard_that_somebody_adds_does_not_stay_among_ours(client, run, exported, tmp_path):
    """The card's patterns take it in, so the config would not load: there are more rows than `dataset_info` says."""
    name, more = "alice/strays", make_run(tmp_path / "more", dialogues=30).path
    shard = next((exported / "data" / "debate").glob("train-*")).read_bytes()
    stray, other = "data/all/train-00001-of-00002.parquet", "data/mine/train-00000-of-00001.parquet"
    assert client.publish("dataset", run, name).value == 0
    for released in (run, more):  # unchanged, and with other rows
        for path in (stray, other):
            client(push_file, name, path, shard)
        dry = client.publish("dataset", released, name, "--dry-run")
        assert f"would be removed: {stray}" in dry.out and other not in dry.out, dry.err
        done = client.publish("dataset", released, name)
        assert done.value == 0 and f"  removed: {stray}" in done.out, done.err
        assert {stray, other} & client.hub.files("dataset", name).keys() == {other}
        assert client(ids, name, "all").value == client(ids, str(export(released, tmp_path / "out")), "all").value


def damage(folder: Path, how: str) -> None:
    shard = next((folder / "data" / "debate").glob("train-*"))
    readme = folder / "README.md"
    if how == "changed":
        shard.write_bytes(next((folder / "data" / "original").glob("train-*")).read_bytes())
    elif how == "missing":
        shard.unlink()
    elif how == "more":
        (shard.parent / "notes.txt").write_text("mine")
    elif how == "all missing":
        shutil.rmtree(folder / "data")
    else:
        readme.write_text({"foreign": "# My notes\n", "torn": readme.read_text()[:700], "odd": "---\na: [\n---\n"}[how])


@pytest.mark.parametrize("how", ["changed", "missing", "more", "all missing", "foreign", "torn", "odd"])
def test_a_damaged_export_is_refused_before_anything_is_sent(client, exported, tmp_path, how):
    folder = shutil.copytree(exported, tmp_path / "export")
    damage(folder, how)
    since = len(client.hub.calls)
    done = client.publish("dataset", folder, "alice/damaged")
    assert done.value == 2 and "boost-qa export" in done.err and str(folder) in done.err
    assert not sent(client.hub, since) and ("dataset", "alice/damaged") not in client.hub.repos


def test_an_unfinished_run_is_refused(client, tmp_path):
    run = make_run(tmp_path / "part", dialogues=9, finished=False).path
    done = client.publish("dataset", run, "alice/part")
    assert done.value == 2 and "not finished" in done.err and "boost-qa generate" in done.err
    assert ("dataset", "alice/part") not in client.hub.repos


def test_only_what_belongs_to_an_export_is_sent(client, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "export")
    for extra in ("notes.txt", ".boost_qa/mine.json", ".git/config", "boost_qa.py", "more/x.parquet"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_text("mine")
    assert client.publish("dataset", folder, "alice/neat").value == 0
    assert client.hub.files("dataset", "alice/neat").keys() == client.hub.files("dataset", DATA).keys()


# --- the command line ----------------------------------------------------------------------------


def test_a_dry_run_says_what_would_change_and_changes_nothing(client, run, data):
    since = len(client.hub.calls)
    done = client.publish("dataset", run, "alice/never", "--dry-run")
    assert done.value == 0 and "if it were published now" in done.out and "MB to send" in done.out
    assert not sent(client.hub, since) and ("dataset", "alice/never") not in client.hub.repos
    added = len(client.hub.files("dataset", DATA)) - 1  # .gitattributes is the Hub's
    assert f"{added} added, 0 replaced, 0 removed" in done.out
    again = client.publish("dataset", run, DATA, "--dry-run")
    assert again.value == 0 and "nothing to do" in again.out


def test_quiet_says_only_what_came_of_it(client, run):
    done = client.publish("dataset", run, "alice/quiet", "--quiet")
    assert (done.value, done.err) == (0, "")
    assert done.out.startswith(f"published: {client.hub.url}/datasets/alice/quiet\n")
    assert "read" not in done.out and len(done.out.splitlines()) == 3


def test_exit_codes_and_help(client, run):
    assert client.publish("--help").value == 0
    listed = client.publish("--help").out
    assert "dataset" in listed and "adapter" in listed and "HF_TOKEN" in listed
    assert client.publish("dataset").value == 2
    assert client.publish("dataset", run, "boost_qa").value == 2  # no namespace
    assert client.publish("adapter", run, "alice/x").value == 2  # no training
    always = Fault(r"POST .*/commit/", times=10**6, status=503, headers={"Retry-After": "0"})
    client.hub.faults.append(always)
    done = client.publish("dataset", run, "alice/failing")
    client.hub.faults.remove(always)
    assert done.value == 1 and "run the same command again" in done.err
    assert client.hub.files("dataset", "alice/failing").keys() == {".gitattributes"}
    assert client.publish("dataset", run, "alice/failing").value == 0


# --- adapters: in the client's process -----------------------------------------------------------


def snapshot(name: str, revision: str) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(name, revision=revision)


def merged_locally(folder: str, into: str) -> None:
    from boost_qa.train.merge import merge

    merge(Path(folder), Path(into))


def same_logits(local: str, name: str, base: str, revision: str) -> dict[str, bool]:
    """Whether an adapter from the Hub gives the logits of the one in a folder, to the last bit."""
    import torch
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    def plain() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, revision=revision)

    def equal(one: Any, other: Any) -> bool:
        with torch.no_grad():
            return torch.equal(*(each(input_ids=torch.arange(5, 69)[None]).logits for each in (one, other)))

    here, auto = PeftModel.from_pretrained(plain(), local), AutoPeftModelForCausalLM.from_pretrained
    return {
        "PeftModel": equal(here, PeftModel.from_pretrained(plain(), name)),
        "AutoPeftModel": equal(auto(local), auto(name)),
        "the base alone": equal(here, plain()),
    }


def same_model(local: str, name: str) -> dict[str, bool]:
    """Whether a model from the Hub gives the logits, and its tokenizer the text, of those in a folder."""
    import torch
    from transformers import AutoModelForCausalLM

    ask = [{"role": "user", "content": "What is 6 x 7? <|im_end|>"}]
    with torch.no_grad():
        logits = [
            AutoModelForCausalLM.from_pretrained(each)(input_ids=torch.arange(5, 69)[None]).logits
            for each in (local, name)
        ]
    return {"logits": torch.equal(*logits)} | same_tokenizer(local, name, ask)


def same_tokenizer(local: str, name: str, ask: list[dict[str, str]]) -> dict[str, bool]:
    from transformers import AutoTokenizer

    one, other = (AutoTokenizer.from_pretrained(each) for each in (local, name))
    prompts = [each.apply_chat_template(ask, add_generation_prompt=True) for each in (one, other)]
    return {"prompt": prompts[0] == prompts[1], "template": one.chat_template == other.chat_template}


# --- adapters ------------------------------------------------------------------------------------

LORA = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "v_proj", "down_proj"]}


class Trained(NamedTuple):
    """A finished training, and the commit of its base."""

    folder: Path
    base: str


def recipe(folder: Path, **changes: Any) -> Path:
    keys = {
        "dataset_config": "debate", "max_length": 512, "num_train_epochs": 1, "per_device_train_batch_size": 2,
        "dtype": "float32", "bf16": False, "use_cpu": True, "learning_rate": 1e-2, "save_strategy": "no",
        "report_to": "none", "output_dir": str(folder / "out"),
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(keys | LORA | changes))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def weights(client, tmp_path_factory) -> Path:
    """A model whose commit on the Hub will not stay the last one."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    client(make_base, str(folder), "llama", {"initializer_range": 0.2})
    (folder / "README.md").write_text("---\nlicense: llama3\n---\n")
    return folder


@pytest.fixture(scope="module")
def trained(client, data, weights, tmp_path_factory) -> Trained:
    """An adapter for a model of the Hub, on a dataset of the Hub; then the model gets other weights there."""
    base, folder = client(push_folder, str(weights), BASE).value, tmp_path_factory.mktemp("trained")
    done = client.train(recipe(folder, model_name_or_path=BASE, dataset=DATA))
    assert done.value == 0, done.err
    other = tmp_path_factory.mktemp("other") / "tiny"
    client(make_base, str(other), "llama", {"initializer_range": 0.2, "seed": 1})
    client(push_folder, str(other), BASE)
    return Trained(folder / "out", base)


@pytest.fixture(scope="module")
def tutor(client, trained) -> str:
    """The commit of the adapter on the Hub."""
    done = client.publish("adapter", trained.folder, TUTOR)
    assert done.value == 0, done.err
    assert f'PeftModel.from_pretrained(base, "{TUTOR}"' in done.out and "read back" in done.err
    return head(client.hub, "model", TUTOR)


@pytest.fixture(scope="module")
def at_home(client, weights, run, tmp_path_factory) -> Path:
    """An adapter for a model and a dataset of this machine."""
    folder = tmp_path_factory.mktemp("home")
    done = client.train(recipe(folder, model_name_or_path=str(weights), dataset=str(run)))
    assert done.value == 0, done.err
    return folder / "out"


def card(hub: HubServer, name: str) -> ModelCard:
    return ModelCard(hub.files("model", name)["README.md"].decode())


def no_places(hub: HubServer, name: str, *places: object) -> None:
    texts = {path: text for path, text in hub.files("model", name).items() if not path.endswith(".safetensors")}
    assert len(texts) > 5
    assert not [(path, place) for path, text in texts.items() for place in places if str(place).encode() in text]


def test_an_adapter_loads_back_to_the_same_logits(client, trained, tutor):
    found = client(same_logits, str(trained.folder), TUTOR, BASE, trained.base).value
    assert found == {"PeftModel": True, "AutoPeftModel": True, "the base alone": False}
    ask = [{"role": "user", "content": "What is 6 x 7? <|eot_id|>"}]
    assert client(same_tokenizer, str(trained.folder), TUTOR, ask).value == {"prompt": True, "template": True}


def test_an_adapter_comes_with_all_that_it_takes(client, trained, tutor, data, tmp_path_factory):
    files = client.hub.files("model", TUTOR)
    ours = {path.name: path.read_bytes() for path in trained.folder.iterdir() if path.is_file()}
    assert files.keys() == ours.keys() | {
        "README.md", "recipe.yaml", ".gitattributes", ".boost_qa/card.md", ".boost_qa/files",
    }  # fmt: skip
    changed = {name for name, content in ours.items() if files[name] != content}
    assert changed == {"adapter_config.json", "run.json"}
    config = json.loads(files["adapter_config.json"])
    assert config == json.loads(ours["adapter_config.json"])  # of a base on the Hub
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE, trained.base)
    told, own = json.loads(files["run.json"]), json.loads(ours["run.json"])
    assert told["losses"] == own["losses"] and told["recipe"]["given"]["output_dir"] == "out"
    no_places(client.hub, TUTOR, tmp_path_factory.getbasetemp(), ROOT, "/tmp/")
    front = card(client.hub, TUTOR).data.to_dict()
    assert front["base_model"] == BASE and front["datasets"] == [DATA] and front["library_name"] == "peft"
    assert front["license"] == "llama3" and front["pipeline_tag"] == "text-generation"
    assert {f"base_model:adapter:{BASE}", "lora", "sft", "trl", "boost-qa"} <= set(front["tags"])
    text = card(client.hub, TUTOR).text
    assert trained.base in text and data in text and "Trained on other weights" not in text


def test_the_published_recipe_trains_the_same_adapter(client, trained, tutor, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(client.hub.files("model", TUTOR)["recipe.yaml"])
    done = client.train(file, "--output_dir", str(tmp_path / "out"), "--dry_run", "true")
    assert done.value == 0 and not (tmp_path / "out").exists(), done.err
    assert client.train(file, "--output_dir", str(tmp_path / "out")).value == 0
    here, there = (folder / "adapter_model.safetensors" for folder in (tmp_path / "out", trained.folder))
    assert here.read_bytes() == there.read_bytes()


def test_merged_weights_take_the_adapters_place(client, trained, tmp_path):
    name = "alice/merged"
    assert client.publish("adapter", trained.folder, name).value == 0
    dry = client.publish("adapter", trained.folder, name, "--merged", "--dry-run")
    assert dry.value == 0 and "2 removed" in dry.out, dry.err
    done = client.publish("adapter", trained.folder, name, "--merged")
    assert done.value == 0 and f'AutoModelForCausalLM.from_pretrained("{name}"' in done.out, done.err
    files = client.hub.files("model", name)
    assert "model.safetensors" in files and not [path for path in files if path.startswith("adapter_")]
    client(merged_locally, str(trained.folder), str(tmp_path / "merged"))
    found = client(same_model, str(tmp_path / "merged"), name).value
    assert found == {"logits": True, "prompt": True, "template": True}
    front = card(client.hub, name).data.to_dict()
    assert (front["base_model_relation"], front["library_name"]) == ("finetune", "transformers")
    no_places(client.hub, name, tempfile.gettempdir(), ROOT)
    again = client.publish("adapter", trained.folder, name, "--merged")
    assert "nothing to do" in again.out


def test_a_whole_model_loads_back(client, data, trained, tmp_path):
    changes = dict.fromkeys(LORA) | {"use_peft": False}
    keys = yaml.safe_load(recipe(tmp_path, model_name_or_path=BASE, dataset=DATA).read_text())
    kept = {key: value for key, value in (keys | changes).items() if value is not None}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(kept))
    trained_whole = client.train(tmp_path / "recipe.yaml", "--model_revision", trained.base)
    assert trained_whole.value == 0, trained_whole.err
    refused = client.publish("adapter", tmp_path / "out", "alice/whole", "--merged")
    assert refused.value == 2 and "nothing to merge" in refused.err
    done = client.publish("adapter", tmp_path / "out", "alice/whole")
    assert done.value == 0 and 'AutoModelForCausalLM.from_pretrained("alice/whole"' in done.out, done.err
    found = client(same_model, str(tmp_path / "out"), "alice/whole").value
    assert found == {"logits": True, "prompt": True, "template": True}
    assert card(client.hub, "alice/whole").data.to_dict()["base_model_relation"] == "finetune"
    no_places(client.hub, "alice/whole", tempfile.gettempdir(), ROOT)


# --- which base ----------------------------------------------------------------------------------


def test_an_adapter_of_a_local_base_needs_one_on_the_hub(client, at_home, trained, tmp_path_factory):
    refused = client.publish("adapter", at_home, "alice/home")
    assert refused.value == 2 and "no model of the Hub" in refused.err and "--base-model" in refused.err
    assert ("model", "alice/home") not in client.hub.repos
    same = client.publish("adapter", at_home, "alice/home", "--base-model", f"{BASE}@{trained.base}")
    assert same.value == 0, same.err
    files = client.hub.files("model", "alice/home")
    config = json.loads(files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE, trained.base)
    no_places(client.hub, "alice/home", tmp_path_factory.getbasetemp(), ROOT, "/tmp/")
    assert "Trained on other weights" not in card(client.hub, "alice/home").text
    assert card(client.hub, "alice/home").data.datasets is None
    keys = yaml.safe_load(files["recipe.yaml"])
    assert (keys["model_name_or_path"], keys["model_revision"]) == (BASE, trained.base)


@pytest.mark.parametrize("folder", ["at_home", "trained"])
def test_a_base_of_other_weights_is_said(client, folder, request, trained):
    folder = request.getfixturevalue(folder)
    name = f"alice/unlike-{folder == trained}"
    done = client.publish("adapter", getattr(folder, "folder", folder), name, "--base-model", f"{BASE}@main")
    assert done.value == 0, done.err
    assert "**Trained on other weights:**" in card(client.hub, name).text
    assert card(client.hub, name).data.base_model == BASE


@pytest.mark.parametrize("key, value", [("hidden_size", 32), ("num_hidden_layers", 3), ("intermediate_size", 96)])
def test_a_base_of_another_shape_is_refused(client, at_home, weights, tmp_path, key, value):
    config = json.loads((weights / "config.json").read_text()) | {key: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    client(push_folder, str(tmp_path), f"alice/{key}")
    done = client.publish("adapter", at_home, "alice/misfit", "--base-model", f"alice/{key}")
    assert done.value == 2 and f"{key} is {value} there" in done.err and "--base-model" in done.err
    assert ("model", "alice/misfit") not in client.hub.repos


def test_a_base_that_is_not_to_be_had_is_refused(client, at_home, weights):
    for given in ("alice/nothing", f"{BASE}@v9"):
        done = client.publish("adapter", at_home, "alice/lost", "--base-model", given)
        assert done.value == 2 and "there is no model" in done.err and "--base-model" in done.err
    client(push_folder, str(weights), "bob/gated", HF_TOKEN="hf_bob")
    client.hub.repos["model", "bob/gated"].gated = True
    done = client.publish("adapter", at_home, "alice/lost", "--base-model", "bob/gated")
    assert done.value == 2 and "Accept its licence at" in done.err and "hf auth login" in done.err
    assert f"{client.hub.url}/bob/gated" in done.err and ("model", "alice/lost") not in client.hub.repos


def named(folder: Path, into: Path, name: str, revision: str | None) -> Path:
    """A copy of a finished training that names its base otherwise."""
    copy = shutil.copytree(folder, into)
    told = json.loads((copy / "run.json").read_text())
    told["model"] |= {"name": name, "revision": revision}
    told["recipe"]["given"]["model_name_or_path"] = name
    (copy / "run.json").write_text(json.dumps(told))
    return copy


@pytest.mark.parametrize("gone", [False, True])
def test_a_snapshot_of_the_clients_cache_is_known_by_id_and_commit(client, at_home, trained, tmp_path, gone):
    path = Path(client(snapshot, BASE, trained.base).value)
    path = tmp_path.joinpath(*path.parts[-4:]) if gone else path
    folder, name = named(at_home, tmp_path / "out", str(path), None), f"alice/cached-{gone}"
    assert path.exists() != gone and client.publish("adapter", folder, name).value == 0
    config = json.loads(client.hub.files("model", name)["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE, trained.base)
    assert "Trained on other weights" not in card(client.hub, name).text
    no_places(client.hub, name, "/snapshots/", client.folder)


def test_a_model_of_the_catalogue_is_known_by_what_it_was_made_of(client, at_home, weights, tmp_path):
    made_of = "HuggingFaceTB/SmolLM2-135M-Instruct"
    client(push_folder, str(weights), made_of)
    folder = named(at_home, tmp_path / "out", "smollm2-135m-instruct", "sha256:ab+f16")
    done = client.publish("adapter", folder, "alice/small")
    assert done.value == 0, done.err
    assert card(client.hub, "alice/small").data.base_model == made_of
    assert "smollm2-135m-instruct (sha256:ab+f16)" in card(client.hub, "alice/small").text
    keys = yaml.safe_load(client.hub.files("model", "alice/small")["recipe.yaml"])
    assert keys["model_name_or_path"] == "smollm2-135m-instruct" and "model_revision" not in keys


def test_a_dataset_is_named_only_if_its_rows_are_the_same(client, at_home, trained, run, data, tmp_path):
    base = ("--base-model", f"{BASE}@{trained.base}")
    fewer = make_run(tmp_path / "fewer", dialogues=9).path
    assert client.publish("dataset", fewer, "alice/fewer").value == 0
    for given, why in (("alice/fewer", "are not those that were trained on"), ("alice/no", "there is no dataset")):
        done = client.publish("adapter", at_home, "alice/named", *base, "--dataset", given)
        assert done.value == 2 and why in done.err, done.err
    assert ("model", "alice/named") not in client.hub.repos
    done = client.publish("adapter", at_home, "alice/named", *base, "--dataset", f"{DATA}@v1.0")
    assert done.value == 0, done.err
    assert card(client.hub, "alice/named").data.datasets == [DATA] and data in card(client.hub, "alice/named").text
    keys = yaml.safe_load(client.hub.files("model", "alice/named")["recipe.yaml"])
    assert (keys["dataset"], keys["dataset_revision"]) == (DATA, data)


def test_the_dataset_of_the_training_is_known_beside_a_folder_of_that_name(client, trained, data, tmp_path):
    (tmp_path / DATA).mkdir(parents=True)
    base = f"{BASE}@{trained.base}"
    done = client(in_folder, str(tmp_path), command, "boost-qa publish", "adapter", str(trained.folder), "alice/beside",
                  "--base-model", base)  # fmt: skip
    assert done.value == 0, done.err
    assert card(client.hub, "alice/beside").data.datasets == [DATA] and data in card(client.hub, "alice/beside").text


def test_no_file_tells_where_here_a_relative_path_leads(client, at_home, trained, tmp_path):
    folder = named(at_home, tmp_path / "out", "clients/acme/model", None)
    told = json.loads((folder / "run.json").read_text())
    told["data"] |= {"dataset": "clients/acme/words", "revision": None}
    told["recipe"]["given"] |= {"dataset": "clients/acme/words", "output_dir": "clients/acme/out"}
    told["recipe"]["resolved"] |= told["recipe"]["given"]
    (folder / "run.json").write_text(json.dumps(told))
    file = results(folder, 0.5)
    content = json.loads(file.read_text())
    content["configs"]["gsm8k"]["metadata"] = {"version": 3.0, "peft": "clients/acme/out"}
    file.write_text(json.dumps(content))
    done = client.publish("adapter", folder, "alice/nowhere", "--base-model", f"{BASE}@{trained.base}")
    assert done.value == 0, done.err
    files = client.hub.files("model", "alice/nowhere")
    assert not [path for path, content in files.items() if b"acme" in content]
    assert yaml.safe_load(files["recipe.yaml"])["dataset"] == "words"
    kept = next(json.loads(content) for path, content in files.items() if path.startswith(".boost_qa/evaluation/"))
    assert kept["configs"]["gsm8k"]["metadata"] == {"version": 3.0}


@pytest.mark.parametrize(
    "name, content",
    [
        ("run.json", b"[1]"), ("run.json", b'{"finished": true}'), ("adapter_config.json", b"{"),
        ("tokenizer_config.json", b"{"), ("adapter_model.safetensors", b"half"), ("adapter_model.safetensors", None),
    ],
)  # fmt: skip
def test_a_damaged_training_is_refused_by_its_files_name(client, at_home, trained, tmp_path, name, content):
    folder = shutil.copytree(at_home, tmp_path / "out")
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    done = client.publish("adapter", folder, "alice/damaged", "--base-model", f"{BASE}@{trained.base}")
    assert done.value == 2 and name in done.err and "training" in done.err, done.err
    assert ("model", "alice/damaged") not in client.hub.repos


# --- results -------------------------------------------------------------------------------------


def results(folder: Path, value: float) -> Path:
    """A file such as lm-evaluation-harness writes."""
    config = {"dataset_path": "openai/gsm8k", "dataset_name": "main", "test_split": "test", "num_fewshot": 5}
    content = {
        "results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": value, "sample_len": 100}},
        "configs": {"gsm8k": config | {"metadata": {"pretrained": str(folder / "base")}}},
        "n-shot": {"gsm8k": 5}, "date": 1795178946.6, "lm_eval_version": "0.4.13",
        "config": {"model_args": f"pretrained={folder}/base,peft={folder}/out"}, "model_name": f"{folder}/base",
        "pretty_env_info": f"Python at {folder}",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results_2026.json").write_text(json.dumps(content))
    return folder / "results_2026.json"


def test_results_are_published_and_go_with_the_release_that_had_them(client, trained, tmp_path):
    name, file = "alice/scored", results(tmp_path / "a", 0.4375)
    done = client.publish("adapter", trained.folder, name, "--results", file)
    assert done.value == 0, done.err
    parsed = card(client.hub, name)
    assert [each.metric_value for each in parsed.data.eval_results] == [0.4375] and "0.4375" in parsed.text
    ours = {".eval_results/boost_qa-gsm8k.yaml", ".boost_qa/evaluation/results_2026.json"}
    files = client.hub.files("model", name)
    assert ours <= files.keys()
    assert yaml.safe_load(files[".eval_results/boost_qa-gsm8k.yaml"])[0]["dataset"]["id"] == "openai/gsm8k"
    kept = json.loads(files[".boost_qa/evaluation/results_2026.json"])
    assert kept["results"]["gsm8k"]["exact_match,strict-match"] == 0.4375 and "pretty_env_info" not in kept
    no_places(client.hub, name, tmp_path)
    theirs = tmp_path / "theirs"
    (theirs / ".eval_results").mkdir(parents=True)
    (theirs / ".eval_results" / "theirs.yaml").write_text("- value: 1\n")
    client(push_folder, str(theirs), name)
    assert client.publish("adapter", trained.folder, name).value == 0
    after = client.hub.files("model", name)
    assert not ours & after.keys() and ".eval_results/theirs.yaml" in after
    assert card(client.hub, name).data.eval_results is None and "0.4375" not in card(client.hub, name).text


def test_results_in_the_folder_are_those_of_this_model(at_home, tmp_path):
    folder, said = shutil.copytree(at_home, tmp_path / "out"), list[str]()
    content = json.loads(results(tmp_path / "x", 0.5).read_text())
    for name, arguments in {
        "results_1.json": f"pretrained=org/base,peft={folder}", "results_2.json": {"pretrained": "org/base"},
        "results_3.json": {"pretrained": "org/base", "peft": "elsewhere/out"}, "results_4.json": "peft=another",
    }.items():  # fmt: skip
        (folder / name).write_text(json.dumps(content | {"config": {"model_args": arguments}}))
    (folder / "results_summary.json").write_text("[]")
    given = tmp_path / "x" / "results_2026.json"
    found = find_results(folder, [given], said.append)
    assert set(found) == {"results_2026.json", "results_1.json", "results_3.json"}
    assert len(said) == 3 and all("--results takes it" in each for each in said)


def test_results_of_the_same_name_are_not_mixed_up(client, trained, tmp_path):
    files = [results(tmp_path / folder, 0.5) for folder in "ab"]
    options = [word for file in files for word in ("--results", file)]
    done = client.publish("adapter", trained.folder, "alice/twice", *options)
    assert done.value == 2 and "have the same name" in done.err and str(files[0]) in done.err
    assert ("model", "alice/twice") not in client.hub.repos


# --- push_to_hub ---------------------------------------------------------------------------------


def test_a_training_publishes_itself(client, trained, data, tmp_path):
    keys = {"model_name_or_path": BASE, "model_revision": trained.base, "dataset": DATA}
    keys |= {"push_to_hub": True, "hub_model_id": "alice/pushed", "hub_private_repo": True, "hub_revision": "dev"}
    file = recipe(tmp_path, **keys)
    for token, why in (("hf_wrong", "does not accept the token"), ("hf_alice_read", "may only read")):
        done = client.train(file, HF_TOKEN=token)
        assert done.value == 2 and why in done.err and not (tmp_path / "out").exists(), done.err
    done = client.train(file, "--hub_model_id", "bob/pushed")
    assert done.value == 2 and "no right" in done.err and not (tmp_path / "out").exists(), done.err

    taken_away = Fault(r"POST .*/commit/", status=403)
    client.hub.faults.append(taken_away)
    done = client.train(file)
    client.hub.faults.remove(taken_away)
    assert done.value == 1 and "The training is done; publish it with:" in done.err, done.err
    out = tmp_path / "out"
    assert f"boost-qa publish adapter {out} alice/pushed --private --revision dev" in done.err
    weights = (out / "adapter_model.safetensors").read_bytes()

    done = client.train(file)
    assert done.value == 0 and "trained already" in done.out and "published: " in done.out, done.err
    repo = client.hub.repos["model", "alice/pushed"]
    assert repo.private and repo.files("main").keys() == {".gitattributes"}
    files = client.hub.files("model", "alice/pushed", "dev")
    assert files["adapter_model.safetensors"] == weights == (out / "adapter_model.safetensors").read_bytes()
    assert "push_to_hub" not in files["recipe.yaml"].decode()
    done = client.publish("adapter", out, "alice/pushed", "--private", "--revision", "dev")
    assert done.value == 0 and "nothing to do" in done.out
    assert "published before" in client.train(file).out
    assert TOKEN not in (out / "run.json").read_text()


def test_a_training_of_a_local_base_cannot_publish_itself(client, weights, data, tmp_path):
    file = recipe(tmp_path, model_name_or_path=str(weights), dataset=DATA, push_to_hub=True, hub_model_id="alice/x")
    done = client.train(file)
    assert done.value == 2 and "Leave push_to_hub out" in done.err and not (tmp_path / "out").exists()
    assert f"boost-qa publish adapter {tmp_path / 'out'} alice/x --base-model" in done.err


# --- secrets -------------------------------------------------------------------------------------


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name not in ("token", "stored_tokens"))


def check_nothing_told(client: Client, *folders: Path) -> None:
    """Nothing that the client said or wrote, and nothing that came to the Hub, has the token."""
    assert not [text for text in client.said if TOKEN in text]
    written = [path for folder in (*folders, client.folder, client.hub.root) for path in files_below(folder)]
    assert len(written) > 50 and not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in str([repo.commits for repo in client.hub.repos.values()])


@pytest.mark.parametrize("statuses", [(403,), pytest.param((401, 500), marks=pytest.mark.slow)])
def test_no_error_of_any_request_shows_the_token(client, run, trained, tutor, statuses):
    publish = ("adapter", trained.folder, "alice/leak", "--tag", "v1.0")
    with client.hub.record() as requests:
        assert client.publish(*publish).value == 0
    shown = f"no access with {TOKEN}"  # a Hub, or a proxy, that repeats what it was sent
    for status in statuses:
        for number, request in enumerate(requests):
            client.hub.repos.pop(("model", "alice/leak"), None)
            fault = Fault(skip=number, status=status, message=shown, headers={"Retry-After": "0"})
            client.hub.faults.append(fault)
            done = client.publish(*publish)
            client.hub.faults.remove(fault)
            renewed = status == 403 and re.match("(PUT|POST) /_lfs/", request)  # as if its address had run out
            goes_on = status == 500 or bool(renewed)
            assert fault.fired and (done.value == 0) == goes_on, request
            if request.startswith("GET /_lfs/") and not goes_on:
                assert done.value == 1 and "error: published as" in done.err
    assert 403 not in statuses or any("no access with ***" in text for text in client.said)
    check_nothing_told(client, run, trained.folder)


DEBUG = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from boost_qa.cli import main
try:
    main()
except SystemExit as end:
    print("ended", end.code or 0)
"""


def test_no_log_shows_the_token(hub, run, tmp_path):
    hub.faults.append(fault := Fault("POST .*/tag/", status=403))
    words = [sys.executable, "-c", DEBUG, "publish", "dataset", str(run), "alice/logged", "--tag", "v1.0"]
    environment = os.environ | surroundings(hub, tmp_path) | {"HF_DEBUG": "1", "PYTHONWARNINGS": "always"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    hub.faults.remove(fault)
    assert "ended 2" in done.stdout and "no right to write" in done.stderr, done.stderr[-2000:]
    assert "DEBUG:" in done.stderr and "<TOKEN>" in done.stderr  # the client's own curl lines
    assert TOKEN not in done.stdout + done.stderr
    assert not [path for path in files_below(tmp_path) if TOKEN.encode() in path.read_bytes()]


OTHER = "hf_" + ("Foreign" * 5)[:34]


def test_a_token_in_a_recipe_is_refused_by_file_and_line(client, trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "out")
    told = json.loads((folder / "run.json").read_text())
    told["recipe"]["given"]["run_name"] = OTHER
    (folder / "run.json").write_text(json.dumps(told))
    done = client.publish("adapter", folder, "alice/planted")
    assert done.value == 2 and "line" in done.err and "a Hugging Face token" in done.err, done.err
    assert any(f"{name}, line " in done.err for name in ("recipe.yaml", "run.json"))
    assert OTHER not in done.out + done.err and ("model", "alice/planted") not in client.hub.repos
    run = make_run(tmp_path / "run", dialogues=9, manifest={"name": f"with {OTHER}"}).path
    done = client.publish("dataset", run, "alice/planted")
    assert done.value == 2 and "README.md, line " in done.err and OTHER not in done.out + done.err
    assert ("dataset", "alice/planted") not in client.hub.repos
