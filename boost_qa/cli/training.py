"""Commands about models: plan a fine-tuning, merge an adapter, score a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from boost_qa.cli.screen import QUIET, console, say
from boost_qa.errors import RecipeError

CHANGES = typer.Argument(
    metavar="[KEY=VALUE]...", help="changes to the recipe, such as learning_rate=1e-4 or dataset_recipe=runs/mine"
)


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


def merge(
    adapter: Annotated[Path, typer.Argument(help="folder with adapter_config.json")],
    output: Annotated[Path, typer.Argument(help="folder to write, or FILE.gguf if the base was a GGUF file")],
    base: Annotated[str | None, typer.Option(help="base model, where the adapter names one that is not here")] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        typer.Option(help="of the merged weights: bfloat16, and in a GGUF file always float16", show_default=False),
    ] = None,
) -> None:
    """Write base and adapter as one model that any program loads, or as one that the embedded engine plays with."""
    from boost_qa.train.merge import merge as write
    from boost_qa.train.merge import merge_to_gguf

    if output.suffix != ".gguf":
        say(f"written: {write(adapter, output, base=base, dtype=dtype or 'bfloat16')}")
    elif dtype in (None, "float16"):
        say(f"written: {merge_to_gguf(adapter, output, base=base)}")
    else:
        raise RecipeError(f"--dtype {dtype}: a GGUF file is written in float16", "Leave --dtype out.")


def score(
    dataset: Annotated[str, typer.Argument(help="a folder or file (JSON, CSV, Parquet), or a dataset on the Hub")],
    small: Annotated[str, typer.Option(help="model: a folder, a GGUF file, a name of `models`, ID or ID@REVISION")],
    large: Annotated[str | None, typer.Option(help="a second model; both are in memory, 2 or 4 bytes a weight")] = None,
    config: Annotated[str | None, typer.Option(help="config on the Hub; of a local dataset, give its folder")] = None,
    split: Annotated[str, typer.Option(help="of the dataset")] = "train",
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
    say(f"written: {output}")


def coreset(
    run: Annotated[str, typer.Argument(help="a run folder, or the recipe name of a run in the user's cache")],
    model: Annotated[str, typer.Option(help="whose gradients: a name of `models`, a folder, a GGUF file or a Hub id")],
    clusters: Annotated[int, typer.Option(min=1, help="of each source, at most")] = 100,
    seed: Annotated[int, typer.Option(help="of the projection and of the clusters")] = 0,
    max_tokens: Annotated[int, typer.Option(min=32, help="of question and answer; longer ones are cut")] = 2048,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Choose as many records of a run as were taught, by their gradients (TAGCOS): the dataset's config `tagcos`."""
    from boost_qa.coreset.choose import Settings, choose
    from boost_qa.plan import find_run
    from boost_qa.progress import Progress

    folder = find_run(run)
    chosen = choose(folder, Settings(model, clusters, seed, max_tokens), Progress(show=not quiet).say)
    counts = ", ".join(f"{len(ids):,} of {source}" for source, ids in chosen.items())
    say(f"{counts}\nwritten: {folder.coreset_file}")


def _flag(change: str) -> list[str]:
    """`key=value` as the two words `--key value`."""
    key, equals, value = change.partition("=")
    if not equals:
        raise typer.BadParameter(f"{change!r} is not key=value")
    return [f"--{key}", value]
