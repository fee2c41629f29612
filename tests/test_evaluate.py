"""Evaluation from end to end: known answers, a real tiny model with and without an adapter, going on, comparing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from peft import PeftModel
from scripted import Scripted
from tiny_gguf import exact, write_gguf
from tiny_models import tiny
from transformers import AutoTokenizer
from typer.testing import CliRunner

from boost_qa.cards.evaluations import eval_results_yaml, read_scores
from boost_qa.cli import app
from boost_qa.errors import BoostQAError, EngineError, ModelError, RunError, SourceError
from boost_qa.evaluate import results
from boost_qa.evaluate.benchmark import Item
from boost_qa.evaluate.compare import compare
from boost_qa.evaluate.grading import Graders, Judge
from boost_qa.evaluate.loading import find, load, place
from boost_qa.evaluate.replies import Remembered
from boost_qa.evaluate.run import Settings, evaluate
from boost_qa.models.trainable import trainable
from boost_qa.publish.results import find_results, measured
from boost_qa.train.template import template_text
from boost_qa.types import Call, Reply

TASKS = ("boost_sciq", "boost_math500", "boost_mbpp", "boost_humaneval")
MATH = ["\\frac{3}{4}", "12", "x^2-1", "(1,2)", "\\text{even}", "1-12i"]


class Known(LM):
    """Knows the answers to the questions whose number is below `right`, and says nothing to the others."""

    tokenizer_name = "none"

    def __init__(self, right: int = 10**6, until: int = 10**6) -> None:
        super().__init__()
        self.right, self.until, self.asked = right, until, 0

    def knows(self, one: Instance) -> bool:
        return int("".join(filter(str.isdigit, one.doc["question"].partition("?")[0])) or 0) < self.right

    def generate_until(self, requests: list[Instance]) -> list[str]:
        self.asked += len(requests)
        if self.asked > self.until:
            raise RuntimeError("CUDA out of memory")
        return [self.said(one.doc) if self.knows(one) else "" for one in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        right = [one.args[1] == f"[{one.doc['answer']}]" and self.knows(one) for one in requests]
        return [(0.0 if one else -5.0, one) for one in right]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError

    def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
        return "\n".join(message["content"] for message in chat_history)

    @staticmethod
    def said(doc: dict[str, Any]) -> str:
        if doc["options"]:
            return f"It is [{doc['answer']}]."
        if doc["final"]:
            return f"We get $\\boxed{{{doc['final']}}}$."
        return f"```python\n{doc['start']}{doc['answer']}\n```"


class Closed(Known):
    """Of the embedded backend: it is closed in the end, and gives no likelihoods."""

    def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
        return json.dumps(chat_history)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        pytest.fail("asked for likelihoods")

    def close(self) -> None:
        pass


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    wrong = {f"distractor{n}": f"wrong {n}" for n in (1, 2, 3)}
    write(folder / "sciq.jsonl", [{"question": f"No {n}?", "correct_answer": "right", **wrong} for n in range(12)])
    math = [{"problem": f"No {n}?", "solution": f"So \\boxed{{{x}}}.", "answer": x} for n, x in enumerate(MATH)]
    write(folder / "math500.jsonl", math)
    mbpp = {"test_setup_code": "", "code": "def add(a, b):\r\n    return a + b"}
    tests = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
    write(
        folder / "mbpp.jsonl", [{"task_id": 10 + n, "text": f"No {n}?", "test_list": tests, **mbpp} for n in range(4)]
    )
    prompt = 'def inc(x):\n    """No 0? Add one."""\n'
    humaneval = {"prompt": prompt, "entry_point": "inc", "canonical_solution": "    return x + 1\n"}
    write(folder / "humaneval.jsonl", [humaneval | {"test": "def check(f):\n    assert f(1) == 2\n"}])
    arc = {"choices": {"text": ["cold", "warm", "grey"], "label": ["A", "B", "C"]}}
    days = [{"id": str(n), "question": f"How is day {n}?", "answerKey": "ABC"[n % 3]} for n in range(9)]
    write(folder / "arc_easy.jsonl", [arc | day for day in days])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny("qwen2", tmp_path_factory.mktemp("qwen2"), initializer_range=0.2)


def settings(model: Path, files: Path, **changes: Any) -> Settings:
    return Settings(**{"base": str(model), "data": (str(files),), "tasks": TASKS, "max_tokens": 8, **changes})


def figures(path: Path) -> dict[str, dict[str, float]]:
    found = json.loads(path.read_text())["results"]
    return {task: {name.partition(",")[0]: each[name] for name in each if "," in name} for task, each in found.items()}


def known(answers: Known) -> Any:
    return lambda chosen, backend, **options: answers


# --- known answers -------------------------------------------------------------------------------


def test_who_knows_all_answers_has_all_points(model, data, tmp_path):
    found = figures(evaluate(settings(model, data), tmp_path, load_model=known(Known())))
    assert set(found) == set(TASKS)
    for task, scores in found.items():
        right = [name for name in scores if name.startswith(("acc", "pass")) and "stderr" not in name]
        assert right and all(scores[name] == 1.0 for name in right), task
        assert scores["unparsed"] == 0.0


def test_who_never_answers_has_none_and_everything_is_unparsed(model, data, tmp_path):
    path = evaluate(settings(model, data), tmp_path, load_model=known(Known(0)))
    for task, scores in figures(path).items():
        right = [name for name in scores if name.startswith(("acc", "pass")) and "stderr" not in name]
        assert right and all(scores[name] == 0.0 for name in right), task
        assert scores["unparsed"] == 1.0
    whole = json.loads(path.read_text())
    assert whole["chance"] == {"boost_sciq": 0.25}
    low, high = whole["intervals"]["boost_sciq"]["unparsed,none"]
    assert high == 1.0 and 0.7 < low < 0.75  # 12 of 12


def test_what_is_half_known(model, data, tmp_path):
    path = evaluate(settings(model, data, tasks=("boost_sciq",)), tmp_path, load_model=known(Known(6)))
    scores = figures(path)["boost_sciq"]
    assert scores["acc_bracket"] == scores["acc_lenient"] == scores["acc_likelihood"] == scores["unparsed"] == 0.5
    assert scores["acc_bracket_stderr"] == pytest.approx((0.25 / 11) ** 0.5)


def test_files_of_two_benchmarks_are_not_joined(model, data, tmp_path):
    there = tmp_path / "data"
    shutil.copytree(data, there)
    row = {"task_id": 1, "prompt": "Add.", "code": "def add(a, b):\n    return a + b", "test_imports": []}
    (there / "mbppplus.jsonl").write_text(json.dumps(row | {"test_list": ["assert add(1, 2) == 3"]}) + "\n")
    with pytest.raises(SourceError, match="mbpp.jsonl and mbppplus.jsonl"):
        evaluate(settings(model, there, tasks=("boost_mbpp",)), tmp_path / "out", load_model=pytest.fail)


def test_names_of_tasks_may_have_spaces_between_them(model, data, tmp_path):
    given = ["--base", str(model), "--data", str(data), "--tasks", "boost_sciq, boost_mbpp ,, boost_none"]
    said = CliRunner().invoke(app, ["evaluate", *given, "--output", str(tmp_path)])
    assert "there is no task boost_none" in str(said.exception) + said.output


def test_mbpp_of_google_is_its_test_split(model, data, tmp_path):
    path = evaluate(settings(model, data, tasks=("boost_mbpp",)), tmp_path, load_model=known(Known()))
    assert json.loads(path.read_text())["n-samples"]["boost_mbpp"] == {"original": 3, "effective": 3}


# --- hostile replies -----------------------------------------------------------------------------

CHECKED = Item("c", "?", tests="assert f(1) == 2\n", start="", entry="f")


def test_code_passes_only_by_passing_the_tests(tmp_path):
    from boost_qa.isolation import Isolation

    replies = {
        "```python\ndef f(x):\n    return x + 1\n```": 1.0,
        "```python\ndef f(x):\n    return x\n```": 0.0,
        "```python\nimport sys\nsys.exit(0)\n```": 0.0,
        "```python\nimport os\nos._exit(0)\n```": 0.0,
        "```python\ndef f(x):\n    while True: pass\n```": 0.0,
        f"```python\nopen({str(tmp_path / 'seen')!r}, 'w').write('x')\ndef f(x): return 2\n```": 0.0,
        "```python\nraise SystemExit\n```": 0.0,
        "no code": 0.0,
    }
    graders = Graders(tmp_path, Isolation.find(), code_seconds=2.0)
    found = graders.code([(CHECKED, reply) for reply in replies])
    assert [one["pass_at_1"] for one in found] == list(replies.values())
    assert [one["unparsed"] for one in found] == [0.0] * 7 + [1.0]
    assert not (tmp_path / "seen").exists()


def test_what_a_reply_does_as_the_main_program_is_not_run(tmp_path):
    from boost_qa.isolation import Isolation

    demo = 'if __name__ == "__main__":\n    assert f(1) == 3, input()\n'
    point = '"""A point."""\nfrom __future__ import annotations\nfrom dataclasses import dataclass\n\n'
    point += "@dataclass\nclass Point:\n    x: float\n\ndef f(x):\n    return Point(x + 1).x\n"
    replies = [f"```python\ndef f(x):\n    return x + 1\n{demo}```", f"```python\n{point}{demo}```"]
    graders = Graders(tmp_path, Isolation.find(), code_seconds=5.0)
    start = 'def f(x):\n    """Add one."""\n'
    said = [(replace(CHECKED, start=one), reply) for one in ("", start) for reply in replies]
    assert [one["pass_at_1"] for one in graders.code(said)] == [1.0] * 4


def test_a_formula_that_never_ends_is_undecided(tmp_path):
    items = [Item(str(n), f"{n}?", answer="\\boxed{2}", final="2") for n in range(3)]
    bomb = "\\boxed{9^{9^{9^{9^{9}}}}}"
    found = Graders(tmp_path, math_seconds=3.0).math(
        "m", list(zip(items, ["\\boxed{2}", bomb, "\\boxed{3}"], strict=True))
    )
    assert [one["acc"] for one in found] == [1.0, 0.0, 0.0]
    assert [one["undecided"] for one in found] == [0.0, 1.0, 0.0]


def test_another_math_verify_decides_anew(tmp_path, monkeypatch):
    said = [(Item("0", "0?", answer="\\boxed{2}", final="2"), "\\boxed{2}")]
    assert Graders(tmp_path).math("m", said)[0]["acc"] == 1.0
    with sqlite3.connect(tmp_path / "grading.sqlite") as journal:
        journal.execute("UPDATE replies SET text = 'wrong'")
    assert Graders(tmp_path).math("m", said)[0]["acc"] == 0.0  # what was decided is not asked again
    monkeypatch.setattr(metadata, "version", lambda package: "another")
    assert Graders(tmp_path).math("m", said)[0]["acc"] == 1.0


def test_a_comparison_that_lacked_time_is_made_again(tmp_path):
    said = [(Item("0", "0?", answer="\\boxed{2}", final="2"), "\\boxed{2}")]
    assert Graders(tmp_path, math_seconds=1e-6).math("m", said)[0]["undecided"] == 1.0
    assert Graders(tmp_path).math("m", said)[0]["acc"] == 1.0
    found = Graders(tmp_path, math_seconds=1e-6).math("m", said)[0]
    assert (found["acc"], found["undecided"]) == (1.0, 0.0)


def test_without_isolation_no_code_is_run(model, data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="bwrap") as caught:
        evaluate(settings(model, data), tmp_path / "e", load_model=pytest.fail)
    assert "Install bubblewrap" in str(caught.value)
    path = evaluate(settings(model, data, tasks=("boost_sciq",)), tmp_path / "e", load_model=known(Known()))
    assert figures(path)["boost_sciq"]["acc_bracket"] == 1.0
    for name in ("sciq", "mbpp"):
        shutil.copy(data / f"{name}.jsonl", tmp_path)
    suite = settings(model, tmp_path, tasks=(), suite="quick", limit=2)
    path = evaluate(suite, tmp_path / "suite", load_model=known(Known()))
    left_out = json.loads(path.read_text())["left_out"]
    assert "boost_sciq" in figures(path) and "boost_mbpp" not in figures(path)
    assert "bwrap" in left_out["boost_mbpp"] and "Install bubblewrap" in left_out["boost_mbpp"]


# --- the judge -----------------------------------------------------------------------------------


def test_a_judge_that_cannot_be_read_gives_no_points_and_takes_none(tmp_path):
    said = {"0": "Equal. <1>", "1": "It is not. <0>", "2": "<0> or <1>", "3": "I cannot say."}

    def answer(call: Call) -> Reply:
        assert "| No" in call.request.messages[1].content and call.request.model == "strict"
        return Reply(said[call.record])

    engine, again, other = Scripted(answer), Scripted(answer), Scripted(answer)
    graders = Graders(tmp_path, judge=Judge("strict", iter([engine, again]).__next__))
    items = [Item(str(n), f"No {n}?", answer="\\boxed{7}") for n in range(5)]
    found = graders.math("m", [(item, "" if item.id == "4" else "\\boxed{7} <1>") for item in items])
    assert [one.get("acc_judge") for one in found] == [1.0, 0.0, None, None, 0.0]
    assert [one["unjudged"] for one in found] == [0.0, 0.0, 1.0, 1.0, 0.0]
    assert len(engine.asked) == 8 and sum(record == "3" for record, *_ in engine.times()) == 3  # attempts
    another = Graders(tmp_path, judge=Judge("strict", lambda: other, "another revision"))
    for each in (graders, another):
        each.math("m", [(item, "\\boxed{7} <1>") for item in items[:2]])
    assert not again.asked and len(other.asked) == 2 and another.judge_facts() != graders.judge_facts()


# --- going on ------------------------------------------------------------------------------------


def test_a_stopped_evaluation_goes_on_and_asks_nothing_twice(model, data, tmp_path):
    broken, whole = Known(6, until=0), Known(6)
    asked = settings(model, data, tasks=("boost_sciq",))
    with pytest.raises(EngineError, match="out of memory"):
        evaluate(asked, tmp_path, load_model=known(broken))
    first = evaluate(asked, tmp_path, load_model=known(whole))
    nobody = Known(until=0)
    second = evaluate(asked, tmp_path, load_model=known(nobody))
    assert whole.asked == 12 and nobody.asked == 0
    assert figures(first) == figures(second) and first != second
    assert results.read(tmp_path)[1] == results.read(second)[1]


class Drawing(Known):
    """Draws its replies, as a sampled model does, from torch."""

    def generate_until(self, requests: list[Instance]) -> list[str]:
        import torch

        super().generate_until(requests)
        return [f"{torch.rand(1).item():.6f}" for _ in requests]


def requests(count: int, task: str = "t") -> list[Instance]:
    doc = {"question": "same", "options": (), "final": "1"}
    return [Instance("generate_until", doc, ("same prompt", {"until": []}), 0, (task, n, 1)) for n in range(count)]


def test_what_was_stopped_is_drawn_as_it_would_have_been(tmp_path):
    whole = Remembered(Drawing(), tmp_path / "whole", block=4).generate_until(requests(10))
    stopped = Remembered(Drawing(until=8), tmp_path / "part", block=4)
    with pytest.raises(EngineError):
        stopped.generate_until(requests(10))
    rest = Remembered(Drawing(), tmp_path / "part", block=4)
    assert rest.generate_until(requests(10)) == whole and rest.asked == 2
    assert len(set(whole)) == 10  # the same prompt ten times is ten samples
    assert (
        Remembered(Drawing(), tmp_path / "more", block=4).generate_until(requests(3, "u") + requests(10))[3:] == whole
    )
    assert Remembered(Drawing(), tmp_path / "seed", block=4, seed=1).generate_until(requests(10)) != whole


def test_a_torn_line_is_asked_again(tmp_path):
    file = tmp_path / "replies"
    whole = Remembered(Drawing(), file, block=2).generate_until(requests(4))
    file.write_bytes(file.read_bytes()[:-5])
    again = Remembered(Drawing(), file, block=2)
    replies = again.generate_until(requests(4))
    assert again.asked == 1 and replies[:3] == whole[:3]
    assert Remembered(Known(until=0), file, block=2).generate_until(requests(4)) == replies


@pytest.mark.slow
def test_a_killed_process_loses_at_most_its_block(model, data, tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_evaluate import *; import time\n"
        "class Slow(Known):\n"
        "    def generate_until(self, requests):\n"
        "        if self.asked: print('second', flush=True); time.sleep(60)\n"
        "        return super().generate_until(requests)\n"
        "Remembered(Slow(), pathlib.Path(sys.argv[2]), block=4).generate_until(requests(8))\n"
    )
    file = tmp_path / "replies"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"second\n"
        os.kill(process.pid, signal.SIGKILL)
    rest = Remembered(Known(), file, block=4)
    assert len(rest.generate_until(requests(8))) == 8 and rest.asked == 4


def test_a_folder_never_mixes_two_models(model, data, tmp_path):
    asked = settings(model, data, tasks=("boost_sciq",))
    evaluate(asked, tmp_path / "e", load_model=known(Known()))
    other = tiny("llama", tmp_path / "other")
    for changed in ({"base": str(other)}, {"max_tokens": 9}, {"seed": 1}):
        with pytest.raises(RunError, match="was begun otherwise") as caught:
            evaluate(settings(model, data, tasks=("boost_sciq",), **changed), tmp_path / "e", load_model=pytest.fail)
        assert caught.value.exit_code == 2


# --- real models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory) -> Path:
    folder = trained(model, tmp_path_factory.mktemp("adapter") / "trained")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def trained(model: Path, folder: Path, std: float = 0.0) -> Path:
    """A LoRA adapter with weights that matter; with `std` they are drawn anew."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype="float32"), config)
        for weights in filter(lambda one: std and one.requires_grad, adapted.parameters()):
            weights.data = torch.randn_like(weights) * std
        adapted.save_pretrained(str(folder))
    return folder


