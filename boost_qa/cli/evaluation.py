"""Commands that measure models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from boost_qa.cli.screen import QUIET, console, say


def evaluate(
    base: Annotated[str | None, typer.Option(help="a folder, GGUF file, name of `models`, ID or ID@REVISION")] = None,
    adapter: Annotated[str | None, typer.Option(help="folder, ID or ID@REVISION; it names its base")] = None,
    suite: Annotated[
        Literal["paper", "quick"], typer.Option(help="the paper's benchmarks, or 100 questions of some")
    ] = "quick",
    tasks: Annotated[str | None, typer.Option(help="in place of a suite: boost_math,boost_sciq,arc_easy,...")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="questions of each task")] = None,
    data: Annotated[list[str] | None, typer.Option(help="local files: a FOLDER, or TASK=FILE; may be repeated")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="folder; by default in the adapter's")] = None,
    backend: Annotated[
        Literal["hf", "vllm", "embedded"],
        typer.Option(help="what runs the model; embedded is quick on a CPU, of GGUF bases, and without likelihoods"),
    ] = "hf",
    judge: Annotated[str | None, typer.Option(help="a model that also judges mathematics, as in the paper")] = None,
    judge_url: Annotated[str | None, typer.Option(help="OpenAI-compatible server of the judge, up to /v1")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="of a reply")] = 1024,
    batch_size: Annotated[int, typer.Option(min=1, help="of the backends hf and embedded")] = 8,
    seed: Annotated[int, typer.Option(help="of what is drawn")] = 0,
    device: Annotated[str | None, typer.Option(help="of torch")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="of the weights")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Evaluate a model or an adapter on benchmarks. Run it again after an interruption: it goes on where it was."""
    from boost_qa.evaluate.results import read, shown
    from boost_qa.evaluate.run import Settings
    from boost_qa.evaluate.run import evaluate as run
    from boost_qa.progress import Progress

    named = tuple(filter(None, map(str.strip, (tasks or "").split(","))))
    settings = Settings(
        base, adapter, suite, named, limit, backend, tuple(data or ()), seed, max_tokens, batch_size, device, dtype,
        judge, judge_url,
    )  # fmt: skip
    with Progress(show=not quiet) as progress:
        path = run(settings, output, progress.say)
    console.print(shown(*read(path)))
    say(f"written: {path}")


def compare(
    first: Annotated[Path, typer.Argument(help="folder of an evaluation, or its results_*.json")],
    second: Annotated[Path, typer.Argument(help="another; differences are second minus first")],
) -> None:
    """Compare two evaluations by the items of both: paired differences with their intervals."""
    from boost_qa.evaluate.compare import compare as run
    from boost_qa.evaluate.compare import shown

    console.print(shown(run(first, second)))


def mechanism(
    adapter: Annotated[str, typer.Argument(help="a LoRA adapter: folder, ID or ID@REVISION")],
    base: Annotated[str | None, typer.Option(help="by default the base that the adapter names")] = None,
    dataset: Annotated[str | None, typer.Option(help="what it was trained on; by default as run.json says")] = None,
    dataset_config: Annotated[str | None, typer.Option(help="of the dataset, such as debate")] = None,
    split: Annotated[str | None, typer.Option(help="of the dataset")] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="what it was not trained on: a run, file or export; by default what the training held out"),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=4, help="dialogues, and questions of each band")] = 64,
    directions: Annotated[int, typer.Option(min=2, help="random directions of the landscape")] = 6,
    reach: Annotated[
        float, typer.Option(min=0.001, max=1, help="how far along them, in lengths of the filters")
    ] = 0.03,
    template: Annotated[Literal["plain", "llama3", "chatml"] | None, typer.Option(help="as in run.json")] = None,
    loss_on: Annotated[Literal["all", "not_weak", "last"] | None, typer.Option(help="as in run.json")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON; by default below the adapter")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of what is drawn")] = 0,
    device: Annotated[str | None, typer.Option(help="of torch")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="of the base")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Measure how training changed an adapter: gradient noise scale, loss landscape, and gain by similarity."""
    from boost_qa.mechanism.report import read, shown
    from boost_qa.mechanism.run import Settings, measure
    from boost_qa.progress import Progress

    settings = Settings(
        adapter, base, dataset, dataset_config, split, tuple(held_out or ()), template, loss_on, limit, directions,
        reach=reach, seed=seed, device=device, dtype=dtype,
    )  # fmt: skip
    with Progress(show=not quiet) as progress:
        path = measure(settings, output, progress.say)
    console.print(shown(read(path)))
    say(f"written: {path}")
