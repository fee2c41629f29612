"""Teaches `datasets` the bare name: `load_dataset("boost_qa")`, once `boost_qa` is imported.

`datasets` has no hook for this (no entry points, no plug-ins), so the one function that resolves
names is wrapped. If a future version moves it, a warning points to `boost_qa.load`, which needs
nothing private.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from pathlib import Path
from typing import Any

NAME = "boost_qa"
BUILDER = "boost_qa.builder"


def register() -> None:
    """Make `load_dataset`, `load_dataset_builder`, `get_dataset_config_names` and the like know the name."""
    import datasets.inspect
    import datasets.load

    resolve = getattr(datasets.load, "dataset_module_factory", None)
    module_type = getattr(datasets.load, "DatasetModule", None)
    if resolve is None or module_type is None:
        warnings.warn(
            f'this version of `datasets` cannot resolve load_dataset("{NAME}"); use {NAME}.load(...)', stacklevel=2
        )
        return
    if hasattr(resolve, "knows_boost_qa"):
        return

    @functools.wraps(resolve)
    def dataset_module_factory(path: str, *args: Any, **settings: Any) -> Any:
        if path != NAME:
            return resolve(path, *args, **settings)
        if settings.get("data_files") is not None or settings.get("data_dir") is not None:
            raise ValueError(
                f'"{NAME}" generates its data and takes no data_files or data_dir; write "./{NAME}" for a folder'
            )
        return module_type(BUILDER, code_hash(), {"dataset_name": NAME})

    dataset_module_factory.knows_boost_qa = True  # type: ignore[attr-defined]
    datasets.load.dataset_module_factory = dataset_module_factory
    datasets.inspect.dataset_module_factory = dataset_module_factory  # it holds the name on its own


@functools.cache
def code_hash() -> str:
    """Names all that the package could make rows differently with: its code, prompts and sample records.

    Part of the cache's path, so that rows of older code are never served. Computed once in a process:
    files that are edited later are not the code that runs.
    """
    root = Path(__file__).parent
    files = (path for path in root.rglob("*") if path.suffix in {".py", ".yaml", ".jinja"} and path.is_file())
    whole = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in files):
        content = path.read_bytes()
        whole.update(f"{len(name)}:{name}{len(content)}:".encode() + content)
    return whole.hexdigest()