def test_a_real_model_and_its_adapter(model, adapter, data, tmp_path):
    """Both read back by the cards, and by publishing; and compared."""
    base = evaluate(settings(model, data, limit=3, batch_size=4), tmp_path / "base")
    tuned = evaluate(settings(model, data, base=None, adapter=str(adapter), limit=3, batch_size=4))
    assert tuned.parent == adapter / "evaluation" and find_results(adapter, ()) == {tuned.name: tuned.resolve()}
    scores = {(one.task, one.metric): one for one in read_scores([tuned])}
    assert {task for task, _ in scores} == set(TASKS)
    sciq = scores["boost_sciq", "acc_bracket"]
    assert (sciq.samples, sciq.shots, sciq.dataset_id, sciq.split) == (3, 0, None, "test")
    assert sciq.harness.startswith("lm-evaluation-harness 0.4") and eval_results_yaml([sciq]) == {}
    published = json.dumps(measured(tuned))
    assert str(model) not in published and str(data) not in published
    items = results.read(tuned)[1]
    assert {one.scores["cut,none"] for one in items} <= {0.0, 1.0} and any(one.scores["cut,none"] for one in items)
    replies = [(one.task, one.reply) for one in items]
    assert all(reply is not None for _, reply in replies)
    assert replies != [(one.task, one.reply) for one in results.read(base)[1]]
    found = compare(base, tuned)
    assert {one.task for one in found} == set(TASKS) and all(one.paired.low <= one.paired.high for one in found)


