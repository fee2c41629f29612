"""Build a BOOST-QA dataset: generate (or go on with) a run, export it, and load it back.

    python builder_scripts/boost_qa.py --recipe demo --output DIR [--run RUN] [key=value ...]

DIR then holds Parquet files and a dataset card, and `load_dataset("DIR", "debate")` needs nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Python puts the script's own folder in front of the path, and in it `import boost_qa` is this very
# file. A checkout's package, beside that folder, comes before an installed one.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != _HERE]
if (_HERE.parent / "boost_qa" / "__init__.py").is_file():
    sys.path.insert(0, str(_HERE.parent))

import boost_qa  # noqa: E402
from boost_qa.choose_run import chosen  # noqa: E402
from boost_qa.errors import BoostQAError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; the exit status is that of the error, if there is one."""
    parser = argparse.ArgumentParser(description="Build a BOOST-QA dataset and load it back.")
    parser.add_argument(
        "--recipe", help="a YAML file, or one that comes with the package (default: demo, or the run's)"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the dataset; an older one is replaced")
    parser.add_argument("--run", type=Path, help="run folder to generate into, go on with, or take if it is finished")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe, such as seed=3")
    asked = parser.parse_intermixed_args(arguments)
    try:
        run = chosen(asked.recipe, asked.run, asked.overrides).open()
        folder = boost_qa.export(run, asked.output)
    except BoostQAError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"run:     {run.path}\ndataset: {folder}")
    show(folder)
    return 0


def show(folder: Path) -> None:
    """Load a dataset folder back and print its configs, splits and numbers of rows."""
    from datasets import get_dataset_config_names, load_dataset

    for config in get_dataset_config_names(str(folder)):
        splits = load_dataset(str(folder), config)
        print(f"{config:22}" + "  ".join(f"{split} {len(rows)}" for split, rows in splits.items()))


if __name__ == "__main__":
    sys.exit(main())
