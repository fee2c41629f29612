"""The embedded engine as a language model of the harness: quicker than torch on a CPU, without likelihoods."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from boost_qa.config import Embedded
from boost_qa.engines.embedded import EmbeddedEngine
from boost_qa.errors import EngineError
from boost_qa.models import Model
from boost_qa.models.gguf_file import open_gguf, to_f16
from boost_qa.models.prepare import prepare_gguf
from boost_qa.models.trainable import gguf_of
from boost_qa.types import Call, Message, Reply, Request, Sampling, digest

if TYPE_CHECKING:
    from boost_qa.evaluate.loading import Chosen

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def load_embedded(chosen: Chosen, tokenizer: Any, slots: int) -> EmbeddedModel:
    """A base that was a GGUF file, or one with its adapter, which is merged into a file for the time being.

    Args:
        tokenizer: as transformers has it; only counts tokens.
        slots: replies that are written at once.

    Raises:
        ModelError, RunError: the base is no GGUF file, or cannot be merged or loaded.
    """
    own = gguf_of(chosen.base)
    if chosen.adapter is None and _kinds(own.path) <= {"F16", "F32"}:
        return EmbeddedModel(own, tokenizer, slots)
    with tempfile.TemporaryDirectory(prefix="boost_qa_", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        file = folder / "model.gguf"
        if chosen.adapter is None:  # in the numbers that an adapter of it is computed in
            shutil.copy(own.path, file)
            to_f16(file)
        else:
            from boost_qa.train.merge import merge_to_gguf

            merge_to_gguf(chosen.adapter, file, base=chosen.base)
        prepare_gguf(file, folder, {"name": chosen.name, "licence": None, "revision": "merged"})
        return EmbeddedModel(Model(chosen.name, file, folder, "merged", None, str(file)), tokenizer, slots)


def _kinds(file: Path) -> set[str]:
    return {tensor.tensor_type.name for tensor in open_gguf(file).tensors}


class EmbeddedModel(LM):  # type: ignore[misc]
    """Writes replies; prompts stay messages to the end, so that no text of a question becomes a control token.

    A prompt that leaves no room for its reply is answered by an empty one; if none has room, that is an error. Seeds
    are drawn from torch's generator. What else is in the batch can change a reply: see `EmbeddedEngine`. Its loop has a
    thread of its own, so that it runs in a notebook, too.
    """

    def __init__(self, model: Model, tokenizer: Any, slots: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._engine = EmbeddedEngine(Embedded(engine="embedded", model=model.name, slots=slots, cache_gb=2), model)
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True).start()
        try:
            self._wait(self._engine.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the engine's process."""
        self._wait(self._engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _wait(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return json.dumps(chat_history)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def chat_template(self, chat_template: bool | str = False) -> str:
        return str(self.tokenizer.chat_template)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """One reply each.

        Raises:
            RuntimeError: the engine failed, or no prompt leaves room for its reply.
        """
        calls = [_call(one.args[0], one.args[1], place) for place, one in enumerate(requests)]
        try:
            replies = self._wait(self._asked(calls))
        except EngineError as error:
            raise RuntimeError(str(error)) from error
        refused = [reply.text for reply in replies if reply.finish == "refused"]
        if refused and len(refused) == len(replies):
            raise RuntimeError(f"no prompt leaves room for its reply: {refused[0]}")
        if refused:
            _log.warning("%d prompts leave no room for a reply, and count as answered by nothing", len(refused))
        return ["" if reply.finish == "refused" else reply.text for reply in replies]

    async def _asked(self, calls: Sequence[Call]) -> list[Reply]:
        return await asyncio.gather(*(self._engine.ask(call) for call in calls))

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise RuntimeError("the embedded engine gives no likelihoods")

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        raise RuntimeError("the embedded engine gives no likelihoods")


def _call(context: str, wanted: dict[str, Any], place: int) -> Call:
    messages = tuple(Message(one["role"], one["content"]) for one in json.loads(context))
    drawn = wanted["temperature"] if wanted["do_sample"] else 0.0
    request = Request("evaluated", messages, Sampling(drawn, wanted.get("top_p", 1.0), wanted["max_gen_toks"]))
    return Call("", "evaluation", place, request, digest(context, str(place)), int(torch.randint(2**31, ())))
