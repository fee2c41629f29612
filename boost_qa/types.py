"""The vocabulary: what flows between the parts. No logic beyond identity."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

ORIGINAL = "original"
"""What stands in the place of a scenario's name where a record stands by itself, without a dialogue."""


def digest(*parts: str) -> str:
    """32 hex characters that name `parts`; stable across machines, runs and Python versions."""
    framed = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(framed.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """One question with its reference answer, from one source.

    `id` is `source` plus a digest of the content, so it does not depend on row order or machine;
    `source_id` is the source's own name for the row. `final` is the bare result where one is known.
    """

    id: str
    source: str
    question: str
    answer: str
    source_id: str
    final: str | None = None
    licence: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a model reads it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn."""

    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What a scenario waits for, and the only thing that it may await: `reply = await request`."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()

    def __await__(self) -> Generator[Request, Reply, Reply]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `refused` means that the prompt could not be asked; `text` then says why."""

    text: str
    finish: Literal["stop", "length", "refused"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A request in its place: the `ordinal`-th of one record in one scenario.

    Two identical requests of one dialogue are two calls, hence two samples. `body` is the request
    as JSON, `digest` names it together with the run's seed, `seed` (31 bits) is this call's own.
    """

    record: str
    scenario: str
    ordinal: int
    request: Request
    digest: str
    seed: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn or a dialogue cost, re-asked replies included."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One line of a dialogue. `side` is the ShareGPT speaker; the fields from `model` on are
    None where no agent spoke (the question itself)."""

    speaker: str
    side: Literal["human", "gpt"]
    text: str
    model: str | None = None
    temperature: float | None = None
    prompt_digest: str | None = None
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A finished conversation about `record`; `related` is the second record of an analogy."""

    record: Record
    scenario: str
    turns: tuple[Turn, ...]
    related: Record | None = None

    @property
    def usage(self) -> Usage:
        return sum((turn.usage for turn in self.turns), Usage())
