"""Shapes of the base models of the recipes, known without the Hub."""

from __future__ import annotations

from pathlib import Path

import yaml
from transformers import AutoConfig, PretrainedConfig


def shape(model_id: str) -> PretrainedConfig | None:
    """The config of a base model of the recipes, without the Hub; None for another model.

    A mirror counts as the original: `NousResearch/Meta-Llama-3-8B`, or a folder of that name.
    """
    raw = yaml.safe_load(Path(__file__).with_name("shapes.yaml").read_text(encoding="utf-8"))
    asked = model_id.rstrip("/").rpartition("/")[2].lower()
    for name, facts in raw.items():
        if asked == name.rpartition("/")[2].lower():
            return AutoConfig.for_model(**facts)
    return None
