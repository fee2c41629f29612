"""Whether a run can get its models, before sources are read, questions embedded and gigabytes fetched."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from boost_qa import models
from boost_qa.bookkeeping import used
from boost_qa.config import Embedded, Recipe
from boost_qa.errors import ModelError
from boost_qa.lessons import analogy


def look_ahead(recipe: Recipe, *, embeds: bool = True, asks: bool = True) -> None:
    """Make sure that models have a name or a place, and that what runs them is installed. Nothing is fetched.

    Args:
        embeds: questions have not been embedded yet.
        asks: the recipe's own models answer.

    Raises:
        ModelError: naming all models and packages that are missing.
    """
    named: dict[str, str] = {}
    needed: dict[str, str] = {}
    if asks:
        own = {alias: settings for alias in used(recipe) if isinstance(settings := recipe.models[alias], Embedded)}
        named |= {f"models.{alias}.model": settings.model for alias, settings in own.items()}
        needed |= {"openvino_genai": "embedded"} if own else {}
    if embeds and (retrieval := analogy(recipe)):
        named["the embedder of analogies"] = retrieval.embedder
        needed["sentence_transformers"] = "retrieval"
    if embeds and recipe.star and (bank := recipe.star.bank) and bank.from_near:
        named["star.bank.embedder"] = bank.embedder
        needed["sentence_transformers"] = "retrieval"
    faults = [*_unknown(named), *_missing(needed)]
    if faults:
        remedies = dict.fromkeys(error.remedy for error in faults)
        raise ModelError("; ".join(error.what for error in faults), "\n  ".join(remedies))


def _unknown(named: dict[str, str]) -> Iterator[ModelError]:
    for key, name in named.items():
        try:
            models.expect(name)
        except ModelError as error:
            yield ModelError(f"{key}: {error.what}", error.remedy)


def _missing(needed: dict[str, str]) -> Iterator[ModelError]:
    for package, extra in needed.items():
        if find_spec(package) is None:
            yield ModelError(f"{package} is not installed", f"pip install 'boost_qa[{extra}]'")
