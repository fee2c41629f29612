"""What the Hub says about the YAML of a README.md: errors, which refuse it, and warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

FRONT = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))")
ID = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other""".split()
)


def front_matter(content: str) -> str | None:
    found = FRONT.match(content)
    return found and found.group(2)


def problems(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a README.md."""
    text = front_matter(content)
    if text is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        meta = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        return [f"YAML: {error}"], []
    if not isinstance(meta, dict):
        return ["YAML metadata must be an object"], []
    errors = [*wrong_ids(meta), *wrong_words(meta), *wrong_results(meta.get("model-index"))]
    unnamed = "other" in listed(meta.get("license")) and not meta.get("license_name")
    return errors, ['"license_name" is missing: name the license that "license: other" means'] if unnamed else []


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def wrong_ids(meta: dict[str, Any]) -> Iterator[str]:
    """Local paths, and whatever else is no id of the Hub."""
    for key, what in (("base_model", "model"), ("datasets", "dataset")):
        for value in listed(meta.get(key)):
            if value == "":
                yield f'"{key}" is not allowed to be empty'
            elif not ID.fullmatch(str(value)):
                yield f'"{key}" with value "{value}" is not valid. Use a {what} id from https://hf.co/{what}s.'


def wrong_words(meta: dict[str, Any]) -> Iterator[str]:
    for value in listed(meta.get("license")):
        if value not in LICENSES:
            yield f'"license" must be one of [{", ".join(sorted(LICENSES))}]'
    for at, value in enumerate(listed(meta.get("language"))):
        if value is not False and not re.fullmatch(r"[a-z]{2,3}(-\w+)?|code|multilingual", str(value)):
            yield f'"language[{at}]" with value "{value}" is not valid. It must be an ISO 639 code, "code" or so.'
    if not all(isinstance(tag, str) for tag in listed(meta.get("tags"))) or isinstance(meta.get("tags"), str):
        yield '"tags" must be an array of strings'


def wrong_results(index: Any) -> Iterator[str]:
    """What is wrong with `model-index`; a metric needs a type and a value, a result a task and a dataset."""
    if index is None:
        return
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for at, model in enumerate(index):
        if not isinstance(model, dict) or not model.get("name"):
            yield f'"model-index[{at}].name" is required'
            continue
        for nth, result in enumerate(listed(model.get("results"))):
            place = f"model-index[{at}].results[{nth}]"
            needed = {"task": ["type"], "dataset": ["name", "type"]}
            yield from missing(place, result, needed)
            for each, metric in enumerate(listed(result.get("metrics"))):
                yield from missing(place, {f"metrics[{each}]": metric}, {f"metrics[{each}]": ["type", "value"]})


def missing(place: str, entry: Any, needed: dict[str, list[str]]) -> Iterator[str]:
    for part, keys in needed.items():
        for key in keys:
            if not isinstance(entry.get(part), dict) or entry[part].get(key) is None:
                yield f'"{place}.{part}.{key}" is required'
