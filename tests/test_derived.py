"""What dialogues are compared with: derived configs of a run, and the noise in two of them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from fabricate import make_dialogue, make_record, make_run

import boost_qa
from boost_qa import noise
from boost_qa.closing import closing
from boost_qa.contents import survey
from boost_qa.derived import DERIVED
from boost_qa.errors import RunError
from boost_qa.rows import FEATURES
from boost_qa.run_folder import RunFolder, dump

TOPPED_UP = [config for config in DERIVED if config.endswith("+original")]
CLOSING = [config for config in DERIVED if config.endswith("closing")]
COUNTED = [config for config in DERIVED if config != "tagcos"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """40 dialogues of 80 records; answers are as long as their records' numbers are."""
    made = make_run(tmp_path_factory.mktemp("runs") / "run")
    records = [
        replace(record, answer=f"{record.answer} " + "so " * (n % 17)) for n, record in enumerate(made.records())
    ]
    rewrite(made, {record.id: record for record in records})
    return made


def rewrite(run: RunFolder, records: dict) -> None:
    """Other records under the same ids, in the dialogues, too."""
    lines = [line | {"record": asdict(records[line["record"]["id"]])} for line in run.dialogues()]
    run.write_records(records.values())
    run.dialogues_file.write_text("".join(dump(line) + "\n" for line in lines), encoding="utf-8", newline="\n")


def rows(run: RunFolder, config: str, split: str | None = None) -> list[dict]:
    contents = survey(run)
    splits = contents.splits(config) if split is None else [split]
    return [row for each in splits for shard in contents.shards(config, each) for row in shard.rows()]


def groups(found: list[dict]) -> Counter:
    return Counter(row["source"] for row in found)


def about(row: dict) -> str:
    return row["source_id"]


# --- which rows ----------------------------------------------------------------------------------


def test_taught_are_the_records_of_the_dialogues_in_their_order(run):
    for split in ("train", "validation"):
        taught, dialogues = rows(run, "taught", split), rows(run, "all", split)
        assert list(map(about, taught)) == list(map(about, dialogues)) and len(taught) > 5
        originals = {row["id"]: row for row in rows(run, "original", split)}
        assert all(row == originals[row["id"]] for row in taught)


@pytest.mark.parametrize("config", COUNTED)
def test_every_split_has_as_many_of_each_source_as_were_taught(run, config):
    for split in ("train", "validation"):
        found = rows(run, config, split)
        assert groups(found) == groups(rows(run, "taught", split))
        assert len({row["id"] for row in found}) == len(found)
        assert {about(row) for row in found} <= {about(row) for row in rows(run, "original", split)}


@pytest.mark.parametrize("config", TOPPED_UP)
def test_left_out_dialogues_give_way_to_their_own_originals(run, config):
    kept = set(config.split("+")[:-1])
    for split in ("train", "validation"):
        found, dialogues = rows(run, config, split), rows(run, "all", split)
        originals = {about(row): row for row in rows(run, "original", split)}
        assert found == [row if row["scenario"] in kept else originals[about(row)] for row in dialogues]
        assert {row["scenario"] for row in found} == {*kept, "original"}


def test_a_record_with_several_dialogues_is_topped_up_if_it_has_none_of_the_named(tmp_path):
    run = make_run(tmp_path / "run", dialogues=3, scenarios=("debate",), validation=0)
    first, second, third, fourth = [make_record(n) for n in range(4)]
    played = [(first, "error_correction"), (first, "debate"), (second, "debate"), (third, "analogical_reasoning")]
    lines = [make_dialogue(record, scenario) for record, scenario in played]
    run.write_records([first, second, third, fourth])
    run.dialogues_file.write_text("".join(dump(line) + "\n" for line in lines), encoding="utf-8")

    def found(config):
        return [(row["source_id"], row["scenario"]) for row in rows(run, config)]

    names = [record.source_id for record in (first, second, third)]
    assert found("taught") == [(name, "original") for name in names]
    assert found("debate+original") == [*zip(names, ["debate", "debate", "original"], strict=True)]
    both = found("error_correction+debate+original")
    assert both == [(names[0], "error_correction"), (names[0], "debate"), (names[1], "debate"), (names[2], "original")]


def test_a_scenario_that_was_not_played_is_named(tmp_path):
    run = make_run(tmp_path / "run", scenarios=("debate",))
    assert {row["scenario"] for row in rows(run, "debate+original")} == {"debate"}
    for config in ("error_correction+original", "error_correction+debate+original"):
        with pytest.raises(RunError, match=r"no dialogues of error_correction\n  It has: debate"):
            boost_qa.load(config, run=run.path, streaming=True)


