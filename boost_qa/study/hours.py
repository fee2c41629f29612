"""What a study will cost in hours of one GPU, before anything is run.

Training is planned as `boost-qa plan` does. What generation and evaluation take hangs on servers and on how long
models talk; the study says what is reckoned with (`assumed`), and the table repeats it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from boost_qa.config import ReasoningGym
from boost_qa.derived import TAGCOS
from boost_qa.errors import RecipeError
from boost_qa.plan import plan
from boost_qa.study.settings import Arm, Study
from boost_qa.study.steps import changes_of, training_changes, training_settings


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run or arm: `rows` dialogues, `hours` of one GPU for each of `times` times."""

    what: str
    rows: int | None
    hours: float
    times: int

    @property
    def total(self) -> float:
        return self.hours * self.times


def hours(study: Study) -> list[Cost]:
    """Every generation, training and evaluation.

    Raises:
        RecipeError: a recipe does not parse, does not say how many dialogues there will be, or the GPU is not known.
    """
    assumed = study.assumed
    rows = {name: _dialogues(study, name) for name in study.runs}
    found = [Cost(f"generate {name}", n, n * assumed.tokens / assumed.generated / 3600, 1) for name, n in rows.items()]
    questions, reply = asked(study)
    evaluation = questions * reply / assumed.evaluated / 3600
    trained: dict[tuple[int, tuple[tuple[str, str], ...]], float] = {}
    for name, arm in study.arms.items():
        times = len(study.seeds) if arm.run else 1
        if arm.run:
            n = min(arm.rows or rows[arm.run], rows[arm.run])
            key = n, tuple(training_changes(study, arm))
            if key not in trained:
                trained[key] = _training(study, arm, n)
            found.append(Cost(f"train {name}", n, trained[key], times))
        found.append(Cost(f"evaluate {name}", None, evaluation, times))
    return found


def asked(study: Study) -> tuple[int, int]:
    """Questions of an evaluation, known where held-out ones alone are asked and else assumed; and tokens of a reply."""
    settings = study.evaluate
    reply = min(study.assumed.reply, settings.max_tokens)
    if study.held_out is None or settings.suite or settings.tasks:
        return study.assumed.questions, reply
    kinds = sum(len(source.tasks) if isinstance(source, ReasoningGym) else 1 for source in study.held_out.sources)
    return study.held_out.n * kinds, reply


def shown(study: Study, costs: list[Cost]) -> Table:
    """The costs as a table."""
    assumed, (questions, reply) = study.assumed, asked(study)
    table = Table(title=f"study {study.name}, scale {study.scale}: hours of one {assumed.gpu}")
    for name in ("", "rows", "hours", "times", "together"):
        table.add_column(name, justify="left" if not name else "right")
    for cost in costs:
        table.add_row(
            cost.what, "-" if cost.rows is None else f"{cost.rows:,}", f"{cost.hours:.2f}", str(cost.times),
            f"{cost.total:.1f}",
        )  # fmt: skip
    table.add_section()
    table.add_row("all", "", "", "", f"{sum(cost.total for cost in costs):,.1f}")
    evaluated = f"{questions:,} questions an evaluation, {reply} tokens a reply, {assumed.evaluated:,.0f} a second; "
    others = {"checks": study.check, "judged analogies": study.analogies, "looks into adapters": study.mechanism}
    others |= {"coresets": any(arm.config == TAGCOS for arm in study.arms.values())}
    left_out = [name for name, there in others.items() if there]
    table.caption = (
        f"Reckoned with {assumed.tokens} tokens a dialogue, {assumed.generated:,.0f} of them written a second; "
        + (f"{evaluated}training as boost-qa plan has it" if study.arms else "nothing is trained")
        + (f". Not in it: {', '.join(left_out)}." if left_out else ".")
    )
    return table


def _dialogues(study: Study, run: str) -> int:
    number = plan(study.runs[run].recipe, changes_of(study, run)).dialogues
    if number is None:
        remedy = "Set dialogues, or n of each source."
        raise RecipeError(f"runs.{run}: how many dialogues there will be is not said", remedy)
    return number


def _training(study: Study, arm: Arm, rows: int) -> float:
    from boost_qa.train.plan import plan_recipe

    settings = training_settings(study, arm.model_copy(update={"change": (*arm.change, f"gpu={study.assumed.gpu}")}))
    planned = plan_recipe(settings, 1, None, rows, study.assumed.tokens)
    assert planned.prediction is not None
    return planned.prediction.seconds / 3600
