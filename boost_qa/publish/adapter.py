"""What a fine-tuning left, as a model on the Hub: an adapter, merged weights, or a whole model."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from boost_qa import models
from boost_qa.cards.adapter import Base, Data, render
from boost_qa.cards.evaluations import eval_results_yaml, read_scores
from boost_qa.cards.training import need, ways
from boost_qa.errors import BoostQAError, HubError, RunError
from boost_qa.portable import last_name, portable_value
from boost_qa.publish.base import check_fit, find_base, shapes
from boost_qa.publish.patience import Patience
from boost_qa.publish.release import Local, Release
from boost_qa.publish.repository import Repository, Target
from boost_qa.publish.results import find_results, measured
from boost_qa.publish.secrets import known_secrets, refuse_secrets
from boost_qa.publish.send import Published, send
from boost_qa.publish.training_data import find_data
from boost_qa.publish.upload import Say, megabytes

Kind = Literal["adapter", "merged", "full"]
RUN, RECIPE, ADAPTER, WEIGHTS = "run.json", "recipe.yaml", "adapter_config.json", "adapter_model.safetensors"
_MODEL = re.compile(
    r"[^/]+\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json|chat_template\.jinja|loss\.png"
    r"|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|tokenizer\.model|merges\.txt"
)
_PLACES = re.compile(rf"{_MODEL.pattern}|run\.json|recipe\.yaml|\.boost_qa/.*|\.eval_results/boost_qa-[^/]*")
_WHOLE = "Give the whole output_dir of a training."
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json")
_PLACE = re.compile(r"(path|file|dir)$")


def publish_adapter(
    folder: str | Path,
    target: Target,
    *,
    base: str | None = None,
    dataset: str | None = None,
    results: Sequence[Path] = (),
    merged: bool = False,
    dry_run: bool = False,
    say: Say = lambda text: None,
) -> Published:
    """Publish what a finished fine-tuning left in one commit, and read it back from there.

    Args:
        folder: output_dir of the training.
        target: where to.
        base: ID or ID@REVISION of the base on the Hub, where run.json names a local one.
        dataset: ID or ID@REVISION of the dataset on the Hub, where run.json names a local one with the same rows.
        results: files of lm-evaluation-harness, besides those found in the folder.
        merged: publish base and adapter as one model instead of the adapter.
        dry_run: say what would change, and change nothing.
        say: is told what is going on.

    Raises:
        PublishError: if the name, the token, its rights, the base or the dataset stand against it; nothing was sent.
        RunError: if the folder holds no finished training.
        HubError: if the Hub fails; the repository is as it was, or has the whole release.
    """
    folder = Path(folder).expanduser()
    run = read_run(folder)
    repository = Repository(target, patience=Patience(say=say))
    repository.check()
    found = find_base(run, base, repository)
    trained_on = find_data(run, dataset, repository, say)
    measurements = find_results(folder, results, say)
    with weights(folder, found, merged, repository) as (kind, source):
        release = adapter_release(folder, source, target.name, kind, run, found, trained_on, measurements)
        refuse_secrets(release.contents(), known=known_secrets(token=repository.token))
        say(f"{len(release.files)} files, {megabytes(sum(file.size for file in release.files))}")

        def look(revision: str) -> None:
            tensors = read_back(release, repository, revision)
            say(f"read back from {revision[:12]}: {tensors} tensors; every file has the digest that it has here")

        return send(release, repository, dry_run=dry_run, look=look, say=say)


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a finished training.

    Raises:
        RunError: if there is none, or it is not finished.
    """
    run = _read(folder / RUN)
    if not run.get("finished"):
        raise RunError(f"the training in {folder} is not finished", "Run its command again: it goes on where it was.")
    for key in ("recipe.file", "recipe.given", "model.name", "model.revision", "data.dataset", "data.revision"):
        need(run, key)
    return run


@contextmanager
def weights(folder: Path, base: Base, merged: bool, repository: Repository) -> Iterator[tuple[Kind, Path]]:
    """What is to be published, and the folder that holds it: the training's, or a merged model for the time being."""
    if not (folder / ADAPTER).is_file():
        if merged:
            raise RunError(f"{folder} holds a whole model: there is nothing to merge", "Leave --merged out.")
        yield "full", folder
        return
    config = _read(folder / ADAPTER)
    check_fit(base, folder / WEIGHTS, config, repository)
    if not merged:
        yield "adapter", folder
        return
    from boost_qa.train.merge import merge

    with tempfile.TemporaryDirectory(prefix="boost_qa-") as scratch:
        yield "merged", merge(folder, Path(scratch) / "merged")


