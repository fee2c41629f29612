"""Where the questions come from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from boost_qa.config.strict import Strict


class SourceSettings(Strict):
    """What all sources share."""

    n: int | None = Field(None, ge=1, description="records to draw, seeded; all when not given")

    @property
    def most(self) -> int | None:
        """Records that there will be at most; None where the source alone knows."""
        return self.n


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

    @property
    def most(self) -> int | None:
        """`n` for each task."""
        return self.n and self.n * len(self.tasks)

    @model_validator(mode="after")
    def _finite(self) -> ReasoningGym:
        if self.n is None:
            raise ValueError("reasoning_gym is endless: give n")
        return self


AnySource = Annotated[Sample | OrcaMath | ProcQA | OpenHermes | Columns | ReasoningGym, Field(discriminator="source")]
