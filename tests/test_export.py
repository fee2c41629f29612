import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fabricate import make_dialogue, make_record, make_run
from hypothesis import given
from hypothesis import strategies as st

from boost_qa.cards.markup import markdown
from boost_qa.contents import survey
from boost_qa.errors import RunError
from boost_qa.export import export
from boost_qa.parquet import ShardWriter
from boost_qa.rows import FEATURES, dialogue_row, original_row
from boost_qa.run_folder import RunFolder
from boost_qa.splits import validation_records

CONFIGS = ("all", "error_correction", "debate", "analogical_reasoning", "original")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export(run, tmp_path_factory.mktemp("export") / "dataset")


def python(code: str, cwd: Path, **env: str) -> dict:
    """What `code` leaves in `result`, in a Python of its own that cannot import our package."""
    (cwd / "home").mkdir(exist_ok=True)
    own = {"HF_HOME": str(cwd / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    names = "get_dataset_config_names, load_dataset"
    block = f"import json, sys\nsys.modules['boost_qa'] = None\nfrom datasets import {names}\nresult = {{}}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{block}{code}\nprint('\\n' + json.dumps(result))"],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **own, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(run: RunFolder, config: str, split: str) -> list[dict]:
    return [row for shard in survey(run).shards(config, split) for row in shard.rows()]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- rows ----------------------------------------------------------------------------------------


def test_a_dialogue_becomes_a_row():
    record, related = make_record(1), make_record(2)
    row = dialogue_row(make_dialogue(record, "analogical_reasoning", related))
    assert row["question"] == record.question and row["reference_answer"] == record.answer
    assert (row["final_answer"], row["licence"], row["source_revision"]) == ("2", "mit", "v1")
    assert row["related_id"] == related.id
    assert row["related_source_id"] == related.source_id and row["related_reference_answer"] == related.answer
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt", "human", "gpt"]
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "user", "assistant"]
    texts = [turn["value"] for turn in row["conversations"]]
    assert texts == [message["content"] for message in row["messages"]] and texts[2] == related.question
    assert row["speakers"] == ["teacher", "student", "question", "student"]
    assert row["agents"][2] == {"speaker": "question"} | dict.fromkeys(
        ("model", "revision", "temperature", "prompt_digest")
    )
    assert row["agents"][0] == {
        "speaker": "teacher",
        "model": "Qwen/Qwen2.5-14B-Instruct",
        "revision": None,
        "temperature": 0.2,
        "prompt_digest": "0123456789abcdef",
    }


def test_an_original_row_is_the_record(run):
    record = next(run.records())
    row = original_row(json.loads(run.records_file.read_text("utf-8").split("\n")[0]))
    assert row["id"] == record.id and row["scenario"] == "original"
    assert [turn["value"] for turn in row["conversations"]] == [record.question, record.answer]
    assert row["speakers"] == ["question", "reference"] and row["related_id"] is None
    assert all(agent["model"] is None for agent in row["agents"]) and set(row["usage"].values()) == {0}


@pytest.mark.parametrize("config", CONFIGS)
def test_rows_have_the_declared_columns_and_types(run, config):
    rows = rows_of(run, config, "train")
    assert rows and all(list(row) == list(FEATURES) for row in rows)
    assert pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema).to_pylist() == rows


# --- splits --------------------------------------------------------------------------------------

ids = st.integers(0, 60).map("record-{}".format)
shares = st.sampled_from([0.0, 0.05, 0.3, 0.9])


@given(st.sets(ids), st.lists(st.tuples(ids, ids), max_size=40), shares, st.randoms())
def test_a_pair_is_never_torn_and_order_does_not_matter(records, pairs, share, random):
    held_out = validation_records(sorted(records), pairs, share)
    assert all((one in held_out) == (other in held_out) for one, other in pairs)
    assert held_out <= records | {id for pair in pairs for id in pair}
    assert share or not held_out
    shuffled = [pair[::-1] for pair in random.sample(pairs, len(pairs))]
    assert validation_records(random.sample(sorted(records), len(records)), shuffled, share) == held_out


@given(st.sets(ids, min_size=1), ids)
def test_a_further_record_moves_no_other(records, further):
    before, after = (validation_records(all, [], 0.3) for all in (records, records | {further}))
    assert before - {further} == after - {further}


def test_about_the_share_is_held_out():
    singles = [f"record-{number}" for number in range(10_000)]
    pairs = list(zip(singles[:4000:2], singles[1:4000:2], strict=True))
    assert 450 < len(validation_records(singles, pairs, 0.05)) < 550


