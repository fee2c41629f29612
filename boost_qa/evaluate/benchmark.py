"""Benchmarks: one YAML file for each in `tasks/`, and their questions, from the Hub or from local files.

A row becomes an item by expressions (Jinja's) over its columns. The same benchmark comes in different columns from
different places: the first of `rows` whose columns are all there is used.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field, ValidationError

from boost_qa.config import Columns, Strict
from boost_qa.errors import RecipeError, SourceError
from boost_qa.sources.files import DataFile, content_revision, local_files
from boost_qa.sources.formats import read_columns, read_rows
from boost_qa.sources.stream import Unfit
from boost_qa.sources.table import find_table
from boost_qa.types import digest

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_log = logging.getLogger(__name__)
_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined)
_ENVIRONMENT.filters["pieces"] = lambda text, pattern: re.findall(pattern, text, re.DOTALL)


class Hub(Strict):
    """Where the questions are on the Hub; several configs are read one after the other."""

    repo: str
    configs: tuple[str, ...] = ()
    split: str = "test"
    revision: str | None = None
    under: str = Field("", description="folder of the repository that its files are taken from")


class Rows(Strict):
    """What an item is made of: expressions over the columns of a row."""

    question: str
    options: str | None = Field(None, description="of multiple choice: the texts")
    answer: str | None = Field(
        None, description="letter or place of the right option; of mathematics or code: a solution"
    )
    final: str | None = Field(None, description="of mathematics: the bare result")
    start: str | None = Field(None, description="of code: what stands before the reply, if it goes on from there")
    entry: str | None = Field(None, description="of code: the function that the tests call")
    tests: str | None = Field(None, description="of code: statements that raise where the reply is wrong")
    keep: str | None = Field(None, description="false for a row that is no part of the benchmark")

    def expressions(self) -> dict[str, str]:
        return {name: text for name, text in self.model_dump().items() if text is not None}

    def columns(self) -> set[str]:
        """The columns that the expressions read."""
        parsed = (_ENVIRONMENT.parse(f"{{{{ {text} }}}}") for text in self.expressions().values())
        return {name for tree in parsed for name in meta.find_undeclared_variables(tree)}


class Benchmark(Strict):
    """A set of questions, and how replies are scored."""

    title: str
    kind: Literal["choice", "math", "code"]
    paper: str = Field(description="what is known of it in the paper")
    items: int | None = Field(None, description="questions there, where the paper's numbers say how many")
    hub: Hub | None = None
    unknown: str | None = Field(None, description="why nothing is known on the Hub; local files alone are read")
    files: tuple[str, ...] = Field(min_length=1, description="names that local files have, in lower case")
    others: tuple[str, ...] = Field((), description="of those, names that files of other benchmarks have")
    rows: tuple[Rows, ...] = Field(min_length=1)
    shuffle: bool = Field(False, description="options stand in an order of their own in each question")
    standard: str | None = Field(None, description="the harness's own task of the same benchmark")
    suites: tuple[Literal["paper", "quick"], ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `id` names its content and is the same in every run; fields are those of `Rows`.

    Of multiple choice `answer` is a letter, and the options' letters are the alphabet's first.
    """

    id: str
    question: str
    options: tuple[str, ...] = ()
    answer: str = ""
    final: str = ""
    start: str = ""
    entry: str = ""
    tests: str = ""

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]


@dataclass(frozen=True, slots=True)
class Questions:
    """The items of a benchmark, in a fixed order that has nothing to do with their subject: the first n are a sample.

    `where` is the Hub id or the name of the local file; `revision` a commit or `sha256:...` of the content.
    """

    items: tuple[Item, ...]
    where: str
    revision: str
    local: bool


