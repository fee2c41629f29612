"""What is looked at in finished dialogues, and what becomes of those that do not pass; neither paper checks any."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from boost_qa.config.classroom import AgentSettings
from boost_qa.config.strict import Strict


class Answers(Strict):
    """Replies are held against the reference answer."""

    weak_right: Literal["keep", "ask_again", "move", "drop"] = Field(
        "keep",
        description="a weak student who is right: kept and labelled, asked again until wrong (or the record goes), "
        "its record debated instead, or dropped (UNKNOWN)",
    )
    final_wrong: Literal["keep", "ask_again"] = Field(
        "keep",
        description="a last turn that is wrong, or the first answer of an analogy: kept and labelled (`drop` can name "
        "the label), or asked again until it is not wrong (or the record goes)",
    )
    judge: AgentSettings | None = Field(
        None,
        description="decides where the reference is free text and nothing can be compared, once for each finished "
        "dialogue: what it says labels and drops, but makes nobody be asked again; null: unknown",
    )
    seconds: float = Field(3.0, gt=0, description="for one comparison; then its process is ended, and it is unknown")
    memory_mib: int = Field(1024, ge=256, description="of a process that compares")


class Code(Strict):
    """Code in answers at least parses, where a compiler is at hand; it runs only in isolation."""

    run: bool = Field(False, description="run Python, in bubblewrap; an error where there is no isolation")
    seconds: float = Field(5.0, gt=0, description="for one block of code")
    memory_mib: int = Field(512, ge=64)


class Injection(Strict):
    """Source text that speaks to the model."""

    canary: bool = Field(True, description="a word in every role prompt that nobody has a reason to say")


class Duplicates(Strict):
    threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity from which two texts count as one")


class Benchmark(Strict):
    """Questions that must not be in the data: a file, or a dataset on the Hub."""

    name: str = Field(min_length=1)
    path: str | None = Field(None, description="local JSON, JSON lines (.gz too) or Parquet")
    repo: str | None = Field(None, description="dataset on the Hub")
    revision: str | None = None
    config: str | None = None
    split: str = "test"
    fields: tuple[str, ...] = Field((), description="what is compared; by default the usual names of questions")

    @model_validator(mode="after")
    def _somewhere(self) -> Benchmark:
        if (self.path is None) == (self.repo is None):
            raise ValueError(f"benchmark {self.name!r}: give exactly one of path and repo")
        return self


class Contamination(Strict):
    """Runs of words that a benchmark has, too."""

    benchmarks: tuple[Benchmark, ...] = Field(min_length=1)


class PersonalData(Strict):
    mask: bool = Field(True, description="put a label in its place; it is counted always")


class Checks(Strict):
    """Which checks are made; null leaves one out."""

    answers: Answers | None = Answers()
    code: Code | None = Code()
    roles: bool = True
    injection: Injection | None = Injection()
    duplicates: Duplicates | None = Duplicates()
    contamination: Contamination | None = None
    personal_data: PersonalData | None = PersonalData()
    drop: tuple[str, ...] = Field((), description="labels; a dialogue that has one of them leaves the run")

    def agents(self) -> dict[str, AgentSettings]:
        """Everybody who speaks, by key of these settings."""
        judge = self.answers.judge if self.answers else None
        return {} if judge is None else {"answers.judge": judge}

    def made(self) -> list[str]:
        """The names of the checks that are made."""
        return [name for name in type(self).model_fields if name != "drop" and getattr(self, name)]

    @field_validator("drop", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given
