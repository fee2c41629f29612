"""The command `boost-qa`: parse, call one function, print.

Exit codes: 0 done; 1 stopped midway, and the same command goes on from there; 2 the recipe, a source,
a model or a folder is wrong, and nothing was done; 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from boost_qa.errors import BoostQAError

if TYPE_CHECKING:
    from boost_qa.progress import Progress
    from boost_qa.publish.send import Published

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
    help="Turn question-answer data into teaching dialogues between language models of unequal ability.",
    epilog="Begin with:  boost-qa generate demo_small",
)  # fmt: skip
publish = typer.Typer(
    no_args_is_help=True,
    help="Publish on the Hugging Face Hub: whole, in one commit, with a card. "
    "The token comes from HF_TOKEN or `hf auth login`; HF_ENDPOINT names another Hub.",
)
app.add_typer(publish, name="publish")
console = Console()
INTERRUPTED = 130
TRAIN = ("accelerate", "peft", "safetensors", "torch", "transformers", "trl")


RECIPE = typer.Argument(help="a recipe file, or the name of a packaged one (demo, demo_small, laptop, paper)")
CHANGES = typer.Argument(metavar="[KEY=VALUE]...", help="changes to the recipe, such as sources.0.n=100 or seed=3")
OUTPUT = typer.Option("--output", "-o", help="run folder; by default one in the user's cache")
REPLAY = typer.Option(help="take every reply from the journal of this run folder; no model is asked")
RUN = typer.Argument(help="a run folder, or the recipe name of a run in the user's cache")
NAME = typer.Argument(metavar="NAME", help="user/name or organisation/name on the Hub; made if it is missing")
PRIVATE = typer.Option("--private", help="make the repository private; one that is public already is refused")
REVISION = typer.Option(help="branch to publish to; made from main if it is missing")
TAG = typer.Option(help="tag for the release, such as v1.0")
CREATE_PR = typer.Option("--create-pr", help="propose it as a pull request instead")
REPLACE = typer.Option("--replace", help="replace and remove what something else wrote at the release's places")
DRY_RUN = typer.Option("--dry-run", help="say what would change on the Hub, and change nothing")
QUIET = typer.Option("--quiet", "-q", help="no progress")
FETCH = typer.Argument(metavar="[NAME]...", help="models to fetch; without a name they are listed")


@app.command()
def generate(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, CHANGES] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    replay: Annotated[Path | None, REPLAY] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Generate the dialogues of a recipe. Run it again after an interruption: it goes on where it was."""
    from boost_qa.generate import generate as run
    from boost_qa.summary import summary

    folder = run(recipe, output, overrides=overrides or (), replay=replay, show=not quiet)
    console.print(summary(folder), crop=False)  # paths are longer than lines


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
def score(
    dataset: Annotated[str, typer.Argument(help="a folder or file (JSON, CSV, Parquet), or a dataset on the Hub")],
    small: Annotated[str, typer.Option(help="model: a folder, a GGUF file, a name of `models`, ID or ID@REVISION")],
    large: Annotated[str | None, typer.Option(help="a second model; both are in memory, 2 or 4 bytes a weight")] = None,
    config: Annotated[str | None, typer.Option(help="config on the Hub; of a local dataset, give its folder")] = None,
    split: str = "train",
    revision: Annotated[str | None, typer.Option(help="of a dataset on the Hub")] = None,
    columns: Annotated[str | None, typer.Option(help="prompt=A,answer=B (prompt=A+C for two) or messages=D")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write, or to go on in")] = Path("scored"),
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="only the first so many rows")] = None,
    template: Annotated[Literal["plain", "chat"], typer.Option(help="what stands before an answer")] = "plain",
    max_tokens: Annotated[int, typer.Option(min=32, help="of prompt and answer")] = 2048,
    too_long: Annotated[Literal["cut", "skip"], typer.Option(help="what becomes of longer rows")] = "cut",
    device: Annotated[str | None, typer.Option(help="of torch")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Score answers by how much their prompts help a small and a large model to predict them (IFD, and the gap)."""
    from boost_qa.progress import Progress
    from boost_qa.score import Settings, shown
    from boost_qa.score import score as run

    options = {"template": template, "max_tokens": max_tokens, "too_long": too_long, "device": device}
    settings = Settings(dataset, small, large, config, split, revision, columns, limit, options)
    console.print(shown(run(settings, output, Progress(show=not quiet).say)))
    _print(f"written: {output}")


@publish.command("dataset")
def publish_dataset(
    source: Annotated[str, typer.Argument(help="a run folder, the recipe name of a run, or an exported folder")],
    name: Annotated[str, NAME],
    private: Annotated[bool, PRIVATE] = False,
    revision: Annotated[str, REVISION] = "main",
    tag: Annotated[str | None, TAG] = None,
    create_pr: Annotated[bool, CREATE_PR] = False,
    replace: Annotated[bool, REPLACE] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Publish all configs and splits of a dataset, and load a row of each config back."""
    from boost_qa.progress import Progress
    from boost_qa.publish.dataset import publish_dataset as publish
    from boost_qa.publish.repository import Target

    target = Target(name, "dataset", revision, tag, private, create_pr, replace)
    with Progress(show=not quiet) as progress:
        _bars_for_terminals(progress)
        published = publish(source, target, dry_run=dry_run, say=progress.say)
    _published(published, f'load_dataset("{name}", revision="{published.revision}")')


@publish.command("adapter")
def publish_adapter(
    folder: Annotated[Path, typer.Argument(help="output_dir of a finished training")],
    name: Annotated[str, NAME],
    base_model: Annotated[
        str | None, typer.Option(help="base on the Hub (ID or ID@REVISION), if a local one was trained on")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="dataset on the Hub (ID or ID@REVISION), if a local copy was trained on")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="results of lm-evaluation-harness, besides results_*.json in FOLDER")
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="publish base and adapter as one model instead of the adapter")
    ] = False,
    private: Annotated[bool, PRIVATE] = False,
    revision: Annotated[str, REVISION] = "main",
    tag: Annotated[str | None, TAG] = None,
    create_pr: Annotated[bool, CREATE_PR] = False,
    replace: Annotated[bool, REPLACE] = False,
    dry_run: Annotated[bool, DRY_RUN] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Publish what a fine-tuning left: adapter, tokenizer, recipe, run.json, results and card."""
    from boost_qa.progress import Progress
    from boost_qa.publish.adapter import publish_adapter as publish
    from boost_qa.publish.repository import Target

    target = Target(name, "model", revision, tag, private, create_pr, replace)
    with Progress(show=not quiet) as progress:
        _bars_for_terminals(progress)
        published = publish(
            folder, target, base=base_model, dataset=dataset, results=results or (), merged=merged, dry_run=dry_run,
            say=progress.say,
        )  # fmt: skip
    whole = merged or not (folder.expanduser() / "adapter_config.json").is_file()
    loader = "AutoModelForCausalLM.from_pretrained(" if whole else "PeftModel.from_pretrained(base, "
    _published(published, f'{loader}"{name}", revision="{published.revision}")')


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
        if (error.name or "").partition(".")[0] not in TRAIN:
            raise
        _print(f"error: {error}\n  pip install 'boost_qa[train]'", Console(stderr=True), "red")
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            _print("interrupted; the same command goes on from here", Console(stderr=True), "yellow")
        raise


def _bars_for_terminals(progress: Progress) -> None:
    """The client's own bars, of each file, only where they can be drawn."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not (progress.show and progress.console.is_terminal):
        disable_progress_bars()


def _published(published: Published, load: str) -> None:
    change = published.change
    counts = f"{len(change.added)} added, {len(change.replaced)} replaced, {len(change.removed)} removed"
    counts = f"files: {counts}, {change.same} unchanged"
    if published.revision is None:
        _print(f"{published.url}, if it were published now:\n  {counts}; {change.bytes / 1e6:,.1f} MB to send")
    elif not change:
        _print(f"{published.url} has it already: nothing to do\n  {load}")
    else:
        _print(f"published: {published.url}\n  {counts}\n  {load}")
    for path in change.removed:
        _print(f"  {'would be ' * (published.revision is None)}removed: {path}")
    for passage in published.kept:
        _print(f"README.md: changed on the Hub and here; the Hub's stays: {passage}", Console(stderr=True), "yellow")


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
