"""A language model of the harness that remembers what it said, so that an evaluation goes on where it stopped.

Requests are asked in blocks, always cut at the same places of a task, and each block has its own seed: what a stopped
evaluation had not finished is drawn again as it would have been. Replies are one line each in `replies.jsonl`, by a
digest of task, item, request and seed; a line that was not written whole is asked again. (Whoever answers may reply
otherwise in another batch, though, as the embedded engine does; and vLLM draws in a process of its own, which is seeded
once, when it starts: what is asked after a stop is drawn otherwise there.)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, TemplateLM
from lm_eval.utils import set_torch_seed

from boost_qa.errors import BoostQAError, EngineError
from boost_qa.run_folder import dump
from boost_qa.types import digest

_PAUSE = 10.0  # seconds between two lines of progress


class Remembered(LM):  # type: ignore[misc]
    """`model` with a memory.

    Args:
        model: asked for what is not known.
        file: of the replies; goes on after its last whole line.
        block: requests of a task that are asked together, and lost at most.
        seed: of all that is drawn.
        say: is told how far it is.

    Raises:
        EngineError: the model failed, or the file cannot be written; blocks before that are kept.
    """

    def __init__(
        self, model: LM, file: Path, block: int = 64, seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        super().__init__()
        self.model, self.file, self.block, self.seed, self._say = model, file, block, seed, say
        self.asked = 0
        self._known: dict[str, Any] = _whole_lines(file)
        self._told = time.monotonic()

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        return self._answers("generate_until", requests)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        return [(float(nats), bool(greedy)) for nats, greedy in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        return self._answers("loglikelihood_rolling", requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(self.model.apply_chat_template(chat_history, add_generation_prompt=add_generation_prompt))

    @property
    def tokenizer_name(self) -> str:
        return str(self.model.tokenizer_name)

    def chat_template(self, chat_template: bool | str = False) -> Any:
        return self.model.chat_template(chat_template)

    @property
    def rank(self) -> int:
        return int(self.model.rank)

    @property
    def world_size(self) -> int:
        return int(self.model.world_size)

    def __getattr__(self, name: str) -> Any:  # what the harness writes down of a model: tokenizer, sizes, revision
        return getattr(self.model, name)

    def _answers(self, how: str, requests: Sequence[Instance]) -> list[Any]:
        answers: list[Any] = []
        for task, of_task in groupby(requests, key=lambda one: one.task_name):
            asked = list(of_task)
            keys = self._keys(how, asked)
            for start in range(0, len(asked), self.block):
                block = list(zip(keys, asked, strict=True))[start : start + self.block]
                missing = [(key, one) for key, one in block if key not in self._known]
                if missing:
                    self._ask(how, missing, seed_of=block[0][0])
                answers += [self._known[key] for key, _ in block]
                self._tell(f"{task}: {min(start + self.block, len(asked)):,} of {len(asked):,} {_WHAT[how]}")
        return answers

    def _keys(self, how: str, requests: Sequence[Instance]) -> list[str]:
        """One for each request: two that are the same are two samples, hence the ordinal."""
        keys: list[str] = []
        seen: dict[str, int] = {}
        for one in requests:
            key = digest(how, str(one.task_name), str(one.doc_id), str(one.idx), dump(one.args), str(self.seed))
            seen[key] = seen.get(key, 0) + 1
            keys.append(f"{key}-{seen[key]}" if seen[key] > 1 else key)
        return keys

    def _ask(self, how: str, missing: Sequence[tuple[str, Instance]], seed_of: str) -> None:
        quiet = {"disable_tqdm": True} if isinstance(self.model, TemplateLM) and how != "loglikelihood_rolling" else {}
        set_torch_seed(int(seed_of[:8], 16))
        try:
            replies = getattr(self.model, how)([one for _, one in missing], **quiet)
        except BoostQAError:
            raise
        except Exception as error:  # of whatever kind: that of a vLLM engine that died is no RuntimeError
            why = str(error).partition("\n")[0]
            what = f"{missing[0][1].task_name}: the model failed: {why}"
            raise EngineError(
                what, "Replies before that are kept: the same command goes on. Try a smaller batch."
            ) from error
        self._keep([(key, reply) for (key, _), reply in zip(missing, replies, strict=True)])
        self.asked += len(missing)

    def _keep(self, replies: Sequence[tuple[str, Any]]) -> None:
        try:
            with self.file.open("a", encoding="utf-8", newline="\n") as file:
                file.write("".join(dump({"key": key, "reply": reply}) + "\n" for key, reply in replies))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EngineError(f"{self.file}: {error}", "Free some space; the same command goes on.") from error
        self._known.update(replies)

    def _tell(self, text: str) -> None:
        if time.monotonic() - self._told >= _PAUSE:
            self._told = time.monotonic()
            self._say(text)


_WHAT = {"generate_until": "replies", "loglikelihood": "likelihoods", "loglikelihood_rolling": "likelihoods"}


def _whole_lines(file: Path) -> dict[str, Any]:
    """The replies by key; a torn last line is cut off, so that the next one begins on its own."""
    if not file.exists():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    lines = (json.loads(line) for line in whole.splitlines())
    return {line["key"]: line["reply"] for line in lines}
