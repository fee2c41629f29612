"""Who answers: a model on this machine, or one behind a server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from boost_qa.config.strict import SECRET, Strict

_KEY = re.compile(r"(hf|gh[opusr]|github_pat|gsk|sk|xai|AKIA|AIza)_?[A-Za-z0-9_]{16}")
"""How keys begin that are written like the name of a variable."""


class Embedded(Strict):
    """A model on this machine, on OpenVINO GenAI's continuous batching; it runs in a process of its own."""

    engine: Literal["embedded"]
    model: str = Field(description="name in `boost-qa models`, or path of a GGUF file or OpenVINO folder")
    device: str = "CPU"
    slots: int = Field(32, ge=1, description="requests in the batch at once")
    cache_gb: int = Field(1, ge=1, description="memory for the key-value cache, GiB")
    threads: int | None = Field(None, ge=1, description="CPU threads; all cores when not given")
    context: int | None = Field(
        None, ge=1, description="longest prompt plus reply in tokens; the model's own when not given"
    )


class OpenAI(Strict):
    """A model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, a provider."""

    engine: Literal["openai"]
    base_url: str = Field(description="up to and including /v1")
    model: str = Field(description="the name that the server knows the model by")
    revision: str | None = Field(None, description="what the server serves; written into every row")
    api_key_env: str | None = Field(None, description="name of the environment variable with the key")
    concurrency: int = Field(256, ge=1, description="most requests at once; adapts below this")
    timeout: float = Field(600.0, gt=0, description="seconds without a byte before a request is tried again")
    retries: int = Field(8, ge=0, description="further tries after overload or a lost connection")
    tokenizer: str | None = Field(
        None,
        description="folder with tokenizer.json and chat template: prompts are then sent as token ids to "
        "/completions, and no text can become a control token",
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="further fields of each request")

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        if name is not None and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name) or _KEY.match(name)):
            raise ValueError(
                "must be the name of an environment variable, such as OPENAI_API_KEY, and not the key itself"
            )
        return name

    @field_validator("extra_body")
    @classmethod
    def _no_secrets(cls, body: dict[str, Any]) -> dict[str, Any]:
        for name in _names(body):
            if SECRET.search(name):
                raise ValueError(f"{name} looks like a secret, and a recipe is written into every run; use api_key_env")
        return body

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if not re.match(r"^https?://", url):
            raise ValueError("must begin with http:// or https://")
        if re.match(r"^https?://[^/]*@", url) or "?" in url:
            raise ValueError("must not hold a user, password or query; name the key's variable in api_key_env")
        return url.rstrip("/")


def _names(value: Any) -> Iterator[str]:
    """The keys of a mapping and of all that is in it."""
    if isinstance(value, dict):
        yield from map(str, value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names(inner)


AnyModel = Annotated[Embedded | OpenAI, Field(discriminator="engine")]
