"""The CPU recipe with real weights: its wall time, and whether a rerun and a resumed run have the same losses.

Trains SmolLM2-135M by recipes/sft/smollm2-135m/lora_cpu.yaml three times: whole, whole again, and killed with
SIGKILL once a checkpoint is there, then started again. The demo's dialogues have to be there (make demo).

    python benchmarks/train_cpu.py
    python benchmarks/train_cpu.py --recipe demo_small -- --num_train_epochs 1 --save_strategy steps --save_steps 2
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report

PREDICTION = """
Two epochs of 15,000 tokens at the 190 tokens a second that single batches of this model took on two cores: 160 s, and
some 40 s for starting, evaluating and saving. Losses of the rerun and of the resumed run equal to the last digit.
"""
ROOT = Path(__file__).parent.parent
RECIPE = "recipes/sft/smollm2-135m/lora_cpu.yaml"


def command(folder: Path, dialogues: str, changes: list[str]) -> list[str]:
    """The recipe's own command, writing to `folder`."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/cpu.yaml"]
    train = ["-m", "boost_qa.train", "--config", RECIPE, "--dataset_recipe", dialogues, "--output_dir", str(folder)]
    return [*launch, *train, *changes]


def whole(folder: Path, dialogues: str, changes: list[str]) -> float:
    """Seconds of a run from start to end."""
    began = time.perf_counter()
    subprocess.run(command(folder, dialogues, changes), cwd=ROOT, check=True)
    return time.perf_counter() - began


def killed(folder: Path, dialogues: str, changes: list[str]) -> int:
    """Kill a run once it has a checkpoint; the step of that."""
    process = subprocess.Popen(command(folder, dialogues, changes), cwd=ROOT, start_new_session=True)
    while not (found := sorted(folder.glob("checkpoint-*/trainer_state.json"))):
        if process.poll() is not None:
            raise SystemExit("the run ended before its first checkpoint")
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return int(found[0].parent.name.partition("-")[2])


def told(folder: Path) -> dict[str, Any]:
    """The run.json of a finished run."""
    return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))


def losses(folder: Path) -> list[float]:
    """Every training and held-out loss, in order."""
    return [entry[key] for entry in told(folder)["losses"] for key in ("loss", "eval_loss") if key in entry]


def main() -> None:
    parser = report.parser("train_cpu", __doc__)
    parser.add_argument("--recipe", default="demo", help="whose dialogues (default: %(default)s)")
    parser.add_argument("changes", nargs="*", help="after --, changes to the training recipe")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first, second, third = (Path(scratch) / name for name in ("whole", "again", "killed"))
        seconds = [whole(folder, options.recipe, options.changes) for folder in (first, second)]
        at = killed(third, options.recipe, options.changes)
        whole(third, options.recipe, options.changes)
        run = told(first)
        result = {
            "wall_seconds": report.spread(seconds, 1),
            "steps": run["plan"]["counts"]["steps"],
            "tokens_per_epoch": run["plan"]["counts"]["tokens"],
            "tokens_per_second": round(run["measured"]["tokens_per_second"], 1),
            "peak_memory_mb": run["measured"]["peak_memory_bytes"] // 2**20,
            "losses": losses(first),
            "rerun_is_identical": losses(first) == losses(second),
            "killed_at_step": at,
            "resumed_is_identical": losses(first) == losses(third),
            "steps_after_resume": told(third)["measured"]["steps"],
        }
    rows = [(name, str(value)) for name, value in result.items() if name not in ("losses", "wall_seconds")]
    report.show("fine-tuning on a CPU", ("", ""), [("seconds", str(result["wall_seconds"]["median"])), *rows])
    settings = {"recipe": RECIPE, "dialogues": options.recipe, "changes": options.changes, "versions": run["versions"]}
    report.write(options.output, PREDICTION, settings, result)


if __name__ == "__main__":
    main()
