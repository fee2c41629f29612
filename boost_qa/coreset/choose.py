"""The coreset of a run: from its records to `coreset.json`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boost_qa.contents import survey
from boost_qa.coreset.features import features
from boost_qa.coreset.selection import select
from boost_qa.derived import Group, wanted
from boost_qa.errors import RunError
from boost_qa.run_folder import RunFolder, write_whole
from boost_qa.types import Record

Vectors = Callable[[Sequence[Record]], NDArray[np.float32]]


@dataclass(frozen=True)
class Settings:
    """How records are chosen.

    Args:
        model: whose gradients are looked at: a name of `boost-qa models`, a folder, a GGUF file or a Hub id.
        clusters: of each source, at most; 100 in the authors' code.
        seed: of the projection and of the clusters.
        max_tokens: of question and answer; longer ones are cut.
    """

    model: str
    clusters: int = 100
    seed: int = 0
    max_tokens: int = 2048


def load_gradients(settings: Settings) -> tuple[Vectors, dict[str, Any]]:
    """What gives the vectors, and what they depend on. Raises ModelError if the model cannot be had."""
    from boost_qa.coreset.gradients import Gradients
    from boost_qa.score import load_scorer

    # what is kept for the way back takes some megabytes a token
    scorer, model = load_scorer(settings.model, {"max_tokens": settings.max_tokens, "batch_tokens": 1024})
    return Gradients(scorer, settings.seed), model


def choose(
    run: RunFolder, settings: Settings, say: Callable[[str], None] = lambda _: None, load: Any = load_gradients
) -> dict[str, list[str]]:
    """Write `coreset.json` of a finished run; gives the ids that were chosen, by source.

    The vectors are kept beside it: a command that was stopped goes on, and other clusters are soon tried.

    Args:
        say: is told how far it is.
        load: gives what `load_gradients` gives.

    Raises:
        RunError: if the run is not finished, another process works in it, or scikit-learn is not installed.
        ModelError: if the model cannot be had or used.
    """
    if not run.finished:
        raise RunError(f"the run in {run.path} is not finished", "Run `boost-qa generate` again to finish it.")
    try:
        versions = {name: metadata.version(name) for name in ("boost_qa", "numpy", "scikit-learn")}
    except metadata.PackageNotFoundError as error:  # before the gradients are made, which takes long
        raise RunError(f"a coreset needs {error.name}", "pip install 'boost_qa[baselines]'") from error
    with run.lock():
        contents = survey(run)
        split = {place.record: place.split for place in contents.records}
        # those that a check keeps out are in no split; sorted, so that the order of the sources changes nothing
        records = sorted((record for record in run.records() if record.id in split), key=lambda record: record.id)
        vectors, model = load(settings)
        made_with = json.dumps([model, settings.seed, settings.max_tokens], sort_keys=True)
        found = features(records, vectors, run.gradients, made_with, say)
        groups: dict[Group, list[int]] = defaultdict(list)
        for at, record in enumerate(records):
            groups[record.source, split[record.id]].append(at)
        chosen: dict[str, list[str]] = {}
        for (source, part), count in sorted(wanted(contents).items()):
            rows = groups[source, part]
            say(f"choosing {count:,} of {len(rows):,} records of {source} for {part}")
            picked = select(found[rows], count, settings.clusters, settings.seed)
            chosen.setdefault(source, []).extend(records[rows[at]].id for at in picked)
        facts = {
            "model": model,
            "settings": {key: value for key, value in asdict(settings).items() if key != "model"},
            "records": len(records),
            "versions": versions,
            "chosen": chosen,
        }
        write_whole(run.coreset_file, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    return chosen