def adapter_release(
    folder: Path,
    source: Path,
    name: str,
    kind: Kind,
    run: Mapping[str, Any],
    base: Base,
    data: Data | None,
    results: Mapping[str, Path],
) -> Release:
    """The release of a training under a name on the Hub.

    Args:
        folder: of the training; for its results and picture.
        source: holds the weights.
        name, kind, run, base, data, results: see `publish_adapter` and `cards.adapter.render`.
    """
    scores = read_scores(results.values())
    config = _adapter_config(source, base) if kind == "adapter" else None
    files = {path.name: _content(path) for path in sorted(source.iterdir()) if _MODEL.fullmatch(path.name)}
    files |= {"loss.png": folder / "loss.png"} if (folder / "loss.png").is_file() else {}
    files |= {ADAPTER: _json(config)} if config else {}
    files |= {RUN: _json(_without_ways(run, run)), RECIPE: recipe_text(run, base, data).encode()}
    files |= {f".boost_qa/evaluation/{name}": _json(measured(path)) for name, path in results.items()}
    # under a name that no other program's results have: a release removes those of the one before
    files |= {path.replace("/", "/boost_qa-", 1): text.encode() for path, text in eval_results_yaml(scores).items()}
    card = render(run, repo_id=name, kind=kind, base=base, data=data, scores=scores, adapter_config=config)
    return Release(
        [Local(path, content) for path, content in sorted(files.items())],
        card,
        _PLACES,
        f"{base.id}, fine-tuned by boost_qa ({kind})",
        f"Rows {run['data']['fingerprint']} of {data.id if data else Path(str(run['data']['dataset'])).name}",
    )


def recipe_text(run: Mapping[str, Any], base: Base, data: Data | None) -> str:
    """The recipe as it was given, with Hub ids in place of local paths: what trains the same again."""
    whole = run["recipe"]["given"]
    given = _without_ways(run, {key: whole[key] for key in whole if not re.match(r"push_to_hub|hub_", key)})
    if not models.base(str(whole.get("model_name_or_path"))):  # those of the catalogue are the same everywhere
        given |= {"model_name_or_path": base.id, "model_revision": base.revision}
    if data:
        given |= {"dataset": data.id, "dataset_revision": data.revision}
    head = [
        f"# {run['recipe']['file'] or 'No recipe file'}, with the changes of the command line.",
        "# accelerate launch -m boost_qa.train --config recipe.yaml",
    ]
    return "\n".join(head) + "\n" + yaml.safe_dump(given, sort_keys=False, allow_unicode=True)


def _without_ways(run: Mapping[str, Any], part: Mapping[str, Any]) -> Any:
    """Part of run.json, or all of it, without the ways to what lay on this machine, be they absolute or not."""
    return _reduced(portable_value(part), ways(run))


def _reduced(value: Any, found: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _reduced(inner, found) for key, inner in value.items()}
    if isinstance(value, list):
        return [_reduced(inner, found) for inner in value]
    return last_name(value) if isinstance(value, str) and value in found else value


def read_back(release: Release, repository: Repository, revision: str) -> int:
    """Read the headers of all weights from the Hub, and compare them with those here.

    Returns:
        How many tensors there are.

    Raises:
        HubError: if one is missing, has another shape, or cannot be read.
    """
    tensors = 0
    for file in release.files:
        if file.path.endswith(".safetensors") and isinstance(file.content, Path):
            try:
                there = repository.tensors(file.path, revision)
            except BoostQAError as error:
                what = f"published as {revision}, but {file.path} cannot be read back: {error.what}"
                raise HubError(what, "Publish it again: what is there is not sent twice.") from error
            if there != shapes(file.content):
                raise HubError(f"published as {revision}, but {file.path} reads back otherwise", "Publish it again.")
            tensors += len(there)
    return tensors


def _read(file: Path) -> dict[str, Any]:
    """A JSON object that a training wrote."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}", _WHOLE) from error
    if not isinstance(value, dict):
        raise RunError(f"{file} cannot be read: it is no JSON object", _WHOLE)
    return value


def _adapter_config(folder: Path, base: Base) -> dict[str, Any]:
    return _read(folder / ADAPTER) | {"base_model_name_or_path": base.id, "revision": base.revision}


def _content(path: Path) -> Path | bytes:
    """The file; of a config that names places of this machine, what is portable. Vocabularies are as they are."""
    if path.name not in _CONFIGS:
        return path
    value = _read(path)
    named = {key: portable_value(inner) if _PLACE.search(key) else inner for key, inner in value.items()}
    return path if named == value else _json(named)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
