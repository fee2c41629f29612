"""The card of a fine-tuned model: an adapter, one merged into its base, or a whole model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from boost_qa.cards import training
from boost_qa.cards.dataset import TAG
from boost_qa.cards.evaluations import Score, hub_results
from boost_qa.cards.markup import Markup, code, environment
from boost_qa.errors import RunError
from boost_qa.portable import last_name, portable_model, portable_value

Kind = Literal["adapter", "merged", "full"]
TEMPLATE = "adapter.md.jinja"
_METHOD = {"lora": "LoRA", "qlora": "LoRA over quantised weights (QLoRA)", "full": "training of all weights"}


@dataclass(frozen=True)
class Base:
    """The model on the Hub that a fine-tuned one belongs to.

    Args:
        id: on the Hub.
        revision: its commit.
        licence: as its card declares it, by the Hub's name; `licence_name` and `licence_link` where that is `other`.
        gated: whether its makers must grant access.
        trained_on: what was trained on, if that is not these very weights, as text.
    """

    id: str
    revision: str | None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    gated: bool = False
    trained_on: str | None = None


@dataclass(frozen=True)
class Data:
    """A dataset on the Hub, and its commit."""

    id: str
    revision: str | None


def render(
    run: Mapping[str, Any],
    *,
    repo_id: str,
    kind: Kind,
    base: Base,
    data: Data | None,
    scores: Sequence[Score],
    adapter_config: Mapping[str, Any] | None,
) -> str:
    """README.md of a fine-tuned model.

    Args:
        run: run.json of the finished training.
        repo_id: where it is published; recipe.yaml and run.json are taken to be there, too.
        kind: what is published.
        base: what it was made of.
        data: what it was trained on, if that is on the Hub.
        scores: what was measured with it.
        adapter_config: of an adapter.

    Raises:
        RunError: if run.json lacks a figure that each training leaves, naming its key, or is not finished.
        ValueError: if a repository id is none.
    """
    variables = context(
        run, repo_id=repo_id, kind=kind, base=base, data=data, scores=scores, adapter_config=adapter_config
    )
    return str(environment().get_template(TEMPLATE).render(variables))


def context(
    run: Mapping[str, Any],
    *,
    repo_id: str,
    kind: Kind,
    base: Base,
    data: Data | None,
    scores: Sequence[Score],
    adapter_config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The variables of the template, all of which it uses; arguments and errors are those of `render`."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    for id in (repo_id, base.id, *([data.id] if data else [])):
        validate_repo_id(id)
    if not training.need(run, "finished"):
        raise RunError("run.json says that the training is not finished", "Run its command again, to its end.")
    losses, evaluations = training.held_out_losses(run)
    method = str(training.need(run, "recipe.method"))
    return {
        "front_matter": Markup(front_matter(repo_id, kind, base, data, scores)),
        "name": repo_id.rpartition("/")[2],
        "repo_id": repo_id,
        "kind": kind,
        "method": _METHOD.get(method, method),
        "base": base,
        "data": data,
        "data_name": training.data_name(run),
        "data_rows": training.data_rows(run),
        "template": training.need(run, "model.template"),
        "stop_token": training.need(run, "model.stop_token"),
        "settings": training.given_settings(run, _shown(run, base, data)),
        "adapter": training.adapter_rows(adapter_config) if adapter_config else [],
        "mask": training.mask(run),
        "training": training.training_rows(run),
        "held_out_losses": losses,
        "evaluations": evaluations,
        "versions": Markup(", ".join(code(f"{name} {of}") for name, of in training.need(run, "versions").items())),
        "scores": [_row(score) for score in scores],
        "harnesses": sorted({score.harness for score in scores}),
        "recipe_file": training.need(run, "recipe.file"),
        "resolved": training.find(run, "recipe.resolved") is not None,
        "voices": training.voices(run),
        "wrong_on_purpose": training.wrong_on_purpose(run),
        "extras": training.extras(run),
        "processes": training.find(run, "measured.processes") or 1,
        "accelerate_config": training.accelerate_config(run),
        "trained_on": portable_value(base.trained_on),
    }


def front_matter(repo_id: str, kind: Kind, base: Base, data: Data | None, scores: Sequence[Score]) -> str:
    """The card's YAML: what the Hub shows and links by. For the revisions of base and dataset it has no key."""
    from huggingface_hub import ModelCardData

    tags = [f"base_model:adapter:{base.id}"] if kind == "adapter" else []
    tags += [] if kind == "full" else ["lora"]
    licence, licence_name, licence_link = _licence(base)
    results = hub_results(scores)
    card = ModelCardData(
        base_model=base.id,
        base_model_relation="adapter" if kind == "adapter" else "finetune",
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        license=licence,
        license_name=licence_name,
        license_link=licence_link,
        datasets=[data.id] if data else None,
        tags=[*tags, "sft", "trl", TAG],
        eval_results=results or None,
        model_name=repo_id.rpartition("/")[2] if results else None,
    )
    return card.to_yaml()


def _licence(base: Base) -> tuple[str | None, str | None, str | None]:
    """The base's licence; one that is no name of the Hub goes as `other`, which needs a name and a link."""
    if base.licence is None:
        return None, None, None
    declared = base.licence if isinstance(base.licence, str) else "-".join(base.licence)  # a card may name several
    if declared != "other" and isinstance(base.licence, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", declared):
        return declared, None, None
    name = base.licence_name or (declared if declared != "other" else "licence-of-the-base-model")
    return "other", re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.") or "other", _link(base)


def _link(base: Base) -> str:
    """Where the licence stands: a file that the base's card names is one in the base's repository, not in this one."""
    there, link = f"https://huggingface.co/{base.id}", base.licence_link
    if link is None or re.search(r"\s", link):
        return there
    return link if re.match(r"https?://[\w.-]+(/|$)", link) else f"{there}/blob/main/{link.lstrip('./')}"


def _shown(run: Mapping[str, Any], base: Base, data: Data | None) -> dict[str, str]:
    """Names of model and dataset as the card may say them: also a path that is not absolute is nobody's business."""
    given, shown = training.need(run, "recipe.given"), dict[str, str]()
    if (name := given.get("dataset")) and name not in ("boost_qa", data.id if data else None):
        shown["dataset"] = last_name(str(name))
    if (name := given.get("model_name_or_path")) and name != base.id:
        shown["model_name_or_path"] = str(portable_model(str(name)))
    paths = training.ways(run)
    return shown | {key: last_name(value) for key, value in given.items() if isinstance(value, str) and value in paths}


def _row(score: Score) -> dict[str, str]:
    shots = training.MISSING if score.shots is None else str(score.shots)
    return {
        "task": score.task,
        "metric": score.metric + (f" ({score.filter})" if score.filter else ""),
        "value": f"{score.value:.4f}",
        "stderr": training.MISSING if score.stderr is None else f"{score.stderr:.4f}",
        "samples": training.MISSING if score.samples is None else f"{score.samples:,}",
        "shots": shots,
        "dataset": _dataset(score),
    }


def _dataset(score: Score) -> str:
    if score.dataset_id is None:
        return "not on the Hub"
    parts = (score.dataset_id, score.dataset_config, score.split)
    return ", ".join(str(part) for part in parts if part) + (
        f", revision {score.dataset_revision}" if score.dataset_revision else ""
    )