def test_long_are_the_longest_answers_of_all_records_ties_by_id(run):
    for split in ("train", "validation"):
        found = {row["id"] for row in rows(run, "long", split)}
        for source in ("sums", "more_sums"):
            all_of_it = [row for row in rows(run, "original", split) if row["source"] == source]
            by_length = sorted(all_of_it, key=lambda row: (-len(row["reference_answer"]), row["id"]))
            chosen = [row["id"] in found for row in by_length]
            assert chosen == sorted(chosen, reverse=True) and any(chosen) and not all(chosen)
    lengths = [np.mean([len(row["reference_answer"]) for row in rows(run, config)]) for config in ("long", "taught")]
    assert lengths[0] > lengths[1]


# --- closing answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", CLOSING)
def test_closing_is_the_last_answer_right_after_its_question(run, config):
    """In the place and order of the dialogues; what was an original already stays what it was."""
    whole = rows(run, config.removesuffix("+closing") if "+" in config else "all")
    scenarios = {row["scenario"] for row in whole}
    for short, long in zip(rows(run, config), whole, strict=True):
        if long["scenario"] == "original":
            assert short == long
            continue
        human, gpt = short["conversations"]
        assert (human["from"], gpt) == ("human", long["conversations"][-1])
        if long["scenario"] == "analogical_reasoning":
            assert human == long["conversations"][-2] and human["value"].startswith("What is")
        else:
            assert human["value"] == long["question"]
        assert short["messages"] == [
            {"role": "user", "content": human["value"]},
            {"role": "assistant", "content": gpt["value"]},
        ]
        assert short["speakers"] == ["question", long["speakers"][-1]]
        assert [agent["speaker"] for agent in short["agents"]] == short["speakers"]
        assert short["scenario"] == "closing" and list(short) == list(FEATURES)
        same = {"id", "question", "reference_answer", "related_id", "usage", "licence"}
        assert all(short[name] == long[name] for name in same)
        FEATURES.encode_example(short)
    assert scenarios - {"original"} and len(whole) > 30


def test_closing_keeps_what_was_checked_of_the_turns_that_are_kept(run):
    found = [
        {"check": "roles", "version": "2", "label": label, "turn": turn, "detail": None}
        for label, turn in [("whole", None), ("question", 0), ("attempt", 1), ("guidance", 2), ("correction", 3)]
    ]
    dialogue = next(row for row in rows(run, "all") if row["scenario"] == "error_correction")
    kept = closing(dialogue | {"checks": found})["checks"]
    assert [(check["label"], check["turn"]) for check in kept] == [("whole", None), ("question", 0), ("correction", 1)]
    assert found[4]["turn"] == 3, "the row itself is as it was"


# --- noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["random_aug", "spelling_aug"])
def test_noise_is_in_what_is_asked_and_nowhere_else(run, config):
    noisy, taught = rows(run, config), rows(run, "taught")
    for ours, plain in zip(noisy, taught, strict=True):
        assert ours["conversations"][1:] == plain["conversations"][1:]
        asked = ours["conversations"][0]["value"]
        assert ours["messages"] == [{"role": "user", "content": asked}, plain["messages"][1]]
        changed = {"scenario": config, "conversations": ours["conversations"], "messages": ours["messages"]}
        assert ours == plain | changed and list(ours) == list(FEATURES)
    differing = sum(a["messages"] != b["messages"] for a, b in zip(noisy, taught, strict=True))
    assert differing == len(noisy), "nlpaug takes every text apart, at least"
    FEATURES.encode_example(noisy[0])


LONG = "Because the bakers children received their separate answers which number did they believe to be right"


@pytest.mark.parametrize("name", ["random_aug", "spelling_aug"])
def test_noise_follows_from_the_record_in_any_order_and_leaves_chance_alone(name):
    texts = {f"r{n}": f"{LONG} in the year {1900 + n}" for n in range(12)}
    before, numpys = random.getstate(), np.random.get_state()[1].tolist()
    once = {seed: noise.noisy(text, name, seed) for seed, text in texts.items()}
    assert random.getstate() == before and np.random.get_state()[1].tolist() == numpys
    random.seed(9)
    np.random.seed(9)
    assert {seed: noise.noisy(texts[seed], name, seed) for seed in reversed(texts)} == once
    assert len({text.partition(" in the")[0] for text in once.values()}) > 8
    changed = [sum(a != b for a, b in zip(once[seed].split(), texts[seed].split(), strict=True)) for seed in texts]
    assert all(1 <= count <= 10 for count in changed), "nlpaug's own most"
    assert noise.noisy("", name, "a") == "" and noise.noisy("?", name, "a") == "?"


