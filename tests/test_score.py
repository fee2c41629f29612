"""Scoring anyone's dataset: what is read, what is written, and going on after a stop."""

from __future__ import annotations

import csv
import gc
import gzip
import hashlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import hub_accounts
import numpy as np
import pyarrow as pa
import pytest
import test_cli
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset
from hub_server import HubServer
from huggingface_hub import HfApi
from tiny_models import tiny

from boost_qa.errors import EngineError, RunError, SourceError
from boost_qa.score import Settings, score
from boost_qa.star_agents.ifd import Likelihood, Skipped
from boost_qa.star_agents.scorer import Scorer

command = test_cli.command


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Two tiny models whose probabilities are far apart."""
    folder = tmp_path_factory.mktemp("models")
    small = tiny("llama", folder / "small", initializer_range=0.2)
    return {"small": str(small), "large": str(tiny("qwen2", folder / "large", initializer_range=0.3, seed=1))}


def said(n: int, salt: int = 0) -> str:
    draw = random.Random(f"{n}/{salt}")
    return " ".join(draw.choice("the sum of 12 and apples x = 3. so: é Step is".split()) for _ in range(5 + n % 11))


def alpaca(rows: int) -> list[dict]:
    return [{"instruction": said(n), "input": said(n, 1) if n % 3 else "", "output": said(n, 2)} for n in range(rows)]


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Counted:
    """A scorer whose scores follow from the texts alone; after so many it stops."""

    def __init__(self, large: bool = False, last: int = -1, stop: type[BaseException] = KeyboardInterrupt) -> None:
        self.large, self.last, self.stop, self.asked, self.memory = large, last, stop, [], 0

    def score(self, pairs):
        for pair in pairs:
            if len(self.asked) == self.last:
                raise self.stop("no memory left\non the device")
            self.memory = max(self.memory, pa.total_allocated_bytes())
            self.asked.append(tuple((message.role, message.content[:100]) for message in pair))
            digest = hashlib.sha256(repr((self.asked[-1], self.large)).encode()).digest()
            tokens = len(pair[-1].content.split())
            yield Likelihood(tokens, digest[0] / 64, digest[1] / 64) if tokens else Skipped("empty")


def go(dataset: Path, output: Path, small: Counted, large: Counted | None = None, revision: str = "1", **settings):
    """Score with these scorers, in blocks of eight rows."""
    scorers = {"small": small} | ({"large": large} if large else {})
    names = {}
    for name in scorers:
        names[name] = str(dataset.parent / "scorers" / name)
        Path(names[name]).mkdir(parents=True, exist_ok=True)
        (Path(names[name]) / "config.json").write_text("{}")

    def load(name, options):
        return scorers[Path(name).name], {"name": Path(name).name, "revision": revision}

    return score(Settings(str(dataset), **names, **{"block": 8} | settings), output, load=load)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data").glob("*.parquet"))}


# --- scores --------------------------------------------------------------------------------------


def test_scores_are_those_of_the_scorer(tmp_path, models):
    rows = alpaca(20)
    file = lines(tmp_path / "rows.jsonl", rows)
    options = {"max_tokens": 40, "template": "plain", "dtype": "float32"}
    summary = score(Settings(str(file), **models, options=options, block=8), tmp_path / "out")
    found = load_dataset(str(tmp_path / "out"), split="train")
    assert [{key: row[key] for key in rows[0]} for row in found] == rows
    pairs = ["\n\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows]
    pairs = [(prompt, row["output"]) for prompt, row in zip(pairs, rows, strict=True)]
    likely = {size: list(Scorer(name, dtype="float32", max_tokens=40).score(pairs)) for size, name in models.items()}
    for row, small, large in zip(found, likely["small"], likely["large"], strict=True):
        assert row["ifd_small"] == pytest.approx(small.ifd, rel=1e-4)
        assert row["ifd_large"] == pytest.approx(large.ifd, rel=1e-4)
        assert row["gap"] == row["ifd_small"] - row["ifd_large"] and row["tokens_small"] == small.tokens
        assert row["perplexity_small"] == pytest.approx(small.perplexity, rel=1e-4) and row["unscored"] is None
        assert row["cut"] == any(each.prompt_left_out or each.answer_left_out for each in (small, large))
    assert summary["scored"] == 20 and 0 < summary["cut"] == sum(found["cut"]) < 20
    assert summary["models"]["small"]["revision"].startswith("sha256:") and summary["versions"]["torch"]
    assert str(tmp_path) not in (tmp_path / "out" / "summary.json").read_text()
    assert not (tmp_path / "out" / ".rows").exists()


def test_summary(tmp_path):
    rows = alpaca(20) + [{"instruction": "Why?", "input": "", "output": " "}] * 2
    summary = go(lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", Counted(), Counted(large=True))
    found = load_dataset(str(tmp_path / "out"), split="train")
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rows"], summary["scored"], summary["unscored"]) == (22, 20, {"empty": 2})
    assert found[20]["ifd_small"] is found[20]["gap"] is None and found[20]["unscored"] == "empty"
    gaps, tokens = found["gap"][:20], found["tokens_small"][:20]
    assert summary["scores"]["gap"] == pytest.approx({
        "mean": np.mean(gaps), **{str(at): np.quantile(gaps, at) for at in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)}
    })  # fmt: skip
    ranks = [
        [sum(other < one for other in each) + sum(other == one for other in each) / 2 for one in each]
        for each in (gaps, tokens)
    ]
    assert summary["rank_correlations"]["gap/tokens_small"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_one_model_gives_no_gap_and_a_single_row_no_correlation(tmp_path):
    summary = go(lines(tmp_path / "rows.jsonl", alpaca(1)), tmp_path / "out", Counted())
    assert [*summary["scores"]] == ["ifd_small", "perplexity_small", "tokens_small"]
    assert summary["rank_correlations"]["ifd_small/tokens_small"] is None


# --- what is read --------------------------------------------------------------------------------

PAIR = [("user", "Why?"), ("assistant", "So.")]
TURNS = [("system", "S"), ("user", "Why?"), ("assistant", "So."), ("user", "And?"), ("assistant", "That.")]
SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}
MESSAGES = {"messages": [{"role": role, "content": text} for role, text in TURNS]}
LAYOUTS = {
    "alpaca": ({"instruction": "Do", "input": "it", "output": "So."}, [("user", "Do\n\nit"), PAIR[1]]),
    "alpaca without input": ({"instruction": "Why?", "input": "", "output": "So."}, PAIR),
    "no input column": ({"instruction": "Why?", "output": "So."}, PAIR),
    "procqa": ({"title": "T", "question": "Q", "answer": "So.", "question_id": 3}, [("user", "T\n\nQ"), PAIR[1]]),
    "question": ({"answer": "So.", "question": "Why?"}, PAIR),
    "number": ({"answer": 42, "question": "Why?"}, [PAIR[0], ("assistant", "42")]),
    "prompt": ({"prompt": "Why?", "response": "So."}, PAIR),
    "completion": ({"prompt": "Why?", "completion": "So."}, PAIR),
    "messages": (MESSAGES | {"answer": "x", "question": "y"}, TURNS),
    "conversations": ({"conversations": [{"from": SHAREGPT[role], "value": text} for role, text in TURNS]}, TURNS),
    "last turn a user's": ({"messages": [{"role": role, "content": text} for role, text in TURNS[:4]]}, TURNS[:3]),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_found(tmp_path, layout):
    row, asked = LAYOUTS[layout]
    scorer = Counted()
    go(lines(tmp_path / "rows.jsonl", [row]), tmp_path / "out", scorer)
    assert scorer.asked == [tuple(asked)]
    found = load_dataset(str(tmp_path / "out"), split="train")[0]
    assert {key: found[key] for key in row} == row


def test_columns_can_be_named(tmp_path):
    file = lines(
        tmp_path / "rows.jsonl",
        [
            {
                "a": "x",
                "b": "y",
                "c": "z",
                "d": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}],
            }
        ],
    )
    for columns, asked in (("prompt=a+b,answer=c", "x\n\ny"), ("answer=a,prompt=c", "z"), ("messages=d", "q")):
        scorer = Counted()
        go(file, tmp_path / asked.replace("\n", ""), scorer, columns=columns)
        assert scorer.asked[0][0] == ("user", asked)


@pytest.mark.parametrize("columns", [None, "prompt=a", "prompt=a,answer=nowhere", "messages=a,answer=b", "a", ""])
def test_unknown_columns_are_an_error_that_lists_them(tmp_path, columns):
    file = lines(tmp_path / "rows.jsonl", [{"a": "x", "b": "y", "c": "z"}])
    with pytest.raises(SourceError, match="there are: a, b, c"):
        go(file, tmp_path / "out", Counted(), columns=columns)
    assert go(file, tmp_path / "out", Counted(), columns="prompt=a,answer=b")["scored"] == 1


def test_rows_that_cannot_be_scored_say_why(tmp_path):
    turns = [
        [], None, [("user", "q")], [("assistant", "a")], [("tool", "x"), ("user", "q"), ("assistant", "a")],
        [("user", None), ("assistant", "a")], [("user", "q"), ("assistant", "a")],
    ]  # fmt: skip
    rows = [{"messages": each and [{"role": role, "content": text} for role, text in each]} for each in turns]
    scorer = Counted()
    summary = go(lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", scorer, large=Counted(large=True))
    why = ["no answer"] * 3 + ["no prompt", "unknown speaker tool", "a turn without text", None]
    assert load_dataset(str(tmp_path / "out"), split="train")["unscored"][:] == why
    assert len(scorer.asked) == 1 == summary["scored"] and summary["unscored"]["no answer"] == 3


def as_csv(path: Path, rows: list[dict]) -> None:
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


KINDS = {
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    "rows.jsonl": lines,
    "rows.json.gz": lambda path, rows: path.write_bytes(gzip.compress(json.dumps(rows).encode())),
    "rows.csv": as_csv,
    "rows.csv.gz": as_csv,
    "rows.parquet": lambda path, rows: Dataset.from_list(rows).to_parquet(path),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_files(tmp_path, kind):
    rows = [{"question": f"Why {n}?", "answer": f"So\n{n}."} for n in range(11)]
    KINDS[kind](tmp_path / kind, rows)
    assert go(tmp_path / kind, tmp_path / "out", Counted(), limit=10)["rows"] == 10
    found = load_dataset(str(tmp_path / "out"), split="train")
    assert [{key: row[key] for key in rows[0]} for row in found] == rows[:10]


def test_types_of_columns_stay(tmp_path):
    features = Features({
        "prompt": Value("string"), "response": Value("large_string"), "label": ClassLabel(names=["no", "yes"]),
        "n": Value("int16"), "tags": List({"a": Value("float32")}),
    })  # fmt: skip
    row = {"prompt": "Why?", "response": "So.", "label": 1, "n": 3, "tags": [{"a": 0.5}]}
    Dataset.from_list([row] * 9, features=features).to_parquet(tmp_path / "rows.parquet")
    go(tmp_path / "rows.parquet", tmp_path / "out", Counted())
    found = load_dataset(str(tmp_path / "out"), split="train")
    assert {name: found.features[name] for name in features} == features and {key: found[8][key] for key in row} == row


def test_a_folder_has_splits(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for split, rows in (("train", 3), ("test", 2)):
        lines(folder / f"{split}.jsonl", alpaca(rows))
    assert go(folder, tmp_path / "out", Counted(), split="test")["rows"] == 2
    assert load_dataset(str(tmp_path / "out"), split="test").num_rows == 2
    with pytest.raises(SourceError, match="validation"):
        go(folder, tmp_path / "other", Counted(), split="validation")
    with pytest.raises(SourceError, match="lie in each other"):
        go(folder, folder / "out", Counted())


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path, stop):
    file = lines(tmp_path / "rows.jsonl", alpaca(30))
    go(file, tmp_path / "whole", Counted(), Counted(large=True))
    with pytest.raises(EngineError if stop is RuntimeError else stop, match="no memory left"):
        go(file, tmp_path / "out", Counted(), Counted(large=True, last=19, stop=stop))
    assert len(shards(tmp_path / "out")) == 2 and not (tmp_path / "out" / "summary.json").exists()
    rest = Counted()
    summary = go(file, tmp_path / "out", rest, Counted(large=True))
    assert len(rest.asked) == 30 - 16 and shards(tmp_path / "out") == shards(tmp_path / "whole")
    assert summary == json.loads((tmp_path / "whole" / "summary.json").read_text())
    again = Counted()
    assert go(file, tmp_path / "out", again, Counted(large=True)) == summary and not again.asked


def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path):
    file = lines(tmp_path / "rows.jsonl", alpaca(30))
    go(file, tmp_path / "whole", Counted())
    code = (
        "import os, signal, sys; from pathlib import Path; from test_score import Counted, go\n"
        "class Killed(BaseException):\n"
        "    def __init__(self, *_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "go(Path(sys.argv[1]), Path(sys.argv[2]), Counted(last=21, stop=Killed))"
    )
    killed = subprocess.run([sys.executable, "-c", code, file, tmp_path / "out"], cwd=Path(__file__).parent)
    assert killed.returncode == -signal.SIGKILL and len(shards(tmp_path / "out")) == 2
    (tmp_path / "out" / "data" / "train-00002-of-00004.part").write_text("half")
    go(file, tmp_path / "out", rest := Counted())
    assert len(rest.asked) == 14 and shards(tmp_path / "out") == shards(tmp_path / "whole")
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names - {".lock"} == {"scoring.json", "summary.json", *shards(tmp_path / "whole")}


def test_other_settings_are_refused(tmp_path):
    file = lines(tmp_path / "rows.jsonl", alpaca(9))
    go(file, tmp_path / "out", Counted())
    before = shards(tmp_path / "out")
    for change in ({"limit": 3}, {"options": {"template": "chat"}}, {"columns": "prompt=input,answer=output"}):
        with pytest.raises(RunError, match=next(iter(change)) if "options" not in change else "template"):
            go(file, tmp_path / "out", Counted(), **change)
    with pytest.raises(RunError, match="large"):
        go(file, tmp_path / "out", Counted(), Counted(large=True))
    (tmp_path / "out" / "summary.json").unlink()
    with pytest.raises(RunError, match="revision"):
        go(file, tmp_path / "out", Counted(), revision="2")
    lines(file, alpaca(10))
    with pytest.raises(RunError, match="data was"):
        go(file, tmp_path / "out", Counted())
    assert shards(tmp_path / "out") == before


def test_what_is_there_already_is_refused(tmp_path):
    file = lines(tmp_path / "rows.jsonl", alpaca(1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(RunError, match="other things"):
        go(file, tmp_path / "mine", Counted())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    with pytest.raises(SourceError, match="cut"):
        go(lines(tmp_path / "scored.jsonl", [row | {"cut": 1} for row in alpaca(1)]), tmp_path / "out", Counted())


def peaks(folder: Path, rows: int) -> tuple[int, int]:
    """The most bytes that Python and Arrow took, beyond what was there, while rows of 100 KB were scored."""
    folder.mkdir()
    with (folder / "rows.json").open("w") as file:
        for n in range(rows):
            row = {"prompt": str(n), "response": f"{n}" + "x" * 100_000}
            file.write("[" * (n == 0) + json.dumps(row) + (",\n" if n < rows - 1 else "]"))
    gc.collect()
    before, scorer = pa.total_allocated_bytes(), Counted()
    tracemalloc.start()
    try:
        go(folder / "rows.json", folder / "out", scorer)
        return tracemalloc.get_traced_memory()[1], scorer.memory - before
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    """`datasets` reads lines in pieces of 10 MB, so 16 MB take what 42 MB take. What is imported only while rows are
    scored counts as memory of the first time, and is not looked at."""
    peaks(tmp_path / "imports", 1)
    python, arrow = peaks(tmp_path / "short", 160)
    longer, more = peaks(tmp_path / "long", 420)
    assert longer < python + 1_000_000 < 40_000_000
    assert more < arrow + 1_000_000 < 8_000_000


def test_progress_says_rate_and_time_left(tmp_path, monkeypatch):
    clock, heard = itertools.count(), []
    file = lines(tmp_path / "rows.jsonl", alpaca(30))
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))

    def run(scorer: Counted) -> None:
        score(Settings(str(file), str(tmp_path), block=8), tmp_path / "out", heard.append, lambda *_: (scorer, {}))

    with pytest.raises(KeyboardInterrupt):
        run(Counted(last=9))
    heard.clear()
    run(Counted())
    assert heard[0] == "reading rows.jsonl"
    done, rate, left = re.fullmatch(r"(\d+) of 30 rows, (\d\.\d)/s, (\d+) s left", heard[1]).groups()
    assert 8 + 5 < int(done) <= 8 + 11 and 0.5 <= float(rate) <= 1.0 and 11 <= int(left) <= 24


# --- the command ---------------------------------------------------------------------------------


def test_command(command, tmp_path, models):
    file = lines(tmp_path / "rows.jsonl", alpaca(4))
    given = ("score", file, "--small", models["small"], "--output", tmp_path / "out", "--limit", 3)
    code, out, err = command(*given)
    assert code == 0 and "3 of 3 rows scored" in out and "perplexity_small" in out and "reading rows.jsonl" in err
    assert command(*given, "--quiet")[:2] == (0, out)
    assert command(*given[:-1], 2)[0] == 2


@pytest.mark.parametrize("change", [
    {1: "nowhere.jsonl"}, {3: "no model"}, {5: "no model"}, {7: "nowhere"}, {9: "answer=x,prompt=y"},
])  # fmt: skip
def test_command_says_what_is_wrong_before_anything_is_loaded(command, tmp_path, models, change):
    folder = tmp_path / "rows"
    folder.mkdir()
    lines(folder / "train.jsonl", alpaca(2))
    given = ["score", folder, "--small", models["small"], "--large", models["large"], "--split", "train"]
    given += ["--columns", "prompt=input,answer=output", "--output", tmp_path / "out"]
    code, out, err = command(*(change.get(at, word) for at, word in enumerate(given)))
    assert code == 2 and not out and "error: " in err and next(iter(change.values())).split(",")[0] in err
    assert not (tmp_path / "out" / "data").exists() and ("reading" in err) == (9 in change)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "train.parquet"])
def test_a_dataset_on_the_hub(tmp_path, models, name):
    token = "hf_" + "x" * 34
    hub_accounts.TOKENS[token] = "alice"
    Dataset.from_list(alpaca(3)).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "train.json").write_text(json.dumps(alpaca(3)))
    lines(tmp_path / "train.jsonl", alpaca(3))
    with HubServer(tmp_path / "hub", xet=True) as hub:
        api = HfApi(hub.url, token)
        api.create_repo("alice/data", repo_type="dataset")
        commit = api.upload_file(
            path_or_fileobj=tmp_path / name, path_in_repo=name, repo_id="alice/data", repo_type="dataset"
        ).oid
        here = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": token,
        }
        call = [sys.executable, "-m", "boost_qa.cli", "score", "alice/data", "--small", models["small"]]
        done = subprocess.run([*call, "-o", tmp_path / "out"], env=here, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    del hub_accounts.TOKENS[token]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]["data"] == commit
    found = load_dataset(str(tmp_path / "out"), split="train")
    assert [{key: row[key] for key in alpaca(1)[0]} for row in found] == alpaca(3)
