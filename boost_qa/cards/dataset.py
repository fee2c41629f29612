"""The dataset card of an export, from the run's manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

from boost_qa.cards.licences import Licence, terms, together
from boost_qa.cards.markup import Markup, code, environment
from boost_qa.config import MasterScenario
from boost_qa.contents import ALL, STAR, Contents
from boost_qa.portable import names_files, portable_model
from boost_qa.rows import FEATURES
from boost_qa.types import ORIGINAL

TAG = "boost-qa"
TEMPLATE = "dataset.md.jinja"
PLACE = "path/of/this/dataset"
"""Stands for the dataset's repository id, wherever the card names it; publishing replaces it."""

_LANGUAGES = {
    "Arabic": "ar", "Chinese": "zh", "Dutch": "nl", "English": "en", "French": "fr", "German": "de", "Hindi": "hi",
    "Italian": "it", "Japanese": "ja", "Korean": "ko", "Polish": "pl", "Portuguese": "pt", "Russian": "ru",
    "Spanish": "es", "Turkish": "tr", "Ukrainian": "uk", "Vietnamese": "vi",
}  # fmt: skip
_MEANING = {
    ALL: "the dialogues of all scenarios",
    "error_correction": "a weak student answers, a teacher hints at the mistake, a strong student solves it",
    "debate": "two students argue for one or two rounds, a third concludes",
    "analogical_reasoning": "a teacher explains, a student solves, and then solves a similar question",
    "direct": "no classroom: one model writes a worked answer",
    STAR: "for each record the best of several agent pairs' samples, chosen by two scorer models and a judge",
    ORIGINAL: "the source records themselves, question and reference answer",
}
_COLUMNS = {
    "id": "unique and stable name of the row",
    "source": "where the record came from",
    "source_id": "the source's own name for the record",
    "scenario": "which scenario the dialogue plays",
    "question": "the question of the record",
    "reference_answer": "the source's answer",
    "final_answer": "the bare result, where the source gives one",
    "conversations": "the dialogue in ShareGPT form, `human` and `gpt` in turn",
    "messages": "the same as `user` and `assistant`",
    "speakers": "who speaks each turn",
    "agents": "model, sampling and prompt behind each turn; null where no model spoke",
    "usage": "what the dialogue cost, replies asked again included",
    "licence": "licence of the record",
    "source_revision": "revision of the source",
    "related_id": "the second record of an analogy",
    "related_source_id": "the source's own name for it",
    "related_reference_answer": "the source's answer to it",
    "pair": "the agent pair whose sample was chosen (`star`)",
    "score": "final score of that sample, from 0 to 1 (`star`)",
    "candidates": "every candidate with its IFD by both scorers, the judge's verdict and its score (`star`)",
    "checks": "what each check saw, with its version; `label` is null where it saw nothing",
}


class SplitFigures(NamedTuple):
    """Of one split: rows, bytes in memory, bytes of its Parquet files."""

    num_examples: int
    num_bytes: int
    download_size: int


def render(
    manifest: Mapping[str, Any],
    contents: Contents,
    figures: Mapping[str, Mapping[str, SplitFigures]],
    *,
    digest: str,
) -> str:
    """README.md of an export.

    Args:
        manifest: what `manifest.json` of the run holds.
        contents: for the dialogues of each scenario and source.
        figures: by config and split.
        digest: names the content of all data files.
    """
    figures_of_card = context(manifest, contents, figures, digest=digest)
    return str(environment().get_template(TEMPLATE).render(figures_of_card))


def context(
    manifest: Mapping[str, Any],
    contents: Contents,
    figures: Mapping[str, Mapping[str, SplitFigures]],
    *,
    digest: str,
) -> dict[str, Any]:
    """The variables of the template, all of which it uses; the arguments are those of `render`."""
    recipe = manifest["recipe"]
    own = {source["name"] for source in recipe["sources"] if source["source"] == "columns"}
    return {
        "front_matter": Markup(front_matter(manifest, figures, digest)),
        "place": PLACE,
        "name": manifest["name"],
        "dialogues": len(contents.dialogues),
        "finished": manifest["finished"],
        "scenarios": sorted({scenario for scenario, _ in contents.drawn}),
        "configs": figures,
        "meaning": _MEANING,
        "validation": f"{100 * recipe['validation']:g}",
        "drawn": contents.drawn,
        "columns": [(name, _type_name(feature), Markup(_COLUMNS[name])) for name, feature in FEATURES.items()],
        "agents": list(_agents(manifest)),
        "prompts": manifest["prompts"],
        "sources": [{**source, "bad": _reasons(source["bad"])} for source in manifest["sources"]],
        "terms": terms(manifest["sources"], own),
        "licence": _licence(manifest),
        "kept": list(_kept(contents, manifest.get("rejected", {}))),
        "usage": manifest.get("usage"),
        "seed": recipe["seed"],
        "run_digest": manifest["digest"],
        "names_files": names_files(recipe),
        "versions": Markup(", ".join(code(f"{name} {of}") for name, of in manifest["versions"].items())),
        "digest": digest,
        "language": recipe["language"],
        "extras": ",".join(_extras(recipe)),
        "checks": _checks(manifest),
    }


