"""What OpenAI-compatible servers say: replies, errors, and when to come back.

The protocol has one form of success and many of failure. The wordings are those of vLLM, SGLang,
llama.cpp, OpenAI and its imitators; each is a case of tests/test_openai.py.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from boost_qa.types import Reply

_TOO_LONG = re.compile(
    r"context[ _](length|window|size|limit)|maximum model length|maximum (allowed|prompt|input) length"
    r"|(prompt|input) is too long|prompt too long|reduce the length|input token count|input tokens exceed"
    r"|input length should be"
    r"|max_(completion_)?tokens must be at least 1, got -",
    re.IGNORECASE,
)
_TOO_LONG_KINDS = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_FILTER_KINDS = frozenset({"content_filter", "content_policy_violation"})
_NO_MONEY_KINDS = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})


@dataclass(frozen=True, slots=True)
class Failure:
    """What a server says when it does not answer; `kinds` are its codes and types, for machines."""

    message: str
    kinds: frozenset[str] = frozenset()

    def refuses_prompt(self, status: int) -> bool:
        """Whether this one call cannot be asked: too long for the model, or filtered."""
        if status == 413 or not self.kinds.isdisjoint(_TOO_LONG_KINDS | _FILTER_KINDS):
            return True
        return status in (200, 400, 422) and _TOO_LONG.search(self.message) is not None

    @property
    def out_of_money(self) -> bool:
        """Whether the account, not the server, is exhausted: a 429 that no waiting mends."""
        return not self.kinds.isdisjoint(_NO_MONEY_KINDS)


def read_reply(raw: bytes) -> Reply | None:
    """The reply in the body of a 200; None if there is none, or if the server broke it off."""
    try:
        answer = orjson.loads(raw)
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        finish = choice.get("finish_reason")
        usage = answer.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if finish == "content_filter":
        return Reply("the server's content filter stopped the reply", "refused", *tokens)
    if finish in ("abort", "error") or not isinstance(text, str | None):
        return None
    return Reply(text or "", "length" if finish == "length" else "stop", *tokens)


def read_failure(raw: bytes) -> Failure:
    """The server's own words, from whichever form of error it uses, or from the bare text."""
    try:
        body = orjson.loads(raw)
    except ValueError:
        return Failure(_one_line(raw.decode("utf-8", "replace")))
    error = body
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(key):
            error = body[key]
            break
    told = [each for each in (body, error) if isinstance(each, Mapping)]
    kinds = frozenset(str(each[key]) for each in told for key in ("code", "type") if each.get(key))
    message = error.get("message", error) if isinstance(error, Mapping) else error
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return Failure(_one_line(text), kinds)


def read_models(raw: bytes) -> list[str] | None:
    """Names that GET /models lists, aliases included; None if it lists in a form of its own."""
    try:
        rows = orjson.loads(raw)["data"]
        return [str(name) for row in rows for name in (row["id"], *_aliases(row))]
    except (ValueError, LookupError, TypeError):
        return None


def read_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, given in seconds or as a date; None without a usable one."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = _until(value, headers.get("Date"))
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _until(date: str, server_now: str | None) -> float:
    # by the server's own clock where it tells: ours may be wrong
    now = parsedate_to_datetime(server_now).timestamp() if server_now else time.time()
    return parsedate_to_datetime(date).timestamp() - now


def _aliases(row: Mapping[str, Any]) -> list[str]:
    aliases = row.get("aliases")
    return aliases if isinstance(aliases, list) else []


def _one_line(text: str) -> str:
    return " ".join(text.split())
