"""What stands before an answer, in tokens: with its prompt, and alone.

    conditioned   front  prompt  header  answer
    alone         front          header  answer

The front is what the tokenizer itself puts before any text (Llama's and Mistral's beginning of text, nothing
for others); the header is the assistant's role line. So the first token of the answer is always predicted from
the same last line, whether there is a prompt or not. Prompt and answer are tokenised apart, each as it is after
the end of a line: the answer's tokens are the very same in both texts, and no text becomes a control token.
The token that would end the answer is not part of it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

from boost_qa.errors import ModelError, SourceError
from boost_qa.types import Message

Layout = Literal["plain", "chat", "headings"]
Pair = tuple[str, str] | Sequence[Message]
"""(prompt, answer), or messages of which the last is the answer."""

_ROLES = {
    "plain": {"system": "System", "user": "Human", "assistant": "Assistant"},
    "headings": {"system": "### System", "user": "### Instruction", "assistant": "### Response"},
}
_DATE = "".join(f" | replace('%{each}', '{datetime(2026, 1, 1).strftime('%' + each)}')" for each in "aAbBdHIjmMpSyY")
_TODAY = f"{{%- macro strftime_now(format) -%}}{{{{ format{_DATE} }}}}{{%- endmacro -%}}"
"""Put before a chat template: it may print the date, and a score must not depend on the day."""

_PROMPT_SHARE = 4
"""A quarter of the room is the prompt's, if it needs it: with none of it left, IFD would be 1 by construction."""


