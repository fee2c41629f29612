"""One evaluation: look at everything that can be wrong, load the model, ask, grade, write.

evaluation.json        what answers, and how: a folder never mixes two
replies.jsonl          each reply, one a line
grading.sqlite         comparisons and verdicts
results_<time>.json    see `results`; one for each time that it was run to its end
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boost_qa.errors import ModelError, RecipeError, RunError
from boost_qa.evaluate import results as files
from boost_qa.evaluate.asking import Asked, LocalData, Suite, ask
from boost_qa.evaluate.benchmark import Questions
from boost_qa.evaluate.grading import Graders
from boost_qa.evaluate.judge import find_judge
from boost_qa.evaluate.loading import Backend, Chosen, find, load, place
from boost_qa.run_folder import RunFolder, write_whole

if TYPE_CHECKING:
    from boost_qa.isolation import Isolation

QUICK = 100
"""Items of each task of the suite `quick`, where no limit is given."""


@dataclass(frozen=True)
class Settings:
    """What is evaluated, on what, and how.

    Args:
        base, adapter: see `loading.find`.
        suite: all benchmarks of the paper with the harness's own tasks of them, or a quick look.
        tasks: in place of a suite: ours (`benchmark.benchmarks`), or any of the harness.
        limit: items of each task; of ours always the same sample, of the harness's the first.
        data: a folder with local files, or NAME=FILE for one task; without any, the Hub.
        max_tokens: of a reply; UNKNOWN in the paper.
        judge, judge_url: a model that also decides about mathematics: a name of the catalogue, a GGUF file or an
            OpenVINO folder; or with a URL the name of a model behind an OpenAI-compatible server.
    """

    base: str | None = None
    adapter: str | None = None
    suite: Suite = "quick"
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    backend: Backend = "hf"
    data: tuple[str, ...] = ()
    seed: int = 0
    max_tokens: int = 1024
    batch_size: int = 8
    device: str | None = None
    dtype: str | None = None
    judge: str | None = None
    judge_url: str | None = None


def evaluate(
    settings: Settings,
    output: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    load_model: Callable[..., Any] = load,
) -> Path:
    """Evaluate a model; gives the path of its results. Run again after an interruption, it goes on.

    Args:
        output: folder; by default `evaluation` in an adapter's folder, else `evaluation/<model>` here.
        say: is told how far it is.
        load_model: takes the chosen model, the backend and options, and gives a language model of the harness.

    Raises:
        RecipeError, SourceError, ModelError: before a model is loaded.
        RunError: the folder holds another evaluation, or another process works in it.
        EngineError, JournalError: it stopped midway; what was done is kept.
    """
    where = place(settings.device, settings.dtype, settings.backend)
    chosen = find(settings.base, settings.adapter, settings.backend)
    folder = output or _default(chosen)
    asked = ask(settings.suite, settings.tasks, LocalData(settings.data))
    if settings.backend == "embedded":
        _only_replies(asked, settings.tasks)
    graders = _graders(settings, folder, asked)
    with RunFolder(folder).lock():
        _begin(folder, settings, chosen, where["dtype"])
        say(f"loading {chosen.name}")
        model = load_model(chosen, settings.backend, batch_size=settings.batch_size, seed=settings.seed, **where)
        try:
            return _run(settings, folder, chosen, asked, graders, model, say)
        finally:
            if settings.backend == "embedded":
                model.close()


def _only_replies(asked: Asked, named: tuple[str, ...]) -> None:
    """Leave out of a suite what a backend that gives replies alone cannot answer.

    Raises:
        RecipeError: tasks that want likelihoods, or may, were named, or nothing else is there.
    """
    others = [name for name, (benchmark, _) in asked.ours.items() if benchmark.kind == "choice"]
    for name in others:
        asked.left_out[name] = f"{name}: the backend embedded gives no likelihoods"
    if asked.standard:
        others.append("the harness's own tasks")
        asked.left_out["standard"] = "the harness's own tasks: the backend embedded asks none"
    if others and (named or len(others) >= len(asked.ours) + bool(asked.standard)):
        raise RecipeError(
            f"the backend embedded gives replies and no likelihoods; {', '.join(others)} cannot be asked",
            "Name tasks of mathematics, code or your own questions with --tasks, or use the backend hf.",
        )
    for name in asked.left_out.keys() & asked.ours.keys():
        del asked.ours[name]
    asked.standard.clear()


def _graders(settings: Settings, folder: Path, asked: Asked) -> Graders:
    """What grades replies, found before a model is loaded.

    Raises:
        ModelError: there is no isolation for code, or no such judge.
    """
    judge = None if settings.judge is None else find_judge(settings.judge, settings.judge_url)
    return Graders(folder, _isolation(asked, settings.tasks), judge)


def _isolation(asked: Asked, named: tuple[str, ...]) -> Isolation | None:
    """What code runs in. Where there is none, it is not run at all: a suite leaves its tasks of code out.

    Raises:
        ModelError: there is none, and tasks of code were named, or nothing else is there.
    """
    code = [name for name, (benchmark, _) in asked.ours.items() if benchmark.kind == "code"]
    if not code:
        return None
    from boost_qa.isolation import Isolation

    try:
        return Isolation.find()
    except ModelError as error:
        if named or len(code) == len(asked.ours) + bool(asked.standard):
            raise
        for name in code:
            asked.left_out[name] = f"{name}: {error.what}. {error.remedy}"
            del asked.ours[name]
    return None


def _begin(folder: Path, settings: Settings, chosen: Chosen, dtype: str) -> None:
    kept = {name: getattr(settings, name) for name in ("backend", "seed", "max_tokens")}
    facts = {"model": chosen.facts, **kept, "dtype": dtype, "versions": {"lm_eval": metadata.version("lm_eval")}}
    file = folder / "evaluation.json"
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if changed := [name for name in facts if facts[name] != before.get(name)]:
            what = "; ".join(f"{name} was {before.get(name)!r}, is {facts[name]!r}" for name in changed)
            raise RunError(f"{folder} was begun otherwise: {what}", "Give the same settings, or another --output.")
    else:
        write_whole(file, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def _run(
    settings: Settings,
    folder: Path,
    chosen: Chosen,
    asked: Asked,
    graders: Graders,
    model: Any,
    say: Callable[[str], None],
) -> Path:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from boost_qa.evaluate.replies import Remembered
    from boost_qa.evaluate.tasks import BenchmarkTask

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    block = 4096 if settings.backend == "vllm" else max(32, 4 * settings.batch_size)
    remembered = Remembered(model, folder / "replies.jsonl", block, settings.seed, say)
    limit = settings.limit or (QUICK if settings.suite == "quick" and not settings.tasks else None)
    length = _length(model)
    ours = [BenchmarkTask(name, *both, graders, settings.max_tokens, length) for name, both in asked.ours.items()]
    common = {"limit": limit, "model_args": chosen.named, "task_manager": TaskManager(include_defaults=False)}
    common |= dict.fromkeys(_SEEDS, settings.seed) | {"batch_size": settings.batch_size, "device": settings.device}
    parts = [
        simple_evaluate(remembered, tasks=tasks, apply_chat_template=chat, **common)
        for tasks, chat in ((ours, True), (asked.standard, False))
        if tasks
    ]
    whole = files.joined(parts)
    whole["config"]["model"] = settings.backend
    items = list(files.scored(parts))
    chances = {name: _chance(questions, limit) for name, (_, questions) in asked.ours.items()}
    also = {"chance": {name: one for name, one in chances.items() if one}, "left_out": asked.left_out}
    also |= {"judge": judge} if (judge := graders.judge_facts()) else {}
    return files.write(folder, whole, items, also)


def _chance(questions: Questions, limit: int | None) -> float | None:
    """What guessing comes to; None where there is nothing to choose from."""
    options = [len(item.options) for item in questions.items[:limit]]
    return sum(1 / each for each in options) / len(options) if all(options) else None


def _length(model: Any) -> Callable[[str], int] | None:
    """How many tokens a text has for a model that says how it takes texts apart."""
    tokenizer = getattr(model, "tokenizer", None)
    return None if tokenizer is None else lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _default(chosen: Chosen) -> Path:
    local = chosen.adapter is not None and str(chosen.adapter) == chosen.named.get("peft")
    return chosen.adapter / "evaluation" if local and chosen.adapter else Path("evaluation") / chosen.name


_SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
