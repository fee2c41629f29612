"""What every benchmark writes down: the machine, the command, what was expected, and what came out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("boost_qa", "aiohttp", "orjson", "uvloop", "openvino-genai", "tokenizers", "datasets")


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """Options of every benchmark; `name` is that of its file in `results`."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--output", type=Path, default=RESULTS / f"{name}.json", help="JSON file (default: %(default)s)"
    )
    options.add_argument(
        "--repeats", type=int, default=5, help="of each measurement, taken in turns (default: %(default)s)"
    )
    return options


def write(output: Path, prediction: str, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write one measurement as JSON; `prediction` was written before the first run."""
    report = {
        "benchmark": output.stem,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "prediction": " ".join(prediction.split()),
        "settings": settings,
        "result": result,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(output.name + ".part")
    part.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(output)
    Console().print(f"written to {output}")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Median, least and most of some repeats, with the repeats themselves."""
    rounded = [round(value, digits) for value in values]
    middle = round(statistics.median(values), digits)
    return {"median": middle, "min": min(rounded), "max": max(rounded), "repeats": rounded}


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others numbers."""
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB, system, and the versions of what does the work."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {package: version for package in PACKAGES if (version := _version(package))},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
