"""All three measures of one adapter: look at everything that can be wrong, load the model, measure, write one file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from boost_qa import models
from boost_qa.errors import EngineError, RunError, SourceError
from boost_qa.evaluate.loading import Chosen, find, place
from boost_qa.lessons import versions
from boost_qa.mechanism import transfer as bands
from boost_qa.mechanism.landscape import REACH, Landscape, draw, grid, landscape
from boost_qa.mechanism.material import Exchange, Item, Material, drawn, encode_exchange, find_material
from boost_qa.mechanism.noise import Noise, gather, noise_scale
from boost_qa.mechanism.pace import paced
from boost_qa.mechanism.recorded import Recorded, recorded
from boost_qa.mechanism.subject import Subject, check_adapter, load_subject, load_tokenizer
from boost_qa.mechanism.transfer import Transfer
from boost_qa.retrieval import Embed, Embedder
from boost_qa.run_folder import write_whole
from boost_qa.train.template import DialogueTokenizer

FEWEST = 4
"""Dialogues that a noise scale with an interval takes."""
EMBEDDER = "all-minilm-l6-v2"
_PACKAGES = ("boost_qa", "torch", "transformers", "peft", "datasets", "numpy", "scipy", "sentence_transformers")


@dataclass(frozen=True)
class Settings:
    """What is measured, and how much of it.

    Args:
        adapter, base: see `evaluate.loading.find`.
        dataset, config, split: what was trained on; by default what the adapter's run.json names.
        held_out: see `material.find_material`.
        template, loss_on: by default those of the run.json.
        limit: training dialogues for the noise scale, questions of each band of similarity, and, a quarter of it,
            held-out dialogues for the landscape.
        directions, points, reach: of the landscape: how many, losses along each (an odd number), and how far.
        seed: of what is drawn; a fresh adapter is drawn with the seed of its training.
    """

    adapter: str
    base: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    held_out: tuple[str, ...] = ()
    template: str | None = None
    loss_on: str | None = None
    limit: int = 64
    directions: int = 6
    points: int = 11
    reach: float = REACH
    seed: int = 0
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Tokens:
    """What the model is shown. `bands` are the trained questions, and then the held-out ones of each band of
    `transfer.edges`; `similarity` stands beside the latter; `available` counts the questions that all were drawn from.
    """

    trained: list[Item]
    held: list[Item]
    bands: list[list[Item]]
    similarity: list[list[float]]
    available: list[int]


def measure(
    settings: Settings,
    output: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    embed: Embed | None = None,
) -> Path:
    """Measure an adapter; gives the path of the file, which is there whole or not at all.

    Run again after an interruption, it goes on after the last of the three measures that was made.

    Args:
        output: by default `mechanism/mechanism.json` in an adapter's folder, else `mechanism/<adapter>.json` here.
        say: is told how far it is.
        embed: makes questions comparable; by default with MiniLM of the catalogue.

    Raises:
        RecipeError, SourceError, ModelError, RunError: before a model is loaded, or when it cannot be.
        EngineError: a measure came to no number, or the GPU has too little memory.
    """
    chosen = find(settings.base, settings.adapter)
    folder = chosen.adapter or Path()
    check_adapter(folder)
    output = _checked(output or _default(chosen), folder)
    known = recorded(
        folder, settings.dataset, settings.config, settings.split, template=settings.template, loss_on=settings.loss_on
    )
    say("reading dialogues")
    material = find_material(known, settings.held_out)
    tokenizer, (embed, embedder) = load_tokenizer(chosen, known), (embed, None) if embed else _minilm(say)
    tokens = _tokens(settings, known, material, tokenizer, embed)
    where = place(settings.device, settings.dtype)
    say(f"loading {chosen.name}")
    subject = load_subject(chosen, **where)
    size = _size(subject)
    dtype = str(next(subject.model.get_base_model().parameters()).dtype).removeprefix("torch.")
    facts = {
        "model": chosen.facts | {"dtype": dtype},
        "training": known.facts(),
        "data": material.facts | {"embedder": embedder},
        "settings": {name: getattr(settings, name) for name in ("limit", "directions", "points", "reach", "seed")},
        "device": torch.device(where["device"]).type,
        "versions": versions(_PACKAGES),
    }
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "noise": lambda: _noise(subject, tokens.trained, known.seed, say),
        "landscape": lambda: asdict(_landscape(subject, tokens.held, size, settings, say)),
        "transfer": lambda: asdict(_transfer(subject, tokens, say)),
    }
    try:
        _measured(output, facts, measures)
    except torch.OutOfMemoryError as error:
        what = f"{where['device']}: {str(error).partition('. ')[0]}"
        raise EngineError(what, "Use --dtype bfloat16, a larger GPU, or --device cpu.") from error
    return output


def _measured(output: Path, facts: dict[str, Any], measures: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
    """Measure one after the other; those that an earlier start of the same came to are in a file beside."""
    beside = output.with_name(f"{output.name}.part")
    whole = json.loads(json.dumps(facts))
    with suppress(OSError, ValueError):
        before = json.loads(beside.read_text(encoding="utf-8"))
        whole = before if whole.items() <= before.items() else whole
    for name, make in measures.items():
        if name not in whole:
            whole[name] = make()
            write_whole(beside, json.dumps(whole, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    beside.replace(output)


def _tokens(
    settings: Settings, known: Recorded, material: Material, tokenizer: DialogueTokenizer, embed: Embed
) -> Tokens:
    limit, seed = settings.limit, settings.seed
    trained = drawn(material.trained, limit, seed, tokenizer, known)
    if len(trained) < FEWEST:
        raise SourceError(f"only {len(trained)} dialogues can be trained on", f"Give a dataset of {FEWEST} or more.")
    held = drawn(material.held, max(1, limit // 4), seed, tokenizer, known)
    if not held:
        raise SourceError("no held-out dialogue is short enough", "Give others: --held-out FILE_OR_RUN.")

    def fitting(among: Sequence[Exchange]) -> list[tuple[int, Item]]:
        said = ((at, encode_exchange(one, tokenizer, known)) for at, one in enumerate(among))
        return [(at, item) for at, item in said if item is not None]

    old, new = fitting(material.questions), fitting(material.others)
    if not old or not new:
        raise SourceError("no question is short enough with its answer", "Give others: --held-out FILE_OR_RUN.")
    similarity = bands.nearest(embed([material.others[at].question for at, _ in new]), embed(material.pool))
    chosen = bands.sampled(similarity, limit, seed)
    first = sorted(int(at) for at in np.random.default_rng(seed).permutation(len(old))[:limit])
    return Tokens(
        trained,
        held,
        [[old[at][1] for at in first], *([new[at][1] for at in each] for each in chosen)],
        [[float(similarity[at]) for at in each] for each in chosen],
        [len(old), *(int(((similarity >= low) & (similarity < high)).sum()) for low, high in bands.edges())],
    )


def _noise(subject: Subject, items: Sequence[Item], seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The noise scale of the adapter as it is and as its training began.

    The loss is that of training, a mean over tokens: a dialogue's is its sum over the mean number of tokens.
    """
    mean = sum(item.tokens for item in items) / len(items)

    def scale(what: str) -> dict[str, Any]:
        gradients: Any = (subject.gradient(item, mean) for item in items)
        return asdict(_numbers(gather(paced(gradients, len(items), f"gradients, {what}", say), len(items))))

    trained = scale("trained adapter")
    with subject.anew(seed):
        return {"trained": trained, "fresh": scale("fresh adapter"), "tokens_per_dialogue": mean}


