"""How training changed an adapter: measures against values known in closed form, and all of it on a real tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate import make_run
from peft import LoraConfig, get_peft_model
from scipy import stats
from tiny_models import tiny, tiny_tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM

from boost_qa import cli
from boost_qa.errors import BoostQAError, ModelError, RecipeError, RunError, SourceError
from boost_qa.mechanism.confidence import rank_correlation, student
from boost_qa.mechanism.landscape import Update, draw, grid, landscape
from boost_qa.mechanism.material import Item, encode, find_material
from boost_qa.mechanism.noise import gather, noise_scale
from boost_qa.mechanism.recorded import recorded
from boost_qa.mechanism.report import read, shown
from boost_qa.mechanism.run import Settings, measure
from boost_qa.mechanism.subject import Subject
from boost_qa.mechanism.transfer import band, edges, nearest, sampled, transfer
from boost_qa.train.dialogues import load_dialogues
from boost_qa.train.prepare import prepare
from boost_qa.train.settings import read_settings
from boost_qa.train.supervision import IGNORED
from boost_qa.train.template import DialogueTokenizer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny matrices only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- gradient noise ------------------------------------------------------------------------------


def scaled(gradients: np.ndarray):
    return noise_scale(gather(list(gradients.astype(np.float32)), len(gradients)))


def test_parts_of_the_noise_scale_are_those_of_the_sample():
    gradients = np.random.default_rng(0).normal(0.8, 1, (50, 7)).astype(np.float32)
    found = scaled(gradients)
    assert found.trace == pytest.approx(np.trace(np.cov(gradients.T)), rel=1e-4)
    products = gradients.astype(float) @ gradients.T
    assert found.squared_gradient == pytest.approx(products[~np.eye(50, dtype=bool)].mean(), rel=1e-4)
    assert found.scale == pytest.approx(found.trace / found.squared_gradient)
    assert (found.dialogues, found.groups) == (50, 16) and found.low < found.scale < found.high


def regression(rng, n: int, d: int = 6, noise: float = 0.5) -> np.ndarray:
    """Gradients of half the squared error at distance delta from the truth: B is d + 1 + d noise^2 / |delta|^2."""
    delta, x = np.full(d, 0.5), rng.normal(size=(n, d))
    return x * (x @ delta + rng.normal(0, noise, n))[:, None]


def test_the_noise_scale_of_a_linear_regression_and_its_interval():
    rng, known = np.random.default_rng(1), 6 + 1 + 6 * 0.25 / (6 * 0.25)
    assert scaled(regression(rng, 20_000)).scale == pytest.approx(known, rel=0.03)
    found = [scaled(regression(rng, 64)) for _ in range(300)]
    assert np.mean([one.trace for one in found]) == pytest.approx(known * 1.5, rel=0.05)
    assert np.mean([one.squared_gradient for one in found]) == pytest.approx(1.5, rel=0.05)
    inside = [(one.low or 0) <= known <= (one.high or np.inf) for one in found]
    assert 0.88 < np.mean(inside) < 0.99


def test_where_noise_hides_the_gradient_there_is_no_upper_bound():
    found = scaled(np.random.default_rng(3).normal(0, 1, (32, 100)))
    assert found.high is None and (found.scale is None or found.low < found.scale)
    with pytest.raises(ValueError, match="all the same"):
        scaled(np.ones((8, 3)))
    with pytest.raises(ValueError, match="three"):
        scaled(np.eye(2))


# --- landscape -----------------------------------------------------------------------------------


def update(seed: int = 0, out: int = 9, into: int = 7, rank: int = 2) -> Update:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator)
    weights = torch.randn(out, into, generator=generator) + 2 * b @ a
    return Update(a, b, 2.0, weights.norm(dim=1))


def test_a_direction_has_the_length_of_each_filter_whatever_a_and_b_are():
    ours = update()
    along = draw(ours, torch.Generator().manual_seed(5))
    made = along.left @ along.right
    assert torch.allclose(made.norm(dim=1), ours.filters, rtol=1e-5)
    assert torch.linalg.matrix_rank(made) == 4
    assert ours.square() == pytest.approx(float((2 * ours.b @ ours.a).square().sum()), rel=1e-5)
    other = draw(Update(ours.a * 8, ours.b / 8, ours.scaling, ours.filters), torch.Generator().manual_seed(5))
    assert torch.allclose(other.left @ other.right, made, atol=1e-5)
    again = draw(ours, torch.Generator().manual_seed(6))
    assert not torch.allclose(again.left @ again.right, made, atol=1e-2)


def test_a_rank_above_the_width_of_a_layer():
    ours = update(out=3, into=7, rank=5)
    along = draw(ours, torch.Generator().manual_seed(0))
    assert torch.allclose((along.left @ along.right).norm(dim=1), ours.filters, rtol=1e-5)


def test_filters_without_weights_stay():
    ours = update()
    ours.filters[3] = 0
    along = draw(ours, torch.Generator().manual_seed(0))
    made = along.left @ along.right
    assert made[3].abs().max() == 0 and torch.isfinite(made).all()


def test_the_curvature_of_a_parabola_is_found():
    alphas = grid(11, 1.0)
    assert alphas == pytest.approx(np.linspace(-1, 1, 11)) and 0.0 in alphas
    losses = [[1 + slope * x + half * x**2 for x in alphas] for slope, half in ((0.1, 2), (-0.3, 3))]
    found = landscape(alphas, losses, update=2.0)
    assert found.curvatures == pytest.approx([4, 6]) and found.slopes == pytest.approx([0.1, -0.3])
    assert found.curvature == pytest.approx(5) and found.update == 2
    assert found.misfit < 1e-12 and found.low < 4 < 6 < found.high  # two directions say little
    reach = stats.t.ppf(0.975, 1) * found.stderr
    assert (found.low, found.high) == pytest.approx((5 - reach, 5 + reach))


def test_moving_a_layer_adds_the_direction_to_its_weights():
    """Half the squared output of a linear layer is a parabola, whose curvature is the squared length of D x."""
    layer = torch.nn.Sequential(torch.nn.Linear(7, 9, bias=False))
    model = get_peft_model(layer, LoraConfig(r=2, target_modules=["0"]))
    subject = Subject(model)
    with torch.no_grad():
        subject.layers[0].lora_B["default"].weight.normal_()
    (ours,) = subject.updates()
    along, x = draw(ours, torch.Generator().manual_seed(0)), torch.randn(4, 7)
    losses = []
    for alpha in grid(5, 1.0):
        with torch.no_grad(), subject.moved([along], alpha):
            losses.append(float(functional.mse_loss(model(x), torch.zeros(4, 9), reduction="sum")) / 2)
    found = landscape(grid(5, 1.0), [losses] * 2, 1.0)
    assert found.curvature == pytest.approx(float((x @ (along.left @ along.right).T).square().sum()), rel=1e-4)
    assert found.misfit < 1e-3 and losses[2] == pytest.approx(float(model(x).detach().square().sum()) / 2, rel=1e-5)


# --- transfer ------------------------------------------------------------------------------------


def test_similarity_is_that_of_the_nearest_and_bands_hold_it():
    trained = np.eye(3, dtype=np.float32)
    held = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, -1]], dtype=np.float32)
    assert nearest(held, trained) == pytest.approx([1, 0.8, 0])
    assert edges((0.5,)) == [(0.5, np.inf), (-1.0, 0.5)]
    similarity = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.5])
    assert sampled(similarity, 10, 0) == [[0, 1], [2], [6], [3, 4, 5]]
    few = sampled(similarity, 2, 0)
    assert [len(each) for each in few] == [2, 1, 1, 2] and few == sampled(similarity, 2, 0)


def test_gains_have_intervals_and_go_along_with_similarity():
    base, adapter = [3.0, 2.0, 2.5, 2.5], [2.0, 1.5, 1.0, 2.0]
    one = band(base, adapter, 9, 0.8, np.inf)
    assert (one.base, one.adapter, one.gain.mean) == pytest.approx((2.5, 1.625, 0.875))
    assert one.gain.low < 0.875 < one.gain.high and (one.high, one.available, one.gain.n) == (None, 9, 4)
    rng = np.random.default_rng(0)
    similarity = rng.uniform(size=60)
    gains = similarity + rng.normal(0, 0.3, 60)
    found = transfer([one], gains, similarity).correlation
    assert found.rho == pytest.approx(stats.spearmanr(gains, similarity).statistic)
    assert found.low < found.rho < found.high and found.n == 60
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None and rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 2, 2, 3], [1, 2, 2, 3]).rho == pytest.approx(1)


def test_students_interval():
    low, high = stats.t.interval(0.95, 3, 2.5, stats.sem([1, 2, 3, 4]))
    assert student([1, 2, 3, 4])[0] == pytest.approx((high - low) / 2)
    with pytest.raises(ValueError, match="spread"):
        student([1.0])


# --- what is measured on -------------------------------------------------------------------------


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def taught(number: int, **more) -> dict:
    said = [("human", f"What is {number} plus {number}?"), ("gpt", "No idea.")]
    said += [("human", "Try."), ("gpt", f"It is {2 * number}.")]
    return {
        "id": f"d{number}",
        "source": "sums",
        "source_id": f"{number}",
        "question": said[0][1],
        "reference_answer": f"{2 * number}",
        "conversations": [{"from": side, "value": text} for side, text in said],
        "speakers": ["question", "weak_student", "teacher", "strong_student"],
    } | more


def asked(question: str, answer: str = "So it is.", **more) -> dict:
    return {"question": question, "answer": answer} | more


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, Path]:
    """A tiny base, an adapter that was trained for some steps, what it was trained on, and what not."""
    folder = tmp_path_factory.mktemp("mechanism")
    base = tiny("llama", folder / "base")
    dialogues = write(folder / "dialogues.jsonl", [taught(number) for number in range(12)])
    near = [asked(f"What is {number} plus {number}?", f"{2 * number}") for number in (4, 40, 41, 42)]
    far = [asked(f"Who wrote the book number {number} of the old library?") for number in range(4)]
    held = write(folder / "held.jsonl", [*near, *far])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=PROJECTIONS))
    subject, known = Subject(model), remembered(folder, dialogues)
    tokenizer = DialogueTokenizer(tiny_tokenizer("llama"), "plain")
    items = [encode(taught(number), number, tokenizer, known) for number in range(12)]
    optimiser = torch.optim.AdamW(subject.weights, lr=1e-2)
    for item in items * 2:
        (subject._loss(item) / item.tokens).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "run.json").write_text((folder / "run.json").read_text())
    return {"folder": folder, "base": base, "adapter": folder / "adapter", "dialogues": dialogues, "held": held}


def remembered(folder: Path, dialogues: Path, **more):
    resolved = {"dataset": str(dialogues), "dataset_config": None, "dataset_split": "train", "loss_on": "not_weak"}
    resolved |= {"template": "plain", "max_length": 200, "too_long": "drop", "seed": 7, "validation": 0.0}
    fingerprint = load_dialogues(recorded(folder, str(dialogues)).ours).facts["fingerprint"]
    told = {"recipe": {"resolved": resolved | more, "method": "lora"}, "data": {"fingerprint": fingerprint}}
    (folder / "run.json").write_text(json.dumps(told))
    return recorded(folder)


def test_rows_are_labelled_as_in_training(world):
    tokenizer = DialogueTokenizer(tiny_tokenizer("llama"), "plain")
    known = recorded(world["adapter"])
    words = f"--dataset {world['dialogues']} --model_name_or_path x --loss_on not_weak --max_length 200 --use_cpu true"
    settings = read_settings([*words.split(), "--packing", "false"])
    rows = prepare(load_dialogues(settings.ours).train, None, tokenizer, settings, 1).train
    for number, row in enumerate(rows):
        one = encode(taught(number), number, tokenizer, known)
        assert (one.ids, one.labels) == (row["input_ids"], row["labels"])
        assert 0 < one.tokens == sum(label != IGNORED for label in row["labels"])
    assert encode(taught(1, conversations=taught(1)["conversations"] * 20, speakers=None), 0, tokenizer, known) is None


def posed(question: str) -> list[dict[str, str]]:
    """An analogy whose second question is this one."""
    said = ("Well?", "Yes.", f"Well done. Now try this: {question}", "13")
    return [{"from": role, "value": text} for role, text in zip(("human", "gpt") * 2, said, strict=True)]


def test_what_was_trained_on_is_not_held_out(tmp_path, world):
    rows = [taught(number) for number in range(5)] + [taught(5, related_source_id="9")]
    known = recorded(tmp_path, str(write(tmp_path / "rows.jsonl", rows)))
    held = [
        asked("WHAT is 3 plus 3"),  # the same words
        asked("Otherwise worded?", source="sums", source_id="4"),  # the same record
        asked("And worded anew?", source="sums", source_id="9"),  # the second record of an analogy
        asked("What is 6 plus 7?"),
        taught(8),
    ]
    found = find_material(known, [str(write(tmp_path / "held.jsonl", held))])
    assert [one.question for one in found.others] == ["What is 6 plus 7?", "What is 8 plus 8?"]
    assert len(found.held) == 2 and len(found.questions) == 6 and found.pool[6:] == ["Try."]
    run = make_run(tmp_path / "run")
    found = find_material(known, [str(getattr(run, "path", tmp_path / "run"))])
    assert found.others and all("said the" in one.answer for one in found.others) and found.held
    pairs = [
        taught(number, related_source_id=str(number), speakers=None, conversations=posed(question))
        for number, question in ((20, "How many is 6 plus 7?"), (21, "What is 6 plus 7?"))
    ]
    posing = recorded(tmp_path, str(write(tmp_path / "pairs.jsonl", pairs)))
    found = find_material(posing, [str(tmp_path / "held.jsonl")])
    assert found.pool[2:] == ["How many is 6 plus 7?", "What is 6 plus 7?"]
    assert "What is 6 plus 7?" not in [one.question for one in found.others]
    with pytest.raises(SourceError, match="every question there was trained on"):
        find_material(known, [str(tmp_path / "rows.jsonl")])
    with pytest.raises(SourceError, match="the training held out nothing"):
        find_material(known, [])


def test_what_the_training_held_out_is_the_default(world, tmp_path):
    known = remembered(tmp_path, world["dialogues"], validation=0.4)
    found = find_material(known, [])
    assert 0 < len(found.others) == len(found.held) < 12 and len(found.questions) == 12 - len(found.others)
    assert recorded(tmp_path, split="train[:50%]").ours.validation == 0
    (tmp_path / "rows").mkdir()
    known = remembered(tmp_path / "rows", world["dialogues"], dataset_rows=5)
    assert len(find_material(known, [str(world["held"])]).questions) == 5
    with pytest.raises(RecipeError, match="does not say"):
        recorded(world["base"])


# --- from end to end -----------------------------------------------------------------------------


def letters(texts) -> np.ndarray:
    """Texts by how often they have each character, on the unit sphere."""
    counts = np.array([[text.lower().count(chr(code)) for code in range(32, 127)] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def small(world, **changes) -> Settings:
    given = {"held_out": (str(world["held"]),), "limit": 8, "directions": 2, "points": 5, "device": "cpu"}
    return Settings(str(world["adapter"]), str(world["base"]), **given | changes)


def test_an_adapter_is_measured_twice_to_the_same_file(world):
    lines: list[str] = []
    path = measure(small(world), say=lines.append, embed=letters)
    assert path == world["adapter"] / "mechanism" / "mechanism.json" and not list(path.parent.glob("*.part"))
    first, told = path.read_bytes(), read(path)
    assert measure(small(world), embed=letters).read_bytes() == first
    assert measure(small(world, seed=1), world["folder"] / "other.json", embed=letters).read_bytes() != first
    assert str(world["folder"]) not in path.read_text() and any("gradients, fresh adapter: 8" in line for line in lines)
    assert told["model"]["adapter_revision"].startswith("sha256:") and told["model"]["dtype"] == "float32"
    assert told["training"] == {"template": "plain", "loss_on": "not_weak", "too_long": "drop", "max_length": 200,
                                "seed": 7, "method": "lora"}  # fmt: skip
    assert told["data"]["as_trained"] is True and told["data"]["held_out_questions"] == 7
    assert told["versions"]["peft"] and told["settings"]["limit"] == 8 and told["device"] == "cpu"
    noise = told["noise"]
    assert noise["trained"]["trace"] > 0 and noise["fresh"]["squared_gradient"] > 0
    assert noise["trained"]["dialogues"] == noise["fresh"]["dialogues"] == 8
    around = told["landscape"]
    assert around["alphas"] == pytest.approx([-0.03, -0.015, 0, 0.015, 0.03]) and 0 < around["update"] < 1
    assert np.shape(around["losses"]) == (2, 5) and around["losses"][0][2] == around["losses"][1][2]
    bands = told["transfer"]["bands"]
    assert bands[0]["low"] is None and bands[0]["gain"]["n"] == 8
    assert bands[0]["gain"]["mean"] == pytest.approx(bands[0]["base"] - bands[0]["adapter"])
    assert sum(one["gain"]["n"] for one in bands[1:]) == 7 == told["transfer"]["correlation"]["n"]
    table = shown(told)
    assert table.row_count == 2 + 2 + len(bands) + 1 and table.caption is None


def test_the_adapter_is_as_before_after_each_measure(world):
    from boost_qa.evaluate.loading import find
    from boost_qa.mechanism.subject import load_subject

    subject = load_subject(find(str(world["base"]), str(world["adapter"])), "cpu", "float32")
    plain = AutoModelForCausalLM.from_pretrained(world["base"])
    item = Item("one", list(range(5, 25)), [IGNORED] * 10 + list(range(15, 25)))
    before, _ = subject.loss(item)
    base, many = subject.loss(item, adapter=False)
    assert many == 10 and base != before
    with subject.anew(3):
        assert subject.loss(item)[0] == pytest.approx(base, rel=1e-6)  # B is 0
        fresh = subject.gradient(item, 1.0)
        assert (fresh != 0).mean() < 0.7  # A has no gradient yet
    with subject.moved([draw(each, torch.Generator()) for each in subject.updates()], 1.0):
        assert subject.loss(item)[0] != before
    assert subject.loss(item)[0] == before
    logits = plain(torch.tensor([item.ids])).logits[0, 9:-1]
    known = functional.cross_entropy(logits.detach(), torch.tensor(item.ids[10:]), reduction="sum")
    assert base == pytest.approx(float(known), rel=1e-5)
    step = 1e-3
    gradient = subject.gradient(item, 1.0)
    with torch.no_grad():
        for weights in subject.weights:
            flat, gradient = gradient[: weights.numel()], gradient[weights.numel() :]
            weights += step * torch.from_numpy(flat.copy()).view_as(weights)
    assert subject.loss(item)[0] > before


def test_a_measurement_that_was_broken_off_goes_on_to_the_same_file(world, tmp_path):
    def stop(line: str) -> None:
        if line.startswith("losses on questions"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(small(world), tmp_path / "m.json", stop, letters)
    assert [file.name for file in tmp_path.iterdir()] == ["m.json.part"]
    lines: list[str] = []
    whole = measure(small(world), tmp_path / "m.json", lines.append, letters).read_bytes()
    assert not any(line.startswith(("gradients", "losses around")) for line in lines)
    assert [file.name for file in tmp_path.iterdir()] == ["m.json"]
    (tmp_path / "m.json.part").write_text(json.dumps({"model": {}, "noise": {}}))  # of another adapter
    assert measure(small(world), tmp_path / "m.json", embed=letters).read_bytes() == whole


def test_in_bfloat16(world):
    told = read(measure(small(world, dtype="bfloat16"), world["folder"] / "bf16.json", embed=letters))
    assert told["model"]["dtype"] == "bfloat16" and told["noise"]["trained"]["trace"] > 0


@pytest.mark.parametrize(
    ("changes", "kind", "what"),
    [
        ({"held_out": ("nowhere.jsonl",)}, SourceError, "nothing is at nowhere.jsonl"),
        ({"held_out": ()}, SourceError, "nothing is held out"),
        ({"dataset": "nowhere.jsonl"}, SourceError, "nowhere.jsonl"),
        ({"template": "chatml"}, ModelError, "im_end"),
        ({"adapter": "nowhere"}, ModelError, "nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(world, changes, kind, what, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = {"adapter": str(world["adapter"]), "held_out": (str(world["held"]),)} | changes
    with pytest.raises(kind, match=what) as raised:
        measure(Settings(base=str(world["base"]), **given), embed=letters)
    assert isinstance(raised.value, BoostQAError) and raised.value.exit_code == 2


def test_adapters_of_another_kind_and_bad_outputs_are_refused(world, tmp_path):
    config = json.loads((world["adapter"] / "adapter_config.json").read_text())
    for change, what in (({"use_dora": True}, "use_dora"), ({"peft_type": "IA3"}, "IA3"), ({}, "no weights")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=what):
            measure(Settings(str(tmp_path), str(world["base"])))
    with pytest.raises(RunError, match="revision"):
        measure(small(world), world["adapter"] / "m.json", embed=letters)
    with pytest.raises(RunError, match="is a folder"):
        measure(small(world), tmp_path, embed=letters)


def test_the_command_says_what_is_wrong(world, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["boost-qa", "mechanism", str(world["adapter"]), "--base", str(world["base"])])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and "--held-out" in capsys.readouterr().err
