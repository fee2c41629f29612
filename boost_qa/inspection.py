"""The checks of a recipe at work: what they see in each dialogue, and whether it stays.

What asks for something (comparing answers, looking at code, a judge) is played like a scenario, and in the journal.
The rest looks at the dialogues in the run's order, for of two that are alike the first stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple

from boost_qa.agents import Accepts, Agent, Cast, agent_for
from boost_qa.bookkeeping import Found, Played, nested
from boost_qa.checks import answers, code, contamination, duplicates, injection, personal_data, roles
from boost_qa.checks.benchmarks import read_benchmarks
from boost_qa.config import Answers, Checks, Recipe
from boost_qa.engines import Engine
from boost_qa.errors import RecipeError, Rejected
from boost_qa.types import Dialogue, Record

MODULES: dict[str, Any] = {
    module.NAME: module for module in (answers, code, roles, injection, duplicates, contamination, personal_data)
}
CHECKS, JUDGE = "checks", "answer_judge"
"""Where a plan has the judge of answers among its casts."""
_PACKAGES = {
    "answers": "math_verify",
    "roles": "py3langid",
    "duplicates": "rensa",
    "personal_data": "phonenumbers",
}
LAST_SPEAKERS = ("strong_student", "student_c", "student", "writer")
WEAK_RIGHT, FINAL_WRONG = "weak right", "final wrong"


class Inspected(NamedTuple):
    """A dialogue after all checks, masked if the settings say so; `why` are the labels that it leaves for."""

    dialogue: Dialogue
    found: Found
    why: list[str]


class Inspection:
    """The checks of one run.

    Args:
        settings: which are made.
        prompts: what each speaker is told, by scenario and role.
        markers: the canary of each speaker, where there are any.
        language: that the dialogues should be in.
        judge: decides where the reference is free text.

    Raises:
        RecipeError: if `settings.drop` names a label that none of these checks gives.
        SourceError: if a benchmark cannot be read.
        ModelError: if code is to run, and nothing here isolates it.
    """

    def __init__(
        self,
        settings: Checks,
        *,
        prompts: Mapping[str, str] | None = None,
        markers: Mapping[str, str] | None = None,
        language: str = "English",
        judge: Agent | None = None,
    ) -> None:
        check_labels(settings)
        self.settings, self.language, self.judge = settings, language, judge
        self.prompts, self.markers = dict(prompts or {}), dict(markers or {})
        self.duplicates = duplicates.Duplicates(settings.duplicates.threshold) if settings.duplicates else None
        self.contamination: contamination.Contamination | None = None
        if settings.contamination:
            items = read_benchmarks(settings.contamination.benchmarks)
            self.contamination = contamination.Contamination(contamination.Index(items))
        self.engines: dict[str, Engine] = {}
        if settings.answers:
            self.engines[answers.ANSWERS_MODEL] = answers.referee(settings.answers.seconds, settings.answers.memory_mib)
        if settings.code:
            self.engines[code.CODE_MODEL] = code.examiner(settings.code)

    async def ask(self, dialogue: Dialogue) -> Found:
        """What the checks see that ask; awaits nothing but requests."""
        found: Found = {}
        dialogue = self._as_kept(dialogue)
        if self.settings.answers:
            found[answers.NAME] = await answers.look(dialogue, self.judge)
        if self.settings.code:
            found[code.NAME] = await code.look(dialogue, self.settings.code)
        return found

    def look(self, played: Played) -> Inspected:
        """What all checks see. Dialogues are to be given in the run's order, each once.

        What findings quote is what is kept: personal data is counted, and masked before anything else looks.
        """
        dialogue, settings, found = self._as_kept(played.dialogue), self.settings, dict(played.found)
        if settings.roles:
            found[roles.NAME] = roles.look(dialogue, self.prompts, self.language)
        if settings.injection:
            found[injection.NAME] = injection.look(dialogue, self.markers)
        if self.contamination:
            found[contamination.NAME] = self.contamination.look(dialogue)
        if settings.personal_data:
            found[personal_data.NAME] = personal_data.look(played.dialogue)
        labels = {finding.label for findings in found.values() for finding in findings}
        # who leaves anyway must not make another one leave that is like it
        if self.duplicates and not labels & set(settings.drop):
            found[duplicates.NAME] = self.duplicates.look(dialogue, settings.drop)
            labels |= {finding.label for finding in found[duplicates.NAME]}
        return Inspected(dialogue, found, [at for at in settings.drop if at in labels])

    def look_at_source(self, record: Record) -> None:
        """Look for benchmarks in a record by itself; what is found is among the hits of `contamination`."""
        if self.contamination:
            self.contamination.look_at_source(_masked_record(record)[0] if self._masks else record)

    def _as_kept(self, dialogue: Dialogue) -> Dialogue:
        return masked(dialogue) if self._masks else dialogue

    @property
    def _masks(self) -> bool:
        return self.settings.personal_data is not None and self.settings.personal_data.mask


def inspection(recipe: Recipe, casts: Mapping[str, Cast]) -> Inspection:
    """The checks of a recipe, which knows what its casts are told.

    Raises: what Inspection raises.
    """
    assert recipe.checks is not None
    playing = {scenario: cast for scenario, cast in casts.items() if scenario != CHECKS}
    prompts = {
        f"{scenario}/{role}": agent.prompt.role for scenario, cast in playing.items() for role, agent in cast.items()
    }
    markers = {role: injection.canary(recipe.seed, "", role) for cast in playing.values() for role in cast}
    canaries = recipe.checks.injection is not None and recipe.checks.injection.canary
    judge = casts.get(CHECKS, {}).get(JUDGE)
    return Inspection(
        recipe.checks, prompts=prompts, markers=markers if canaries else {}, language=recipe.language, judge=judge
    )


def rows(found: Found) -> list[dict[str, Any]]:
    """As JSON: a row for each finding, and one without a label for each check that saw nothing."""

    def row(name: str, label: str | None = None, turn: int | None = None, detail: str = "") -> dict[str, Any]:
        return {"check": name, "version": MODULES[name].VERSION, "label": label, "turn": turn, "detail": detail}

    return [
        each
        for name, findings in found.items()
        for each in [row(name, one.label, one.turn, one.detail) for one in findings] or [row(name)]
    ]


def check_labels(settings: Checks) -> None:
    """Make sure that `drop` names labels which the checks that are made can give.

    Raises:
        RecipeError: naming the label, and those that there are.
    """
    known = {label: name for name in settings.made() for label in MODULES[name].LABELS}
    for label in settings.drop:
        if label not in known:
            off = next((name for name, module in MODULES.items() if label in module.LABELS), None)
            why = f"the check {off} is left out" if off else "there is no such label"
            raise RecipeError(
                f"checks.drop: {label!r}: {why}", f"Labels of the checks that are made: {', '.join(known)}."
            )


def check_packages(settings: Checks) -> None:
    """Make sure that the packages are here which the checks that are made import when they need them.

    Raises:
        RecipeError: naming check and package.
    """
    for name in settings.made():
        package = _PACKAGES.get(name)
        try:
            there = package is None or find_spec(package) is not None
        except ValueError:  # it was made to be missing
            there = False
        if not there:
            raise RecipeError(f"the check {name} needs {package}", "pip install 'boost_qa[checks]'")


def with_checks(casts: Mapping[str, Cast], recipe: Recipe) -> dict[str, Cast]:
    """The casts of a recipe with its judge of answers among them; each agent as the checks want it.

    Role prompts hold canaries, and replies are held against the reference answer, where the settings say so.

    Raises:
        RecipeError: if `drop` names a label that no check gives, or a prompt file cannot be used.
    """
    settings = recipe.checks
    assert settings is not None
    check_packages(settings)
    check_labels(settings)
    found: dict[str, Cast] = {}
    if settings.answers and settings.answers.judge:
        found[CHECKS] = {JUDGE: agent_for(recipe, settings.answers.judge, JUDGE, CHECKS)}
    found |= {scenario: _watched(cast, settings, recipe.seed) for scenario, cast in casts.items()}
    return found


def _watched(cast: Cast, settings: Checks, seed: int) -> Cast:
    found = {}
    for role, agent in cast.items():
        if settings.injection and settings.injection.canary:
            told = injection.planted(agent.prompt.role, injection.canary(seed, "", role))
            agent = replace(agent, prompt=replace(agent.prompt, role=told))
        if settings.answers and role == "weak_student" and settings.answers.weak_right != "keep":
            agent = replace(agent, accepts=_mistaken(settings.answers))
        if settings.answers and role in LAST_SPEAKERS and settings.answers.final_wrong != "keep":
            agent = replace(agent, accepts=_correct)
        found[role] = agent
    return found


def _mistaken(settings: Answers) -> Accepts:
    async def accepts(record: Record, text: str) -> str | None:
        if (await answers.agreement(record, text)).verdict != "right":
            return None
        if settings.weak_right == "ask_again":
            return WEAK_RIGHT
        raise Rejected(WEAK_RIGHT, text[:200])

    return accepts


async def _correct(record: Record, text: str) -> str | None:
    return FINAL_WRONG if (await answers.agreement(record, text)).verdict == "wrong" else None


def without_personal_data(records: Iterable[Record]) -> tuple[list[Record], dict[str, dict[str, int]]]:
    """The records masked, and how often what was masked in each source; ids stay those of the records as they came."""
    clean, counts = [], Counter[tuple[str, str]]()
    for record in records:
        without, found = _masked_record(record)
        counts.update({(record.source, kind): count for kind, count in found.items()})
        clean.append(without)
    return clean, nested(counts)


def masked(dialogue: Dialogue) -> Dialogue:
    """The dialogue without personal data in turns and records, so that a turn still has its question in it."""
    return replace(
        dialogue,
        record=_masked_record(dialogue.record)[0],
        related=dialogue.related and _masked_record(dialogue.related)[0],
        turns=tuple(replace(turn, text=personal_data.masked(turn.text)[0]) for turn in dialogue.turns),
    )


def _masked_record(record: Record) -> tuple[Record, Counter[str]]:
    """The record masked, and how often what was found in question and answer."""
    (question, of_question), (answer, of_answer) = map(personal_data.masked, (record.question, record.answer))
    final = record.final and personal_data.masked(record.final)[0]
    return replace(record, question=question, answer=answer, final=final), of_question + of_answer
