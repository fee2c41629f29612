"""Text that looks like a control token of some chat model."""

from __future__ import annotations

import re

# Model-blind on purpose: an endpoint tokenises with a tokenizer that we need not have.
_NAMES = (
    r"s|bos|eos|pad|unk|sop|eop|mask|think|image|audio|video|"
    r"(?:start|end)_of_(?:turn|image|text)|tool_(?:call|response)s?|tools|function_calls?|"
    r"fim_(?:prefix|middle|suffix|pad)|repo_?name|file_?sep|filename|gh_stars|issue_(?:start|comment|closed)|"
    r"jupyter_(?:start|text|code|output|script)|empty_output|(?:unused|extra_id_|reserved_)\d+"
)
_CONTROL = re.compile(
    r"<\|[^<>|\s](?:[^<>|\n]{0,62}[^<>|\s])?\|>"  # ChatML, Llama 3, Phi, GLM, gpt-oss, Command R
    r"|<\uFF5C[^<>\uFF5C\n]{1,64}\uFF5C>"  # DeepSeek, with full-width bars
    rf"|</?(?:{_NAMES})>"  # Gemma, SmolLM2, Qwen, sentencepiece
    r"|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS|CONTENT)|THINK|IMG)\]"  # Mistral
    r"|\[g?MASK\]"  # GLM
)


def control_text(text: str) -> str | None:
    """The first piece of `text` that a chat model's tokenizer might take for a control token, or None.

    For servers that tokenise themselves: there such text in a message can end it and begin another.
    Errs on the side of finding: `<s>` is also struck-out text in HTML.
    """
    found = _CONTROL.search(text)
    return found[0] if found else None