def _numbers(gathered: Any) -> Noise:
    try:
        return noise_scale(gathered)
    except ValueError as error:
        raise EngineError(str(error), "Use --dtype float32, or other dialogues.") from error


def _size(subject: Subject) -> float:
    """The length of the update by that of the weights.

    Raises:
        EngineError: it is 0.
    """
    updates = subject.updates()
    whole = sum(float(each.filters.double().square().sum()) for each in updates)
    size = math.sqrt(float(sum(each.square() for each in updates)) / whole)
    if size == 0:
        raise EngineError("the adapter changes nothing: all its updates are 0", "Give one that was trained.")
    return size


def _landscape(
    subject: Subject, items: Sequence[Item], size: float, settings: Settings, say: Callable[[str], None]
) -> Landscape:
    updates, alphas = subject.updates(), grid(settings.points, settings.reach)
    here, generator = subject.mean_loss(items), torch.Generator().manual_seed(settings.seed)

    def losses() -> Iterator[float]:
        for _ in range(settings.directions):
            along = [draw(each, generator) for each in updates]
            for alpha in alphas:
                with subject.moved(along, alpha):
                    yield subject.mean_loss(items) if alpha else here

    total = settings.directions * len(alphas)
    found = list(paced(losses(), total, "losses around the adapter", say))
    return landscape(alphas, np.reshape(found, (settings.directions, len(alphas))).tolist(), size)


def _transfer(subject: Subject, tokens: Tokens, say: Callable[[str], None]) -> Transfer:
    items = [item for each in tokens.bands for item in each]
    pairs = [_both(subject, item) for item in paced(items, len(items), "losses on questions", say)]
    losses: npt.NDArray[np.float64] = np.array(pairs)
    parts = np.split(losses, np.cumsum([len(each) for each in tokens.bands])[:-1])
    ends: list[tuple[float, float] | tuple[None, None]] = [(None, None), *bands.edges()]
    found = [
        bands.band(part[:, 0].tolist(), part[:, 1].tolist(), available, *end)
        for part, available, end in zip(parts, tokens.available, ends, strict=True)
        if len(part)
    ]
    gains = (losses[:, 0] - losses[:, 1])[len(tokens.bands[0]) :]
    return bands.transfer(found, gains.tolist(), [one for each in tokens.similarity for one in each])


def _both(subject: Subject, item: Item) -> tuple[float, float]:
    """Loss a token without the adapter, and with it."""
    (base, many), (adapter, _) = subject.loss(item, adapter=False), subject.loss(item)
    return base / many, adapter / many


def _minilm(say: Callable[[str], None]) -> tuple[Embed, dict[str, str]]:
    """MiniLM, and its facts."""
    model = models.resolve(EMBEDDER)

    def tell(done: int, total: int) -> None:
        say(f"embedded {done:,} of {total:,} questions")

    embedder = Embedder(model.path, model.revision, models.home() / "embeddings", tell)
    return embedder, {"name": model.name, "revision": model.revision}


def _checked(output: Path, adapter: Path) -> Path:
    if output.is_dir():
        raise RunError(f"{output} is a folder", "Give a file with --output, such as mechanism.json.")
    if output.expanduser().resolve().parent == adapter.resolve():
        remedy = "Give another place with --output."
        raise RunError(f"{output}: a JSON file beside an adapter's weights changes what its revision is", remedy)
    try:
        output.expanduser().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{output} cannot be written: {error}", "Give another place with --output.") from error
    return output.expanduser()


def _default(chosen: Chosen) -> Path:
    if chosen.adapter is not None and str(chosen.adapter) == chosen.named.get("peft"):
        return chosen.adapter / "mechanism" / "mechanism.json"
    return Path("mechanism") / f"{chosen.name}.json"