@dataclass(frozen=True)
class Parts:
    """One row in token ids; what was cut away is counted."""

    front: list[int]
    prompt: list[int]
    header: list[int]
    answer: list[int]
    prompt_left_out: int = 0
    answer_left_out: int = 0

    @property
    def conditioned(self) -> list[int]:
        return self.front + self.prompt + self.header + self.answer

    @property
    def alone(self) -> list[int]:
        return self.front + self.header + self.answer

    def cut(self, room: int) -> Parts:
        """At most `room` tokens: the answer loses its end, then the prompt its beginning.

        The answer is cut to what the prompt leaves; a prompt that is longer than a quarter of the room leaves three
        quarters. The front and the header stay.

        Raises:
            ValueError: if they leave no room for an answer.
        """
        inside = room - len(self.front) - len(self.header)
        if inside < 1:
            raise ValueError(f"{room} tokens: no answer has room behind {room - inside} of the layout")
        answer = self.answer[: inside - min(len(self.prompt), inside // _PROMPT_SHARE)]
        first = max(0, len(self.prompt) - (inside - len(answer)))
        lost = len(self.answer) - len(answer)
        return replace(self, prompt=self.prompt[first:], answer=answer, prompt_left_out=first, answer_left_out=lost)


class Typesetter:
    """Lays rows out for one model's tokenizer.

    Args:
        tokenizer: a fast one of transformers.
        layout: "plain" writes roles as text lines, the same for every model and the same as `template: plain` of
            the training recipes; "headings" does so with the headings of Alpaca's prompts, which public code for IFD
            uses; "chat" is the model's own chat template, whose assistant header then stands before the answer alone.

    Raises:
        ModelError: if the tokenizer can't say where its tokens stand, or has no chat template to use.
    """

    def __init__(self, tokenizer: Any, layout: Layout = "plain") -> None:
        self.tokenizer, self.name = tokenizer, tokenizer.name_or_path
        if layout not in get_args(Layout):
            raise ValueError(f"layout {layout!r} is none of {', '.join(get_args(Layout))}")
        if not tokenizer.is_fast:
            raise ModelError(f"{self.name}: a slow tokenizer", "Give a model that has a tokenizer.json.")
        if layout == "chat" and not tokenizer.chat_template:
            raise ModelError(f"{self.name} has no chat template", "Use the plain layout, or a model made for chat.")
        self._template = _TODAY + tokenizer.get_chat_template() if layout == "chat" else ""
        self._front = _front(tokenizer)
        self._controls = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self._prefix: Callable[[Sequence[Message]], tuple[list[int], list[int], list[int], str]]
        self._prefix = self._chat if layout == "chat" else self._lines
        self._names = _ROLES.get(layout, {})
        self._role_line = re.compile(f"^(?=({'|'.join(self._names.values())}):)", re.MULTILINE)

    def __call__(self, pair: Pair) -> Parts:
        """The row in tokens; `answer` is empty where its text is only space.

        Raises:
            SourceError: if the messages do not end in an assistant's after at least one other.
            ModelError: if the chat template refuses them, or leaves nothing to predict the first token from.
        """
        *before, answer = _messages(pair)
        front, prompt, header, last = self._prefix(before)
        if not front and not header:
            raise ModelError(
                f"{self.name}: neither a beginning of text nor an assistant header stands before an answer",
                "Use the plain layout.",
            )
        return Parts(front, prompt, header, self._text(self._safe(answer.content), last))

    def _lines(self, before: Sequence[Message]) -> tuple[list[int], list[int], list[int], str]:
        lines = "".join(f"{self._names[message.role]}:\n{self._safe(message.content)}\n" for message in before)
        # the very first line is tokenised as the beginning of a text, which it is
        prompt, header = self._text(lines, ""), self._text(f"{self._names['assistant']}:\n", "\n")
        return self._front, prompt, header, "\n"

    def _chat(self, before: Sequence[Message]) -> tuple[list[int], list[int], list[int], str]:
        texts = [_sound(message.content).strip() for message in before]
        words = [f"z{secrets.token_hex(16)}z" if text else "" for text in texts]
        text_of = {word: text for word, text in zip(words, texts, strict=True) if word}
        body, whole = (self._render(before, words, header) for header in (False, True))
        if not whole.startswith(body) or any(word not in body for word in text_of):
            raise ModelError(f"{self.name}: the chat template leaves out a message", "Use the plain layout.")
        bos = str(self.tokenizer.bos_token or "")
        front = [int(self.tokenizer.bos_token_id)] if bos and body.startswith(bos) else []
        prompt: list[int] = []
        last = ""
        for piece in re.split(f"({'|'.join(text_of)})", body[len(bos) if front else 0 :]) if text_of else [body]:
            prompt += self._text(text_of[piece], last) if piece in text_of else self._control(piece)
            last = piece
        header = whole[len(body) :]
        return front, prompt, self._control(header), header

    def _render(self, messages: Sequence[Message], words: Sequence[str], header: bool) -> str:
        from jinja2 import TemplateError

        spoken = [{"role": message.role, "content": word} for message, word in zip(messages, words, strict=True)]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    spoken, chat_template=self._template, tokenize=False, add_generation_prompt=header
                )
            )
        except TemplateError as error:
            raise ModelError(
                f"{self.name}: the chat template refuses the messages: {error}", "Use the plain layout."
            ) from error

    def _safe(self, text: str) -> str:
        """A line that looks like a role line is set in by a space: no text can take a turn."""
        text = _sound(text).strip()
        return self._role_line.sub(" ", text) if self._names else text

    def _control(self, piece: str) -> list[int]:
        return list(self.tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])

    def _text(self, text: str, before: str) -> list[int]:
        """Ids of a text, none of them for control; as they are at the start of a line where `before` ends one."""
        anchor = "\n" if before.endswith("\n") else ""
        encoding = self.tokenizer(
            anchor + text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        places = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        ids = [int(id) for id, (_, end) in places if end > len(anchor)]
        if len(text) > 1 and not self._controls.isdisjoint(ids):  # a vocabulary that merges up to a control token
            ids = [id for character in text for id in self._text(character, "\n")]
        return ids


def _messages(pair: Pair) -> Sequence[Message]:
    if len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str):
        return Message("user", pair[0]), Message("assistant", pair[1])
    messages = [message for message in pair if isinstance(message, Message)]
    if len(messages) != len(pair) or len(messages) < 2 or messages[-1].role != "assistant":
        raise SourceError(
            "a row to score is neither (prompt, answer) nor messages that end in the assistant's answer",
            "Give two texts, or at least two messages of which the last is the assistant's.",
        )
    return messages


def _front(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text by itself; what it may put after one is not wanted."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    mask = encoding["special_tokens_mask"]
    return [int(id) for id in encoding["input_ids"][: mask.index(0)]]


def _sound(text: str) -> str:
    """Halves of surrogate pairs, which are no characters, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
