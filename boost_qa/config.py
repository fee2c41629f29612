"""Recipes: one strict YAML file says everything that a run depends on.

Every setting that the paper leaves UNKNOWN is a field here with its default. Secrets are never part
of a recipe: it names the environment variable that holds one. `recipe_file` reads and explains.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ScenarioName = Literal["error_correction", "debate", "analogical_reasoning"]


class Strict(BaseModel):
    """Base of all settings: immutable, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- sources -------------------------------------------------------------------------------------


class SourceSettings(Strict):
    """What all sources share."""

    n: int | None = Field(None, ge=1, description="records to draw, seeded; all when not given")


class FileSourceSettings(SourceSettings):
    """A source of rows: local files, or a dataset on the Hub."""

    path: str | None = Field(None, description="local file, folder or glob; instead of the Hub")
    repo: str | None = Field(None, description="dataset id on the Hub")
    revision: str | None = Field(None, description="commit, tag or branch on the Hub")
    split: str = "train"
    licence: str | None = Field(None, description="replaces the source's own licence in the records")


class Sample(SourceSettings):
    """The records that come with the package; subjects are separate sources."""

    source: Literal["sample"]
    subjects: tuple[Literal["mathematics", "programming", "general"], ...] = (
        "mathematics",
        "programming",
        "general",
    )


class OrcaMath(FileSourceSettings):
    """microsoft/orca-math-word-problems-200k: columns `question`, `answer`."""

    source: Literal["orca_math"]


class ProcQA(FileSourceSettings):
    """ProcQA: JSON lines per programming language; `title`, `question`, `answer`."""

    source: Literal["procqa"]
    languages: tuple[str, ...] | None = Field(
        None, description="file stems to read, such as python or c; all when not given (UNKNOWN in the paper)"
    )


class OpenHermes(FileSourceSettings):
    """teknium/OpenHermes-2.5: column `conversations`, with system and multi-turn rows."""

    source: Literal["openhermes"]
    multi_turn: Literal["first", "last", "skip"] = Field(
        "first",
        description="which exchange of a longer conversation is the question; `last` puts the earlier "
        "turns in front of it (UNKNOWN in the paper)",
    )
    system: Literal["prepend", "drop", "skip"] = Field(
        "prepend", description="what becomes of a system prompt: part of the question, dropped, or row skipped"
    )


class Columns(FileSourceSettings):
    """Any .jsonl, .json, .parquet or .csv file, or Hub dataset, through a column mapping."""

    source: Literal["columns"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-]*$", description="name of the source in the records")
    question: str = Field(description="column of the question")
    answer: str = Field(description="column of the reference answer")
    id: str | None = Field(None, description="column of the source's own id")
    final: str | None = Field(None, description="column of the bare result")
    config: str | None = Field(None, description="config of the Hub dataset")


class ReasoningGym(SourceSettings):
    """Endless verifiable tasks of the `reasoning-gym` package; `n` records for each task."""

    source: Literal["reasoning_gym"]
    tasks: dict[str, dict[str, Any]] = Field(description="task name to its settings, {} for the defaults")
    seed: int = 0

    @model_validator(mode="after")
    def _finite(self) -> ReasoningGym:
        if self.n is None:
            raise ValueError("reasoning_gym is endless: give n")
        return self


AnySource = Annotated[
    Sample | OrcaMath | ProcQA | OpenHermes | Columns | ReasoningGym, Field(discriminator="source")
]

# --- models --------------------------------------------------------------------------------------


class Embedded(Strict):
    """A model in this process, on OpenVINO GenAI's continuous batching."""

    engine: Literal["embedded"]
    model: str = Field(description="name in `boost-qa models`, or path of a GGUF file or OpenVINO folder")
    device: str = "CPU"
    slots: int = Field(32, ge=1, description="requests in the batch at once")
    cache_gb: float = Field(1.0, gt=0, description="memory for the key-value cache, GiB")
    threads: int | None = Field(None, ge=1, description="CPU threads; all cores when not given")
    context: int | None = Field(None, ge=1, description="longest prompt plus reply in tokens; the model's own when not given")


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

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if not re.match(r"^https?://", url):
            raise ValueError("must begin with http:// or https://")
        if re.match(r"^https?://[^/]*@", url) or "?" in url:
            raise ValueError("must not hold a user, password or query; name the key's variable in api_key_env")
        return url.rstrip("/")


class Replay(Strict):
    """No model at all: answers come from the journal of a finished run."""

    engine: Literal["replay"]
    model: str = Field(description="the name to show for it")
    revision: str | None = None


AnyModel = Annotated[Embedded | OpenAI | Replay, Field(discriminator="engine")]

# --- the classroom -------------------------------------------------------------------------------


