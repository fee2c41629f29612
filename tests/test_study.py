"""Studies: what intervals over trainings are worth, the paper's tables, held-out questions, and one from end to end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from fabricate import make_run
from local_server import local_server
from tiny_models import tiny

from boost_qa.errors import BoostQAError, ModelError, RecipeError, RunError, SourceError
from boost_qa.evaluate.benchmark import benchmarks, read_questions
from boost_qa.evaluate.intervals import difference, difference_over_seeds, figure, holm, over_seeds
from boost_qa.evaluate.results import Scored
from boost_qa.evaluate.results import write as write_results
from boost_qa.portable import portable_study
from boost_qa.run_folder import write_whole
from boost_qa.study.ahead import look_ahead
from boost_qa.study.gather import gather
from boost_qa.study.held_out import check_unseen, hold_out
from boost_qa.study.hours import asked, hours
from boost_qa.study.paper import paper_file, read_tables
from boost_qa.study.plots import _sizes
from boost_qa.study.report import report
from boost_qa.study.settings import HeldOut, find_study, read_study
from boost_qa.study.steps import HELD_OUT, Places, generations, trainings
from boost_qa.study.work import check_begun, last_line, work

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "recipes" / "study").glob("*.yaml"))
SCALES = [(file.stem, scale) for file in STUDIES for scale in yaml.safe_load(file.read_text())["scales"]]


# --- intervals -----------------------------------------------------------------------------------


def test_one_seed_is_the_interval_of_the_items_alone():
    scores = np.array([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    one, plain = over_seeds(scores), figure(scores[0])
    assert (one.mean, one.low, one.high, one.trained) == (plain.mean, plain.low, plain.high, False)
    changed, paired = difference_over_seeds(scores, 1 - scores), difference(scores[0], 1 - scores[0])
    assert (changed.mean, changed.low, changed.p) == (paired.difference, paired.low, paired.p)
    assert not changed.trained


def test_variances_of_items_and_seeds_are_added():
    """By hand: arms of two seeds and four items."""
    first = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])  # means 0.5, 0.25; of items 0, 0, .5, 1
    second = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])  # means 0.75, 1; of items 1, .5, 1, 1
    found = difference_over_seeds(first, second)
    changes = [1.0, 0.5, 0.5, 0.0]
    items = np.var(changes, ddof=1) / 4
    seeds = 2 * np.var([0.5, 0.25], ddof=1) / 2  # both arms alike
    assert found.mean == 0.5 and found.stderr == pytest.approx(np.sqrt(items + seeds))
    assert found.low < 0.5 < found.high <= 1 and found.trained and found.seeds == 2


def test_intervals_over_seeds_hold_the_truth_as_often_as_they_say():
    """Items and trainings both vary; the true difference is that of the means before either is drawn."""
    rng, inside, trials, truth = np.random.default_rng(0), 0, 400, 0.1
    for _ in range(trials):
        ease = rng.normal(0.4, 0.15, 200)

        def arm(gain, ease=ease):
            chance = np.clip(ease + gain + rng.normal(0, 0.03, (3, 1)), 0, 1)
            return (rng.random((3, 200)) < chance).astype(float)

        found = difference_over_seeds(arm(0.0), arm(truth))
        inside += found.low <= truth <= found.high
    assert 0.93 <= inside / trials <= 1


def test_arms_that_are_all_right_have_no_interval_of_length_nothing():
    same = np.ones((3, 20))
    assert over_seeds(same).low < 1 == over_seeds(same).high
    found = difference_over_seeds(same, same)
    assert found.low < 0 < found.high and found.p == 1


def test_seeds_that_are_right_by_turns_have_an_interval():
    found = over_seeds(np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]))
    assert found.low < found.mean == 0.5 < found.high


def test_scores_that_are_no_shares_are_not_cut():
    scores = np.array([[-3.0, -4.0, -2.5], [-3.5, -4.5, -2.0]])
    found, higher = over_seeds(scores), difference_over_seeds(scores, scores + [[2.0], [2.5]])
    assert found.low < found.mean < found.high < 0 and higher.mean == 2.25 < higher.high


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


# --- what a study is -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_study_parses_at_every_scale_down_to_its_commands(name, scale, tmp_path):
    study = read_study(name, scale)
    steps = [
        step for chain in (*generations(study, Places(tmp_path)), *trainings(study, Places(tmp_path))) for step in chain
    ]
    assert len({step.name for step in steps}) == len(steps) >= len(study.runs) + len(study.arm_seeds())
    for step in steps:
        assert step.command[0] == sys.executable and step.command[1] == "-m"
        assert step.command[2] in ("boost_qa.cli", "boost_qa.train")


def test_a_study_that_is_stopped_has_every_arm_of_its_first_seeds():
    study = read_study("ablation", "tiny", ["seeds=[3, 5]"])
    trained = [name for name in study.arms if name != "base"]
    assert study.arm_seeds() == [("base", 3), *((name, seed) for seed in (3, 5) for name in trained)]


def test_there_are_the_studies_that_were_promised():
    promised = {"ablation", "loss_mask", "temperature", "retrieval", "scaling", "cast", "mechanism"}
    assert {file.stem for file in STUDIES} == promised
    assert all({"tiny", "full"} <= {scale for name, scale in SCALES if name == each} for each in promised)


@pytest.mark.parametrize("name", [file.stem for file in STUDIES if file.stem != "retrieval"])
def test_a_full_study_says_what_it_costs(name):
    study = read_study(name, "full")
    costs = hours(study)
    trained = {f"train {name}" for name, arm in study.arms.items() if arm.run is not None}
    asked = {f"evaluate {name}" for name in study.arms}
    assert [cost.what for cost in costs if cost.times == 3] == [
        cost.what for cost in costs if cost.what in trained | asked - {"evaluate base"}
    ]
    assert {cost.what for cost in costs} == trained | asked | {f"generate {name}" for name in study.runs}
    assert all(cost.hours > 0 and cost.times in (1, 3) for cost in costs)


def test_other_splits_are_other_rows_to_train_on(tmp_path):
    places = Places(tmp_path)

    def depends(*changes: str) -> dict[str, str]:
        study = read_study("ablation", "tiny", changes)
        return {
            step.name: step.depends
            for chain in (*generations(study, places), *trainings(study, places))
            for step in chain
        }

    before, after = depends(), depends("runs.classroom.change=[dialogues=12, runner.in_flight=12, validation=0]")
    changed = {name for name in before if before[name] != after[name]}
    assert {"generate classroom", "train full, seed 0", "evaluate full, seed 0, held_out"} <= changed
    assert not changed & {"generate direct", "train direct, seed 0", "evaluate base, seed 0, held_out"}


def test_held_out_questions_are_counted_where_nothing_else_is_asked():
    small, suite = read_study("ablation", "digits"), read_study("ablation", "digits", ["evaluate.suite=quick"])
    assert asked(small) == (4 * 50, 256) and asked(suite) == (small.assumed.questions, 256)
    assert asked(read_study("ablation", "small")) == (6 * 50, 384)
    seconds = 3600 * next(cost.hours for cost in hours(small) if cost.what == "evaluate base")
    assert seconds == pytest.approx(200 * 256 / small.assumed.evaluated)


@pytest.mark.parametrize(("name", "scale"), [each for each in SCALES if each[1] != "full"])
def test_all_that_a_packaged_study_names_is_there(name, scale):
    look_ahead(read_study(name, scale))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "arms.full.config=debat+original",
            "arms.full.config: there is no 'debat+original'\n  The nearest are debate+",
        ),
        ("evaluate.tasks=[boost_maths]", "evaluate.tasks: there is no 'boost_maths'\n  The nearest are boost_math"),
        ("evaluate.data=[/nowhere]", "/nowhere does not exist"),
        ("headline={boost_question: acc}", "headline: 'boost_question' is not asked\n  Asked are boost_questions."),
        ("evaluate.backend=vllm", "vllm is not installed"),
        ("evaluate.judge=nobody", "nobody"),
    ],
)
def test_what_would_be_missed_after_hours_is_missed_before_anything_is_run(change, told, tmp_path):
    with pytest.raises(BoostQAError) as caught:
        work(read_study("ablation", "tiny", [change]), tmp_path / "out", [""], lambda _: None)
    assert told in str(caught.value) and not (tmp_path / "out").exists()


def test_a_study_is_not_begun_where_its_code_cannot_be_run(monkeypatch):
    study = read_study("ablation", "tiny", ["evaluate.tasks=[boost_humaneval]"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match="bubblewrap"):
        look_ahead(study)


def test_held_out_questions_are_all_asked_whatever_the_limit_of_benchmarks(tmp_path):
    limited = read_study("ablation", "tiny", ["evaluate.limit=2", "evaluate.tasks=[boost_sciq]"])
    (asked,) = [
        {step.name: step.command for step in chain}
        for chain in trainings(limited, Places(tmp_path))
        if chain[0].name.startswith("evaluate base")
    ]
    assert [("--limit" in command) for command in asked.values()] == [False, True], list(asked)


def test_more_rows_cost_more():
    costs = {cost.what: cost.hours for cost in hours(read_study("scaling", "full"))}
    sizes = [costs[f"train rows_{rows}"] for rows in (5000, 10000, 19000, 38000, 100000)]
    assert all(small < large for small, large in pairwise(sizes))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seedz=[1]", "unknown key 'seedz' (nearest known key: 'seeds')"),
        ("arms.full.run=nobody", "arms.full.run: 'nobody' is not in runs"),
        ("against=nobody", "'nobody' is not in arms"),
        ("arms.full.rows=0", "arms.full.rows"),
        ("seeds=[1, 1]", "seeds: one stands there twice"),
        ("held_out=null", "nothing is asked"),
        ("evaluate.limit=x", "evaluate.limit"),
    ],
)
def test_a_fault_names_its_key(change, told):
    with pytest.raises(RecipeError, match=re.escape(told)):
        read_study("ablation", "tiny", [change])


def test_a_fault_in_how_an_arm_is_trained_is_told_before_anything_is_run(tmp_path):
    study = read_study("ablation", "tiny", ["arms.full.change=[learning_rat=1]"])
    with pytest.raises(RecipeError, match="nearest known key: 'learning_rate'"):
        trainings(study, Places(tmp_path))


def depends(folder, *changes):
    study, places = read_study("ablation", "tiny", changes), Places(folder)
    chains = (*generations(study, places), *trainings(study, places))
    return {step.name: step.depends for chain in chains for step in chain}


def test_what_a_step_comes_to_hangs_on_what_is_asked_and_not_on_where(tmp_path):
    before = depends(tmp_path)
    elsewhere = depends(tmp_path / "elsewhere", "evaluate.batch_size=2", "evaluate.judge_url=http://localhost:1/v1")
    assert elsewhere == before
    more = depends(tmp_path, "evaluate.suite=quick")  # what is asked may be added later
    assert len(more) > len(before) and before.items() <= more.items()
    changed = {name for name, one in depends(tmp_path, "evaluate.max_tokens=3").items() if one != before[name]}
    assert changed == {name for name in before if name.startswith("evaluate")}
    changed = {name for name, one in depends(tmp_path, "arms.full.rows=4").items() if one != before[name]}
    assert changed == {"train full, seed 0", "evaluate full, seed 0, held_out"}


def test_a_study_is_planned_where_there_are_several_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert depends(tmp_path)


def test_unknown_studies_and_scales_name_those_there_are():
    with pytest.raises(RecipeError, match="ablation"):
        find_study("abblation")
    with pytest.raises(RecipeError, match="It has: tiny, small, digits, full"):
        read_study("ablation", "huge")


def test_a_scale_changes_keys_and_takes_some_away(tmp_path):
    file = tmp_path / "mine.yaml"
    base = yaml.safe_load((ROOT / "recipes/study/ablation.yaml").read_text())
    base["scales"]["tiny"]["arms"] = {"direct": None, "full": {"rows": 3}}
    base["scales"]["tiny"]["compare"] = []
    file.write_text(yaml.safe_dump(base))
    study = read_study(file, "tiny")
    assert "direct" not in study.arms and study.arms["full"].rows == 3 and study.arms["full"].run == "classroom"


# --- the paper -----------------------------------------------------------------------------------


def test_tables_of_the_paper_have_the_averages_that_it_prints():
    tables = read_tables(paper_file(find_study("ablation")).read_text())
    table4 = tables[0]
    printed = {"original": 45.98, "full": 51.26, "error_correction": 37.69, "debate": 38.40}
    printed |= {"analogical_reasoning": 36.98, "error_correction+debate": 38.54}
    printed |= {"error_correction+analogical_reasoning": 38.10, "debate+analogical_reasoning": 39.02}
    for arm, shown, figures in table4.rows:
        assert sum(figures) / len(figures) == pytest.approx(printed.pop(arm), abs=0.006), shown
    full = next(figures for arm, _, figures in table4.rows if arm == "full")
    assert not printed and full[[task for task, _ in table4.columns].index("boost_math")] == 23.90
    averages = {shown: sum(figures) / 7 for _, shown, figures in (*tables[1].rows, *tables[2].rows)}
    expected = {"RandomAug": 38.77, "SpellingAug": 29.21, "TAGCOS": 47.93, "CoT-fine": 41.11}
    expected |= {"Qwen2.5-7B, originals": 37.27, "Qwen2.5-7B, BOOST-QA": 60.64}
    expected |= {"Mistral-7B, originals": 32.46, "Mistral-7B, BOOST-QA": 35.32}
    assert averages == {name: pytest.approx(value, abs=0.006) for name, value in expected.items()}
    assert all("MASTER" in table.source for table in tables)


def test_tasks_that_the_papers_tables_name_are_ours():
    from boost_qa.evaluate.benchmark import benchmarks

    for file in (ROOT / "recipes" / "study").glob("*/paper.md"):
        for table in read_tables(file.read_text()):
            assert {name for name, _ in table.columns if name} <= set(benchmarks())


# --- held-out questions --------------------------------------------------------------------------


def gym(n: int, seed: int) -> dict:
    return {"source": "reasoning_gym", "n": n, "seed": seed, "tasks": {"chain_sum": {"max_terms": 2, "max_digits": 1}}}


def test_no_question_of_a_run_is_held_out(tmp_path):
    run = make_run(tmp_path / "run", dialogues=6)
    records = [json.loads(line) for line in run.records_file.open(encoding="utf-8")]
    rows = [{"q": record["question"].upper() + "!", "a": record["answer"], "f": "1"} for record in records]
    rows += [{"q": f"What is {n} plus {n}?", "a": str(2 * n), "f": str(2 * n)} for n in range(1000, 1005)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": "columns", "name": "mine", "path": str(tmp_path / "rows.jsonl")}
    source |= {"question": "q", "answer": "a", "final": "f"}
    settings = HeldOut.model_validate({"n": 5, "sources": [source]})
    hold_out(settings, [run], tmp_path / "held.jsonl")
    held = [json.loads(line) for line in (tmp_path / "held.jsonl").open(encoding="utf-8")]
    assert sorted(row["final"] for row in held) == ["2000", "2002", "2004", "2006", "2008"]
    check_unseen(tmp_path / "held.jsonl", [run])
    with run.records_file.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**records[0], "id": "new", "question": "what is 1000 plus 1000"}) + "\n")
    with pytest.raises(RunError, match="1 of the questions in .* are in the run"):
        check_unseen(tmp_path / "held.jsonl", [run])
    with pytest.raises(SourceError, match="mine has 4 questions .* wanted: 6"):
        hold_out(settings.model_copy(update={"n": 6}), [run], tmp_path / "more.jsonl")
    assert not (tmp_path / "more.jsonl").exists()
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(SourceError, match="mine has 0 questions"):
        hold_out(settings, [run], tmp_path / "none.jsonl")


# --- figures -------------------------------------------------------------------------------------


def evaluated(folder: Path, right: dict[str, float]) -> None:
    """Results of an evaluation as the harness leaves them, of the held-out questions."""
    items = [
        Scored(HELD_OUT, item, {"acc,none": score, "unparsed,none": 0.0}, "said\u2028so")
        for item, score in right.items()
    ]
    whole = {
        "results": {HELD_OUT: {"alias": HELD_OUT, "acc,none": 0.0, "acc_stderr,none": 0.0}},
        "configs": {HELD_OUT: {"metadata": {"kind": "math"}}},
        "versions": {HELD_OUT: 1.0},
    }
    write_results(folder, whole, items, {})


def test_a_report_has_the_figures_of_its_evaluations(tmp_path):
    study = read_study("ablation", "tiny", ["seeds=[0, 1]"])
    places = Places(tmp_path)
    for name, seed in study.arm_seeds():
        right = {f"q{n}": float(n < {"base": 1, "original": 2, "direct": 5, "full": 8}[name] + seed) for n in range(10)}
        folder = places.evaluation(name, seed) / "held_out"
        folder.mkdir(parents=True)
        evaluated(folder, right)
    found = gather(study, tmp_path)
    means = {row["arm"]: round(row["mean"], 9) for row in found["figures"] if row["metric"] == "acc"}
    assert means == {
        "base": 0.1,
        "original": pytest.approx(0.25),
        "direct": pytest.approx(0.55),
        "full": pytest.approx(0.85),
    }
    differences = {(row["first"], row["second"]): row for row in found["differences"]}
    assert set(differences) == {(a, b) for a, b in study.pairs()}
    assert differences["original", "full"]["mean"] == pytest.approx(0.6)
    assert differences["original", "full"]["p_adjusted"] >= differences["original", "full"]["p"]
    written = report(study, tmp_path, find_study("ablation"))
    again = {path: path.read_bytes() for path in written}
    assert report(study, tmp_path, find_study("ablation")) == written
    assert again == {path: path.read_bytes() for path in written}
    text = (tmp_path / "report.md").read_text()
    assert "| full - original | boost_questions | acc | +60.0 |" in text and "**Not finished:**" in text
    assert "| Full | 23.90 | 27.39 |" in text
    page = (tmp_path / "report.html").read_text()
    assert "data:image/svg+xml;base64," in page and "<table>" in page and 'src="http' not in page


def all_evaluated(study, folder):
    for name, seed in study.arm_seeds():
        place = Places(folder).evaluation(name, seed) / "held_out"
        place.mkdir(parents=True)
        evaluated(place, {f"q{n}": float(n < 4 + seed) for n in range(10)})


def test_figures_of_held_out_questions_are_told_by_kind(tmp_path):
    study, places = read_study("ablation", "tiny"), Places(tmp_path)
    columns = {"answer": "", "source": "reasoning_gym"}
    rows = [
        {"question": f"Task {n % 2}: {n}?", "source_id": f"task_{n % 2}:{n}", "final": str(n * (n % 2)), **columns}
        for n in range(8)
    ]
    rows.append({"question": "And in words?", "source_id": "7", "final": "1", **columns, "source": "orca_math"})
    places.held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = read_questions(HELD_OUT, benchmarks()[HELD_OUT], [places.held_out]).items
    for name, seed in study.arm_seeds():
        place = places.evaluation(name, seed) / "held_out"
        place.mkdir(parents=True)
        evaluated(place, {item.id: float("Task 1" in item.question) for item in items})
    found = gather(study, tmp_path)
    means = {(row["kind"], row["mean"], row["items"]) for row in found["kinds"]}
    assert means == {("reasoning_gym task_0", 0.0, 4), ("reasoning_gym task_1", 1.0, 4), ("orca_math", 0.0, 1)}
    report(study, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| arm | reasoning_gym task_0 | reasoning_gym task_1 | orca_math |" in text and "orca_math 1." in text
    assert "| always the commonest result | 100.0 | 25.0 | 100.0 |" in text


def test_a_report_midway_is_of_what_there_is_and_says_so(tmp_path):
    study = read_study("ablation", "tiny", ["seeds=[0, 1, 2]"])
    all_evaluated(study, tmp_path)
    for seed in (1, 2):
        shutil.rmtree(Places(tmp_path).evaluation("full", seed))
    found = gather(study, tmp_path)
    differences = {(row["first"], row["second"]): row for row in found["differences"]}
    assert differences["original", "full"]["seeds"] == [3, 1] and not differences["original", "full"]["trained"]
    assert differences["original", "direct"]["seeds"] == [3, 3] and differences["original", "direct"]["trained"]
    assert differences["original", "base"]["seeds"] == [3, 1] and differences["original", "base"]["trained"]
    assert "evaluate full, seed 1, held_out" in found["unfinished"] and len(found["unfinished"]) > 10
    report(study, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**One seed:**" in text and "| 3 / 1 |" in text and " more. Figures are of what there is." in text


def test_tasks_of_the_harness_are_no_headline_beside_ours(tmp_path):
    study = read_study("ablation", "tiny")
    all_evaluated(study, tmp_path)
    for name, seed in study.arm_seeds():
        place = Places(tmp_path).evaluation(name, seed) / "benchmarks"
        place.mkdir(parents=True)
        of_harness = {"results": {"mmlu_law": {"acc,none": 1.0}}, "configs": {"mmlu_law": {}}, "versions": {}}
        write_results(
            place, of_harness, [Scored("mmlu_law", "1", {"acc,none": 1.0}, None)], {"left_out": {"x": "x: no file"}}
        )
    found = gather(study, tmp_path)
    assert {row["task"] for row in found["differences"]} == {HELD_OUT} and found["left_out"] == {"x": "x: no file"}
    assert {row["task"] for row in found["figures"]} == {HELD_OUT, "mmlu_law"}
    named = read_study("ablation", "tiny", ["headline={mmlu_law: acc}"])
    assert {row["task"] for row in gather(named, tmp_path)["differences"]} == {HELD_OUT, "mmlu_law"}
    with pytest.raises(RecipeError, match="mmlu_law has no metric 'accc'"):
        gather(read_study("ablation", "tiny", ["headline={mmlu_law: accc}"]), tmp_path)


def test_a_report_names_no_place_on_this_machine(tmp_path):
    changes = [
        "evaluate.data=[boost_math=/scratch/somebody/math.jsonl]",
        "arms.full.change=[chat=/scratch/somebody/t.jinja]",
        "runs.direct.change=[models.small.base_url=http://gpu17.corp.internal/v1]",
        "evaluate.judge_url=http://gpu17.corp.internal/v1",
    ]
    study = read_study("ablation", "tiny", changes)
    told = json.dumps(portable_study(study.model_dump(mode="json", exclude_defaults=True)))
    assert "somebody" not in told and "gpu17" not in told and "boost_math=math.jsonl" in told


def test_what_a_measure_saw_near_what_was_trained_on_is_in_the_report(tmp_path):
    study = read_study("mechanism", "tiny")
    all_evaluated(study, tmp_path)
    span = {"scale": 1.0, "curvature": 1.0, "mean": 0.1, "low": None, "high": None, "n": 4}
    ends = ((None, None), (-1.0, 0.4), (0.8, None))
    bands = [{"low": low, "high": high, "gain": span, "available": 9} for low, high in ends]
    told = {"noise": {"fresh": span, "trained": span}, "landscape": span | {"update": 0.01}}
    told |= {"transfer": {"bands": bands, "correlation": None}, "data": {"as_trained": False}}
    place = Places(tmp_path).mechanism("full", 0)
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(told))
    report(study, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| similarity below 0.4 |" in text and "| similarity from 0.8 |" in text
    assert "**Measured on other rows than were trained on:** full, seed 0." in text


def test_a_line_over_sizes_is_of_one_dataset(tmp_path):
    arms = {
        "few": ("a", 10, {"rows": 10}),
        "all": ("a", 40, {}),
        "other": ("b", 40, {}),
        "changed": ("a", 40, {"change": ["x=1"]}),
    }
    found = {
        "arms": {
            name: {"run": run, "trained": {0: {"dialogues": rows}}, **more} for name, (run, rows, more) in arms.items()
        },
        "figures": [{"arm": name, "task": "t", "metric": "acc"} for name in arms],
        "headline": {"t": "acc"},
    }
    assert [(rows, line) for rows, line, _ in _sizes(found)] == [(10, "t, a: all"), (40, "t, a: all")]


def test_a_report_of_a_folder_without_this_study_is_refused(tmp_path):
    study = read_study("ablation", "tiny")
    with pytest.raises(RunError, match="holds no study"):
        check_begun(study, tmp_path / "nowhere")
    write_whole(tmp_path / "study.yaml", yaml.safe_dump({"name": "ablation", "scale": "full"}))
    with pytest.raises(RunError, match="scale was 'full', is 'tiny'"):
        check_begun(study, tmp_path)


def test_a_log_ends_in_a_line_that_can_be_read(tmp_path):
    (tmp_path / "log").write_bytes(b"one\n\x1b[31mtwo\x1b[0m\rthree \xff\n\n")
    assert last_line(tmp_path / "log") == "three \ufffd"


# --- from end to end -----------------------------------------------------------------------------

LORA = {"loss_on": "all", "max_length": 256, "too_long": "cut", "use_peft": True, "lora_r": 4}
LORA |= {"lora_target_modules": ["q_proj"], "num_train_epochs": 1, "learning_rate": 1e-3, "use_cpu": True}
LORA |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "report_to": "none", "save_strategy": "no"}


def studied(*words: str) -> list[str]:
    return [sys.executable, "-m", "boost_qa.cli", "study", *words]


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    """A tiny random model, as it is and trained on dialogues that a local server speaks."""
    folder = tmp_path_factory.mktemp("study")
    model = tiny("llama", folder / "model")
    recipe = {"model_name_or_path": str(model), "dataset": "boost_qa", "output_dir": "x", "dtype": "float32", **LORA}
    (folder / "train.yaml").write_text(yaml.safe_dump(recipe))
    with local_server("--words", "12") as server:
        models = {"any": {"engine": "openai", "base_url": server.url, "model": "test"}}
        agent = {"model": "any", "temperature": 0.5}
        debate = {"cast": dict.fromkeys(("student_a", "student_b", "student_c"), agent)}
        generate = {
            "name": "served",
            "sources": [{"source": "sample"}],
            "dialogues": 8,
            "scenarios": {"debate": debate, "error_correction": None, "analogical_reasoning": None},
            "models": models,
            "validation": 0.0,
        }
        (folder / "generate.yaml").write_text(yaml.safe_dump(generate))
        study = {
            "name": "trial",
            "question": "Does it run?",
            "runs": {"served": {"recipe": str(folder / "generate.yaml")}},
            "train": {"recipe": str(folder / "train.yaml")},
            "arms": {"few": {"run": "served", "rows": 3}, "base": {}},
            "against": "base",
            "seeds": [0],
            "held_out": {"n": 3, "sources": [gym(8, 5)]},
            "evaluate": {"max_tokens": 4},
        }
        (folder / "trial.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        yield folder / "trial.yaml"


def test_a_study_is_killed_goes_on_and_is_done(study_file, tmp_path):
    folder = tmp_path / "out"
    command = studied(str(study_file), "--output", str(folder))
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    done = folder / "steps" / "train-few-seed-0.json"
    while not done.exists() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert done.exists()
    before = {file.name: file.read_bytes() for file in (folder / "steps").glob("*.json")}

    second = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert second.returncode == 0, second.stderr
    steps = {file.name: file.read_bytes() for file in (folder / "steps").glob("*.json")}
    assert len(steps) == 4 and before.items() <= steps.items()
    found = json.loads((folder / "results.json").read_text())
    assert found["arms"]["few"]["trained"]["0"]["dialogues"] == 3
    assert {row["arm"] for row in found["figures"]} == {"base", "few"}
    assert {row["items"] for row in found["figures"]} == {3}

    third = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert third.returncode == 0 and "train" not in third.stderr
    assert steps == {file.name: file.read_bytes() for file in (folder / "steps").glob("*.json")}

    changed = [*command, "--report", "train.change=[learning_rate=1e-4]"]
    other = subprocess.run(changed, capture_output=True, text=True, timeout=60)
    assert other.returncode == 2 and "was run with other settings" in other.stderr


def test_a_study_that_is_told_to_end_ends_its_command_first(study_file, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    log = tmp_path / "out" / "steps" / "generate-served.log"
    command = studied(str(study_file), "--output", str(tmp_path / "out"))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; the same command goes on from here" in told
    with log.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which its command would hold


def test_a_step_that_fails_is_told_with_its_log(study_file, tmp_path):
    command = studied(str(study_file), "arms.few.rows=99", "seeds=[3]", "--output", str(tmp_path / "out"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert "train few, seed 3 ended with exit code 2" in done.stderr and "train-few-seed-3.log" in done.stderr
    assert {file.stem for file in (tmp_path / "out" / "steps").glob("*.json")} == {
        "generate-served"
    }  # no other went on
    assert "dataset_rows: 99" in (tmp_path / "out" / "steps" / "train-few-seed-3.log").read_text()


def test_a_step_that_was_left_over_is_not_started_again(study_file, tmp_path):
    fcntl = pytest.importorskip("fcntl")

    (tmp_path / "steps").mkdir()
    with (tmp_path / "steps" / "generate-served.log").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="still at work since an earlier start"):
            work(read_study(study_file), tmp_path, [""], lambda text: None)
    write_whole(tmp_path / "study.yaml", yaml.safe_dump({"name": "another"}))
    with pytest.raises(RunError, match="holds another study: name was 'another', is 'trial'"):
        work(read_study(study_file), tmp_path, [""], lambda text: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", [file.stem for file in STUDIES])
def test_every_study_runs_on_real_models_at_its_tiny_scale(name, tmp_path):
    done = subprocess.run(
        studied(name, "--scale", "tiny", "--output", str(tmp_path)), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    study = read_study(name, "tiny")
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["arms"]) == set(study.arms) and all(found["runs"].values())
    assert all(found["arms"][arm]["trained"] for arm, settings in study.arms.items() if settings.run)
    assert bool(found["mechanism"]) == bool(study.mechanism) and bool(found["checks"]) == study.check
    assert bool(found["analogies"]) == bool(study.analogies)
    assert "Not finished" not in (tmp_path / "report.md").read_text()
