"""Commands about runs: make them, check them, look at them, write them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boost_qa.cli.screen import CHANGES, QUIET, console, say

RECIPE = typer.Argument(
    help="a recipe file, or the name of a packaged one (demo, demo_small, verified, paper, star_demo, ...)"
)
CHECK_CHANGES = typer.Argument(
    metavar="[KEY=VALUE]...", help="changes to the settings of the checks, such as duplicates.threshold=0.7"
)
OUTPUT = typer.Option("--output", "-o", help="run folder; by default one in the user's cache")
REPLAY = typer.Option(help="take every reply from the journal of this run folder; no model is asked")
RUN = typer.Argument(help="a run folder, or a recipe whose run, made without changes, is in the user's cache")
FETCH = typer.Argument(metavar="[NAME]...", help="models to fetch; without a name they are listed")


def generate(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, CHANGES] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    replay: Annotated[Path | None, REPLAY] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="say what would be asked of which model, and do nothing")
    ] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Generate the dialogues of a recipe. Run it again after an interruption: it goes on where it was."""
    if plan:
        from boost_qa.forecast import forecast, shown
        from boost_qa.plan import plan as read
        from boost_qa.preflight import look_ahead

        planned = read(recipe, overrides or ())
        console.print(shown(planned, forecast(planned)))
        say(f"run folder: {output or planned.folder}")
        look_ahead(planned.recipe, asks=replay is None)
        return
    from boost_qa.generate import generate as run
    from boost_qa.summary import summary

    folder = run(recipe, output, overrides=overrides or (), replay=replay, show=not quiet)
    console.print(summary(folder), crop=False)  # paths are longer than lines


def check(
    run: Annotated[str, RUN],
    overrides: Annotated[list[str] | None, CHECK_CHANGES] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="this check alone; may be given several times. What others saw before stays"),
    ] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Check the dialogues of a finished run: answers, code, roles, injection, duplicates, contamination, personal data.

    The dialogues stay as they are; a recipe with `checks` makes them leave while it is played (`verified`).
    """
    from boost_qa.check import check as look
    from boost_qa.plan import find_run
    from boost_qa.summary import labels

    folder = find_run(run)
    console.print(labels(look(folder, only=only or (), overrides=overrides or (), show=not quiet)))
    say(f"written: {folder.checks_file}\nlook at it: boost-qa report {run}")


def report(
    run: Annotated[str, RUN],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file; by default in the run folder")
    ] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Write a run as one HTML page: its funnel, distributions, and every dialogue with what was asked behind it."""
    from boost_qa.page import write
    from boost_qa.plan import find_run
    from boost_qa.progress import Progress

    folder = find_run(run)
    with Progress(show=not quiet) as progress:
        written = write(folder, output or folder.page_file, progress.say)
    say(f"written: {written}")


def analogies(
    run: Annotated[str, RUN],
    judge: Annotated[
        str | None, typer.Option(help="a model that grades the pairs; without one they are laid out")
    ] = None,
    judge_url: Annotated[str | None, typer.Option(help="OpenAI-compatible server of the judge, up to /v1")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="questions; as many random pairs go with them")
    ] = 20,
    seed: Annotated[int, typer.Option(help="of what is drawn")] = 0,
    attempts: Annotated[int, typer.Option(min=1, help="to get a reply of the judge that can be read")] = 3,
    human: Annotated[
        Path | None, typer.Option(help="verdicts that the page saved: their agreement with the judge")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="folder; by default in the run folder")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Draw questions with a similar one and with a random one, to read, and to be judged: are they analogous?

    With --human alone nothing is drawn or asked. Run it again after an interruption: it goes on where it was.
    """
    from boost_qa.analogies import run as pairs
    from boost_qa.evaluate.judge import find_judge
    from boost_qa.plan import find_run

    folder = find_run(run)
    where = pairs.folder_of(folder, output)
    if judge is not None or human is None:
        model = find_judge(judge, judge_url) if judge is not None else None
        found = pairs.analogies(folder, where, limit=limit, seed=seed, judge=model, attempts=attempts, show=not quiet)
        if found["judge"] is not None:
            from boost_qa.analogies.figures import sentences, shown

            console.print(shown(found["figures"], "how alike the solutions are; shares in %, with 95 % intervals"))
            say("\n".join(sentences(found["figures"])))
        say(f"read them: {where / 'pairs.html'}\nwritten: {where / pairs.RESULTS}")
    if human is not None:
        from boost_qa.analogies import reader

        say("\n".join(reader.sentences(pairs.compare(folder, human, where))))
        say(f"written: {where / pairs.AGREEMENT}")


def export(
    run: Annotated[str, RUN],
    folder: Annotated[Path, typer.Argument(help="where to write; an earlier export there is replaced")],
    partial: Annotated[bool, typer.Option(help="export what an unfinished run has so far")] = False,
) -> None:
    """Write a run as Parquet with a dataset card; load_dataset("./FOLDER", "debate") reads it anywhere."""
    from boost_qa.export import export as write
    from boost_qa.plan import find_run

    written = write(find_run(run), folder, partial=partial)
    say(f'written: {written}\nread it with load_dataset("{written}")')


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
        there = sorted({(line["scenario"], line["record"]["source"]) for line in folder.dialogues()})
        said = ", ".join(f"{each} of {source}" for each, source in there)
        raise typer.BadParameter(f"no dialogue matches; there are: {said or 'none'}")
    if len(pages) > 3 and console.is_terminal:
        with console.pager(styles=True):
            console.print(*pages, sep="\n")
    else:
        console.print(*pages, sep="\n")


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
        say(f"{model.name}: {model.path} ({model.revision})")
