"""What the core costs: seconds to import `boost_qa` beyond `datasets`, and megabytes to install.

Each import runs in a fresh interpreter, the two by turns. The size is that of the package and of all
packages it requires without extras, as installed here; `beyond datasets` leaves out those that
`datasets` requires itself.

    python benchmarks/footprint.py
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from importlib import metadata

import report
from packaging.requirements import Requirement

PREDICTION = """
Import: 0.15 to 0.3 s beyond datasets (rich, pydantic models, the modules of the stages). Installed: datasets
with pyarrow, pandas and numpy is some 350 MB; what we add is under 40 MB in about 25 packages.
"""
TIMED = "import time; t = time.perf_counter(); import datasets; {}; print(time.perf_counter() - t)"


def seconds(statement: str) -> float:
    done = subprocess.run([sys.executable, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def required(name: str) -> set[str]:
    """The distribution and all that it requires here, without extras, by normalised name."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if current in found:
            continue
        found.add(current)
        for text in metadata.requires(current) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def megabytes(names: set[str]) -> float:
    total = 0
    for name in names:
        for file in metadata.files(name) or ():
            path = file.locate()
            total += path.stat().st_size if path.is_file() else 0  # type: ignore[attr-defined]
    return total / 1e6


def main() -> None:
    options = report.parser("footprint", __doc__).parse_args()
    alone, ours = [], []
    for _ in range(options.repeats):
        alone.append(seconds("pass"))
        ours.append(seconds("import boost_qa"))
    core, base = required("boost_qa"), required("datasets")
    result = {
        "import_datasets_s": report.spread(alone),
        "import_boost_qa_s": report.spread(ours),
        "beyond_datasets_s": round(statistics.median(ours) - statistics.median(alone), 3),
        "packages": len(core),
        "packages_beyond_datasets": len(core - base),
        "installed_mb": round(megabytes(core), 1),
        "installed_mb_beyond_datasets": round(megabytes(core - base), 1),
    }
    rows = [(name, str(each["median"] if isinstance(each, dict) else each)) for name, each in result.items()]
    report.show("footprint of the core", ("", "median"), rows)
    report.write(options.output, PREDICTION, {"repeats": options.repeats}, result)


if __name__ == "__main__":
    main()
