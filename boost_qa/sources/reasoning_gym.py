"""Tasks of the `reasoning-gym` package, made on the spot, with answers that can be checked."""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from typing import Any

from boost_qa.config import ReasoningGym
from boost_qa.errors import SourceError
from boost_qa.sources.stream import Item, Stream, Unfit, text

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def streams(settings: ReasoningGym) -> list[Stream]:
    """One stream of `n` records for each task, all named `reasoning_gym`; own ids are `task:index`.

    Raises:
        SourceError: the package is missing, or does not know a task or one of its settings.
    """
    try:
        import reasoning_gym  # the package: imports here are absolute, this module is boost_qa.sources.reasoning_gym
    except ImportError as error:
        raise SourceError(
            "reasoning_gym: the package is not installed", "pip install 'boost_qa[reasoning-gym]'"
        ) from error
    revision = f"reasoning-gym {version('reasoning-gym')}"
    n = settings.n or 0
    return [
        Stream(
            "reasoning_gym",
            settings.n,
            "Apache-2.0",
            revision,
            task,
            # twice as many as asked for: some entries repeat, and some have no answer
            partial(_items, task, _task(reasoning_gym, task, options, settings.seed, 2 * n + 64)),
            endless=True,
            remedy=", or give the task other settings.",
        )
        for task, options in settings.tasks.items()
    ]


def _task(package: Any, task: str, options: Mapping[str, Any], seed: int, size: int) -> Any:
    known = package.factory.DATASETS
    if task not in known:
        near = difflib.get_close_matches(task, known, n=3, cutoff=0.4)
        raise SourceError(f"reasoning_gym: no task {task!r}", f"Nearest: {', '.join(near)}." if near else "")
    names = sorted(field.name for field in fields(known[task][1]) if field.name not in ("seed", "size"))
    wrong = sorted(set(options) - set(names))
    if wrong:
        remedy = f"It has: {', '.join(names)}. The seed and n are the source's own settings."
        raise SourceError(f"reasoning_gym: {task} has no setting {', '.join(wrong)}", remedy)
    try:
        return package.create_dataset(task, seed=seed, size=size, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise SourceError(f"reasoning_gym: {task}: {error}", "Correct the settings of the task.") from error


def _items(task: str, entries: Any) -> Iterator[tuple[str, Item | Unfit]]:
    for index in range(len(entries)):
        place = f"{task}:{index}"
        yield place, _item(entries[index], place)


def _item(entry: dict[str, Any], place: str) -> Item | Unfit:
    if entry["answer"] is None:
        return Unfit("no reference answer")
    try:
        answer = text(entry, "answer")
        if _is_wrong(entry, answer):
            return Unfit("the answer is not what the expression comes to")
        return Item(text(entry, "question"), answer, place, final=answer)
    except Unfit as unfit:
        return unfit


def _is_wrong(entry: Mapping[str, Any], answer: str) -> bool:
    """Whether the package's answer is a number, but not the value of the expression that is asked for.

    Without parentheses its `basic_arithmetic` writes "4 / 1" for 4 divided by 2, and ignores that products come before
    sums: two thirds of the answers with its defaults, and one in five with two terms of one digit (version 0.1.25).
    """
    expression = entry.get("metadata", {}).get("expression")
    if not isinstance(expression, str):
        return False
    try:
        given = Fraction(answer)
        return given != _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        return True
    except (KeyError, SyntaxError, ValueError):  # no number, or no plain arithmetic: nothing to compare
        return False


def _value(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=sign, right=right):
            return _OPERATORS[type(sign)](_value(left), _value(right))
    raise ValueError(f"no arithmetic: {ast.dump(node)}")