def test_a_group_that_would_swallow_the_training_split_is_for_training():
    chain = [f"record-{number}" for number in range(100)]
    singles = [f"single-{number}" for number in range(100)]
    for share in (0.2, 0.4):
        held_out = validation_records(chain + singles, zip(chain, chain[1:], strict=False), share)
        assert held_out and held_out.isdisjoint(chain)


# --- contents ------------------------------------------------------------------------------------


def test_no_source_record_is_in_both_splits(run):
    seen = {"train": set(), "validation": set()}
    for config in CONFIGS:
        for split, ids_seen in seen.items():
            for row in rows_of(run, config, split):
                ids_seen |= {row["source_id"], row["related_source_id"]} - {None}
    assert seen["train"] and seen["validation"] and not seen["train"] & seen["validation"]
    assert len(seen["train"] | seen["validation"]) == 80


def test_shards_hold_every_row_once_in_order(run):
    contents = survey(run)
    expected = [dialogue_row(dialogue) for dialogue in run.dialogues()]
    for most in (1, 3, 16, 100):
        found = [
            row for split in ("train", "validation") for s in contents.shards("all", split, most) for row in s.rows()
        ]
        assert len(contents.shards("all", "train", most)) == min(most, contents.configs()["all"]["train"])
        assert sorted(found, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])
    order = [row["id"] for row in expected]
    train = [row["id"] for row in rows_of(run, "all", "train")]
    assert train == [id for id in order if id in set(train)]


def test_a_line_that_cannot_be_read_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    lines = run.dialogues_file.read_text("utf-8").split("\n")
    run.dialogues_file.write_text("\n".join([*lines[:4], '{"id": "x', *lines[5:]]), encoding="utf-8", newline="\n")
    with pytest.raises(RunError, match=r"dialogues\.jsonl, line 5"):
        survey(run)


# --- export --------------------------------------------------------------------------------------


def test_layout_and_figures(run, exported):
    from huggingface_hub import DatasetCard

    data = DatasetCard.load(exported / "README.md").data
    assert [config["config_name"] for config in data["configs"] if config.get("default")] == ["all"]
    assert sorted(config["config_name"] for config in data["configs"]) == sorted(CONFIGS)
    counts = survey(run).configs()
    for info in data["dataset_info"]:
        files = sorted((exported / "data" / info["config_name"]).iterdir())
        assert [file.name for file in files] == ["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"]
        assert info["download_size"] == sum(file.stat().st_size for file in files)
        for split, file in zip(info["splits"], files, strict=True):
            assert (
                split["num_examples"] == pq.read_metadata(file).num_rows == counts[info["config_name"]][split["name"]]
            )
    assert data["tags"] == ["synthetic", "boost-qa"] and data["task_categories"] == ["text-generation"]
    assert data["language"] == "en" and data["annotations_creators"] == ["machine-generated"]
    assert data["source_datasets"] == ["someone/sums"] and data["license"] == "other"
    assert {path.split("/")[0] for path in files_of(exported)} == {"README.md", "recipe.yaml", "data"}


def test_it_loads_without_our_package(run, exported, tmp_path):
    code = f"""
folder = {str(exported)!r}
result["configs"] = get_dataset_config_names(folder)
for config in result["configs"]:
    for split, rows in load_dataset(folder, config).items():
        result[config + "/" + split] = rows.to_list()
default = load_dataset(folder)
result["default"] = default["train"].to_list()
result["features"] = default["train"].features.to_dict()
sizes = [(split.num_bytes, default[name].data.nbytes) for name, split in default["train"].info.splits.items()]
result["sizes"] = sizes
result["stream"] = list(load_dataset(folder, "debate", split="validation", streaming=True))
result["slice"] = load_dataset(folder, "all", split="train[:25%]").num_rows
result["ours"] = sys.modules["boost_qa"] is not None
"""
    found = python(code, tmp_path)
    assert sorted(found["configs"]) == sorted(CONFIGS) and not found["ours"]
    for config in CONFIGS:
        for split in ("train", "validation"):
            assert found[f"{config}/{split}"] == rows_of(run, config, split)
    assert found["default"] == found["all/train"] and found["features"] == FEATURES.to_dict()
    assert found["stream"] == found["debate/validation"]
    assert found["slice"] == round(len(found["all/train"]) / 4)
    assert all(abs(said - real) < 0.05 * real for said, real in found["sizes"])


