"""The command that asks a whole question: several datasets, trained on, evaluated and compared."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from boost_qa.cli.screen import QUIET, console, say


def study(
    recipe: Annotated[str, typer.Argument(help="a study: a file, or a packaged one (ablation, scaling, ...)")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="changes to it, such as 'seeds=[0]'")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="one of the file's scales; by default its first")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="folder; by default studies/NAME-SCALE")] = None,
    devices: Annotated[str | None, typer.Option(help="GPUs to share arms among, such as 0,1; by default all")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what it would cost, and do nothing")] = False,
    report: Annotated[bool, typer.Option("--report", help="write the report of what there is; run nothing")] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Generate, train and evaluate every arm of a study with several seeds, and report what the differences are worth.

    Run it again after an interruption: it goes on where it was. Arms and seeds may be added to a study that is done.
    """
    from boost_qa.study.settings import find_study, read_study

    file = find_study(recipe)
    settings = read_study(file, scale, overrides or ())
    if plan:
        from boost_qa.study.hours import hours, shown

        console.print(shown(settings, hours(settings)))
        return
    from boost_qa.progress import Progress
    from boost_qa.study.report import report as write
    from boost_qa.study.work import check_begun, visible, work

    folder = output or Path("studies") / f"{settings.name}-{settings.scale}"
    if report:
        check_begun(settings, folder)
    else:
        # as Ctrl-C, which ends the command that it runs, too
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        with Progress(show=not quiet) as progress:
            work(settings, folder, visible(devices), progress.say)
    for path in write(settings, folder, file):
        say(f"written: {path}")
