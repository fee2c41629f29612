"""What a dialogue looks like to the model: one text, and which of its tokens each assistant turn wrote.

Base models have no usable chat template, and LoRA does not train the embeddings of turn tokens they have
never seen. So the default writes roles as plain text and ends each answer with the model's own
end-of-text token. Training and generation tokenise the same whole text, so that a prompt's tokens are
always the beginning of the training tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from boost_qa.errors import ModelError, SourceError
from boost_qa.train.arguments import TemplateName

STOP = {"plain": None, "llama3": "<|eot_id|>", "chatml": "<|im_end|>"}
"""The token that ends an assistant turn; None is the model's own end-of-text token."""

UNTRAINED = {
    "llama3": "Llama 3's turn tokens are untrained in its base models, and LoRA does not train them: right for a model "
    "that was instruction-tuned with them; with a base model, use `template: plain`, or generation may never stop.",
    "chatml": "ChatML's turn tokens are hardly trained in Qwen's base models, and LoRA does not train them: right for "
    "a model that was instruction-tuned with them; with a base model, use `template: plain`.",
}


_Token = tuple[int, tuple[int, int]]  # its id, and the range of characters it stands for


@dataclass(frozen=True)
class Encoded:
    """A dialogue in tokens; `turns` are the half-open token ranges of the assistant's turns, stop token included."""

    ids: list[int]
    turns: list[tuple[int, int]]


class DialogueTokenizer:
    """A tokenizer that writes dialogues in one of our templates.

    Gives `tokenizer` the template, and the token that ends a turn as its `eos_token`; saved with an adapter,
    `apply_chat_template` then writes prompts as they were in training.

    Raises:
        ModelError: if the tokenizer can't say where its tokens stand in the text, or lacks the stop token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: TemplateName) -> None:
        self.tokenizer, self.name = tokenizer, tokenizer.name_or_path
        if not tokenizer.is_fast:
            raise ModelError(f"{self.name}: a slow tokenizer", "Give a model that has a tokenizer.json.")
        stop = STOP[template] or tokenizer.eos_token
        if stop is None:
            raise ModelError(
                f"{self.name}: the tokenizer has no eos_token, so no answer could end",
                "Set eos_token in its tokenizer_config.json.",
            )
        if stop not in tokenizer.get_vocab():
            raise ModelError(
                f"{self.name}: template {template} needs the token {stop}, which is not in the vocabulary",
                "Use `template: plain`, which needs no token beyond the model's own.",
            )
        tokenizer.eos_token = stop
        if tokenizer.pad_token is None:
            tokenizer.pad_token = stop
        tokenizer.chat_template = template_text(template)
        self.stop = int(cast(int, tokenizer.eos_token_id))
        self._controls = {str(token): id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._control_text = re.compile("|".join(map(re.escape, longest_first)))

    def encode(self, messages: Sequence[Mapping[str, str]]) -> Encoded:
        """The dialogue as `apply_chat_template` writes it, with the place of each assistant turn.

        Where a message contains the text of a control token, that is tokenised as text: no message can
        end its turn or begin another.

        Raises:
            SourceError: if the tokenizer joins an answer with what surrounds it.
        """
        text, spans = self._render(messages)
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        tokens = list(zip(encoding["input_ids"], encoding["offset_mapping"], strict=True))
        if any(self._control_text.search(message["content"]) for message in messages):
            blanked = [{**message, "content": self._blank(message["content"])} for message in messages]
            tokens = self._disarm(tokens, text, self._render(blanked)[0])
        turns = [self._turn(tokens, span, text) for span in spans]
        return Encoded([id for id, _ in tokens], turns)

    def _render(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the half-open ranges of characters that the assistant wrote."""
        rendered, spans = render_jinja_template(
            conversations=[[dict(message) for message in messages]],
            chat_template=self.tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return rendered[0], spans[0]

    def _turn(self, tokens: Sequence[_Token], span: tuple[int, int], text: str) -> tuple[int, int]:
        inside = [place for place, (_, (begin, end)) in enumerate(tokens) if begin < span[1] and end > span[0]]
        if not inside or tokens[inside[0]][1][0] < span[0] or tokens[inside[-1]][0] != self.stop:
            raise SourceError(
                f"{self.name}: the tokenizer joins the answer {text[slice(*span)][:40]!r} with what surrounds it",
                "Use another `template`.",
            )
        return inside[0], inside[-1] + 1

    def _blank(self, text: str) -> str:
        """The text with other characters for each control text, as many, so that all places stay."""
        return self._control_text.sub(lambda found: "x" * len(found[0]), text)

    def _disarm(self, tokens: Sequence[_Token], text: str, clean: str) -> list[_Token]:
        """Control tokens that came from a message (`clean` differs there) replaced by tokens of their text."""
        control = frozenset(self._controls.values())
        safe: list[_Token] = []
        for id, (begin, end) in tokens:
            if id in control and text[begin:end] != clean[begin:end]:
                written = text[begin:end]
                plain: Any = self.tokenizer(written, add_special_tokens=False, split_special_tokens=True, verbose=False)
                safe += [(each, (begin, end)) for each in plain["input_ids"]]
            else:
                safe.append((id, (begin, end)))
        return safe


def template_text(template: TemplateName) -> str:
    """The Jinja text of one of our templates."""
    return (Path(__file__).parent / "templates" / f"{template}.jinja").read_text(encoding="utf-8").strip()
