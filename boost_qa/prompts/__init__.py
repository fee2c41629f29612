"""Role prompts: one YAML file for each role and phase, in our own words, named by their digest.

A prompt has two texts: `role`, who the agent is, and `task`, what it is shown now, with `{blocks}` for
the question, the answers and what was said. Blocks are filled in once and never read as templates, so
braces in a source's text stay what they are. `never` lists regular expressions, without regard to case,
of what somebody in this role does not say, such as another speaker's name in front of a line.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from boost_qa.errors import RecipeError
from boost_qa.types import digest


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an agent is told. `digest` (16 hex characters) names the exact wording."""

    role: str
    task: str
    never: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return digest(self.role, self.task, *self.never)[:16]

    def slip(self, text: str) -> str | None:
        """The first thing in `text` that nobody in this role says, or None."""
        found = (re.search(pattern, text, re.IGNORECASE) for pattern in self.never)
        return next((match.group() for match in found if match), None)

    @property
    def blocks(self) -> set[str]:
        """The names in braces."""
        return _names(self.role) | _names(self.task)


def load_prompt(scenario: str, role: str, path: str | None = None) -> Prompt:
    """The prompt of a role in a scenario: the packaged one, or the file at `path`.

    Raises:
        RecipeError: if the file is missing, or has other keys or blocks than the packaged prompt.
    """
    packaged = _packaged(scenario, role)
    if path is None:
        return packaged
    given = packaged.blocks - {"language"}
    try:
        own = _parse(Path(path).expanduser().read_text(encoding="utf-8"))
        unknown = (_names(own.role) - {"language"}) | (_names(own.task) - given)
        if not unknown:  # filled in once, so that it cannot fail midway
            own.role.format(language="")
            own.task.format(**dict.fromkeys(given, ""))
    except (OSError, ValueError, LookupError, re.error, yaml.YAMLError) as error:
        raise RecipeError(
            f"prompt {path}: {error}",
            "A prompt is a YAML file with the texts `role` and `task`; double braces that are no block.",
        ) from error
    if unknown:
        raise RecipeError(
            f"prompt {path}: unknown block {', '.join(f'{{{name}}}' for name in sorted(unknown))}",
            f"In {scenario}/{role} `role` is given language, `task` {', '.join(sorted(given))}. Double other braces.",
        )
    return own


@cache
def _packaged(scenario: str, role: str) -> Prompt:
    return _parse((resources.files(__package__) / scenario / f"{role}.yaml").read_text(encoding="utf-8"))


def _parse(text: str) -> Prompt:
    fields = yaml.safe_load(text)
    if not isinstance(fields, dict) or set(fields) | {"never"} != {"role", "task", "never"}:
        raise ValueError("its keys must be `role` and `task`, and optionally `never`")
    never = fields.pop("never", None) or []
    if not isinstance(never, list) or not all(isinstance(text, str) for text in (*fields.values(), *never)):
        raise ValueError("`role` and `task` must be texts, and `never` a list of texts")
    for pattern in never:
        re.compile(pattern)
    return Prompt(fields["role"], fields["task"], tuple(never))


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
