"""Commands that publish on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from boost_qa.cli.screen import QUIET, bars_for_terminals, say

if TYPE_CHECKING:
    from boost_qa.publish.send import Published

NAME = typer.Argument(metavar="NAME", help="user/name or organisation/name on the Hub; made if it is missing")
PRIVATE = typer.Option("--private", help="make the repository private; one that is public already is refused")
REVISION = typer.Option(help="branch to publish to; made from main if it is missing")
TAG = typer.Option(help="tag for the release, such as v1.0")
CREATE_PR = typer.Option("--create-pr", help="propose it as a pull request instead")
REPLACE = typer.Option("--replace", help="replace and remove what something else wrote at the release's places")
DRY_RUN = typer.Option("--dry-run", help="say what would change on the Hub, and change nothing")


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
        bars_for_terminals(progress)
        published = publish(source, target, dry_run=dry_run, say=progress.say)
    _published(published, f'load_dataset("{name}", revision="{published.revision}")')


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
        bars_for_terminals(progress)
        published = publish(
            folder, target, base=base_model, dataset=dataset, results=results or (), merged=merged, dry_run=dry_run,
            say=progress.say,
        )  # fmt: skip
    whole = merged or not (folder.expanduser() / "adapter_config.json").is_file()
    loader = "AutoModelForCausalLM.from_pretrained(" if whole else "PeftModel.from_pretrained(base, "
    _published(published, f'{loader}"{name}", revision="{published.revision}")')


def _published(published: Published, load: str) -> None:
    change = published.change
    counts = f"{len(change.added)} added, {len(change.replaced)} replaced, {len(change.removed)} removed"
    counts = f"files: {counts}, {change.same} unchanged"
    if published.revision is None:
        say(f"{published.url}, if it were published now:\n  {counts}; {change.bytes / 1e6:,.1f} MB to send")
    elif not change:
        say(f"{published.url} has it already: nothing to do\n  {load}")
    else:
        say(f"published: {published.url}\n  {counts}\n  {load}")
    for path in change.removed:
        say(f"  {'would be ' * (published.revision is None)}removed: {path}")
    for passage in published.kept:
        say(f"README.md: changed on the Hub and here; the Hub's stays: {passage}", Console(stderr=True), "yellow")
