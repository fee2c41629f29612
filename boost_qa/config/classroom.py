"""The classroom: agents, who plays which part, and the scenarios."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from boost_qa.config.strict import Strict

MasterScenario = Literal["error_correction", "debate", "analogical_reasoning"]
"""The three of the paper."""
ScenarioName = Literal[MasterScenario, "direct"]


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


class DirectCast(Strict):
    """The model that answers last in the classroom, sampled as it is there."""

    writer: AgentSettings = _agent("strong", 0.2)


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
    embedder: str = Field(
        "all-minilm-l6-v2", description="name in `boost-qa models`, or a sentence-transformers folder"
    )
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


class Direct(ScenarioSettings):
    """The control that MASTER lacks: what the same teacher teaches without a classroom."""

    cast: DirectCast = DirectCast()
    sees_answer: bool = Field(
        True, description="show the writer the reference answer, as the classroom's last speakers are; else none"
    )


AnyScenario = ErrorCorrection | Debate | AnalogicalReasoning | Direct


class Scenarios(Strict):
    """The classroom's scenarios; null leaves one out. `direct`, which is not of the paper, is off until it is named."""

    error_correction: ErrorCorrection | None = ErrorCorrection()
    debate: Debate | None = Debate()
    analogical_reasoning: AnalogicalReasoning | None = AnalogicalReasoning()
    direct: Direct | None = None

    def active(self) -> dict[str, AnyScenario]:
        """The scenarios with a share, by name."""
        named = ((name, getattr(self, name)) for name in get_args(ScenarioName))
        return {name: settings for name, settings in named if settings is not None and settings.share > 0}

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that recipes without it, with their digests and files, are what they were before there was any."""
        dumped: dict[str, Any] = dump(self)
        return {key: value for key, value in dumped.items() if key != "direct" or value is not None}