@cache
def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by the names of their tasks.

    Raises:
        RecipeError: a file is no benchmark.
    """
    files = sorted((resources.files(__package__) / "tasks").iterdir(), key=lambda file: file.name)
    found = {}
    for file in files:
        if file.name.endswith(".yaml"):
            try:
                content = yaml.safe_load(file.read_text(encoding="utf-8"))
                found[file.name.removesuffix(".yaml")] = Benchmark.model_validate(content)
            except (ValidationError, yaml.YAMLError) as error:
                raise RecipeError(f"{file.name}: {error}", "See the other files of the folder.") from error
    return found


def local_place(benchmark: Benchmark, folder: Path) -> list[Path]:
    """The files in `folder`, or below it, whose names are those of the benchmark's; empty where there are none.

    Raises:
        SourceError: there is no such folder, or no data file in it.
    """
    names = [file.name for file in local_files(str(folder), "test")]
    ours = [name for name in names if any(fnmatch(name.lower(), one) for one in benchmark.files)]
    return [folder / name for name in ours if not any(fnmatch(name.lower(), one) for one in benchmark.others)]


def read_questions(name: str, benchmark: Benchmark, paths: list[Path] | None = None) -> Questions:
    """All items of a benchmark, from local files if `paths` are given, else from the Hub.

    Raises:
        SourceError: the files cannot be had, lack columns, or a row of them is no item; names file, row and key.
    """
    files, where, revision = _hub(name, benchmark) if paths is None else _local(paths)
    rows = {path: _rows(name, benchmark, path, file) for path, file in files.items()}
    kinds = {str(one): files[path].name for path, one in rows.items()}
    if len(kinds) > 1:
        what = f"{name}: {' and '.join(kinds.values())} have other columns, and so are not one benchmark"
        raise SourceError(what, f"Say which it is: --data {name}=FILE.")
    read = {path: list(_read(name, file, rows[path], benchmark)) for path, file in files.items()}
    items = _told_apart([item for found in read.values() for item in found])
    if not items:
        raise SourceError(f"{name}: no item in {where}", "Give another file, or look at `keep` of the task.")
    if paths is not None and len(items) != benchmark.items:
        each = {path: _told_apart(found) for path, found in read.items() if found}
        # a file that holds what others hold, as all of them together, is the same questions, and not more
        items = list({item.id: item for found in each.values() for item in found}.values())
        _check_number(name, benchmark, len(items), [files[path].name for path in each])
    return Questions(tuple(sorted(items, key=lambda item: digest(item.id))), where, revision, paths is not None)


def _told_apart(items: Iterable[Item]) -> list[Item]:
    """With an id each: a question that stands there twice is two items."""
    seen: Counter[str] = Counter()
    apart = []
    for item in items:
        seen[item.id] += 1
        apart.append(item if seen[item.id] == 1 else replace(item, id=f"{item.id}-{seen[item.id]}"))
    return apart


def _check_number(name: str, benchmark: Benchmark, found: int, files: Sequence[str]) -> None:
    """Warn of several files with too few questions, which may be a part on purpose.

    Raises:
        SourceError: they hold more than the benchmark has, and so another one, too.
    """
    if benchmark.items is None or found == benchmark.items or len(files) == 1:
        return
    named = ", ".join(files[:4]) + (", ..." if len(files) > 4 else "")
    what = f"{name}: {len(files)} files hold {found:,} questions, and the benchmark has {benchmark.items:,}: {named}"
    if found > benchmark.items:
        raise SourceError(what, f"Say which it is: --data {name}=FILE.")
    _log.warning("%s", what)


def _hub(name: str, benchmark: Benchmark) -> tuple[dict[str, DataFile], str, str]:
    """The files by their whole paths, where they are, and their revision."""
    assert benchmark.hub is not None
    hub, commit = benchmark.hub, ""
    files: dict[str, DataFile] = {}
    for config in hub.configs or (None,):
        columns = Columns(
            source="columns", name="benchmark", question="", answer="", repo=hub.repo, revision=hub.revision,
            split=hub.split,
        )  # fmt: skip
        table = find_table(columns, name, config=config)
        files |= {f"{hub.repo}/{file.name}": file for file in table.files if file.name.startswith(hub.under)}
        commit = table.commit or ""
    return files, hub.repo, commit


def _local(paths: list[Path]) -> tuple[dict[str, DataFile], str, str]:
    """The same; the names of files start at the folder that holds all of them."""
    there = {
        (path if path.is_dir() else path.parent) / file.name: file
        for path in paths
        for file in local_files(str(path), "test")
    }
    top = os.path.commonpath([path.parent for path in there])
    files = {str(path): replace(file, name=path.relative_to(top).as_posix()) for path, file in there.items()}
    return files, ", ".join(path.name for path in paths), content_revision(list(there.values()))


def _rows(name: str, benchmark: Benchmark, path: str, file: DataFile) -> Rows:
    there = set(read_columns(file))
    rows = next((rows for rows in benchmark.rows if rows.columns() <= there), None)
    if rows is None:
        needed = " or ".join(", ".join(sorted(rows.columns())) for rows in benchmark.rows)
        what = f"{name}: {path} has the columns {', '.join(sorted(there)) or '-'}; needed: {needed}"
        raise SourceError(what, f"Give another file: --data {name}=FILE.")
    return rows


def _read(name: str, file: DataFile, rows: Rows, benchmark: Benchmark) -> Iterator[Item]:
    compiled = {
        key: _ENVIRONMENT.compile_expression(text, undefined_to_none=False) for key, text in rows.expressions().items()
    }
    for place, row in read_rows(file, sorted(rows.columns())):
        if isinstance(row, Unfit):
            raise SourceError(f"{name}: {place}: {row.reason}", "Fetch the file again.")
        cells = {column: _given(cell) for column, cell in row.items()}
        fields: dict[str, Any] = {}
        for key in ("keep", *(key for key in compiled if key != "keep")):
            if key in compiled:
                try:
                    fields[key] = compiled[key](cells)
                    str(fields[key])  # what is undefined says so only when it is used
                except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
                    raise SourceError(f"{name}: {place}: {key}: {error}", "The row has other contents.") from error
            if key == "keep" and not fields.pop("keep", True):
                break
        else:
            yield _item(name, place, benchmark, fields)


def _item(name: str, place: str, benchmark: Benchmark, fields: Mapping[str, Any]) -> Item:
    texts = {key: str(_given(value)) for key, value in fields.items() if key not in ("options", "answer")}
    options = tuple(str(_given(option)) for option in fields.get("options") or ())
    answer = _given(fields.get("answer"))
    item = Item("", options=options, answer=str(answer), **texts)
    item = replace(item, id=digest(*(str(value) for value in asdict(item).values()))[:16])
    if not item.question.strip():
        raise SourceError(f"{name}: {place}: question is empty", "Mend the row, or remove it.")
    if benchmark.kind == "math" and not (item.answer.strip() or item.final.strip()):
        raise SourceError(f"{name}: {place}: there is no answer", "Mend the row, or remove it.")
    if benchmark.kind != "choice":
        return item
    letter = item.answer.strip().upper()
    right = answer if isinstance(answer, int) else LETTERS.find(letter) if len(letter) == 1 else -1
    if not 2 <= len(options) <= len(LETTERS) or not 0 <= right < len(options):
        what = f"{name}: {place}: answer {answer!r} is none of {len(options)} options"
        raise SourceError(what, "Mend the row, or remove it.")
    order = list(range(len(options)))
    if benchmark.shuffle:
        order.sort(key=lambda place: digest(item.id, str(place)))
    return replace(item, options=tuple(options[place] for place in order), answer=LETTERS[order.index(right)])


def _given(value: Any) -> Any:
    """An empty text for a cell without a value, which would else be asked as "None"; tables also write it as NaN."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
