"""The command `boost-qa`: parse, call one function, print.

Exit codes: 0 done; 1 stopped midway, and the same command goes on from there; 2 the recipe, a source,
a model or a folder is wrong, and nothing was done; 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

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


RECIPE = typer.Argument(help="a recipe file, or the name of a packaged one (demo, demo_small, laptop, paper)")
CHANGES = typer.Argument(metavar="[KEY=VALUE]...", help="changes to the recipe, such as sources.0.n=100 or seed=3")
OUTPUT = typer.Option("--output", "-o", help="run folder; by default one in the user's cache")
REPLAY = typer.Option(help="take every reply from the journal of this run folder; no model is asked")
RUN = typer.Argument(help="a run folder, or the recipe name of a run in the user's cache")
FETCH = typer.Argument(metavar="[NAME]...", help="models to fetch; without a name they are listed")


@app.command()
def generate(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, CHANGES] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    replay: Annotated[Path | None, REPLAY] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Generate the dialogues of a recipe. Run it again after an interruption: it goes on where it was."""
    from boost_qa.generate import generate as run
    from boost_qa.summary import summary

    folder = run(recipe, output, overrides=overrides or (), replay=replay, show=not quiet)
    console.print(summary(folder))


@app.command()
def export(
    run: Annotated[str, RUN],
    folder: Annotated[Path, typer.Argument(help="where to write; an earlier export there is replaced")],
    partial: Annotated[bool, typer.Option(help="export what an unfinished run has so far")] = False,
) -> None:
    """Write a run as Parquet with a dataset card; load_dataset("./FOLDER", "debate") reads it anywhere."""
    from boost_qa.export import export as write
    from boost_qa.plan import find_run

    written = write(find_run(run), folder, partial=partial)
    _print(f'written: {written}\nread it with load_dataset("{written}")')


@app.command()
def show(
    run: Annotated[str, RUN],
    scenario: Annotated[str | None, typer.Option(help="only this scenario")] = None,
    source: Annotated[str | None, typer.Option(help="only this source")] = None,
    find: Annotated[str | None, typer.Option(help="only dialogues that contain this text")] = None,
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
    filters = {"scenario": scenario, "source": source, "find": find}
    pages = list(browse(folder, **filters, limit=limit, one_per_scenario=one_per_scenario))
    if not pages:
        raise typer.BadParameter("no dialogue matches")
    if len(pages) > 3 and console.is_terminal:
        with console.pager(styles=True):
            console.print(*pages, sep="\n")
    else:
        console.print(*pages, sep="\n")


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="a recipe for training: a file, or a packaged one (llama-3-8b/lora)")],
    overrides: Annotated[list[str] | None, CHANGES] = None,
    gpu: Annotated[
        str | None, typer.Option(help="h200, h100, a100-80, l40s, 4090, ...; by default the one here")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="how many of them share a step")] = 1,
    sharding: Annotated[Literal["ddp", "fsdp", "zero3"] | None, typer.Option(help="how they share the model")] = None,
    dialogues: Annotated[int | None, typer.Option(min=1, help="reckon with so many; no dataset is read")] = None,
    tokens: Annotated[int, typer.Option(min=8, help="with --dialogues: tokens of each, on average")] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say what a fine-tuning will do and cost: tokens, steps, memory, time, and what would have to change to fit."""
    import json

    from boost_qa.train.plan import as_dict, plan_recipe, shown
    from boost_qa.train.settings import read_settings

    changes = [word for change in overrides or () for word in _flag(change)]
    chosen = ["--gpu", gpu] if gpu else []
    settings = read_settings(["--config", recipe, *changes, *chosen], plan_only=True)
    planned = plan_recipe(settings, gpus, sharding, dialogues, tokens)
    console.print_json(json.dumps(as_dict(planned))) if as_json else console.print(shown(planned))


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="folder with adapter_config.json")],
    output: Annotated[Path, typer.Argument(help="folder to write")],
    base: Annotated[str | None, typer.Option(help="base model, where the adapter names one that is not here")] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"], typer.Option(help="of the merged weights")
    ] = "bfloat16",
) -> None:
    """Write base and adapter as one model that any program loads."""
    from boost_qa.train.merge import merge as write

    _print(f"written: {write(adapter, output, base=base, dtype=dtype)}")


@app.command()
def models(fetch: Annotated[list[str] | None, FETCH] = None) -> None:
    """List the models known by name, or fetch some of them into the user's cache."""
    from boost_qa import models as known
    from boost_qa.progress import Progress
    from boost_qa.summary import model_table

    if not fetch:
        console.print(model_table(known.catalogue()))
    for name in fetch or ():
        with Progress() as progress:
            model = known.resolve(name, progress=progress.bytes)
        _print(f"{model.name}: {model.path} ({model.revision})")


def main() -> None:
    """The entry point: errors become a message and an exit code, never a traceback."""
    try:
        app()
    except BoostQAError as error:
        _print("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), Console(stderr=True), "red")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("accelerate", "peft", "torch", "transformers", "trl"):
            raise
        _print(f"error: {error}\n  pip install 'boost_qa[train]'", Console(stderr=True), "red")
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            _print("interrupted; the same command goes on from here", Console(stderr=True), "yellow")
        raise


def _flag(change: str) -> list[str]:
    """`key=value` as the two words `--key value`."""
    key, equals, value = change.partition("=")
    if not equals:
        raise typer.BadParameter(f"{change!r} is not key=value")
    return [f"--{key}", value]


def _print(text: str, where: Console = console, style: str | None = None) -> None:
    # lines are left whole, so that paths in them can be copied
    where.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
