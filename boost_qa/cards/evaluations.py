"""Scores of a model, from the results files of lm-evaluation-harness, in the forms that the Hub reads.

The harness writes `results_<time>.json`: metrics by task under keys such as `acc,none` or
`exact_match,strict-match` (metric, filter), `acc_stderr,none` beside them, and how each task was set up.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boost_qa.errors import RunError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Score:
    """One metric of one task.

    Args:
        task: the harness's name of the task, or group of tasks.
        metric: such as `acc`; `value` is in its own unit, for accuracies a share of 1.
        stderr: standard error of `value`; None where the harness has none.
        samples: questions that were asked.
        shots: examples in the prompt.
        dataset_id: on the Hub; None for a dataset that isn't there, and for a group.
        split: of the dataset.
        date: when the evaluation began, in UTC (ISO 8601).
        harness: what measured it, with its version.
        filter: how the answer was taken from the text, where it was.
    """

    task: str
    metric: str
    value: float
    stderr: float | None = None
    samples: int | None = None
    shots: int | None = None
    dataset_id: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    split: str | None = None
    date: str | None = None
    harness: str = "lm-evaluation-harness"
    filter: str | None = None


def read_scores(files: Iterable[Path]) -> list[Score]:
    """All scores of the files, by task, metric, filter and shots. Where two say the same, the later one counts.

    Raises:
        RunError: naming the file, and what in it is missing or no number.
    """
    newest: dict[tuple[Any, ...], Score] = {}
    found = [score for file in sorted(files) for score in _read(file)]
    for score in sorted(found, key=lambda score: score.date or ""):
        newest[_place(score)] = score
    return [newest[key] for key in sorted(newest)]


def hub_results(scores: Sequence[Score]) -> list[EvalResult]:
    """The scores as entries of a model card's `model-index`.

    huggingface_hub joins entries of one dataset under the first one's task, so each metric's name says its task.
    """
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=score.dataset_id or _slug(score.task),
            dataset_name=score.dataset_id or score.task,
            dataset_config=score.dataset_config,
            dataset_split=score.split,
            dataset_revision=score.dataset_revision,
            metric_type=score.metric,
            metric_name=", ".join(filter(None, (score.task, score.metric, score.filter))),
            metric_value=score.value,
            metric_args={key: value for key, value in _circumstances(score).items() if value is not None} or None,
        )
        for score in scores
    ]


def eval_results_yaml(scores: Sequence[Score]) -> dict[str, str]:
    """Files for the Hub's evaluation results: path in the repository to YAML, one file for each task.

    Only scores on datasets of the Hub are among them, and of each task the first metric: the Hub knows an entry by its
    dataset and task alone. All others are in `model-index` and the card's table.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries: dict[str, list[EvalResultEntry]] = {}
    for score in scores:
        if score.dataset_id is not None:
            revision = score.dataset_revision
            entry = EvalResultEntry(
                dataset_id=score.dataset_id,
                task_id=score.task,
                value=score.value,
                dataset_revision=revision if revision and _COMMIT.fullmatch(revision) else None,
                date=score.date,
                notes=_notes(score),
            )
            of_file = entries.setdefault(f".eval_results/{_slug(score.task)}.yaml", [])
            if all((entry.dataset_id, entry.task_id) != (other.dataset_id, other.task_id) for other in of_file):
                of_file.append(entry)
    return {
        path: yaml.safe_dump(eval_result_entries_to_yaml(of_task), sort_keys=False, allow_unicode=True)
        for path, of_task in sorted(entries.items())
    }


def _read(file: Path) -> Iterator[Score]:
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}", _REMEDY) from error
    for key in ("results", "configs"):
        if not isinstance(whole, dict) or not isinstance(whole.get(key), dict) or not whole[key]:
            raise RunError(f"{file} has no {key}", _REMEDY)
    for task, metrics in whole["results"].items():
        if not isinstance(metrics, dict):
            raise RunError(f"{file} has no metrics of {task}", _REMEDY)
        for key, value in metrics.items():
            metric, comma, name = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                if not _is_number(value):
                    raise RunError(f"{file}: {key} of {task} is no number but {value!r}", "Evaluate that task again.")
                yield _score(whole, task, metric, name, value)


_REMEDY = "Give files that lm-evaluation-harness wrote: results_*.json below its --output_path."


def _score(whole: Mapping[str, Any], task: str, metric: str, name: str, value: float) -> Score:
    config = whole["configs"].get(task) or {}
    stderr = whole["results"][task].get(f"{metric}_stderr,{name}")
    shots = (whole.get("n-shot") or {}).get(task, config.get("num_fewshot"))
    dataset, options = config.get("dataset_path"), config.get("dataset_kwargs") or {}
    on_hub = isinstance(dataset, str) and _HUB_ID.fullmatch(dataset)
    version = whole.get("lm_eval_version")
    return Score(
        task=task,
        metric=metric,
        value=float(value),
        stderr=float(stderr) if _is_number(stderr) else None,
        samples=_samples(whole, task, f"{metric},{name}"),
        shots=shots if isinstance(shots, int) else None,
        dataset_id=dataset if on_hub else None,
        dataset_config=config.get("dataset_name") if on_hub else None,
        dataset_revision=options.get("revision") if on_hub else None,
        split=config.get("test_split") or config.get("validation_split"),  # in the order that the harness prefers
        date=_date(whole.get("date")),
        harness=f"lm-evaluation-harness {version}" if version else "lm-evaluation-harness",
        filter=None if name == "none" else name,
    )


def _samples(whole: Mapping[str, Any], task: str, key: str) -> int | None:
    """Of a group the harness counts those with this metric; of a task those that its `limit` left."""
    metrics = whole["results"][task]
    counts = (
        metrics.get("sample_count", {}).get(key),
        (whole.get("n-samples") or {}).get(task, {}).get("effective"),
        metrics.get("sample_len"),
    )
    return next((int(count) for count in counts if _is_number(count)), None)


def _date(seconds: Any) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if _is_number(seconds) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _place(score: Score) -> tuple[str, str, str, int]:
    return score.task, score.metric, score.filter or "", -1 if score.shots is None else score.shots


def _circumstances(score: Score) -> dict[str, Any]:
    return {
        "stderr": score.stderr,
        "num_few_shot": score.shots,
        "samples": score.samples,
        "filter": score.filter,
        "harness": score.harness,
    }


def _notes(score: Score) -> str:
    said = [f"metric {score.metric}" + (f" ({score.filter})" if score.filter else "")]
    said += [f"standard error {score.stderr:.4f}"] if score.stderr is not None else []
    said += [f"{score.shots}-shot"] if score.shots is not None else []
    said += [f"{score.samples} samples"] if score.samples is not None else []
    return ", ".join([*said, score.harness])


def _slug(task: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", task).strip("._-") or "task"
