"""What can go wrong, in one tree.

BoostQAError            every error that is ours; `str(error)` says what, where, and the remedy
├── RecipeError         a recipe or an override does not parse            exit code 2
├── SourceError         a source is missing, or its columns are wrong     exit code 2
├── ModelError          a model cannot be found, fetched or verified      exit code 2
├── RunError            a run folder is busy or belongs to another recipe exit code 2
├── PublishError        a name, token, right or file stands against it    exit code 2
├── HubError            the Hub failed; the same command completes it     exit code 1
├── EngineError         an engine, server or key failed during a run      exit code 1
└── JournalError        the journal cannot be written or read             exit code 1

Rejected                not an error: a record leaves the run, with its reason, as data
"""

from __future__ import annotations


class BoostQAError(Exception):
    """An error of this package. The run folder keeps all that was done before it.

    Args:
        what: what happened, naming the record, file or key.
        remedy: what the user can do about it; printed after the first sentence.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return f"{self.what}\n  {self.remedy}" if self.remedy else self.what


class RecipeError(BoostQAError):
    exit_code = 2


class SourceError(BoostQAError):
    exit_code = 2


class ModelError(BoostQAError):
    exit_code = 2


class RunError(BoostQAError):
    exit_code = 2


class PublishError(BoostQAError):
    exit_code = 2


class HubError(BoostQAError):
    pass


class EngineError(BoostQAError):
    pass


class JournalError(BoostQAError):
    pass


class Rejected(Exception):
    """A scenario gives its record up; `reason` becomes a row of `rejected.jsonl`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
