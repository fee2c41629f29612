"""The door: `accelerate launch --config_file FILE -m boost_qa.train --config RECIPE [--key value]`.

Exit codes of `python -m boost_qa.train`: 0 done; 1 stopped midway, and the same command goes on from the last
checkpoint; 2 something in the recipe, the data or the model is wrong, and nothing was done; 130 interrupted.
`accelerate launch` makes 1 of each but 0.
"""

from __future__ import annotations

import os
import platform
import sys

from rich.console import Console

from boost_qa.errors import BoostQAError

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Errors become a message and an exit code, never a traceback."""
    err = Console(stderr=True)
    try:
        from boost_qa.train.finetune import finetune
        from boost_qa.train.settings import read_settings
    except ImportError as error:
        err.print(f"error: {error}\n  pip install 'boost_qa[train]'", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    try:
        finetune(read_settings(sys.argv[1:] if arguments is None else arguments))
    except BoostQAError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of each node: a file may be missing on one of them
            where = f"{platform.node()}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
            err.print(f"error: {where}{error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from the last checkpoint", style="yellow")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
