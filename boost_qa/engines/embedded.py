"""A model in this process: OpenVINO GenAI's continuous batching, one thread for each model.

The thread owns the pipeline. It admits calls as they come, lets the pipeline make one step (a token for
every call in the batch, or a slice of a new prompt), and hands over what has finished. `step` holds the
interpreter lock, so the event loop and other engines get their turn between two steps; prompts are read
in slices to keep a step short.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from boost_qa.config import Embedded
from boost_qa.engines.chat import ChatTokenizer
from boost_qa.errors import BoostQAError, EngineError, ModelError
from boost_qa.models import Model
from boost_qa.types import Call, Reply, Sampling

PROMPT_SLICE = 512
"""Tokens of prompts that one step reads at most: a longer step makes everything else wait."""


@dataclass(eq=False, slots=True)
class _Asked:
    """One call on its way through the thread. `dropped` is set when nobody waits any more."""

    record: str
    ids: list[int]
    sampling: Sampling
    seed: int
    future: asyncio.Future[Reply]
    handle: Any = None
    dropped: bool = field(default=False)


class EmbeddedEngine:
    """Answers calls with an OpenVINO or GGUF model in this process.

    Temperature 0 is greedy. The same seed gives the same text when a call is alone in the batch; in
    company, sums in another order can change it. `completion_tokens` counts the token that ended the
    reply, the text is without it. The key-value cache takes `cache_gb`, rounded up to whole GiB.

    Args:
        settings: how to run it.
        model: what `boost_qa.models.resolve` gave for `settings.model`; nothing is loaded before `open`.
    """

    def __init__(self, settings: Embedded, model: Model) -> None:
        self._settings, self._model = settings, model
        self._inbox: SimpleQueue[_Asked | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._failure: BoostQAError | None = None

    @property
    def slots(self) -> int:
        return self._settings.slots

    @property
    def revision(self) -> str | None:
        return self._model.revision

    async def open(self) -> None:
        """Load the model.

        Raises:
            ModelError: if OpenVINO GenAI is not installed, or cannot load the model.
        """
        _openvino()
        self._chat = await asyncio.to_thread(ChatTokenizer, self._model.tokenizer)
        limits = [limit for limit in (self._chat.context, self._settings.context) if limit]
        self._context = min(limits) if limits else sys.maxsize
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = Thread(target=self._serve, args=(opened,), name=f"boost_qa {self._model.name}", daemon=True)
        self._thread.start()
        await opened

    async def ask(self, call: Call) -> Reply:
        """Answer one call; a prompt that leaves no room for its reply is `refused`.

        Raises:
            EngineError: if the engine is not open, or has failed, or its cache is too small.
            ModelError: if the model's chat template refuses the messages.
        """
        if self._thread is None:
            raise EngineError(f"{self._model.name} is not open", "Await open() first.")
        sampling = call.request.sampling
        ids = self._chat.encode(call.request.messages)
        if len(ids) + sampling.max_tokens > self._context:
            return Reply(
                f"prompt of {len(ids)} and reply of {sampling.max_tokens} tokens exceed the context of {self._context}",
                "refused",
                prompt_tokens=len(ids),
            )
        asked = _Asked(call.record, ids, sampling, call.seed, asyncio.get_running_loop().create_future())
        self._inbox.put(asked)
        if self._failure is not None:  # after put: the thread sets it first and empties the inbox then
            raise self._failure
        try:
            return await asked.future
        except asyncio.CancelledError:
            asked.dropped = True
            raise

    async def close(self) -> None:
        """End the thread and free the model; whoever still waits gets an EngineError. May be called again."""
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)

    # --- the thread ------------------------------------------------------------------------------

    def _serve(self, opened: asyncio.Future[None]) -> None:
        running: list[_Asked] = []
        try:
            pipeline = self._load()
            self._tell(opened, None)
            self._answer(pipeline, running)
            self._failure = EngineError(f"{self._model.name} was closed", "Open a new engine.")
        except BoostQAError as error:
            self._failure = error
        except BaseException as error:
            self._failure = EngineError(
                f"{self._model.name}: the inference thread died: {type(error).__name__}: {error}",
                "What was answered is kept: run again to go on. If memory ran out, lower slots or cache_gb.",
            )
        finally:
            assert self._failure is not None
            self._tell(opened, self._failure)
            for asked in [*running, *self._waiting(wait=False)]:
                if asked is not None:
                    self._tell(asked.future, self._failure)

    def _load(self) -> Any:
        openvino_genai = _openvino()[1]
        settings, scheduler = self._settings, openvino_genai.SchedulerConfig()
        scheduler.cache_size = math.ceil(settings.cache_gb)
        scheduler.max_num_seqs = settings.slots
        scheduler.max_num_batched_tokens = PROMPT_SLICE + settings.slots
        scheduler.enable_prefix_caching = True
        properties = {"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {}
        try:
            return openvino_genai.ContinuousBatchingPipeline(
                str(self._model.path), scheduler, settings.device, properties, {}
            )
        except Exception as error:  # whatever the native code throws
            raise ModelError(
                f"{self._model.path} cannot be loaded on {settings.device}: {error}",
                "OpenVINO reads GGUF files of the llama and qwen families, and OpenVINO folders; "
                "weights and cache_gb must fit into memory.",
            ) from error

    def _answer(self, pipeline: Any, running: list[_Asked]) -> None:
        """Until the end is called: admit, step, hand over. `running` is what the pipeline works on."""
        numbers = count()  # the pipeline wants every request that it holds under another number
        while True:
            for asked in self._waiting(wait=not running):
                if asked is None:
                    _free(pipeline, running)
                    return
                if not asked.dropped:
                    running.append(asked)  # first: what is in `running` is told when the thread dies
                    asked.handle = self._admit(pipeline, next(numbers), asked)
            for asked in running:
                if asked.dropped:
                    asked.handle.cancel()
            if running:
                pipeline.step()
            running[:] = [asked for asked in running if not self._finished(asked)]

    def _waiting(self, wait: bool) -> Iterator[_Asked | None]:
        """What is in the inbox; if `wait`, not before there is something."""
        try:
            yield self._inbox.get(block=wait)
            while True:
                yield self._inbox.get_nowait()
        except Empty:
            return

    def _admit(self, pipeline: Any, number: int, asked: _Asked) -> Any:
        openvino, openvino_genai = _openvino()
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = asked.sampling.max_tokens
        config.stop_token_ids = set(self._chat.stop_ids)
        config.do_sample = asked.sampling.temperature > 0
        if config.do_sample:
            config.temperature = asked.sampling.temperature
            config.top_p = asked.sampling.top_p
            # its generator takes 32 bits and drops the rest
            config.rng_seed = (asked.seed ^ asked.seed >> 32) & 0xFFFF_FFFF
        return pipeline.add_request(number, openvino.Tensor(_row(asked.ids)), config)

    def _finished(self, asked: _Asked) -> bool:
        """Hand over the reply, if there is one. True if the pipeline is done with the call."""
        status = asked.handle.get_status().name
        if status == "RUNNING":
            return False
        if status == "IGNORED" and not asked.dropped:
            self._tell(asked.future, self._cache_too_small(asked))
        elif not asked.dropped:
            self._tell(asked.future, self._reply(asked))
        return True

    def _reply(self, asked: _Asked) -> Reply:
        output = asked.handle.read_all()[0]
        ids = list(output.generated_ids)
        ended = bool(ids) and ids[-1] in self._chat.stop_ids
        text = self._chat.decode(ids[:-1] if ended else ids)
        return Reply(text, "stop" if ended else "length", len(asked.ids), len(ids))

    def _cache_too_small(self, asked: _Asked) -> EngineError:
        return EngineError(
            f"record {asked.record}: {len(asked.ids)} tokens of prompt and up to {asked.sampling.max_tokens} of reply "
            f"do not fit the key-value cache of {self._model.name}",
            f"Raise cache_gb of this model (now {self._settings.cache_gb:g}), or lower the agent's max_tokens.",
        )

    def _tell(self, future: asyncio.Future[Any], result: Reply | BoostQAError | None) -> None:
        def deliver() -> None:
            if not future.done():
                if isinstance(result, BoostQAError):
                    future.set_exception(result)
                else:
                    future.set_result(result)

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(deliver)


def _free(pipeline: Any, running: list[_Asked]) -> None:
    for asked in running:
        asked.handle.cancel()
    if pipeline.has_non_finished_requests():
        pipeline.step()  # frees what was cancelled


def _row(ids: list[int]) -> Any:
    import numpy as np

    return np.array([ids], dtype=np.int64)


def _openvino() -> tuple[Any, Any]:
    """The modules openvino and openvino_genai, without the telemetry that they bring along.

    Raises:
        ModelError: if they are not installed.
    """
    # openvino sends an event on import; where openvino_telemetry cannot be imported it uses a stub that does nothing
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
        import openvino_genai
    except ImportError as error:
        raise ModelError(f"OpenVINO GenAI is not installed: {error}", "pip install 'boost_qa[embedded]'") from error
    return openvino, openvino_genai
