"""The command `boost-qa`: parse, call one function, print.

Exit codes: 0 done; 1 stopped midway, and the same command goes on from there; 2 the recipe, a source,
a model or a folder is wrong, and nothing was done; 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from boost_qa.errors import BoostQAError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
    help="Turn question-answer data into teaching dialogues between language models of unequal ability.",
    epilog="Begin with:  boost-qa generate demo_small",
)  # fmt: skip
console = Console()
INTERRUPTED = 130


@app.command()
def generate(
    recipe: Annotated[str, typer.Argument(help="a recipe file, or the name of a packaged one (demo, demo_small, laptop, paper)")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...", help="changes to the recipe, such as sources.0.n=100 or seed=3")
    ] = None,
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="run folder; by default one in the user's cache")] = None,
    replay: Annotated[Optional[Path], typer.Option(help="take every reply from the journal of this run folder; no model is asked")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Generate the dialogues of a recipe. Run it again after an interruption: it goes on where it was."""
    from boost_qa.generate import generate as run
    from boost_qa.summary import summary

    folder = run(recipe, output, overrides=overrides or (), replay=replay, show=not quiet)
    console.print(summary(folder))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="a run folder, or the recipe name of a run in the user's cache")],
    folder: Annotated[Path, typer.Argument(help="where to write; an earlier export there is replaced")],
    partial: Annotated[bool, typer.Option(help="export what an unfinished run has so far")] = False,
) -> None:
    """Write a run as Parquet with a dataset card; load_dataset("./FOLDER", "debate") reads it anywhere."""
    from boost_qa.export import export as write
    from boost_qa.plan import find_run

    written = write(find_run(run), folder, partial=partial)
    console.print(f'written: {written}\nread it with load_dataset("{written}")', highlight=False, markup=False, soft_wrap=True)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="a run folder, or the recipe name of a run in the user's cache")],
    scenario: Annotated[Optional[str], typer.Option(help="only this scenario")] = None,
    source: Annotated[Optional[str], typer.Option(help="only this source")] = None,
    find: Annotated[Optional[str], typer.Option(help="only dialogues that contain this text")] = None,
    rejected: Annotated[bool, typer.Option(help="show the rejected records and why")] = False,
    one_per_scenario: Annotated[bool, typer.Option("--one-per-scenario", help="one dialogue of each scenario")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="at most so many")] = 10,
) -> None:
    """Read the dialogues of a run in the terminal, coloured by speaker; a pager opens for several."""
    from boost_qa.plan import find_run
    from boost_qa.summary import browse, refusals

    folder = find_run(run)
    if rejected:
        console.print(refusals(folder, limit))
        return
    pages = list(browse(folder, scenario=scenario, source=source, find=find, limit=limit, one_per_scenario=one_per_scenario))
    if not pages:
        raise typer.BadParameter("no dialogue matches")
    if len(pages) > 3 and console.is_terminal:
        with console.pager(styles=True):
            console.print(*pages, sep="\n")
    else:
        console.print(*pages, sep="\n")


@app.command()
def models(
    fetch: Annotated[Optional[list[str]], typer.Argument(metavar="[NAME]...", help="models to fetch; without a name they are listed")] = None,
) -> None:
    """List the models known by name, or fetch some of them into the user's cache."""
    from boost_qa import models as known
    from boost_qa.progress import Progress
    from boost_qa.summary import model_table

    if not fetch:
        console.print(model_table(known.catalogue()))
    for name in fetch or ():
        with Progress() as progress:
            model = known.resolve(name, progress=progress.bytes)
        console.print(f"{model.name}: {model.path} ({model.revision})", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """The entry point: errors become a message and an exit code, never a traceback."""
    try:
        app()
    except BoostQAError as error:
        _say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), "red")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            _say("interrupted; the same command goes on from here", "yellow")
        raise


def _say(text: str, style: str) -> None:
    # lines are left whole, so that paths in them can be copied
    Console(stderr=True).print(text, style=style, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