def test_an_evaluation_beside_an_adapter_s_weights_goes_on(model, adapter, data, tmp_path):
    beside = Path(shutil.copytree(adapter, tmp_path / "adapter", ignore=shutil.ignore_patterns("evaluation")))
    asked = settings(model, data, base=None, adapter=str(beside), tasks=("boost_sciq",))
    first = evaluate(asked, beside, load_model=known(Known()))
    second = evaluate(asked, beside, load_model=known(Known(until=0)))
    assert first.parent == second.parent == beside and figures(first) == figures(second)
    (beside / "adapter_config.json").write_text((beside / "adapter_config.json").read_text() + " ")
    with pytest.raises(RunError, match="adapter_revision"):
        evaluate(asked, beside, load_model=pytest.fail)


def test_an_adapter_is_in_the_weights_and_says_the_same(model, adapter):
    import torch
    from transformers import AutoModelForCausalLM

    chosen = find(None, str(adapter))
    merged = load(chosen, "hf", batch_size=1, device="cpu", dtype="float32").model
    apart = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), adapter)
    ids = torch.arange(20)[None]
    assert not isinstance(merged, PeftModel) and not any("lora" in name for name, _ in merged.named_parameters())
    logits = merged(ids).logits  # of as many tokens as the tokenizer has
    assert torch.allclose(logits, apart(ids).logits[..., : logits.shape[-1]], atol=1e-4)
    assert isinstance(load(chosen, "hf", batch_size=1, device="cpu", dtype="bfloat16").model, PeftModel)


