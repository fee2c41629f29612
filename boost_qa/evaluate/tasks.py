"""Our benchmarks as tasks of lm-evaluation-harness: what is asked, with which sampling, and what comes of replies.

A question of multiple choice is asked once for a reply and once for the likelihood of each option, so that the three
ways to score it are about the same prompt. Grading waits until all replies of a task are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig

from boost_qa.evaluate.benchmark import Benchmark, Item, Questions
from boost_qa.evaluate.grading import Graders, Said, Scores, prompts
from boost_qa.evaluate.scoring import bracket, lenient, most_likely

VERSION = {"choice": 1.1, "math": 1.0, "code": 1.1}
"""Of prompts and scoring; figures of different versions are not comparable. 1.1: how a reply is read; the pronoun "I",
blocks of code in lists, definitions before their use, and no main program."""

TEMPERATURE = {"code": 0.0, "choice": 0.2, "math": 0.2}
"""MASTER, section 4.1."""

METRICS = {
    "choice": {
        "acc_bracket": True,
        "acc_lenient": True,
        "acc_likelihood": True,
        "unparsed": False,
        "unparsed_lenient": False,
        "cut": False,
    },
    "math": {
        "acc": True,
        "acc_boxed": True,
        "acc_judge": True,
        "unparsed": False,
        "unboxed": False,
        "undecided": False,
        "unjudged": False,
        "cut": False,
    },
    "code": {"pass_at_1": True, "unparsed": False, "cut": False},
}
"""Whether more is better. `cut` is of replies that are as long as they may be, so that their end may be missing."""

SLACK = 2
"""Tokens that a reply may have fewer of, once its text is taken apart again."""


class BenchmarkTask(Task):  # type: ignore[misc]
    """A benchmark of `boost_qa.evaluate.benchmark`, zero-shot.

    Args:
        name: of the task.
        benchmark: what it is.
        questions: its items.
        graders: decide about mathematics and code.
        max_tokens: of a reply (UNKNOWN in the paper).
        length: of a text in the model's tokens; None where it does not say, and then there is no `cut`.
    """

    OUTPUT_TYPE = "generate_until"

    def __init__(
        self,
        name: str,
        benchmark: Benchmark,
        questions: Questions,
        graders: Graders,
        max_tokens: int,
        length: Callable[[str], int] | None = None,
    ) -> None:
        super().__init__()
        self.benchmark, self.graders = benchmark, graders
        self.VERSION = VERSION[benchmark.kind]
        self._longest, self._length = max_tokens - SLACK, length
        self._docs = [asdict(item) for item in questions.items]
        self._scores: dict[str, Scores] = {}
        hub, local = benchmark.hub, questions.local
        revision = {"revision": questions.revision}
        self._config = TaskConfig(
            task=name,
            dataset_path=questions.where if local or hub is None else hub.repo,
            dataset_name=None if local or hub is None or len(hub.configs) != 1 else hub.configs[0],
            dataset_kwargs=revision,
            test_split="test" if hub is None else hub.split,
            description=prompts()["system"],
            doc_to_text=prompts()[benchmark.kind],
            doc_to_target="answer",
            num_fewshot=0,
            output_type="generate_until",
            generation_kwargs=sampling(benchmark.kind, max_tokens),
            metadata={
                "version": self.VERSION,
                "title": benchmark.title,
                "kind": benchmark.kind,
                "paper": benchmark.paper,
            },
        )

    # --- what is asked ---------------------------------------------------------------------------

    def fewshot_context(
        self, doc: Mapping[str, Any], num_fewshot: int = 0, chat_template: Callable[..., str] | None = None, **_: Any
    ) -> str:
        """The prompt of one question, in the model's chat template where there is one."""
        item = _item(doc)
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(item.letters, item.options, strict=True))
        blocks = {"question": item.question.strip(), "options": options, "letters": ", ".join(item.letters)}
        asked = prompts()[self.benchmark.kind].format(**blocks)
        if chat_template is None:
            return f"{prompts()['system']}\n\n{asked}\n\n"
        return chat_template([{"role": "system", "content": prompts()["system"]}, {"role": "user", "content": asked}])

    def construct_requests(self, doc: Mapping[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """A reply, and for multiple choice the likelihood of each option as the prompt wants it written, `[A]`."""
        kwargs = {"metadata": kwargs["metadata"]}
        asked = [Instance("generate_until", doc, (ctx, dict(self._config.generation_kwargs)), 0, **kwargs)]
        for place, letter in enumerate(_item(doc).letters, start=1):
            asked.append(Instance("loglikelihood", doc, (ctx, f"[{letter}]"), place, **kwargs))
        return asked

    # --- what comes of it ------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Called when all replies are there: grades those that reading does not decide."""
        super().apply_filters()
        replies = [one for one in self.instances if one.request_type == "generate_until"]
        said: list[Said] = [(_item(one.doc), one.filtered_resps["none"]) for one in replies]
        scores: Sequence[Scores] = [{} for _ in said]
        if self.benchmark.kind == "math":
            scores = self.graders.math(self._config.task, said)
        elif self.benchmark.kind == "code":
            scores = self.graders.code(said)
        self._scores = {item.id: one for (item, _), one in zip(said, scores, strict=True)}

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> Scores:
        """The scores of one question: 0 or 1 for each of METRICS."""
        item = _item(doc)
        reply, *likelihoods = results
        cut = {} if self._length is None else {"cut": float(self._length(reply) >= self._longest)}
        if self.benchmark.kind != "choice":
            return self._scores[item.id] | cut
        strict, loose = bracket(reply, item.letters), lenient(reply, item.options, item.letters)
        likely = most_likely([float(nats) for nats, _ in likelihoods])
        found = {
            "acc_bracket": strict == item.answer,
            "acc_lenient": loose == item.answer,
            "acc_likelihood": likely is not None and item.letters[likely] == item.answer,
            "unparsed": strict is None,
            "unparsed_lenient": loose is None,
        }
        return {name: float(value) for name, value in found.items()} | cut

    def aggregation(self) -> dict[str, Any]:
        return dict.fromkeys(METRICS[self.benchmark.kind], mean)

    def higher_is_better(self) -> dict[str, bool]:
        return METRICS[self.benchmark.kind]

    # --- what the harness asks of a task -----------------------------------------------------------

    def download(self, *_: Any, **__: Any) -> None:
        """The questions are here already."""

    def has_training_docs(self) -> bool:
        return False

    def has_validation_docs(self) -> bool:
        return False

    def has_test_docs(self) -> bool:
        return True

    def test_docs(self) -> list[dict[str, Any]]:
        return self._docs

    def doc_to_text(self, doc: Mapping[str, Any]) -> str:
        return str(doc["question"])

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        return str(doc["final"] or doc["answer"])


def sampling(kind: str, max_tokens: int) -> dict[str, Any]:
    """As the harness takes it: the paper's temperature, and nothing of the model's own generation config."""
    temperature = TEMPERATURE[kind]
    drawn = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    return {
        "until": [],
        "max_gen_toks": max_tokens,
        "repetition_penalty": 1.0,
        **(drawn if temperature else {"do_sample": False}),
    }


def _item(doc: Mapping[str, Any]) -> Item:
    return Item(**{**doc, "options": tuple(doc["options"])})
