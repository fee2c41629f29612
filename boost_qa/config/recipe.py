"""The recipe as a whole: sources, classroom or agent pairs, and models together, and which of it is content."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from boost_qa.config.checks import Checks
from boost_qa.config.classroom import AgentSettings, ScenarioName, Scenarios
from boost_qa.config.models import AnyModel
from boost_qa.config.sources import AnySource
from boost_qa.config.star import Star
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
    star: Star | None = Field(None, description="agent pairs that compete (Star-Agents), in place of the scenarios")
    checks: Checks | None = Field(None, description="what is looked at in each dialogue, and what makes it leave")
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

    def agents(self) -> dict[str, AgentSettings]:
        """Everybody who speaks, by key of the recipe."""
        active = self.scenarios.active()
        taught = {f"scenarios.{name}.cast.{role}": agent for name, each in active.items() for role, agent in each.cast}
        paired = self.star.agents() if self.star else {}
        judging = self.checks.agents() if self.checks else {}
        return (
            taught
            | {f"star.{key}": agent for key, agent in paired.items()}
            | {f"checks.{key}": agent for key, agent in judging.items()}
        )

    def content(self) -> dict[str, Any]:
        """The recipe without what cannot change a dialogue: addresses, slots, threads, splits, its own name."""
        content = self.model_dump(mode="json", exclude={"name", "validation"})
        for settings in (content["runner"], *content["models"].values()):
            for name in _OPERATIONAL & settings.keys():
                del settings[name]
        return content

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that recipes without it, with their digests and files, are what they were before there was any."""
        dumped: dict[str, Any] = dump(self)
        return {key: value for key, value in dumped.items() if key not in ("star", "checks") or value is not None}

    @model_validator(mode="before")
    @classmethod
    def _no_scenarios_beside_star(cls, raw: Any) -> Any:
        """Where agent pairs compete, the scenarios that every other recipe has by default are left out."""
        if isinstance(raw, dict) and raw.get("star") is not None and raw.get("scenarios") is None:
            return raw | {"scenarios": dict.fromkeys(get_args(ScenarioName))}
        return raw

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        active = self.scenarios.active()
        if active and self.star:
            raise ValueError("star and scenarios exclude each other: leave one of them out; pairs may play a scenario")
        if not active and not self.star:
            raise ValueError("scenarios: none is left, give at least one a share above 0")
        if self._moves() and (self.assign == "all" or "debate" not in active):
            raise ValueError("checks.answers.weak_right: records can only move to a debate, with `assign: one`")
        for key, agent in self.agents().items():
            if agent.model not in self.models:
                raise ValueError(f"{key}.model: {agent.model!r} is not in models ({', '.join(self.models)})")
        return self

    def _moves(self) -> bool:
        return bool(self.checks and self.checks.answers and self.checks.answers.weak_right == "move")
