"""The process that holds a model for `EmbeddedEngine`: OpenVINO GenAI's continuous batching.

Run as a script, with nothing of this package imported: a process of its own starts in a quarter of a second
and needs no more memory than the model. Standard input and output carry one JSON object a line:

    in    {"path", "device", "slots", "cache_gb", "threads", "slice", "stop_ids"}     first, once
          {"ask": n, "ids", "max_tokens", "temperature", "top_p", "seed"}              any number of times
          {"drop": n}                                                                  nobody waits for n any more
    out   {"ready": true}  or  {"unloadable": why}                                     first, once
          {"done": n, "ids", "status"}                                                 for each call that was asked
          {"failed": why}                                                              last, if it breaks

When the input ends, so does the process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import deque
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

# openvino sends an event when it is imported; where this module is missing it uses a stub that does nothing
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


class Batch:
    """What the pipeline works on, at most `slots` calls, and the calls that wait for it."""

    def __init__(self, pipeline: Any, slots: int, stop_ids: list[int]) -> None:
        self.pipeline, self.slots, self.stop_ids = pipeline, slots, set(stop_ids)
        self.waiting: deque[dict[str, Any]] = deque()
        self.running: dict[int, Any] = {}

    def take(self, message: dict[str, Any]) -> None:
        """A line of the input."""
        if "ask" in message:
            self.waiting.append(message)
        elif handle := self.running.get(message["drop"]):
            handle.cancel()  # gone after the next step
        else:
            self.waiting = deque(ask for ask in self.waiting if ask["ask"] != message["drop"])

    def step(self) -> list[dict[str, Any]]:
        """Admit what there is room for, make one step, and give back what it finished."""
        while self.waiting and len(self.running) < self.slots:  # the pipeline itself would take them all
            ask = self.waiting.popleft()
            self.running[ask["ask"]] = self._admit(ask)
        if self.running:
            self.pipeline.step()
        status = {number: handle.get_status().name for number, handle in self.running.items()}
        ended = {number: self.running.pop(number) for number, name in status.items() if name != "RUNNING"}
        return [
            {"done": number, "ids": _ids(handle), "status": status[number]}
            for number, handle in ended.items()
            if status[number] != "CANCEL"
        ]

    def _admit(self, ask: dict[str, Any]) -> Any:
        import numpy as np
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = ask["max_tokens"]
        config.stop_token_ids = self.stop_ids
        config.do_sample = ask["temperature"] > 0
        if config.do_sample:
            config.temperature, config.top_p = ask["temperature"], ask["top_p"]
            config.rng_seed = (ask["seed"] ^ ask["seed"] >> 32) & 0xFFFF_FFFF  # it takes 32 bits and drops the rest
        return self.pipeline.add_request(ask["ask"], openvino.Tensor(np.array([ask["ids"]], dtype=np.int64)), config)


def _ids(handle: Any) -> list[int]:
    return [number for output in handle.read_all() for number in output.generated_ids]


def load(settings: dict[str, Any]) -> Any:
    """The pipeline; raises whatever the native code raises."""
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = settings["cache_gb"]
    scheduler.max_num_seqs = settings["slots"]
    scheduler.max_num_batched_tokens = settings["slice"] + settings["slots"]
    scheduler.enable_prefix_caching = True
    threads = {"INFERENCE_NUM_THREADS": settings["threads"]} if settings["threads"] else {}
    return openvino_genai.ContinuousBatchingPipeline(settings["path"], scheduler, settings["device"], threads, {})


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what native code prints is no answer
    inbox: SimpleQueue[dict[str, Any]] = SimpleQueue()
    Thread(target=_read, args=(sys.stdin.buffer, inbox), daemon=True).start()
    settings = inbox.get()
    try:
        batch = Batch(load(settings), settings["slots"], settings["stop_ids"])
    except Exception as error:
        _write(out, {"unloadable": f"{type(error).__name__}: {error}"})
        return
    _write(out, {"ready": True})
    try:
        while True:
            while not inbox.empty() or not (batch.running or batch.waiting):
                batch.take(inbox.get())
            for done in batch.step():
                _write(out, done)
    except Exception as error:
        _write(out, {"failed": f"{type(error).__name__}: {error}"})


def _read(lines: IO[bytes], inbox: SimpleQueue[dict[str, Any]]) -> None:
    for line in lines:
        inbox.put(json.loads(line))
    os._exit(0)


def _write(out: IO[bytes], message: dict[str, Any]) -> None:
    out.write(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
    os._exit(0)  # without tearing native objects down, which complains about what was still in the batch
