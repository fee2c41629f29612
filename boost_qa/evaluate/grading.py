"""Who decides that a reply is right where reading it is not enough: math-verify, a judge, and tests in isolation.

Comparisons and verdicts are requests like any other: they go through the runner, and its journal keeps them, so that
an evaluation that goes on asks for none twice.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boost_qa.engines import Engine
from boost_qa.engines.workers import Workers
from boost_qa.errors import Rejected
from boost_qa.evaluate.benchmark import Item
from boost_qa.evaluate.judge import Judge
from boost_qa.evaluate.scoring import program, python_code
from boost_qa.journal import Journal
from boost_qa.portable import portable_model
from boost_qa.runner import Job, run
from boost_qa.star_agents.judge import barred
from boost_qa.types import Call, Message, Reply, Request, Sampling, digest

if TYPE_CHECKING:
    from boost_qa.isolation import Isolation

Said = tuple[Item, str]  # an item and the model's reply
Scores = dict[str, float]

CODE_MIB = 1024
JUDGE = Sampling(temperature=0.2, max_tokens=1024)
"""The paper judges with Qwen2.5-14B-Instruct; its sampling is UNKNOWN, and is that of its other agents here."""
_ATTEMPTS = 3
_MATH = "math-verify"


@dataclass(frozen=True)
class Graders:
    """Whoever is at hand to grade.

    Args:
        folder: where the journal is kept.
        isolation: runs code; None where no code is graded.
        judge: None where math-verify alone decides.
        math_seconds, code_seconds: that a comparison, and a program with its tests, may take.
    """

    folder: Path
    isolation: Isolation | None = None
    judge: Judge | None = None
    math_seconds: float = 10.0
    code_seconds: float = 10.0

    def math(self, task: str, said: Sequence[Said]) -> list[Scores]:
        """Scores of 0 and 1: `acc`, the result is right, wherever it stands; `acc_boxed`, right and the reply has a
        box; `unparsed`, there is no result; `unboxed`, no box; `undecided`, the two could not be compared, which counts
        as wrong. With a judge `acc_judge`, where its verdict can be read, and else `unjudged`.

        Raises:
            EngineError, ModelError, JournalError: what was decided until then is kept.
        """
        revision = f"math-verify {metadata.version('math-verify')}"
        workers = Workers(
            "boost_qa.evaluate.formulas:verdict", seconds=self.math_seconds, revision=revision, remedy=_REMEDY
        )
        plays = {item.id: partial(_compared, item, reply) for item, reply in said}
        scenario = f"{task}/math/{digest(revision)[:8]}"  # another version may compare otherwise
        verdicts = self._played(scenario, plays, {_MATH: workers})
        judged = self._judged(task, said)
        scores: list[Scores] = []
        for item, reply in said:
            verdict = verdicts[item.id]
            one = {"acc": verdict == "right", "unparsed": verdict == "none", "undecided": verdict == "undecided"}
            one["unboxed"] = "\\boxed" not in reply
            one["acc_boxed"] = one["acc"] and not one["unboxed"]
            if self.judge is not None:
                right = judged[item.id]
                one |= {"unjudged": right is None} | ({} if right is None else {"acc_judge": right})
            scores.append({name: float(value) for name, value in one.items()})
        return scores

    def code(self, said: Sequence[Said]) -> list[Scores]:
        """`pass_at_1`, whether the tests run to their end after the reply's code; `unparsed`, that it has none
        that parses.

        Raises:
            EngineError: a program could not be started in isolation.
        """
        assert self.isolation is not None
        isolation = self.isolation

        def graded(one: Said) -> Scores:
            item, reply = one
            code = python_code(reply, item.entry)
            if code is None:
                return {"pass_at_1": 0.0, "unparsed": 1.0}
            whole = program(code, item.start, item.entry)
            ran = isolation.run_python(whole, item.tests, seconds=self.code_seconds, memory_mib=CODE_MIB)
            return {"pass_at_1": float(ran.finished), "unparsed": 0.0}

        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            return list(threads.map(graded, said))

    def judge_facts(self) -> dict[str, Any] | None:
        """What verdicts depend on besides the replies; None without a judge."""
        if self.judge is None:
            return None
        asked = digest(prompts()["judge_system"], prompts()["judge"])[:16]
        return {
            "model": portable_model(self.judge.name),
            "revision": self.judge.revision,
            "prompts": asked,
            "sampling": asdict(JUDGE),
        }

    def _judged(self, task: str, said: Sequence[Said]) -> Mapping[str, bool | None]:
        if self.judge is None:
            return {}
        plays = {item.id: partial(_verdict, item, reply, self.judge.name) for item, reply in said if reply.strip()}
        scenario = f"{task}/judge/{digest(str(self.judge.revision))[:8]}"  # another revision is another judge
        decided = self._played(scenario, plays, {self.judge.name: self.judge.make()})
        return {item.id: decided[item.id] if reply.strip() else False for item, reply in said}

    def _played(
        self, scenario: str, plays: Mapping[str, Callable[[], Any]], engines: Mapping[str, Engine]
    ) -> dict[str, Any]:
        """The results by record; None for one that was rejected."""
        jobs: list[Job[Any]] = [Job(id, scenario, play) for id, play in plays.items()]
        with _Verdicts(self.folder / "grading.sqlite") as journal:
            return {end.job.record: end.result for end in run(jobs, engines, journal)}


class _Verdicts(Journal):
    """Keeps what was decided. A comparison that was refused is made again: it may have lacked time."""

    def find(self, call: Call) -> Reply | None:
        reply = super().find(call)
        return None if reply and reply.finish == "refused" and call.request.model == _MATH else reply


@cache
def prompts() -> dict[str, str]:
    """What models are asked, by kind of benchmark, and what a judge is."""
    return dict(yaml.safe_load((resources.files(__package__) / "prompts.yaml").read_text(encoding="utf-8")))


async def _compared(item: Item, said: str) -> str:
    reference = f"\\boxed{{{item.final}}}" if item.final else item.answer
    reply: Reply = await Request(_MATH, (Message("user", json.dumps([reference, said])),))
    return "undecided" if reply.finish == "refused" else reply.text


async def _verdict(item: Item, reply: str, model: str) -> bool:
    """Whether a judge finds the reply correct.

    Raises:
        Rejected: the judge cannot be asked, or no attempt gave one verdict; that is never taken for a wrong answer.
    """
    blocks = {"question": barred(item.question), "answer": barred(item.answer or item.final), "reply": barred(reply)}
    messages = (Message("system", prompts()["judge_system"]), Message("user", prompts()["judge"].format(**blocks)))
    for _ in range(_ATTEMPTS):
        said: Reply = await Request(model, messages, JUDGE)
        if said.finish == "refused":
            raise Rejected("judge: refused", said.text)
        found = set(re.findall(r"<([01])>", said.text))
        if len(found) == 1:
            return "1" in found
    raise Rejected("judge: unreadable verdict", said.text[-200:])


_REMEDY = "pip install 'boost_qa[checks]'"
