"""The model that is evaluated: a base, or a base with an adapter, as one of the harness's language models."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from boost_qa.errors import ModelError, RecipeError
from boost_qa.models.trainable import gguf_of, trainable
from boost_qa.models.trainable import revision as revision_of
from boost_qa.named_model import folder_revision, id_and_revision
from boost_qa.portable import last_name

if TYPE_CHECKING:
    from lm_eval.api.model import LM

Backend = Literal["hf", "vllm", "embedded"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NEEDED = {"lm_eval": "'boost_qa[evaluate]'", "accelerate": "'boost_qa[evaluate]'"}
_ALSO_NEEDED: dict[Backend, dict[str, str]] = {
    "hf": {},
    "vllm": {"vllm": "vllm"},
    "embedded": {"openvino_genai": "'boost_qa[embedded]'"},
}
_ADAPTER = "Give a folder with adapter_config.json, or the Hub id of an adapter; a whole model is --base."


@dataclass(frozen=True)
class Chosen:
    """A model that was found, and is not loaded yet.

    Args:
        base: folder or Hub id of the base.
        revision: of the base, on the Hub.
        adapter: local folder of the adapter.
        named: how the harness's results name it, as arguments of its model.
        facts: what its replies depend on; two that differ are different models.
    """

    base: str
    revision: str | None
    adapter: Path | None
    named: dict[str, Any]
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """The last part of what it is called."""
        return last_name(str(self.named.get("peft") or self.named["pretrained"]))


def find(base: str | None, adapter: str | None, backend: Backend = "hf") -> Chosen:
    """Find a model without loading it; models of the catalogue are fetched, adapters of the Hub, too.

    Args:
        base: a folder, a GGUF file, a name of the catalogue, ID or ID@REVISION; by default the adapter's own.
        adapter: a folder, ID or ID@REVISION.

    Raises:
        ModelError: there is none, or the backend is not installed, or cannot read it.
    """
    for package, extra in (_NEEDED | _ALSO_NEEDED[backend]).items():
        if find_spec(package) is None:
            raise ModelError(f"the backend {backend} needs {package}", f"pip install {extra}")
    if base is None and adapter is None:
        raise ModelError("no model is given", "Give --base, --adapter, or both.")
    folder, config = (None, {}) if adapter is None else _adapter(adapter)
    name = base or config.get("base_model_name_or_path")
    if not name:
        raise ModelError(f"{adapter} names no base model", "Give it with --base.")
    id, revision = id_and_revision(str(name))
    source = trainable(id)
    if base is None:
        revision = config.get("revision")
    named: dict[str, Any] = {"pretrained": source, "revision": revision or "main"}
    facts: dict[str, Any] = {"base": last_name(id) if Path(id).exists() else id, "base_revision": revision}
    facts["base_revision"] = revision or revision_of(source) or folder_revision(Path(source))
    if backend == "embedded":
        gguf_of(source)
    if folder is not None:
        named["peft"] = str(folder if Path(str(adapter)).expanduser().is_dir() else adapter)
        facts |= {"adapter": last_name(str(adapter)), "adapter_revision": folder_revision(folder)}
    return Chosen(source, revision, folder, named, facts)


def place(device: str | None = None, dtype: str | None = None, backend: Backend = "hf") -> dict[str, str]:
    """Where a model is loaded, if not given: on the first GPU, as it is stored; else on the CPU, in float32.

    Raises:
        RecipeError: the backend has no choice.
    """
    import torch

    if backend == "embedded":
        if device or dtype:
            raise RecipeError("the backend embedded takes no --device and no --dtype", "Leave them out.")
        return {"device": "cpu", "dtype": "auto"}

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return {"device": device, "dtype": dtype or ("float32" if device == "cpu" else "auto")}


def load(chosen: Chosen, backend: Backend, *, device: str, dtype: str, batch_size: int = 8, seed: int = 0) -> LM:
    """Load it. A tokenizer without a chat template gets the plain one that training uses.

    Args:
        device: of torch; not for vllm.
        dtype: of the weights; "auto" is as they are stored.
        batch_size: of the backends hf and embedded.
        seed: of what vllm draws, from its start on: an evaluation that goes on draws the rest otherwise than one that
            was not stopped. The other backends draw from torch's generator, which is seeded for each block of requests.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    own = chosen.adapter is not None and (chosen.adapter / "tokenizer_config.json").is_file()
    where, revision = (str(chosen.adapter), None) if own else (chosen.base, chosen.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision)
        if tokenizer.chat_template is None:
            from boost_qa.train.template import template_text

            tokenizer.chat_template = template_text("plain")
        given: dict[str, Any] = {"pretrained": chosen.base, "dtype": dtype}
        if backend == "hf":
            from lm_eval.models.huggingface import HFLM

            given |= {"tokenizer": tokenizer, "revision": chosen.revision or "main", "backend": "causal"}
            return _merged(HFLM(**given, peft=_text(chosen.adapter), batch_size=batch_size, device=device))
        if backend == "vllm":
            return _vllm(chosen, given | {"seed": seed}, where, tokenizer)
        from boost_qa.evaluate.embedded import load_embedded

        return load_embedded(chosen, tokenizer, batch_size)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        remedy = "Give the base that the adapter belongs to" if chosen.adapter else "Look at --base"
        raise ModelError(f"{chosen.name} cannot be loaded: {why}", f"{remedy}, or try another --backend.") from error


def _merged(model: Any) -> LM:
    """With the adapter in the weights, which is quicker. Only in float32: coarser numbers would round what it adds."""
    import torch

    if hasattr(model.model, "merge_and_unload") and model.model.dtype == torch.float32:
        model._model = model.model.merge_and_unload()
    return model


def _vllm(chosen: Chosen, given: dict[str, Any], where: str, tokenizer: Any) -> LM:
    from lm_eval.models.vllm_causallms import VLLM

    given |= {"revision": chosen.revision, "tokenizer": where}
    if chosen.adapter is not None:
        rank = json.loads((chosen.adapter / "adapter_config.json").read_text(encoding="utf-8")).get("r", 16)
        given |= {"lora_local_path": str(chosen.adapter), "max_lora_rank": max(8, 1 << (rank - 1).bit_length())}
    model = VLLM(**given)
    if model.tokenizer.chat_template is None:
        model.tokenizer.chat_template = tokenizer.chat_template
        model.hf_chat_template = tokenizer.chat_template
    return model


def _adapter(name: str) -> tuple[Path, dict[str, Any]]:
    """The adapter's folder, downloaded if it is on the Hub, and its config."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _download(name)
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise ModelError(f"{name} has no adapter_config.json", _ADAPTER)
    try:
        return folder, dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}", _ADAPTER) from error


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    id, revision = id_and_revision(name)
    if not _HUB_ID.fullmatch(id):
        raise ModelError(f"{name} is no folder and no Hub id", _ADAPTER)
    try:
        return Path(snapshot_download(id, revision=revision))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(f"{name} cannot be had from the Hub: {error}", _ADAPTER) from error


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
