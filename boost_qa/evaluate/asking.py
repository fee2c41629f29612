"""What an evaluation asks: the questions of a suite or of named tasks, all at hand before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from boost_qa.errors import RecipeError, SourceError
from boost_qa.evaluate.benchmark import Benchmark, Questions, benchmarks, local_place, read_questions

Suite = Literal["paper", "quick"]


@dataclass
class Asked:
    """Our tasks with their questions, the harness's tasks, and what a suite leaves out, with the reason."""

    ours: dict[str, tuple[Benchmark, Questions]] = field(default_factory=dict)
    standard: list[Any] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


class LocalData:
    """Local files: a folder, or the files of tasks by name.

    Args:
        given: `FOLDER` or `TASK=FILE` each; nothing at all means the Hub.

    Raises:
        RecipeError: one does not exist, or there are two folders.
    """

    def __init__(self, given: Sequence[str] = ()) -> None:
        self.folder: Path | None = None
        self.files: dict[str, Path] = {}
        for one in given:
            name, equals, path = one.partition("=")
            place = Path(path if equals else one).expanduser()
            if not place.exists():
                raise RecipeError(f"--data {one}: {place} does not exist", "Give a folder, or TASK=FILE.")
            if equals:
                self.files[name] = place
            elif self.folder is not None or not place.is_dir():
                raise RecipeError(f"--data {one}: it is no folder, or the second", "Give one folder, and TASK=FILE.")
            else:
                self.folder = place

    def missing(self, name: str, benchmark: Benchmark) -> str | None:
        """Why there are no questions to be had; None where there are, here or on the Hub."""
        if name in self.files or (self.folder is not None and local_place(benchmark, self.folder)):
            return None
        if self.folder is not None:
            return f"no file called {' or '.join(benchmark.files)} in {self.folder.name}"
        return benchmark.unknown if benchmark.hub is None else None

    def paths(self, name: str, benchmark: Benchmark) -> list[Path] | None:
        """The files of a benchmark; None for the Hub."""
        if name in self.files:
            return [self.files[name]]
        return None if self.folder is None else local_place(benchmark, self.folder)


def ask(suite: Suite, tasks: Sequence[str], data: LocalData) -> Asked:
    """Read all questions.

    Args:
        suite: `paper` is all benchmarks of the paper, and the harness's own tasks of them; taken if no tasks are named.
        tasks: ours, or any of the harness.
        data: where a folder is given, a suite leaves out what is not in it.

    Raises:
        RecipeError: there is no such task, or nothing to ask.
        SourceError: the questions of a task cannot be had.
    """
    known, asked = benchmarks(), Asked()
    named = tuple(dict.fromkeys(tasks)) or tuple(name for name, one in known.items() if suite in one.suites)
    for name in (name for name in named if name in known):
        if why := data.missing(name, known[name]):
            if tasks:
                raise SourceError(f"{name}: {why}", f"Fetch it, and give --data {name}=FILE.")
            asked.left_out[name] = f"{name}: {why}"
        else:
            asked.ours[name] = known[name], read_questions(name, known[name], data.paths(name, known[name]))
    theirs = [name for name in named if name not in known]
    if suite == "paper" and not tasks:
        theirs = [one.standard for name, one in known.items() if name in named and one.standard is not None]
    if theirs:
        _add_standard(theirs, data, asked, leave_out=not tasks)
    if strangers := sorted(data.files.keys() - {*named, *theirs}):
        raise RecipeError(f"--data names {strangers[0]}, which is not asked", "Leave it out, or add it with --tasks.")
    if not asked.ours and not asked.standard:
        raise RecipeError(f"nothing can be asked: {'; '.join(asked.left_out.values())}", "Look at --data.")
    return asked


def _add_standard(wanted: Sequence[str], data: LocalData, asked: Asked, leave_out: bool) -> None:
    from boost_qa.evaluate import standard

    if unknown := sorted(name for name in wanted if name.startswith("boost_")):
        raise RecipeError(f"there is no task {', '.join(unknown)}", f"Ours are {', '.join(benchmarks())}.")
    for name in wanted:
        if leave_out and data.folder is not None and name not in data.files:
            asked.left_out[name] = f"{name} (the harness's own): give --data {name}=FILE in the columns of its dataset"
        else:
            asked.standard += standard.standard_tasks(name, data.files.get(name))
