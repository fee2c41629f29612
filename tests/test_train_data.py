"""From a dataset to labelled, packed rows: roles, loss, hold-out, lengths."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from fabricate import make_run
from tiny_models import tiny_tokenizer

import boost_qa
from boost_qa.errors import RunError, SourceError
from boost_qa.rows import ROLES
from boost_qa.train.arguments import DialogueArguments
from boost_qa.train.dialogues import digest_rows, hold_out, load_dialogues, to_messages
from boost_qa.train.prepare import assume, prepare
from boost_qa.train.settings import read_settings
from boost_qa.train.supervision import IGNORED
from boost_qa.train.template import DialogueTokenizer

SAID = {
    "error_correction": [
        ("question", "human"),
        ("weak_student", "gpt"),
        ("teacher", "human"),
        ("strong_student", "gpt"),
    ],
    "debate": [("question", "human"), ("student_a", "gpt"), ("student_b", "human"), ("student_c", "gpt")],
}


def row(scenario: str, text: str = "I am {}, and that is that.") -> dict:
    turns = [(speaker, side, text.format(speaker)) for speaker, side in SAID[scenario]]
    return {
        "id": scenario,
        "conversations": [{"from": side, "value": said} for _, side, said in turns],
        "speakers": [speaker for speaker, _, _ in turns],
    }


def settings(**changes):
    keys = {
        "dataset": "x",
        "model_name_or_path": "x",
        "max_length": 256,
        "use_cpu": True,
        "num_train_epochs": 2,
    } | changes
    return read_settings([word for key, value in keys.items() for word in (f"--{key}", str(value).lower())])


@pytest.fixture(scope="module")
def tokenizer() -> DialogueTokenizer:
    return DialogueTokenizer(tiny_tokenizer("llama"), "plain")


# --- rows to messages ----------------------------------------------------------------------------


def test_sharegpt_and_messages_are_the_same_dialogue():
    share = row("debate")
    as_messages = {
        "speakers": share["speakers"],
        "messages": [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in share["conversations"]],
    }
    assert to_messages(share, 0) == to_messages(as_messages, 0)
    messages, speakers = to_messages(share, 0)
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert speakers == ["student_a", "student_c"]


@pytest.mark.parametrize(
    ("conversations", "said"),
    [
        ([("human", "a"), ("bot", "b")], "unknown speaker 'bot'"),
        ([("human", "a"), ("human", "b"), ("gpt", "c")], "turns are user, user, assistant"),
        ([("gpt", "a")], "turns are assistant"),
        ([("human", "a"), ("gpt", "b"), ("human", "c")], "turns are user, assistant, user"),
        ([("human", "a"), ("gpt", "  ")], "a turn of 'gpt' is empty"),
        ([("human", "a")], "no assistant turn"),
        ([], "no messages"),
    ],
)
def test_a_row_that_is_no_dialogue_is_named(conversations, said):
    bad = {"id": "row-17", "conversations": [{"from": side, "value": text} for side, text in conversations]}
    bad |= {"messages": ["hi"]} if not conversations else {}
    with pytest.raises(SourceError, match="row-17") as error:
        to_messages(bad, 3)
    assert said in str(error.value)


# --- which turns carry loss ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss_on", "scenario", "learned"),
    [
        ("all", "error_correction", ["weak_student", "strong_student"]),
        ("not_weak", "error_correction", ["strong_student"]),
        ("last", "error_correction", ["strong_student"]),
        ("all", "debate", ["student_a", "student_c"]),
        ("not_weak", "debate", ["student_c"]),
        ("last", "debate", ["student_c"]),
    ],
)
def test_exactly_the_chosen_turns_are_supervised(tokenizer, loss_on, scenario, learned):
    rows = prepare(Dataset.from_list([row(scenario)]), None, tokenizer, settings(loss_on=loss_on), 1)
    example = rows.train[0]
    marked = [id for id, label in zip(example["input_ids"], example["labels"], strict=True) if label != IGNORED]
    assert [label for label in example["labels"] if label != IGNORED] == marked
    stop = tokenizer.tokenizer.eos_token
    assert tokenizer.tokenizer.decode(marked) == "".join(
        f"I am {speaker}, and that is that.{stop}" for speaker in learned
    )
    counts = rows.counts
    assert counts.supervised == len(marked)
    assert {speaker for speaker, (_, loss) in counts.speakers.items() if loss} == set(learned)
    assert set(counts.speakers) == {speaker for speaker, side in SAID[scenario] if side == "gpt"}


def test_in_analogies_both_answers_are_learnt(tokenizer):
    analogy = row("debate") | {"speakers": ["teacher", "student", "question", "student"]}
    counts = prepare(Dataset.from_list([analogy]), None, tokenizer, settings(loss_on="not_weak"), 1).counts
    assert counts.speakers["student"][0] == counts.speakers["student"][1] == counts.supervised


def test_a_row_of_which_nobody_says_who_speaks_is_not_learnt_whole(tokenizer):
    rows = Dataset.from_list([row("debate"), row("debate") | {"id": "the-mute-one", "speakers": None}])
    with pytest.raises(SourceError, match="the-mute-one: no speakers"):
        prepare(rows, None, tokenizer, settings(loss_on="not_weak"), 1)
    assert prepare(rows, None, tokenizer, settings(), 1).counts.dialogues == 2


def test_a_file_is_not_evaluated_on_what_it_trains_on(tmp_path):
    file = tmp_path / "all.jsonl"
    file.write_text("".join(json.dumps(row("debate") | {"id": str(number)}) + "\n" for number in range(10)))
    with pytest.raises(SourceError, match="all of it is trained on"):
        load_dialogues(DialogueArguments(dataset=str(file), validation_split="test"))
    parts = load_dialogues(
        DialogueArguments(dataset=str(file), dataset_split="train[2:]", validation_split="train[:2]")
    )
    assert (len(parts.train), len(parts.validation)) == (8, 2)


def test_who_is_weak_must_be_known(tmp_path):
    file = tmp_path / "plain.jsonl"
    file.write_text(json.dumps({"conversations": row("debate")["conversations"]}) + "\n")
    with pytest.raises(SourceError, match="needs the column `speakers`"):
        load_dialogues(DialogueArguments(dataset=str(file), loss_on="not_weak"))
    assert len(load_dialogues(DialogueArguments(dataset=str(file))).train) == 1


# --- lengths and packing -------------------------------------------------------------------------


def lengthy(tokens: int) -> dict:
    long = row("debate")
    long["conversations"][1]["value"] = "word " * tokens
    return long


def test_a_dialogue_that_is_too_long_is_an_error_dropped_or_cut(tokenizer):
    rows = Dataset.from_list([row("debate"), lengthy(300) | {"id": "the-long-one"}])
    with pytest.raises(SourceError, match=r"1 of 2 dialogues are longer than max_length \(256 tokens\).*the-long-one"):
        prepare(rows, None, tokenizer, settings(), 1)
    dropped = prepare(rows, None, tokenizer, settings(too_long="drop"), 1).counts
    assert (dropped.dialogues, dropped.dropped) == (1, {"too long": 1})
    cut = prepare(rows, None, tokenizer, settings(too_long="cut"), 1)
    assert max(len(ids) for ids in cut.train["input_ids"]) == 256
    assert cut.counts.supervised == sum(label != IGNORED for labels in cut.train["labels"] for label in labels)
    assert sum(learned for _, learned in cut.counts.speakers.values()) == cut.counts.supervised
    assert sum(spoken for spoken, _ in cut.counts.speakers.values()) == cut.counts.supervised < cut.counts.tokens


def test_a_dialogue_of_which_only_the_prompt_is_left_is_left_out(tokenizer):
    rows = Dataset.from_list([row("debate"), lengthy(300)])
    counts = prepare(rows, None, tokenizer, settings(too_long="cut", loss_on="last"), 1).counts
    assert (counts.dialogues, counts.dropped) == (1, {"no turn carries loss": 1})
    with pytest.raises(SourceError, match="none is left to train on"):
        prepare(Dataset.from_list([lengthy(300)]), None, tokenizer, settings(too_long="drop"), 1)


def test_counts_are_those_of_the_rows(tokenizer):
    rows = Dataset.from_list([row(scenario, "{} " + "a " * size) for size in range(20) for scenario in SAID])
    prepared = prepare(rows, None, tokenizer, settings(packing=True, gradient_accumulation_steps=2), 1)
    counts = prepared.counts
    assert counts.tokens == sum(map(len, prepared.train["input_ids"]))
    assert counts.supervised == sum(label != IGNORED for labels in prepared.train["labels"] for label in labels)
    assert counts.fill == pytest.approx(counts.tokens / (counts.rows * 256))
    documents = [length for lengths in prepared.train["seq_lengths"] for length in lengths]
    assert (len(documents), max(documents)) == (counts.dialogues, counts.longest)
    assert counts.pairs == sum(length**2 for length in documents) // 2
    batches = -(-counts.rows // 8)
    assert counts.steps == 2 * -(-batches // 2)
    assert prepare(rows, None, tokenizer, settings(packing=True), 2).counts.steps == 2 * -(-counts.rows // 16)


def test_a_step_of_packed_rows_holds_about_as_many_dialogues_as_asked_for(tokenizer):
    rows = Dataset.from_list([row("debate")] * 64)
    chosen = settings(packing=True, dialogues_per_step=16, per_device_train_batch_size=1)
    counts = prepare(rows, None, tokenizer, chosen, 1).counts
    assert counts.accumulation * counts.dialogues / counts.rows == pytest.approx(16, rel=0.3)


def test_an_assumed_dataset_has_the_tokens_asked_for():
    counts = assume(2000, 600, settings(max_length=8192, packing=True), 1)
    assert counts.tokens == pytest.approx(2000 * 600, rel=0.05)
    assert counts.supervised == pytest.approx(counts.tokens * 2 / 3, rel=0.01) and counts.fill > 0.95


# --- where rows come from, and what is held out --------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def test_a_run_an_export_and_a_file_give_the_same_rows(run, tmp_path):
    export = boost_qa.export(run, tmp_path / "export")
    file = next((tmp_path / "export" / "data" / "all").glob("train-*.parquet"))
    loaded = [load_dialogues(DialogueArguments(dataset=str(each))) for each in (run.path, export, file)]
    assert len({tuple(each.train["id"]) for each in loaded}) == 1
    assert len({each.facts["fingerprint"] for each in loaded}) == 1 and loaded[0].facts["fingerprint"]
    debate = load_dialogues(
        DialogueArguments(dataset=str(run.path), dataset_config="debate", dataset_split="train[:2]")
    )
    assert set(debate.train["scenario"]) == {"debate"} and len(debate.train) == 2


def test_the_datasets_own_validation_split(run):
    loaded = load_dialogues(DialogueArguments(dataset=str(run.path), validation_split="validation"))
    assert loaded.validation is not None and not set(loaded.train["id"]) & set(loaded.validation["id"])


def test_who_speaks_and_what_is_held_out_are_part_of_what_a_run_is(run):
    rows = load_dialogues(DialogueArguments(dataset=str(run.path))).train
    mute = rows.map(lambda row: {"speakers": ["x"] * len(row["speakers"])})
    assert digest_rows(rows) != digest_rows(mute)


def test_records_are_held_out_with_all_their_dialogues_the_same_ones_each_time(run):
    rows = load_dialogues(DialogueArguments(dataset=str(run.path))).train
    train, held = hold_out(rows, 0.3, seed=1)
    assert len(train) + len(held) == len(rows) and 0 < len(held) < len(train)

    def records(part):
        pairs = zip(part["source_id"], part["related_source_id"], strict=True)
        return {id for pair in pairs for id in pair if id}

    assert not records(train) & records(held)
    assert hold_out(rows, 0.3, seed=1)[1]["id"] == held["id"]
    assert hold_out(rows, 0.3, seed=2)[1]["id"] != held["id"]
    with pytest.raises(SourceError, match="holds out 0 of them"):
        hold_out(rows.select(range(1)), 0.01, seed=1)


def test_an_unfinished_run_is_not_generated_by_training(tmp_path):
    unfinished = make_run(tmp_path / "half", finished=False)
    with pytest.raises(SourceError, match="is not finished") as caught:
        load_dialogues(DialogueArguments(dataset=str(unfinished.path)))
    assert f"boost-qa generate {unfinished.recipe} --output {unfinished.path}" in str(caught.value)
    with pytest.raises(RunError, match="boost-qa generate"):
        load_dialogues(DialogueArguments(dataset="boost_qa", dataset_recipe="paper"))


@pytest.mark.parametrize("dataset", ["no/such/dataset/at/all", "nothing_here", "notes.md"])
def test_a_dataset_that_is_not_there(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # or the client would try for 20 seconds
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(SourceError):
        load_dialogues(DialogueArguments(dataset=dataset))


def test_a_config_or_split_that_is_not_there_is_named(run):
    with pytest.raises((SourceError, RunError), match="poetry"):
        load_dialogues(DialogueArguments(dataset=str(run.path), dataset_config="poetry"))
    with pytest.raises(SourceError, match="testing"):
        load_dialogues(DialogueArguments(dataset=str(run.path), dataset_split="testing"))