def test_the_embedded_engine_answers_for_a_base_and_its_adapter(tmp_path, monkeypatch):
    """Its process, and the file that was merged for it, are gone afterwards."""
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = exact("llama", tmp_path / "source")
    base = trainable(str(write_gguf(source, tmp_path / "base.gguf", "F16", file_type=1)))
    tuned = trained(Path(base), tmp_path / "trained")
    AutoTokenizer.from_pretrained(base).save_pretrained(tuned)
    said = {}
    for name, model in (("base", {"base": base}), ("tuned", {"adapter": str(tuned)})):
        asked = Settings(**model, **code_questions(tmp_path), max_tokens=12, batch_size=3, backend="embedded")
        path = evaluate(asked, tmp_path / name)
        assert evaluate(asked, tmp_path / name, load_model=known(Closed(until=0))) != path  # all replies are known
        said[name] = [one.reply for one in results.read(path)[1]]
    assert len(set(said["base"])) > 1 and said["base"] != said["tuned"]
    facts = json.loads((tmp_path / "tuned" / "evaluation.json").read_text())
    assert facts["backend"] == "embedded" and facts["model"]["adapter_revision"].startswith("sha256:")
    assert not list(tmp_path.glob("boost_qa_*"))
    with pytest.raises(EngineError, match="no prompt leaves room for its reply"):
        evaluate(replace(asked, max_tokens=10**6), tmp_path / "long")
    assert "embedded_process" not in subprocess.run(["ps", "x"], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("template", ["chatml", "plain"])
def test_the_embedded_engine_says_what_torch_says(template, tmp_path):
    """A real model with an adapter, at temperature 0. The adapter's own template is used, which marks what is trained
    on; no prompt begins with a token that training did not put there."""
    base = trainable("smollm2-135m-instruct")
    tuned = trained(Path(base), tmp_path / "trained", std=0.025)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template_text(template)
    tokenizer.save_pretrained(tuned)
    said = {}
    for backend in ("hf", "embedded"):
        asked = Settings(adapter=str(tuned), **code_questions(tmp_path), max_tokens=10, backend=backend)
        said[backend] = [one.reply for one in results.read(evaluate(asked, tmp_path / backend))[1]]
    alone = Settings(base=base, **code_questions(tmp_path), max_tokens=10)
    untrained = [one.reply for one in results.read(evaluate(alone, tmp_path / "base"))[1]]
    same = [one == other for one, other in zip(said["hf"], said["embedded"], strict=True)]
    assert sum(same) >= 0.6 * len(same), said  # rounding decides where two tokens are about as likely
    assert sum(one == other for one, other in zip(said["embedded"], untrained, strict=True)) < sum(same)


def code_questions(folder: Path) -> dict[str, Any]:
    """Ten of them, of which one is an example."""
    empty = {"test_list": ["assert True"], "test_setup_code": "", "code": ""}
    wanted = ("first letter of a text", "largest of three numbers", "vowels of a word", "last line of a file", "mean")
    rows = [
        {"task_id": 10 + n, "text": f"{verb} the {what}.", **empty}
        for n, (verb, what) in enumerate((verb, what) for verb in ("Find", "Print") for what in wanted)
    ]
    (folder / "benchmarks").mkdir(exist_ok=True)
    write(folder / "benchmarks" / "mbpp.jsonl", rows)
    return {"tasks": ("boost_mbpp",), "data": (str(folder / "benchmarks"),)}


def test_the_embedded_engine_is_asked_for_replies_alone(model, data, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_QA_HOME", str(tmp_path / "home"))
    base = trainable(str(write_gguf(exact("qwen2", tmp_path / "source"), tmp_path / "base.gguf")))
    wanted = [
        ({"tasks": ("boost_sciq", "boost_mbpp")}, "no likelihoods; boost_sciq cannot be asked"),
        ({"tasks": ("arc_easy",), "data": (f"arc_easy={data / 'arc_easy.jsonl'}",)}, "the harness's own tasks"),
        ({"tasks": ("boost_mbpp",), "dtype": "bfloat16"}, "no --dtype"),
        ({"tasks": ("boost_mbpp",), "base": str(model)}, "was not made of a GGUF file"),
    ]
    for changes, why in wanted:
        with pytest.raises(BoostQAError, match=why) as caught:
            evaluate(settings(base, data, **{"backend": "embedded", **changes}), tmp_path / "e", pytest.fail)
        assert caught.value.exit_code == 2 and caught.value.remedy
    quick = settings(base, data, tasks=(), suite="quick", backend="embedded", limit=2)
    found = json.loads(evaluate(quick, tmp_path / "quick", load_model=known(Closed())).read_text())
    assert found["left_out"]["boost_sciq"] == "boost_sciq: the backend embedded gives no likelihoods"
    assert "boost_math500" in found["results"] and "boost_sciq" not in found["results"]


def test_the_chat_template_of_training_is_used_where_a_base_has_none(model):
    chosen = find(str(model), None)
    language_model = load(chosen, "hf", **place("cpu"))
    assert language_model.tokenizer.chat_template == template_text("plain")
    prompt = language_model.apply_chat_template([{"role": "user", "content": "Why?"}])
    assert prompt == "Human:\nWhy?\nAssistant:\n"


def test_vllm_is_told_the_seed(model, data, tmp_path, monkeypatch):
    """The harness's own class has a seed of its own, 1234; vLLM is not installed here, so another stands for it."""
    given: dict[str, Any] = {}

    class Vllm(Known):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            given.update(options)
            self.tokenizer = AutoTokenizer.from_pretrained(options["tokenizer"])

    monkeypatch.setitem(sys.modules, "lm_eval.models.vllm_causallms", SimpleNamespace(VLLM=Vllm))
    chosen = find(str(model), None)
    evaluate(
        settings(model, data, tasks=("boost_sciq",), seed=7),
        tmp_path,
        load_model=lambda _, backend, **options: load(chosen, "vllm", **options),
    )
    assert given["seed"] == 7
    load(chosen, "vllm", device="cpu", dtype="auto")
    assert given["seed"] == 0


def test_a_standard_task_has_the_figures_of_the_harness(model, data, tmp_path):
    """Asked by us, and by the harness itself on the same model and file."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    ours = json.loads(evaluate(arc_easy(model, data), tmp_path).read_text())["results"]["arc_easy"]
    manager, task = TaskManager(include_defaults=False), written_out(data / "arc_easy.jsonl")
    how = {"model_args": f"pretrained={model},dtype=float32", "device": "cpu", "batch_size": 3}
    theirs = simple_evaluate("hf", tasks=[task], task_manager=manager, **how)["results"]["arc_easy"]
    assert {name: ours[name] for name in FIGURES} == {name: theirs[name] for name in FIGURES}
    assert 0 < ours["acc,none"] < 1 and len(results.read(tmp_path)[1]) == 9


@pytest.mark.slow
def test_a_standard_task_has_the_figures_of_the_harness_s_command(model, data, tmp_path):
    ours = json.loads(evaluate(arc_easy(model, data), tmp_path / "ours").read_text())["results"]["arc_easy"]
    (tmp_path / "arc_easy.yaml").write_text(json.dumps(written_out(data / "arc_easy.jsonl")))
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", str(tmp_path / "arc_easy.yaml")]
    command += ["--model_args", f"pretrained={model},dtype=float32", "--device", "cpu", "--batch_size", "3"]
    command += ["--output_path", str(tmp_path / "theirs")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    found = json.loads(next((tmp_path / "theirs").rglob("results_*.json")).read_text())["results"]["arc_easy"]
    assert {name: ours[name] for name in FIGURES} == {name: found[name] for name in FIGURES}


FIGURES = [f"{metric},none" for metric in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr")]


def arc_easy(model: Path, data: Path) -> Settings:
    return settings(model, data, tasks=("arc_easy",), data=(f"arc_easy={data / 'arc_easy.jsonl'}",))


def written_out(file: Path) -> dict[str, Any]:
    """The harness's task arc_easy, with its questions from a file."""
    return {
        "task": "arc_easy",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
        "metric_list": [{"metric": name, "aggregation": "mean"} for name in ("acc", "acc_norm")],
    }


# --- errors before a model is loaded -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base": None}, "no model is given"),
        ({"base": "nothing-like-this"}, "nothing-like-this is no model"),
        ({"base": None, "adapter": "{model}"}, "has no adapter_config.json"),
        ({"adapter": "no/where/at/all"}, "is no folder and no Hub id"),
        ({"backend": "vllm"}, "the backend vllm needs vllm"),
        ({"tasks": ("boost_none",)}, "there is no task boost_none"),
        ({"tasks": ("boost_mmlu",)}, "boost_mmlu: no file called"),
        ({"judge": "nobody"}, "no model 'nobody'"),
    ],
)
def test_errors_come_before_a_model_is_loaded(model, data, tmp_path, changes, why):
    changes = {key: str(model) if value == "{model}" else value for key, value in changes.items()}
    with pytest.raises(BoostQAError, match=why) as caught:
        evaluate(settings(model, data, **changes), tmp_path / "e", load_model=pytest.fail)
    assert caught.value.exit_code == 2 and caught.value.remedy and not (tmp_path / "e" / "replies.jsonl").exists()


