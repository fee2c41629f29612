"""Recipes: one strict YAML file says everything that a run depends on.

Every setting that the paper leaves UNKNOWN is a field here with its default; unknown keys are
errors that name the nearest known one. Secrets are never part of a recipe: it names the
environment variable that holds one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from boost_qa.errors import RecipeError

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
    embedder: str = Field("all-minilm-l6-v2", description="name in `boost-qa models`, a Hub id, or a folder")
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


# --- reading -------------------------------------------------------------------------------------


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe: a file, or the name of one that comes with the package (`demo`).

    Args:
        path: a YAML file, or a bare name.
        overrides: `key=value` with dots between levels and list positions as numbers, such as
            `sources.0.n=100` or `scenarios.debate=null`; values are YAML.

    Raises:
        RecipeError: naming the file, the key and the nearest known key.
    """
    file = find_recipe(path)
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{file}: {error}", "A recipe is a YAML file; `recipes/generate/demo.yaml` is an example.") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{file}: holds no mapping", "A recipe is `key: value` lines; see recipes/generate/demo.yaml.")
    for override in overrides:
        _set(raw, override)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{file}: " + "; ".join(_explain(error)), "Correct the recipe, or the key=value given with it.") from None


def find_recipe(path: str | Path) -> Path:
    """The file that `path` means: itself, or a packaged recipe of that name.

    Raises:
        RecipeError: if there is neither.
    """
    given = Path(path).expanduser()
    if given.is_file():
        return given
    folder = recipe_folder()
    packaged = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if str(path) in packaged:
        return packaged[str(path)]
    raise RecipeError(f"no recipe {str(path)!r}", f"Give a YAML file, or one of: {', '.join(packaged)}.")


def recipe_folder() -> Path:
    """Where the recipes for generation are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent
    inside = package / "recipes" / "generate"
    return inside if inside.is_dir() else package.parent / "recipes" / "generate"


def _set(raw: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise RecipeError(f"override {override!r} is not key=value", "Write for example sources.0.n=100.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {override!r}: {error}", "The value is read as YAML.") from error
    *parents, last = dotted.split(".")
    level: Any = raw
    for name in parents:
        if isinstance(level, list) and name.isdigit() and int(name) < len(level):
            level = level[int(name)]
        elif isinstance(level, dict):
            if level.get(name) is None:
                level[name] = {}
            level = level[name]
        else:
            raise RecipeError(f"override {override!r}: there is no {name!r}", "Name list entries by number, from 0.")
    if isinstance(level, list) and last.isdigit() and int(last) < len(level):
        level[int(last)] = value
    elif isinstance(level, dict):
        level[last] = value
    else:
        raise RecipeError(f"override {override!r}: there is no {last!r}", "Name list entries by number, from 0.")


def _explain(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        # pydantic puts the tag of a union ("openhermes") into the location; it is no key of the file
        location = ".".join(str(part) for part in item["loc"] if part not in _TAGS)
        if item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            yield f"unknown key {location!r}" + (f" (nearest known key: {near[0]!r})" if near else "")
        elif item["type"] == "value_error":
            yield (f"{location}: " if location else "") + item["msg"].removeprefix("Value error, ")
        else:
            yield f"{location}: {item['msg']}"


def _settings(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in cls.__subclasses__():
        yield child
        yield from _settings(child)


_KEYS = sorted({name for settings in _settings(Strict) for name in settings.model_fields})
_TAGS = frozenset(
    tag
    for settings in _settings(Strict)
    for field in ("source", "engine")
    if field in settings.model_fields
    for tag in get_args(settings.model_fields[field].annotation)
)