def front_matter(manifest: Mapping[str, Any], figures: Mapping[str, Mapping[str, SplitFigures]], digest: str) -> str:
    """The card's YAML: what the Hub shows, and what `load_dataset` goes by."""
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    licence = _licence(manifest).id
    data = DatasetCardData(
        language=_LANGUAGES.get(manifest["recipe"]["language"]),
        license=licence,
        license_name="per-source" if licence == "other" else None,  # what the Hub shows for `other`
        license_link=f"https://huggingface.co/datasets/{PLACE}#sources" if licence == "other" else None,
        pretty_name=f"BOOST-QA ({manifest['name']})",
        tags=["synthetic", TAG],
        task_categories=["text-generation"],
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        size_categories=[_size_category(sum(split.num_examples for split in figures[ALL].values()))],
        source_datasets=sorted(filter(_is_hub_id, {source["where"] for source in manifest["sources"]})) or None,
    )
    data["configs"] = [
        {
            "config_name": config,
            # `datasets` names its cache after this block, not after the files: without the digest it
            # would go on serving the rows of an earlier export at the same place
            "description": f"content {digest}",
            "data_files": [{"split": split, "path": f"data/{config}/{split}-*"} for split in splits],
        }
        | ({"default": True} if config == ALL else {})
        for config, splits in figures.items()
    ]
    infos = {
        config: DatasetInfo(
            features=FEATURES.copy(),
            splits=SplitDict({split: SplitInfo(split, of.num_bytes, of.num_examples) for split, of in splits.items()}),
            download_size=sum(of.download_size for of in splits.values()),
            dataset_size=sum(of.num_bytes for of in splits.values()),
        )
        for config, splits in figures.items()
    }
    DatasetInfosDict(infos).to_dataset_card_data(data)
    return data.to_yaml()


def _licence(manifest: Mapping[str, Any]) -> Licence:
    return together(source["licence"] for source in manifest["sources"])


def _type_name(feature: Any) -> str:
    if isinstance(feature, dict):
        return "{" + ", ".join(feature) + "}"
    inner = getattr(feature, "feature", None)
    return feature.dtype if inner is None else f"list of {_type_name(inner)}"


def _agents(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    recipe = manifest["recipe"]
    for scenario, role, agent in _speaking(recipe):
        alias = agent["model"]  # what answers for it is in the manifest once a model was asked
        answers = manifest["models"].get(alias, recipe["models"][alias])
        known = {"model": portable_model(answers["model"]), "revision": answers.get("revision")}
        yield {"scenario": scenario, "role": role, **agent, **known}


def _speaking(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Scenario, role and settings of each agent."""
    for scenario, settings in recipe["scenarios"].items():
        if settings and settings["share"] > 0:
            yield from ((scenario, role, agent) for role, agent in settings["cast"].items())
    if ((recipe.get("checks") or {}).get("answers") or {}).get("judge"):
        yield "checks", "answer judge", recipe["checks"]["answers"]["judge"]
    if star := recipe.get("star"):
        yield STAR, "judge", star["judge"]
        for name, pair in star["pairs"].items():
            yield from ((f"{STAR}/{name}", role, pair[role]) for role in ("instruct", "respond") if pair[role])
            casts = (pair[scenario]["cast"] for scenario in get_args(MasterScenario) if pair[scenario])
            yield from ((f"{STAR}/{name}", role, agent) for cast in casts for role, agent in cast.items())


def _extras(recipe: Mapping[str, Any]) -> Iterator[str]:
    """What of boost_qa has to be installed to generate by the recipe."""
    if any(model["engine"] == "embedded" for model in recipe["models"].values()):
        yield "embedded"
    analogies, star = recipe["scenarios"].get("analogical_reasoning"), recipe.get("star")
    if star or (analogies and analogies["share"] > 0):
        yield "retrieval"
    if any(source["source"] == "reasoning_gym" for source in recipe["sources"]):
        yield "reasoning-gym"
    if star:
        yield "train"  # for the scorers
    if recipe.get("checks"):
        yield "checks"


def _kept(contents: Contents, rejected: Mapping[str, Mapping[str, int]]) -> Iterator[dict[str, Any]]:
    for scenario in sorted({name for name, _ in contents.drawn} | set(rejected)):
        reasons = rejected.get(scenario, {})
        kept = sum(n for (name, _), n in contents.drawn.items() if name == scenario)
        yield {"scenario": scenario, "kept": kept, "rejected": sum(reasons.values()), "reasons": _reasons(reasons)}


def _checks(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The funnel, what was masked, and a row for each label that was seen or check that saw nothing."""
    checks = manifest.get("checks")
    if checks is None:
        return None
    rows = []
    for name, check in checks["checks"].items():
        seen = {label: sum(by.values()) for label, by in checks["counts"][name].items()}
        for label, dialogues in seen.items() or [(None, 0)]:
            meaning = "nothing" if label is None else check["labels"][label]
            row = {"check": name, "version": check["version"], "label": label, "meaning": meaning}
            rows.append(row | {"dialogues": dialogues, "drops": label in checks["settings"]["drop"]})
    masked: Counter[str] = Counter()
    for counts in manifest.get("masked", {}).values():
        masked.update(counts)
    funnel = ", ".join(f"{stage['n']:,} {stage['stage']}" for stage in checks["funnel"])
    return {"funnel": funnel, "masked": _reasons(masked), "rows": rows}


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} ({n})" for reason, n in sorted(reasons.items())) or "none"


def _is_hub_id(where: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+", where))


def _size_category(rows: int) -> str:
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in bounds.items() if rows < bound), "1M<n<10M")
