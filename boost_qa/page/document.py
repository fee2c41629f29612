"""Renders a run as one HTML file.

The file shows its overview and list while the browser still reads the blocks after them. It forbids itself every
connection, and every script and style but its own, which it knows by their hashes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from boost_qa.errors import RunError
from boost_qa.page import overview
from boost_qa.page.blocks import Blocks, as_json, pack
from boost_qa.page.entry import STATUSES, Entry
from boost_qa.page.figures import Figures
from boost_qa.page.material import checks, read
from boost_qa.page.sealed import policy, source, templates
from boost_qa.run_folder import RunFolder

SCRIPTS = ("unpack.jinja", "list.jinja", "reader.jinja", "browse.jinja")
PICTURES = {
    "probabilities.png": "the probability of each agent pair over the run",
    "scores.png": "the scores of each agent pair",
    "regret.png": "the regret of the run against other policies",
}
FIRST_WORDS = 120
"""Characters of a question that the list shows."""

SAY_EVERY = 5000


def write(run: RunFolder, target: Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """Write the page of a run, finished or not; the same run gives the same bytes.

    Args:
        target: the HTML file; it appears when it is whole, in place of an older one.
        say: told how far it is.

    Raises:
        RunError: if the folder is no run, a line of it is damaged, or `target` is a folder.
        JournalError: if the journal is damaged.
    """
    manifest = run.manifest()
    if target.is_dir():
        raise RunError(f"{target} is a folder", "Name a file for the page, such as report.html.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with TemporaryFile() as dialogues, TemporaryFile() as prompts:
        blocks = Blocks(dialogues, prompts)
        figures, index = collect(run, blocks, say)
        top = render(run, manifest, figures, index).encode("utf-8", "replace")
        with part.open("wb") as file:
            file.write(top)
            for name, block in blocks.packed():
                file.write(b'<script type="application/gzip" id="%b">%b</script>\n' % (name.encode(), block))
            file.write(b"</body>\n</html>\n")
    part.replace(target)
    return target


def collect(run: RunFolder, blocks: Blocks, say: Callable[[str], None]) -> tuple[Figures, dict[str, Any]]:
    """Read a run once: pack its entries, count them, and keep of each what the list shows.

    Names in `entries` are numbers: places in the lists of names beside it.
    """
    figures, names = Figures(), {name: dict[str, int]() for name in ("scenarios", "sources", "models", "labels")}

    def number(kind: str, name: str) -> int:
        return names[kind].setdefault(name, len(names[kind]))

    entries: list[list[Any]] = []
    for entry, prompts in read(run):
        blocks.add(entry, prompts)
        figures.add(entry)
        models = dict.fromkeys(turn.model for turn in entry.turns if turn.model)
        entries.append(
            [
                entry.id,
                STATUSES.index(entry.status),
                number("scenarios", entry.scenario),
                number("sources", entry.source),
                [number("models", model) for model in models],
                [number("labels", label) for label in _labels(entry)],
                " ".join(entry.question[: 2 * FIRST_WORDS].split())[:FIRST_WORDS],
            ]
        )
        if len(entries) % SAY_EVERY == 0:
            say(f"{len(entries):,} dialogues and rejected records")
    blocks.finish()
    index = {kind: list(numbers) for kind, numbers in names.items()}
    return figures, index | {"entries": entries, "starts": blocks.starts, "colours": figures.colours}


def render(run: RunFolder, manifest: Mapping[str, Any], figures: Figures, index: Mapping[str, Any]) -> str:
    """The page up to its blocks."""
    found = templates(Path(__file__).parent)
    style, script = source(found, "style.jinja"), source(found, *SCRIPTS)
    meanings = checks(run).get("checks", {})
    spoken, ticks = overview.spoken(figures)
    whose = [name for name in overview.WHOSE if any(who == name for who, *_ in figures.answers)]
    return found.get_template("page.jinja").render(
        policy=policy(style, script),
        style=style,
        script=script,
        index=pack(as_json(index)).decode(),
        facts=overview.facts(manifest),
        funnel=overview.funnel(manifest, figures),
        scenarios=figures.scenarios(),
        table=overview.by_scenario_and_source(figures),
        spoken=spoken,
        ticks=ticks,
        whose=[
            (overview.WHOSE[who], [(by, overview.agreement(figures, who, by)) for by in overview.BY]) for who in whose
        ],
        verdicts=overview.VERDICTS,
        seen=overview.seen(figures, meanings),
        checks=overview.checks(figures, meanings),
        checked=figures.checked,
        counts={status: figures.count(status) for status in STATUSES},
        pictures=list(_pictures(run)),
    )


def _labels(entry: Entry) -> dict[str, None]:
    """What the list can be filtered by: why an entry is gone, and what checks saw in it."""
    noted = (*entry.findings, *(finding for turn in entry.turns for finding in turn.findings))
    return dict.fromkeys((*entry.why, *(label for _, label, _ in noted)))


def _pictures(run: RunFolder) -> Iterator[tuple[str, str]]:
    """The pictures of a star run: what they show, and their data."""
    for name, what in PICTURES.items():
        if (run.path / name).is_file():
            data = base64.b64encode((run.path / name).read_bytes()).decode()
            yield what, f"data:image/png;base64,{data}"