class AgentSettings(Strict):
    """One agent: a model of the recipe, its sampling, and optionally a prompt of one's own.

    top_p and max_tokens are UNKNOWN in the paper.
    """

    model: str = Field(description="a key of `models`")
    temperature: float = Field(ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)
    prompt: str | None = Field(None, description="path of a prompt file that replaces the packaged one")


def _agent(model: str, temperature: float) -> Any:
    return Field(default_factory=lambda: AgentSettings.model_validate({"model": model, "temperature": temperature}))


class ErrorCorrectionCast(Strict):
    """Qwen2.5-Instruct 0.5B at 0.8, then 14B at 0.2 twice (MASTER, section 4.1)."""

    weak_student: AgentSettings = _agent("weak", 0.8)
    teacher: AgentSettings = _agent("strong", 0.2)
    strong_student: AgentSettings = _agent("strong", 0.2)


class DebateCast(Strict):
    """Qwen2.5-Instruct 7B at 0.6 twice, then 14B at 0.2 (MASTER, section 4.1)."""

    student_a: AgentSettings = _agent("middle", 0.6)
    student_b: AgentSettings = _agent("middle", 0.6)
    student_c: AgentSettings = _agent("strong", 0.2)


class AnalogyCast(Strict):
    """Qwen2.5-Instruct 14B at 0.2 (MASTER, section 4.1)."""

    teacher: AgentSettings = _agent("strong", 0.2)
    student: AgentSettings = _agent("strong", 0.2)


class ScenarioSettings(Strict):
    share: float = Field(1.0, ge=0, description="weight among the scenarios; equal thirds by default (UNKNOWN)")


class ErrorCorrection(ScenarioSettings):
    cast: ErrorCorrectionCast = ErrorCorrectionCast()


class Debate(ScenarioSettings):
    cast: DebateCast = DebateCast()
    rounds: tuple[Literal[1, 2], ...] = Field((1, 2), min_length=1, description="drawn evenly (rule UNKNOWN)")


class AnalogicalReasoning(ScenarioSettings):
    cast: AnalogyCast = AnalogyCast()
    k: int = Field(5, ge=1, description="neighbours to draw the second question from (UNKNOWN)")
    max_similarity: float = Field(0.95, gt=0, le=1, description="above it a neighbour is a near-duplicate (UNKNOWN)")
    min_similarity: float = Field(-1.0, ge=-1, le=1, description="below it a question is no analogy (UNKNOWN; off)")
    across_sources: bool = Field(False, description="look for neighbours in all sources together (UNKNOWN)")
    embedder: str = Field("all-minilm-l6-v2", description="name in `boost-qa models`, or a sentence-transformers folder")
    bridge: str = Field(
        "Well done. Now try a similar question: ", description="fixed sentence that introduces the similar question"
    )
    separator: str = Field("", description="between the question and the teacher's explanation; none in Figure 5")
    teacher_sees_answer: bool = Field(
        False, description="Table 7 gives the teacher the question alone, section 3.2 also the answer"
    )
    student_recalls: bool = Field(
        False, description="show the student its first answer while it works on the similar question (UNKNOWN)"
    )


class Scenarios(Strict):
    """The classroom's scenarios; null leaves one out."""

    error_correction: ErrorCorrection | None = ErrorCorrection()
    debate: Debate | None = Debate()
    analogical_reasoning: AnalogicalReasoning | None = AnalogicalReasoning()

    def active(self) -> dict[ScenarioName, ErrorCorrection | Debate | AnalogicalReasoning]:
        """The scenarios with a share, by name."""
        named = ((name, getattr(self, name)) for name in get_args(ScenarioName))
        return {name: settings for name, settings in named if settings is not None and settings.share > 0}


class Runner(Strict):
    in_flight: int = Field(256, ge=1, description="dialogues at once: times tokens per dialogue must fit the engines' caches")
    attempts: int = Field(3, ge=1, description="times a truncated, empty or looping reply is asked in all")


class Recipe(Strict):
    """A whole run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-]*$")
    seed: int = 0
    sources: tuple[AnySource, ...] = Field(min_length=1)
    dialogues: int | None = Field(
        None, ge=1, description="records that get a dialogue, spread evenly over the sources; the others only serve analogies"
    )
    assign: Literal["one", "all"] = Field("one", description="scenarios for each record: one by share, or all (UNKNOWN)")
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
        """The recipe without what cannot change a row: addresses, numbers of slots, threads."""
        content = self.model_dump(mode="json")
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


_OPERATIONAL = frozenset(
    ("base_url", "api_key_env", "concurrency", "timeout", "retries", "device", "slots", "cache_gb", "threads", "in_flight")
)
