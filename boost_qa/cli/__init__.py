"""The command `boost-qa`: parse, call one function, print.

Exit codes: 0 done; 1 stopped midway, and the same command goes on from there; 2 the recipe, a source,
a model or a folder is wrong, and nothing was done; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from boost_qa import __version__
from boost_qa.cli import evaluation, publishing, runs, study, training
from boost_qa.cli.screen import say
from boost_qa.errors import BoostQAError

INTERRUPTED = 130
EXTRAS = {
    **dict.fromkeys(("accelerate", "peft", "safetensors", "torch", "transformers", "trl"), "train"),
    **dict.fromkeys(("phonenumbers", "py3langid", "rensa"), "checks"),
    **dict.fromkeys(("lm_eval", "math_verify", "scipy"), "evaluate"),
    **dict.fromkeys(("gguf", "openvino_genai", "tokenizers"), "embedded"),
    **dict.fromkeys(("nlpaug", "sklearn"), "baselines"),
}
"""The extra that a package comes with."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
    epilog="Begin with:  boost-qa generate demo_small",
)  # fmt: skip
COMMANDS: list[Callable[..., None]] = [
    *(runs.generate, runs.check, runs.report, runs.analogies, runs.export, runs.show, runs.models),
    *(training.plan, training.merge, training.score, training.coreset),
    *(evaluation.evaluate, evaluation.compare, evaluation.mechanism, study.study),
]


def told(version: bool) -> None:
    if version:
        say(f"boost_qa {__version__}")
        raise typer.Exit


@app.callback()
def _(_: Annotated[bool, typer.Option("--version", callback=told, is_eager=True, help="print it")] = False) -> None:
    """Turn question-answer data into teaching dialogues between language models of unequal ability."""


for command in COMMANDS:
    app.command()(command)
publish = typer.Typer(
    no_args_is_help=True,
    help="Publish on the Hugging Face Hub: whole, in one commit, with a card. "
    "The token comes from HF_TOKEN or `hf auth login`; HF_ENDPOINT names another Hub.",
)
publish.command("dataset")(publishing.publish_dataset)
publish.command("adapter")(publishing.publish_adapter)
app.add_typer(publish, name="publish")


def main() -> None:
    """The entry point: errors become a message and an exit code, never a traceback."""
    try:
        app()
    except BoostQAError as error:
        say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), Console(stderr=True), "red")
        sys.exit(error.exit_code)
    except OSError as error:  # of a disk, a file or a network that nobody could foresee
        say(
            f"error: {error}\n  What was done is kept: see to it, and give the same command.",
            Console(stderr=True),
            "red",
        )
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        say(f"error: {error}\n  pip install 'boost_qa[{extra}]'", Console(stderr=True), "red")
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            say("interrupted; the same command goes on from here", Console(stderr=True), "yellow")
        raise
