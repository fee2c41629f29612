"""What all commands share: where they print, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from boost_qa.progress import Progress

console = Console()
QUIET = typer.Option("--quiet", "-q", help="no progress")
CHANGES = typer.Argument(metavar="[KEY=VALUE]...", help="changes to the recipe, such as sources.0.n=100 or seed=3")


def say(text: str, where: Console = console, style: str | None = None) -> None:
    """Print `text` as it is; lines are left whole, so that paths in them can be copied."""
    where.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def bars_for_terminals(progress: Progress) -> None:
    """The Hub client's own bars, of each file, only where they can be drawn."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not (progress.show and progress.console.is_terminal):
        disable_progress_bars()
