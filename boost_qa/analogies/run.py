"""Draw pairs of a run, lay them out, have them judged, and write down what came out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boost_qa.analogies.draw import Pair, draw
from boost_qa.analogies.judging import UNREADABLE, Verdict, judge_agent, judged
from boost_qa.analogies.layout import as_markdown, as_page, as_table
from boost_qa.errors import RunError
from boost_qa.evaluate.judge import Judge
from boost_qa.lessons import PACKAGES, analogy, embedder, versions
from boost_qa.progress import Progress
from boost_qa.recipe_file import load_recipe
from boost_qa.retrieval import Embedder
from boost_qa.run_folder import RunFolder, write_whole
from boost_qa.types import digest

RESULTS, AGREEMENT = "analogies.json", "agreement.json"


def analogies(
    run: RunFolder,
    output: Path | None = None,
    *,
    limit: int = 20,
    seed: int = 0,
    judge: Judge | None = None,
    attempts: int = 3,
    embed: Embedder | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Draw pairs and lay them out; with a judge, ask it about each. What was asked before is not asked again.

    Without a judge, verdicts that are there already of the same pairs stay. Other pairs or another judge take the place
    of what is there, but the replies of every judge stay in the journal.

    Args:
        output: folder; by default `analogies` in the run's.
        limit: questions that are drawn.
        attempts: how often a reply that cannot be read is asked for in all.
        embed: used in place of the run's own.

    Returns:
        what `analogies.json` holds: `run`, `drawn`, `judge` (None without), `versions`, `pairs`, and with a judge
        `figures`; see `figures.figures`.

    Raises:
        RunError: the folder is no run, none of its questions has neighbours, or another process works in `output`.
        ModelError: before anything was asked.
        EngineError, JournalError: what was asked is kept.
    """
    manifest, recipe = run.manifest(), load_recipe(run.recipe)
    settings = analogy(recipe)
    if settings is None:
        remedy = "Give a run whose recipe has scenarios.analogical_reasoning."
        raise RunError(f"the run in {run.path} plays no analogies", remedy)
    folder = folder_of(run, output)
    with RunFolder(folder).lock(), Progress(show) as progress:
        embed = embed or embedder(settings, progress)
        pairs = draw(run, limit, seed, embed, pool_is_rest=recipe.assign == "one")
        content: dict[str, Any] = {
            "run": {"name": manifest["name"], "digest": manifest["digest"]},
            "drawn": _drawn(manifest["digest"], pairs, limit, seed, settings.embedder, embed),
            "judge": None,
            "versions": versions((*PACKAGES, "numpy", "scipy")),
            "pairs": [_row(pair, None) for pair in pairs],
        }
        if judge is not None:
            _judge(content, pairs, judge, attempts, folder, progress)
        elif (before := _before(folder)).get("drawn") == content["drawn"]:
            content = before
        _write(folder, content, pairs)
    return content


def compare(run: RunFolder, file: Path, output: Path | None = None) -> dict[str, Any]:
    """Hold a person's verdicts against the judge's; writes and gives what `agreement.json` holds.

    Args:
        file: what `Download my verdicts` of the page saved.
        output: as for `analogies`.

    Raises:
        RunError: nothing was drawn or judged yet, or the verdicts are about other pairs.
    """
    from boost_qa.analogies.reader import agreement

    folder = folder_of(run, output)
    content = _before(folder)
    if not content:
        raise RunError(f"there is no {RESULTS} in {folder}", "Draw pairs first: boost-qa analogies RUN --judge MODEL.")
    found = agreement(content, file)
    write_whole(folder / AGREEMENT, _json(found))
    return found


def folder_of(run: RunFolder, output: Path | None) -> Path:
    """Where everything is written."""
    return output or run.path / "analogies"


def _judge(
    content: dict[str, Any], pairs: Sequence[Pair], judge: Judge, attempts: int, folder: Path, progress: Progress
) -> None:
    """Put verdicts, judge and figures into `content`."""
    from boost_qa.analogies.figures import figures  # needs scipy, which laying out does not

    agent, engine = judge_agent(judge.name, attempts), judge.make()
    verdicts = judged(pairs, agent, engine, folder / "judge.sqlite", content["drawn"]["seed"], progress)
    content["judge"] = {
        "model": judge.name,
        "revision": engine.revision,
        "prompt": agent.prompt.digest,
        "sampling": dataclasses.asdict(agent.sampling),
        "attempts": attempts,
    }
    content["pairs"] = [_row(pair, verdicts[pair.id]) for pair in pairs]
    content["figures"] = figures(content["pairs"], {id: verdict.outcome for id, verdict in verdicts.items()})


def _drawn(run: str, pairs: Sequence[Pair], limit: int, seed: int, model: str, embed: Embedder) -> dict[str, Any]:
    return {
        "digest": digest(run, str(seed), *(pair.id for pair in pairs)),
        "limit": limit,
        "seed": seed,
        "without_random_pair": 2 * sum(pair.kind == "neighbour" for pair in pairs) - len(pairs),
        "embedder": {"model": model, "revision": embed.revision},
    }


def _row(pair: Pair, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "id": pair.id,
        "kind": pair.kind,
        "source": pair.first.source,
        "first": pair.first.id,
        "second": pair.second.id,
        "rank": pair.rank,
        "similarity": pair.similarity,
        "outcome": verdict.outcome if verdict else None,
        "orders": list(verdict.orders) if verdict else [],
        "why": verdict.why if verdict else "",
    }


def _write(folder: Path, content: Mapping[str, Any], pairs: Sequence[Pair]) -> None:
    name, rows = content["run"]["name"], content["pairs"]
    said: list[str] = []
    if content["judge"] is not None:
        from boost_qa.analogies.figures import sentences, table_rows

        said = [*as_table(table_rows(content["figures"])), "", *sentences(content["figures"])]
        said += [f"Unreadable: {sum(row['outcome'] == UNREADABLE for row in rows)} pairs, which are in no share."]
    write_whole(folder / "pairs.md", as_markdown(name, pairs, rows, said))
    write_whole(folder / "pairs.html", as_page(name, content["drawn"]["digest"], pairs, rows))
    write_whole(folder / RESULTS, _json(content))


def _before(folder: Path) -> dict[str, Any]:
    file = folder / RESULTS
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunError(f"{file}: {error}", "Delete it; the journal keeps all replies.") from error


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
