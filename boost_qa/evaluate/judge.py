"""A model that is asked for verdicts, as a command line names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from boost_qa import models
from boost_qa.config import Embedded, OpenAI
from boost_qa.engines import Engine
from boost_qa.errors import ModelError


@dataclass(frozen=True)
class Judge:
    """A model that decides; `make` gives an engine that answers for `name`. A server does not tell its revision."""

    name: str
    make: Callable[[], Engine]
    revision: str | None = None


def find_judge(name: str, url: str | None) -> Judge:
    """The judge called `name`: one of the catalogue, a GGUF file or an OpenVINO folder, or a model behind a server.

    Args:
        url: of an OpenAI-compatible server, up to and including /v1; None for a model on this machine.

    Raises:
        ModelError: there is no such model, or the address is none.
    """
    from boost_qa.engines.embedded import EmbeddedEngine
    from boost_qa.engines.openai import OpenAIEngine

    if url is None:
        found = models.resolve(name)
        return Judge(name, lambda: EmbeddedEngine(Embedded(engine="embedded", model=name), found), found.revision)
    try:
        server = OpenAI(engine="openai", base_url=url, model=name)
    except ValidationError as error:
        what = f"judge {name!r} at {url!r}: {error.errors()[0]['msg']}"
        raise ModelError(what, "Give the address of its server, such as http://localhost:8000/v1.") from None
    return Judge(name, lambda: OpenAIEngine(server))