def test_the_harness_runs_no_code_for_us(model, data, tmp_path):
    asked = settings(model, data, tasks=("humaneval",), data=(f"humaneval={data / 'humaneval.jsonl'}",))
    with pytest.raises(BoostQAError, match="humaneval"):
        evaluate(asked, tmp_path, load_model=pytest.fail)


# --- comparing -----------------------------------------------------------------------------------


def test_two_models_are_compared_by_item(model, data, tmp_path):
    for name, right in (("worse", 3), ("better", 9)):
        evaluate(settings(model, data, tasks=("boost_sciq",)), tmp_path / name, load_model=known(Known(right)))
    found = {one.metric: one.paired for one in compare(tmp_path / "worse", tmp_path / "better")}
    paired = found["acc_bracket,none"]
    assert (paired.first, paired.second, paired.gained, paired.lost, paired.n) == (0.25, 0.75, 6, 0, 12)
    assert paired.p == pytest.approx(2 / 64) and paired.low > 0
    assert found["unparsed,none"].difference == -0.5


def test_replies_that_were_read_otherwise_are_not_compared(model, data, tmp_path):
    path = evaluate(settings(model, data), tmp_path / "now", load_model=known(Known()))
    whole, items = json.loads(path.read_text()), path.with_name(path.name.replace("results", "items"))
    versions = {"boost_sciq": 1.1, "boost_math500": 1.0, "boost_mbpp": 1.1, "boost_humaneval": 1.1}
    assert whole["versions"] == versions
    (tmp_path / "before").mkdir()
    shutil.copy(items.with_suffix(".jsonl"), tmp_path / "before")
    (tmp_path / "before" / path.name).write_text(json.dumps(whole | {"versions": versions | {"boost_mbpp": 1.0}}))
    with pytest.raises(RunError, match="boost_mbpp was not asked alike .*: version differ"):
        compare(tmp_path / "before", tmp_path / "now")


