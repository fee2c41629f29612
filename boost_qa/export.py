"""A finished run as a folder of Parquet files that anybody can load.

    README.md                                           dataset card; its YAML names configs and splits
    recipe.yaml                                         the recipe, with names in place of local paths
    data/<config>/<split>-00000-of-0000N.parquet        `all`, one config per scenario, and `original`

`load_dataset("./DIR", "debate")` needs nothing of this package. The same run gives the same bytes,
as long as pyarrow is the same. No path of this machine is in it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from boost_qa.cards.dataset import TAG, SplitFigures, render
from boost_qa.contents import ALL, Contents, survey
from boost_qa.errors import RunError
from boost_qa.parquet import SHARD_BYTES, ShardWriter
from boost_qa.portable import SERVER, portable, portable_model
from boost_qa.run_folder import RunFolder
from boost_qa.types import ORIGINAL

_OURS = re.compile(r"README\.md|recipe\.yaml|data/[a-z_]+/[a-z]+-\d{5}-of-\d{5}\.parquet")
_HEADER = f"""\
# The recipe of this dataset, every setting with its value: boost-qa generate recipe.yaml
# Of local paths only the last name is left, and {SERVER} stands for the address of any server:
# put your own in their places.
"""


def export(run: RunFolder | str | Path, folder: str | Path, *, partial: bool = False) -> Path:
    """Write a run as a dataset folder; an earlier export in its place is replaced whole.

    Args:
        run: a run folder.
        folder: where to write; new, empty, or an export.
        partial: whether the dialogues so far of an unfinished run will do.

    Raises:
        RunError: if the run is unfinished or without a dialogue, or the folder holds other files.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(Path(run).expanduser())
    target = Path(folder).expanduser().resolve()
    manifest = run.manifest()
    if not (run.finished or partial):
        remedy = "Run `boost-qa generate` again to finish it, or export what there is with partial=True (--partial)."
        raise RunError(f"the run in {run.path} is not finished", remedy)
    check_replaceable(target)
    contents = survey(run)
    if not contents.dialogues:
        remedy = "rejected.jsonl there says why each record was refused."
        raise RunError(f"the run in {run.path} has no dialogue", remedy)
    with _replaced_whole(target) as new:
        figures = write_parquet(contents, new / "data")
        card = render(manifest, contents, figures, digest=content_digest(new / "data"))
        (new / "README.md").write_text(card, encoding="utf-8", newline="\n")
        (new / "recipe.yaml").write_text(recipe_text(manifest["recipe"]), encoding="utf-8", newline="\n")
    return target


def write_parquet(
    contents: Contents, folder: Path, *, shard_bytes: int = SHARD_BYTES
) -> dict[str, dict[str, SplitFigures]]:
    """Write every config and split below `folder`, in one pass; what came of each, by config and split."""
    writers = {
        (config, split): ShardWriter(folder / config, split, shard_bytes=shard_bytes)
        for config, splits in contents.configs().items()
        for split in splits
    }
    try:
        for place, found in contents.rows():
            row = _without_paths(found)
            writers[place.config, place.split].add(row)
            if place.config != ORIGINAL:
                writers[ALL, place.split].add(row)
        for writer in writers.values():
            writer.close()
    finally:
        for writer in writers.values():
            writer.abort()
    figures: dict[str, dict[str, SplitFigures]] = {}
    for (config, split), writer in writers.items():
        of_split = SplitFigures(writer.num_examples, writer.num_bytes, writer.download_size)
        figures.setdefault(config, {})[split] = of_split
    return figures


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """recipe.yaml of an export, for `boost-qa generate` on any machine."""
    return _HEADER + yaml.safe_dump(portable(recipe), sort_keys=False, allow_unicode=True, width=120)


def content_digest(folder: Path) -> str:
    """64 hex characters that name all files below `folder`, by path and content."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            name, content = path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256")
        whole.update(f"{content.hexdigest()} {name}\n".encode())
    return whole.hexdigest()


def check_replaceable(folder: Path) -> None:
    """Make sure that nothing but an export of ours would be lost.

    Raises:
        RunError: naming a file that is not ours.
    """
    if not folder.exists():
        return
    remedy = "Give a new or empty folder."
    if not folder.is_dir():
        raise RunError(f"{folder} is a file", remedy)
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = sorted(path.relative_to(folder).as_posix() for path in found)
    foreign = [name for name in files if not _OURS.fullmatch(name)]
    if foreign:
        raise RunError(f"{folder} holds {foreign[0]}, which is no part of an export", remedy)
    if files and f"- {TAG}\n" not in _front_matter(folder / "README.md"):
        raise RunError(f"{folder} is not empty and its README.md is not that of an export", remedy)


def _without_paths(row: dict[str, Any]) -> dict[str, Any]:
    """A recipe may name a model by its file, which a row then carries."""
    return row | {"agents": [agent | {"model": portable_model(agent["model"])} for agent in row["agents"]]}


def _front_matter(readme: Path) -> str:
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    return text.partition("\n---\n")[0] + "\n" if text.startswith("---\n") else ""


@contextmanager
def _replaced_whole(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place if all goes well, and is gone otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new, old = workplace / "new", workplace / "old"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