def test_noise_is_the_same_in_another_process(run):
    """With another hash seed, for nlpaug's misspellings of a word have the order of a set; and without torch."""
    code = (
        "import json, sys; sys.modules |= dict.fromkeys(('torch', 'transformers', 'nltk', 'sklearn'))\n"
        "from boost_qa import noise\n"
        f"print(json.dumps([noise.noisy({LONG!r}, name, str(n)) for name in ('random_aug', 'spelling_aug')"
        " for n in range(8)]))"
    )
    env = os.environ | {"PYTHONHASHSEED": "4711"}
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, check=True)
    here = [noise.noisy(LONG, name, str(n)) for name in ("random_aug", "spelling_aug") for n in range(8)]
    assert json.loads(done.stdout.splitlines()[-1]) == here


def test_without_nlpaug_the_extra_is_named(monkeypatch):
    noise._augmenter.cache_clear()
    monkeypatch.setitem(sys.modules, "nlpaug.augmenter.char", None)
    with pytest.raises(RunError, match=r"random_aug needs nlpaug.*\n  pip install 'boost_qa\[baselines\]'"):
        noise.noisy(LONG, "random_aug", "a")
    noise._augmenter.cache_clear()


# --- how they are served -------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["taught", "error_correction+debate+original", "spelling_aug", "long"])
def test_rows_are_the_same_in_every_way_of_loading(run, tmp_path, config):
    from datasets import load_dataset

    cache = str(tmp_path / "cache")
    loaded = load_dataset("boost_qa", config, run=str(run.path), cache_dir=cache)
    for split in ("train", "validation"):
        assert loaded[split].to_list() == rows(run, config, split) and loaded[split].features == FEATURES
        streamed = load_dataset("boost_qa", config, run=str(run.path), split=split, streaming=True)
        assert list(streamed) == rows(run, config, split)
    ours = boost_qa.load(config, run=run.path, split="train", cache_dir=cache)
    assert ours.cache_files == loaded["train"].cache_files


def test_several_processes_make_the_same_rows(run, tmp_path):
    made = boost_qa.load("random_aug", run=run.path, split="train", num_proc=2, cache_dir=str(tmp_path))
    assert made.to_list() == rows(run, "random_aug", "train")


def test_training_takes_them(run):
    from boost_qa.train.arguments import DialogueArguments
    from boost_qa.train.dialogues import load_dialogues

    ours = DialogueArguments(
        dataset=str(run.path),
        dataset_config="debate+original",
        dataset_split="train[:8]",
        validation_split="validation",
    )
    loaded = load_dialogues(ours)
    assert loaded.train["id"] == [row["id"] for row in rows(run, "debate+original", "train")[:8]]
    assert set(loaded.validation["scenario"]) == {"debate", "original"}


def test_nothing_of_them_is_exported(run, tmp_path):
    assert not survey(run).configs().keys() & DERIVED.keys()
    exported = boost_qa.export(run, tmp_path / "export")
    assert {path.name for path in (exported / "data").iterdir()} == set(survey(run).configs())
    assert "+original" not in (exported / "README.md").read_text("utf-8")


def test_a_coreset_that_is_missing_or_stale_names_the_command(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"no coreset\n  Choose them: boost-qa coreset .*run --model"):
        boost_qa.load("tagcos", run=run.path)

    run.coreset_file.write_text('{"chosen": [')
    with pytest.raises(RunError, match="cannot be read"):
        boost_qa.load("tagcos", run=run.path)

    def choose(ids):
        run.coreset_file.write_text(json.dumps({"chosen": {"all": ids}}))
        return boost_qa.load("tagcos", run=run.path, cache_dir=str(tmp_path / "cache"))

    taught, original = ([row["id"] for row in rows(run, config)] for config in ("taught", "original"))
    first = choose(taught)
    assert {id for split in first.values() for id in split["id"]} == set(taught)
    with pytest.raises(RunError, match="was made for other dialogues or splits"):
        choose(taught[1:])
    places = {place.record: place for place in survey(run).records}

    def group(id):
        return places[id].source, places[id].split

    other = next(id for id in original if id not in taught and group(id) == group(taught[0]))
    second = choose([other, *taught[1:]])
    assert {id for split in second.values() for id in split["id"]} == {other, *taught[1:]}, "not what the cache had"