def test_other_limits_pair_what_both_have(model, data, tmp_path):
    for name, limit in (("some", 5), ("all", None)):
        asked = settings(model, data, tasks=("boost_sciq",), limit=limit)
        evaluate(asked, tmp_path / name, load_model=known(Known()))
    one = compare(tmp_path / "some", tmp_path / "all")[0]
    assert (one.paired.n, one.only_first, one.only_second) == (5, 0, 7)


def test_two_judges_are_no_comparison(model, data, tmp_path):
    for name, judge in (("a", "x"), ("b", "y"), ("c", "x")):
        path = evaluate(settings(model, data, tasks=("boost_math500",)), tmp_path / name, load_model=known(Known()))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"judge": {"model": judge}}))
        items = next((tmp_path / name).glob("items_*"))
        lines = [json.loads(line) for line in items.read_text().split("\n") if line]
        told = [line | {"scores": line["scores"] | {"acc_judge,none": 1.0}} for line in lines]
        items.write_text("".join(json.dumps(line) + "\n" for line in told))
    assert compare(tmp_path / "a", tmp_path / "c")
    with pytest.raises(RunError, match="judged by another judge"):
        compare(tmp_path / "a", tmp_path / "b")


def test_what_cannot_be_compared(model, data, tmp_path):
    for name, changes in (("a", {}), ("b", {"max_tokens": 9}), ("c", {"tasks": ("boost_arc_easy",)})):
        asked = settings(model, data, **{"tasks": ("boost_sciq",), **changes})
        evaluate(asked, tmp_path / name, load_model=known(Known()))
    for other, why in (("b", "generation_kwargs differ"), ("c", "no item of a task in common"), ("d", "no results")):
        with pytest.raises(RunError, match=why):
            compare(tmp_path / "a", tmp_path / other)
    for file in (tmp_path / "b").glob("items_*"):
        file.unlink()
    with pytest.raises(RunError, match="no scores by item"):
        compare(tmp_path / "a", tmp_path / "b")
