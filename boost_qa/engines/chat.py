"""Chat messages to token ids, so that no text of a message can become a control token.

The chat template is rendered with a random word in place of each message's text, and cut at these
words. The pieces of the template are tokenised with control tokens, the texts by a second tokenizer
that knows none. Pasting texts into the template first, as is usual, would let a record that contains
`<|im_end|>` end its message and speak as somebody else.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from boost_qa.errors import ModelError
from boost_qa.types import Message

# Templates may print the date. The same record gives the same prompt on any day, so the day is fixed.
_TODAY = datetime(2026, 1, 1)

_OWN_REPOSITORY = "A chat model's folder holds tokenizer.json and its chat template, as its makers publish them."


class ChatTokenizer:
    """Tokenizer and chat template of one model.

    Args:
        folder: holds tokenizer.json, and either model.yaml and chat_template.jinja as `boost_qa.models`
            writes them, or the usual tokenizer_config.json with a template in it or beside it.

    Attributes:
        context: the longest prompt and reply in tokens that the model allows; None if the folder does not say.
        stop_ids: every control token; a reply ends at any of them.

    Raises:
        ModelError: if a file is missing or broken, or there is no chat template.
    """

    def __init__(self, folder: str | Path) -> None:
        from tokenizers import Tokenizer

        self._folder = Path(folder)
        facts = _facts(self._folder)
        raw = _json(self._folder / "tokenizer.json")
        added = {int(token["id"]): token for token in raw.get("added_tokens", [])}
        # Runs of spaces are ordinary text even where they are added tokens.
        plain = [token for token in added.values() if not token["content"].strip()]
        try:
            self._with_control = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
            self._without = Tokenizer.from_str(json.dumps(raw | {"added_tokens": plain, "post_processor": None}))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"{self._folder / 'tokenizer.json'}: {error}", _OWN_REPOSITORY) from error
        self._forbidden = frozenset(added) - {int(token["id"]) for token in plain}
        special = {number for number, token in added.items() if token["special"]}
        ends = {self._with_control.token_to_id(token) for token in facts["ends"] if token}
        self.stop_ids = frozenset(special | set(facts["stop_ids"]) | {number for number in ends if number is not None})
        self.context: int | None = facts["context"]
        self._variables = {"bos_token": facts["bos_token"] or "", "eos_token": facts["eos_token"] or ""}
        self._template = _compile(facts["template"], self._folder)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt for the assistant's next message. Texts are stripped of space at both ends.

        Raises:
            ModelError: if the template refuses the messages or leaves one out.
        """
        texts = [_sound(message.content) for message in messages]
        words = [f"z{secrets.token_hex(16)}z" if text else "" for text in texts]
        text_of = {word: text for word, text in zip(words, texts, strict=True) if word}
        rendered = self._render(messages, words)
        pieces = re.split(f"({'|'.join(text_of)})", rendered) if text_of else [rendered]
        if missing := text_of.keys() - set(pieces):
            roles = {message.role for message, word in zip(messages, words, strict=True) if word in missing}
            raise ModelError(
                f"{self._folder}: the chat template leaves out a message ({', '.join(sorted(roles))})",
                "For a model without a system role set `layout: user` in the recipe.",
            )
        ids: list[int] = []
        for piece in pieces:
            ids += self._plain(text_of[piece]) if piece in text_of else self._control(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, control tokens written out."""
        return str(self._with_control.decode(list(ids), skip_special_tokens=False))

    def _render(self, messages: Sequence[Message], words: Sequence[str]) -> str:
        from jinja2 import TemplateError

        spoken = [{"role": message.role, "content": word} for message, word in zip(messages, words, strict=True)]
        try:
            return str(self._template.render(messages=spoken, add_generation_prompt=True, **self._variables))
        except TemplateError as error:
            raise ModelError(
                f"{self._folder}: the chat template refuses the messages: {error}",
                "For a model without a system role set `layout: user` in the recipe.",
            ) from error

    def _control(self, piece: str) -> list[int]:
        return list(self._with_control.encode(piece, add_special_tokens=False).ids)

    def _plain(self, text: str) -> list[int]:
        ids = list(self._without.encode(text, add_special_tokens=False).ids)
        if len(text) > 1 and not self._forbidden.isdisjoint(ids):  # a vocabulary that merges up to a control token
            ids = [number for character in text for number in self._plain(character)]
        return ids


def _sound(text: str) -> str:
    """`text` as a tokenizer can take it: halves of surrogate pairs, which are no characters, replaced."""
    return text.strip().encode("utf-8", "replace").decode("utf-8")


def _facts(folder: Path) -> dict[str, Any]:
    """Template, tokens and sizes, from our own model.yaml or from the files that Hugging Face models have."""
    jinja = folder / "chat_template.jinja"
    if (folder / "model.yaml").is_file():
        own = yaml.safe_load(_read(folder / "model.yaml"))
        if "stop_ids" in own:
            return dict(own) | {"template": _read(jinja), "ends": [own["eos_token"]]}
    settings = _json(folder / "tokenizer_config.json")
    model = _optional(folder / "config.json")
    template = _read(jinja) if jinja.is_file() else settings.get("chat_template")
    if isinstance(template, list):  # several under names
        template = {each["name"]: each["template"] for each in template}.get("default")
    if not template:
        raise ModelError(f"{folder} has no chat template", "Give a model made for chat, with its chat_template.jinja.")
    eos = _optional(folder / "generation_config.json").get("eos_token_id", [])
    context = model.get("max_position_embeddings") or settings.get("model_max_length")
    bos_token, eos_token = (_text(settings.get(name)) for name in ("bos_token", "eos_token"))
    return {
        "template": template,
        "bos_token": bos_token,
        "eos_token": eos_token,
        "ends": [eos_token],
        "stop_ids": eos if isinstance(eos, list) else [eos],
        # an unknown length is written as a number of thirty digits
        "context": int(context) if context and context < 1 << 40 else None,
    }


def _compile(template: str, folder: Path) -> Any:
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _TODAY.strftime
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise ModelError(f"{folder}: the chat template is broken: {error}", _OWN_REPOSITORY) from error


def _text(token: dict[str, Any] | str | None) -> str | None:
    return str(token["content"]) if isinstance(token, dict) else token


def _optional(file: Path) -> dict[str, Any]:
    return _json(file) if file.is_file() else {}


def _json(file: Path) -> dict[str, Any]:
    text = _read(file)
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        why = "a pointer of Git LFS, not the file itself" if text.startswith("version https://git-lfs") else error
        raise ModelError(f"{file}: {why}", _OWN_REPOSITORY) from error


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: {error}", _OWN_REPOSITORY) from error
