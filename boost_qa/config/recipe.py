"""The recipe as a whole: sources, classroom and models together, and which of it is content."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from boost_qa.config.classroom import Scenarios
from boost_qa.config.models import AnyModel
from boost_qa.config.sources import AnySource
from boost_qa.config.strict import Strict

_OF_SERVERS = frozenset(("base_url", "api_key_env", "concurrency", "timeout", "retries"))
_OF_MACHINES = frozenset(("device", "slots", "cache_gb", "threads", "in_flight"))
_OPERATIONAL = _OF_SERVERS | _OF_MACHINES


class Runner(Strict):
    in_flight: int = Field(
        256, ge=1, description="dialogues at once: times tokens per dialogue must fit the engines' caches"
    )
    attempts: int = Field(3, ge=1, description="times a truncated, empty or looping reply is asked in all")


class Recipe(Strict):
    """A whole run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-]*$")
    seed: int = 0
    sources: tuple[AnySource, ...] = Field(min_length=1)
    dialogues: int | None = Field(
        None,
        ge=1,
        description="records that get a dialogue, spread evenly over the sources; the others only serve analogies",
    )
    assign: Literal["one", "all"] = Field(
        "one", description="scenarios for each record: one by share, or all (UNKNOWN)"
    )
    scenarios: Scenarios = Scenarios()
    models: dict[str, AnyModel] = Field(min_length=1)
    layout: Literal["system_and_user", "user"] = Field(
        "system_and_user", description="where the role prompt goes (UNKNOWN); `user` for models without a system role"
    )
    language: str = Field("English", description="every prompt asks for replies in it")
    runner: Runner = Runner()
    validation: float = Field(0.05, ge=0, lt=1, description="share of records in the validation split")

    def model_name(self, alias: str) -> str:
        """The name that requests to a model of the recipe carry: the model's own, so that the journal
        knows what was asked; with the alias where one model is reached in two ways."""
        settings = self.models[alias]
        clash = any(other.model == settings.model and other != settings for other in self.models.values())
        return f"{settings.model} ({alias})" if clash else settings.model

    def content(self) -> dict[str, Any]:
        """The recipe without what cannot change a dialogue: addresses, slots, threads, splits, its own name."""
        content = self.model_dump(mode="json", exclude={"name", "validation"})
        for settings in (content["runner"], *content["models"].values()):
            for name in _OPERATIONAL & settings.keys():
                del settings[name]
        return content

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        active = self.scenarios.active()
        if not active:
            raise ValueError("scenarios: none is left, give at least one a share above 0")
        for scenario, settings in active.items():
            for role, agent in settings.cast:
                if agent.model not in self.models:
                    known = ", ".join(self.models)
                    raise ValueError(
                        f"scenarios.{scenario}.cast.{role}.model: {agent.model!r} is not in models ({known})"
                    )
        return self