def test_the_same_run_gives_the_same_bytes(run, exported, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    script = Path(__file__).parents[1] / "builder_scripts" / "boost_qa.py"
    given = ["--run", str(tmp_path / "copy"), "--output", str(tmp_path / "again")]
    env = os.environ | {
        "PYTHONHASHSEED": "7",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "TZ": "Asia/Tokyo",
    }
    done = subprocess.run([sys.executable, str(script), *given], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "again") == files_of(exported)
    assert f"{'debate':22}train {len(rows_of(run, 'debate', 'train'))}  validation" in done.stdout


def test_an_export_replaces_an_older_one_whole_and_is_read_anew(run, tmp_path):
    from datasets import load_dataset

    def load() -> list[dict]:
        return load_dataset(str(target), split="train", cache_dir=str(tmp_path / "cache")).to_list()

    target = export(make_run(tmp_path / "first", dialogues=6), tmp_path / "dataset")
    old = load()
    changed = make_run(tmp_path / "second", dialogues=6)
    text = changed.dialogues_file.read_text("utf-8").replace("teacher says", "teacher sags")
    changed.dialogues_file.write_text(text, encoding="utf-8", newline="\n")
    export(changed, target)
    new = load()
    assert [row["id"] for row in new] == [row["id"] for row in old] and new != old
    export(make_run(tmp_path / "third", dialogues=6, scenarios=("debate",), validation=0), target)
    assert sorted(files_of(target)) == [
        "README.md",
        *(f"data/{config}/train-00000-of-00001.parquet" for config in ("all", "debate", "original")),
        "recipe.yaml",
    ]
    assert {row["scenario"] for row in load()} == {"debate"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "dataset", "first", "second", "third"]


def test_the_digest_in_the_card_is_what_makes_a_cache_old(exported, tmp_path):
    """`datasets` goes by the card alone: with an old card it serves old rows, which is why the digest is there."""
    from datasets import load_dataset_builder

    def cache_dir() -> str:
        return load_dataset_builder(str(folder), cache_dir=str(tmp_path / "cache")).cache_dir

    folder = shutil.copytree(exported, tmp_path / "copy")
    before = cache_dir()
    shard = folder / "data" / "all" / "train-00000-of-00001.parquet"
    shutil.copy(folder / "data" / "all" / "validation-00000-of-00001.parquet", shard)
    assert cache_dir() == before
    card = (folder / "README.md").read_text("utf-8")
    (folder / "README.md").write_text(card.replace("description: content ", "description: content 0"), encoding="utf-8")
    assert cache_dir() != before


@pytest.mark.parametrize("foreign", ["notes.txt", ".git/config", "data/all/mine.parquet"])
def test_files_that_are_not_ours_are_not_touched(run, tmp_path, foreign):
    target = export(run, tmp_path / "dataset")
    (target / foreign).parent.mkdir(exist_ok=True)
    (target / foreign).write_text("mine")
    before = files_of(target)
    with pytest.raises(RunError, match=foreign) as error:
        export(run, target)
    assert "empty folder" in str(error.value) and files_of(target) == before


def test_a_readme_of_somebody_else_is_not_touched(run, tmp_path):
    (tmp_path / "README.md").write_text("# mine, about boost-qa\n- boost-qa\n")
    with pytest.raises(RunError, match="not empty"):
        export(run, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is a file"):
        export(run, tmp_path / "file")


def test_an_export_that_fails_leaves_the_older_one(run, tmp_path):
    target = export(run, tmp_path / "dataset")
    before = files_of(target)
    broken = make_run(tmp_path / "broken", manifest={"prompts": None})
    with pytest.raises(Exception, match="None"):
        export(broken, target)
    assert files_of(target) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "dataset"]


def test_an_unfinished_run(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    with pytest.raises(RunError, match="not finished") as error:
        export(run, tmp_path / "dataset")
    assert "partial" in error.value.remedy and not (tmp_path / "dataset").exists()
    with run.dialogues_file.with_name("dialogues.jsonl.part").open("a") as file:
        file.write('{"id": "torn')
    target = export(run.path, tmp_path / "dataset", partial=True)
    assert pq.read_table(target / "data" / "all").num_rows == 40
    assert "**This is a part:**" in (target / "README.md").read_text("utf-8")


def test_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        export(tmp_path / "nothing", tmp_path / "dataset")
    empty = make_run(tmp_path / "empty", dialogues=0)
    with pytest.raises(RunError, match="no dialogue"):
        export(empty, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_split_or_scenario_without_rows_is_left_out(tmp_path):
    from datasets import get_dataset_config_names, load_dataset
    from huggingface_hub import DatasetCard

    run = make_run(tmp_path / "run", dialogues=2, scenarios=("error_correction",), validation=0.0001)
    folder = str(export(run, tmp_path / "dataset"))
    assert get_dataset_config_names(folder) == ["all", "error_correction", "original"]
    for config, rows in (("all", 2), ("error_correction", 2), ("original", 4)):
        assert load_dataset(folder, config, cache_dir=str(tmp_path / "cache")).num_rows == {"train": rows}
    data = DatasetCard.load(tmp_path / "dataset" / "README.md").data
    assert {split["name"] for info in data["dataset_info"] for split in info["splits"]} == {"train"}


def test_large_splits_become_several_shards(run, tmp_path):
    from datasets import load_dataset

    writer = ShardWriter(tmp_path / "shards", "train", shard_bytes=1, group_rows=4)
    rows = rows_of(run, "all", "train")
    for row in rows:
        writer.add(row)
    writer.close()
    shards = -(-len(rows) // 4)
    names = [f"train-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == names
    assert writer.num_examples == len(rows)
    loaded = load_dataset(str(tmp_path / "shards"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].to_list() == rows and loaded["train"].features == FEATURES


# --- the card ------------------------------------------------------------------------------------

EVIL = "</td><script>alert(1)</script>|`a`|\n---\n# Top\n[x](http://evil.example) {{ 7 * 7 }} www.evil.example"


def test_nothing_enters_the_card_unescaped(tmp_path):
    from huggingface_hub import DatasetCard

    manifest = make_run(tmp_path / "plain").manifest()
    source = manifest["sources"][0] | {
        "source": EVIL,
        "where": EVIL,
        "licence": EVIL,
        "revision": EVIL,
        "bad": {EVIL: 1},
    }
    evil = {
        "sources": [source, manifest["sources"][1]],
        "models": {alias: model | {"model": EVIL, "revision": EVIL} for alias, model in manifest["models"].items()},
        "rejected": {"debate": {EVIL: 1}},
        "prompts": {EVIL: EVIL},
        "versions": {"python": EVIL},
        "recipe": manifest["recipe"] | {"language": EVIL},
    }
    target = export(make_run(tmp_path / "run", manifest=evil), tmp_path / "dataset")
    card = DatasetCard.load(target / "README.md")
    assert card.data["license"] == "other" and "language" not in card.data.to_dict()
    text = card.text
    for forbidden in ("<script", "\n# Top", "[x](", "`a`", " 49 ", "http://evil", "www.evil", "\n---\n"):
        assert forbidden not in text
    for table in text.split("\n\n"):
        lines = [line for line in table.split("\n") if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1
    plain = (export(tmp_path / "plain", tmp_path / "other") / "README.md").read_text("utf-8")
    assert len(text.split("\n")) == len(DatasetCard(plain).text.split("\n")) - len(manifest["prompts"]) + 1


@given(st.text())
def test_escaped_text_is_one_line_without_markup(text):
    line = markdown(text)
    assert "\n" not in line and "\r" not in line and len(line.splitlines()) <= 1
    assert "|" not in line.replace("\\\\", "").replace("\\|", "")
    assert "<" not in line and ">" not in line


def test_one_licence_of_all_sources_is_the_licence(tmp_path):
    from huggingface_hub import DatasetCard

    sources = [source | {"licence": "Apache-2.0"} for source in make_run(tmp_path / "a").manifest()["sources"]]
    target = export(make_run(tmp_path / "run", manifest={"sources": sources}), tmp_path / "dataset")
    data = DatasetCard.load(target / "README.md").data.to_dict()
    assert data["license"] == "apache-2.0" and "license_name" not in data


def test_the_card_names_agents_sources_and_how_to_make_it_again(exported):
    text = (exported / "README.md").read_text("utf-8")
    for line in (
        "| `error_correction` | `weak_student` | `Qwen/Qwen2.5-0.5B-Instruct` | `sha256:aa` | 0.8 | 1.0 | 1024 |",
        "| `sums` | someone/sums | `v1` | mit | 40 | 40 | empty question (1) |",
        "| `debate` | 13 | 2 | truncated (2) |",
        "| `debate/student_a` | `0123456789abcdef` |",
        "boost-qa generate recipe.yaml",
        "arXiv:2506.02689",
    ):
        assert line in text
