"""Recipes: one strict YAML file says everything that a run depends on.

Every setting that the paper leaves UNKNOWN is a field here with its default. Secrets are never part
of a recipe: it names the environment variable that holds one. `recipe_file` reads and explains.
"""

from __future__ import annotations

from boost_qa.config.checks import (
    Answers,
    Benchmark,
    Checks,
    Code,
    Contamination,
    Duplicates,
    Injection,
    PersonalData,
)
from boost_qa.config.classroom import (
    AgentSettings,
    AnalogicalReasoning,
    AnalogyCast,
    AnyScenario,
    Debate,
    DebateCast,
    Direct,
    DirectCast,
    ErrorCorrection,
    ErrorCorrectionCast,
    MasterScenario,
    ScenarioName,
    Scenarios,
    ScenarioSettings,
)
from boost_qa.config.models import AnyModel, Embedded, OpenAI
from boost_qa.config.recipe import Recipe, Runner
from boost_qa.config.sources import (
    AnySource,
    Columns,
    FileSourceSettings,
    OpenHermes,
    OrcaMath,
    ProcQA,
    ReasoningGym,
    Sample,
    SourceSettings,
)
from boost_qa.config.star import Bank, Pair, Star
from boost_qa.config.strict import SECRET, Strict

__all__ = [
    "SECRET",
    "AgentSettings",
    "AnalogicalReasoning",
    "AnalogyCast",
    "Answers",
    "AnyModel",
    "AnyScenario",
    "AnySource",
    "Bank",
    "Benchmark",
    "Checks",
    "Code",
    "Columns",
    "Contamination",
    "Debate",
    "DebateCast",
    "Direct",
    "DirectCast",
    "Duplicates",
    "Embedded",
    "ErrorCorrection",
    "ErrorCorrectionCast",
    "FileSourceSettings",
    "Injection",
    "MasterScenario",
    "OpenAI",
    "OpenHermes",
    "OrcaMath",
    "Pair",
    "PersonalData",
    "ProcQA",
    "ReasoningGym",
    "Recipe",
    "Runner",
    "Sample",
    "ScenarioName",
    "ScenarioSettings",
    "Scenarios",
    "SourceSettings",
    "Star",
    "Strict",
]
