"""A model on this machine, without a server: OpenVINO GenAI in a process of its own for each model.

A process, not a thread: the pipeline's `step` holds the interpreter lock, so in this process it would make
the event loop, the journal and the other models wait for every token. And native code that crashes, or that
the system kills for its memory, then is an EngineError of one model, not the end of the run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from boost_qa.config import Embedded
from boost_qa.engines.chat import ChatTokenizer
from boost_qa.errors import BoostQAError, EngineError, ModelError
from boost_qa.models import Model
from boost_qa.types import Call, Reply

PROMPT_SLICE = 512
"""Tokens of new prompts that one step reads at most: replies in the batch wait meanwhile."""


class EmbeddedEngine:
    """Answers calls with a GGUF or OpenVINO model on this machine.

    Temperature 0 is greedy. The same seed gives the same text when a call is alone in the batch; in
    company, sums in another order can change it. `completion_tokens` counts the token that ended the
    reply, the text is without it. The key-value cache takes `cache_gb`.

    Args:
        settings: how to run it.
        model: what `boost_qa.models.resolve` gave for `settings.model`; nothing is loaded before `open`.
    """

    def __init__(self, settings: Embedded, model: Model) -> None:
        self._settings, self._model = settings, model
        self._numbers = count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}  # touched on the event loop alone
        self._outbox: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: BoostQAError | None = EngineError(f"{model.name} is not open", "Await open() first.")

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
        if importlib.util.find_spec("openvino_genai") is None:
            raise ModelError("OpenVINO GenAI is not installed", "pip install 'boost_qa[embedded]'")
        self._chat = await asyncio.to_thread(ChatTokenizer, self._model.tokenizer)
        limits = [limit for limit in (self._chat.context, self._settings.context) if limit]
        self._context = min(limits) if limits else sys.maxsize
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._start()
        await self._opened

    async def ask(self, call: Call) -> Reply:
        """Answer one call; a prompt that leaves no room for its reply is `refused`.

        Raises:
            EngineError: if the engine is not open, or has failed, or its cache is too small.
            ModelError: if the model's chat template refuses the messages.
        """
        if self._failure is not None:
            raise self._failure
        sampling = call.request.sampling
        ids = self._chat.encode(call.request.messages)
        if len(ids) + sampling.max_tokens > self._context:
            return Reply(
                f"prompt of {len(ids)} and reply of {sampling.max_tokens} tokens exceed the context of {self._context}",
                "refused",
                prompt_tokens=len(ids),
            )
        number = next(self._numbers)
        done = self._pending[number] = self._loop.create_future()
        self._outbox.put(
            {
                "ask": number,
                "ids": ids,
                "max_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": call.seed,
            }
        )
        try:
            answer = await done
        except asyncio.CancelledError:
            self._outbox.put({"drop": number})
            raise
        finally:
            del self._pending[number]
        if answer["status"] == "IGNORED":
            raise self._cache_too_small(call, len(ids))
        return self._reply(answer["ids"], len(ids))

    async def close(self) -> None:
        """End the process; whoever still waits gets an EngineError. May be called again."""
        if self._process is not None:
            self._fail(EngineError(f"{self._model.name} was closed", "Open a new engine."))
            self._process.kill()  # it keeps nothing
            self._outbox.put(None)
            for thread in self._threads:
                await asyncio.to_thread(thread.join)

    def _reply(self, ids: list[int], prompt_tokens: int) -> Reply:
        ended = bool(ids) and ids[-1] in self._chat.stop_ids
        text = self._chat.decode(ids[:-1] if ended else ids)
        return Reply(text, "stop" if ended else "length", prompt_tokens, len(ids))

    def _start(self) -> None:
        # -P: or its neighbours here would hide packages of the same name
        command = [sys.executable, "-P", str(Path(__file__).with_name("embedded_process.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._threads = [Thread(target=work, args=(self._process,), daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()
        self._outbox.put(self._orders())

    def _orders(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "path": str(self._model.path),
            "device": settings.device,
            "slots": settings.slots,
            "cache_gb": settings.cache_gb,
            "threads": settings.threads,
            "slice": PROMPT_SLICE,
            "stop_ids": sorted(self._chat.stop_ids),
        }

    # --- two threads, because pipes can block ----------------------------------------------------

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with suppress(OSError):  # it has ended: the reader says why
            while (message := self._outbox.get()) is not None:
                process.stdin.write(json.dumps(message).encode() + b"\n")
                process.stdin.flush()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            for line in process.stdout:
                self._loop.call_soon_threadsafe(self._hear, json.loads(line))
            self._loop.call_soon_threadsafe(self._hear, {"failed": f"its process ended with code {process.wait()}"})

    # --- on the event loop -----------------------------------------------------------------------

    def _hear(self, message: dict[str, Any]) -> None:
        if "done" in message:
            done = self._pending.get(message["done"])
            if done is not None and not done.done():
                done.set_result(message)
        elif "ready" in message:
            if not self._opened.done():
                self._failure = None
                self._opened.set_result(None)
        else:
            self._fail(self._why(message))

    def _fail(self, failure: BoostQAError) -> None:
        """Nothing is answered from here on; the first reason counts."""
        if self._failure is None or not self._opened.done():
            self._failure = failure
        everybody: list[asyncio.Future[Any]] = [self._opened, *self._pending.values()]
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(failure)

    def _why(self, message: dict[str, Any]) -> BoostQAError:
        if not self._opened.done():
            return ModelError(
                f"{self._model.path} cannot be loaded on {self._settings.device}: "
                + str(message.get("unloadable") or message.get("failed")),
                "OpenVINO reads GGUF files of the llama and qwen families, and OpenVINO folders; "
                "weights and cache_gb must fit into memory.",
            )
        return EngineError(
            f"{self._model.name} broke off: {message['failed']}",
            "What was answered is kept: run again to go on. If memory ran out, lower slots or cache_gb.",
        )

    def _cache_too_small(self, call: Call, prompt_tokens: int) -> EngineError:
        return EngineError(
            f"record {call.record}: {prompt_tokens} tokens of prompt and up to {call.request.sampling.max_tokens} "
            f"of reply do not fit the key-value cache of {self._model.name}",
            f"Raise cache_gb of this model (now {self._settings.cache_gb}), or lower the agent's max_tokens.",
        )
