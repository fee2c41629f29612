"""Star recipes from end to end, over engines without models."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from datasets import load_dataset
from scripted import Scripted

from boost_qa.config import Recipe
from boost_qa.errors import EngineError, RunError
from boost_qa.export import export
from boost_qa.generate import generate
from boost_qa.run_folder import RunFolder
from boost_qa.star_agents.scoring import model_name
from boost_qa.types import Call, Reply

PAIRS = ("plain", "good", "fair", "poor")
QUALITY = {"plain": 0.0, "good": 0.9, "fair": 0.5, "poor": 0.1}


def recipe(**changes) -> Recipe:
    agents = {name: {"respond": {"model": name, "temperature": 0.5}} for name in PAIRS}
    star = {"pairs": agents, "base": ["plain"], "draws": 2, "small": "s", "large": "l", "bank": None}
    star |= {"batch": 3, "order": "given"}
    star |= {"judge": {"model": "judge", "temperature": 0.0}, "rate": 40.0} | changes
    raw = {
        "name": "stars",
        "sources": [{"source": "sample"}],
        "dialogues": 24,
        "star": star,
        "models": {name: {"engine": "embedded", "model": f"m-{name}"} for name in (*PAIRS, "judge")},
    }
    return Recipe.model_validate(raw)


def speaker(name: str) -> Scripted:
    return Scripted(lambda call: Reply(f"{name} answers {call.record}", "stop", 10, 5), slots=8)


def judging(call: Call) -> Reply:
    """Prefers whatever is not plain, in either place."""
    text = call.request.messages[-1].content
    first = text.index("| plain") < max(text.find(f"| {name}") for name in PAIRS[1:])
    return Reply(f"Because. [[{'B' if first else 'A'}]]")


def likely(size: str):
    """The small scorer finds the prompt less helpful the better the pair, the large one always the same."""

    def answer(call: Call) -> Reply:
        name = call.request.messages[-1].content.split()[0]
        ifd = 0.4 + (QUALITY[name] / 2 if size == "small" else 0.0)
        return Reply(json.dumps({"tokens": 10, "conditioned": 10 * (3 + math.log(ifd)), "alone": 30.0}))

    return answer


def engines(**changes) -> dict[str, Scripted]:
    found = {name: speaker(name) for name in PAIRS} | {"judge": Scripted(judging, slots=8)}
    found |= {model_name("s"): Scripted(likely("small"), slots=8), model_name("l"): Scripted(likely("large"), slots=8)}
    return found | changes


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return generate(recipe(), tmp_path_factory.mktemp("star") / "run", engines=engines(), show=False)


def test_each_record_gets_the_best_of_its_candidates(run):
    rows = list(run.dialogues())
    assert len(rows) == 24 and {row["scenario"] for row in rows} == {"star"}
    for row in rows:
        scores = {each["pair"]: each["score"] for each in row["candidates"]}
        assert len(scores) == 3 and scores["plain"] == 0.0
        best = max(scores, key=scores.get)
        assert row["pair"] == best and row["score"] == scores[best] == 1.0
        assert row["turns"][-1]["text"].startswith(f"{best} answers")


def test_pairs_that_do_well_are_drawn_more_often(run):
    history = lines(run.history_file)
    assert [passage["record"] for passage in history] == [row["record"]["id"] for row in run.dialogues()]
    first, last = history[0]["probabilities"], history[-1]["probabilities"]
    assert last["good"] > 0.8 > first["good"] > 1 / 3 and last["poor"] == 0.01
    assert math.isclose(sum(last.values()), 1) and last == run.manifest()["probabilities"]
    # seeds of a batch are drawn by the same probabilities, and told in their order
    assert [len(set(map(str, passage["drawn"]))) for passage in history] == [2] * 24


def test_a_stopped_run_comes_to_the_same_without_asking_anything_twice(run, tmp_path):
    asked = []

    def broken(call: Call) -> Reply:
        asked.append(call)
        if len(asked) > 40:
            raise EngineError("gone")
        return likely("small")(call)

    with pytest.raises(EngineError):
        generate(recipe(), tmp_path / "run", engines=engines(**{model_name("s"): Scripted(broken)}), show=False)
    again = engines()
    resumed = generate(recipe(), tmp_path / "run", engines=again, show=False)
    for name in ("dialogues_file", "history_file", "candidates_file", "rejected_file"):
        assert getattr(resumed, name).read_bytes() == getattr(run, name).read_bytes()
    assert 0 < len(again[model_name("s")].answered) <= 72 - 40


def test_it_is_played_again_without_a_model(run, tmp_path):
    copy = generate(recipe(), tmp_path / "copy", replay=run.path, show=False)
    for name in ("dialogues_file", "history_file", "candidates_file"):
        assert getattr(copy, name).read_bytes() == getattr(run, name).read_bytes()


def test_it_is_exported_as_the_config_star(run, tmp_path):
    folder = export(run, tmp_path / "dataset")
    rows = load_dataset(str(folder), "star", cache_dir=str(tmp_path / "cache"))
    everything = [row for split in rows.values() for row in split]
    assert len(everything) == 24 and {row["pair"] for row in everything} <= set(PAIRS)
    assert all(len(row["candidates"]) == 3 and row["score"] == 1.0 for row in everything)
    card = (folder / "README.md").read_text("utf-8")
    assert "star/good" in card and "| `star` |" in card


def test_without_a_base_sample_there_is_no_row(tmp_path):
    def silent(call: Call) -> Reply:
        return (
            Reply("", "stop") if call.record.endswith(("0", "1", "2", "3")) else Reply(f"plain answers {call.record}")
        )

    run = generate(recipe(), tmp_path / "run", engines=engines(plain=Scripted(silent)), show=False)
    rejected = list(run.rejected())
    assert rejected and {row["reason"] for row in rejected} == {"plain: respond: empty"}
    assert len(rejected) + len(list(run.dialogues())) == 24


def test_an_unreadable_verdict_takes_a_candidate_out_and_is_counted(tmp_path):
    def mute(call: Call) -> Reply:
        return Reply("I cannot say.") if "| good" in call.request.messages[-1].content else judging(call)

    run = generate(recipe(every_pair=True), tmp_path / "run", engines=engines(judge=Scripted(mute)), show=False)
    assert all(row["pair"] != "good" for row in run.dialogues())
    assert run.manifest()["star"]["good"] == {"judge: unreadable verdict": 24}
    assert run.manifest()["probabilities"]["good"] < 0.1


def test_a_scorer_of_another_revision_is_refused(run, tmp_path):
    def stop(call: Call) -> Reply:
        raise EngineError("stop")

    with pytest.raises(EngineError):
        generate(recipe(), tmp_path / "run", engines=engines(judge=Scripted(stop)), show=False)
    other = Scripted(likely("small"))
    other.revision = "another"
    with pytest.raises(RunError, match="likelihood by s is now another"):
        generate(recipe(), tmp_path / "run", engines=engines(**{model_name("s"): other}), show=False)


def test_a_run_of_before_there_were_retests_and_orders_is_played_again(run, tmp_path):
    """Its recipe and its journal lack what came later: it is another run, and its replies are all there."""
    old = tmp_path / "old"
    shutil.copytree(run.path, old)
    manifest = json.loads((old / "manifest.json").read_text("utf-8"))
    for settings in (manifest["content"], manifest["recipe"]):
        del settings["star"]["retest"], settings["star"]["order"]
    (old / "manifest.json").write_text(json.dumps(manifest | {"digest": "another"}))
    with pytest.raises(RunError, match="its recipe differs\n.*another --output"):
        generate(recipe(), old, engines=engines(), show=False)
    again = generate(recipe(), tmp_path / "again", replay=old, show=False)
    assert again.history_file.read_bytes() == run.history_file.read_bytes()


def test_seeds_are_shuffled_over_their_sources(run, tmp_path):
    """By the run's seed; the paper's order is not known, and sources come one after the other."""
    given = [passage["record"] for passage in lines(run.history_file)]
    assert len({id.partition(":")[0] for id in given[:8]}) == 1
    shuffled = generate(recipe(order="shuffled"), tmp_path / "run", engines=engines(), show=False)
    played = [passage["record"] for passage in lines(shuffled.history_file)]
    assert sorted(played) == sorted(given) and len({id.partition(":")[0] for id in played[:8]}) == 3
    assert [row["record"]["id"] for row in shuffled.dialogues()] == played
    copy = generate(recipe(order="shuffled"), tmp_path / "copy", replay=shuffled.path, show=False)
    assert copy.history_file.read_bytes() == shuffled.history_file.read_bytes()


def test_the_builder_serves_it(run):
    import boost_qa

    served = boost_qa.load("star", run=str(run.path), streaming=True)
    rows = [row for split in served.values() for row in split]
    assert {row["id"] for row in rows} == {row["id"] for row in run.dialogues()} and rows[0]["pair"] in PAIRS
