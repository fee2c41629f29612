"""The shapes of tokens and private keys: what a release may not hold, and a dialogue should not.

They are our own because detect-secrets knows no tokens of Hugging Face or Anthropic and reads text line by line.
"""

from __future__ import annotations

# What may stand before a token: no letter or digit, unless they end an escape of JSON (\n) or of a URL (%20).
EDGE = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"

# kind: beginnings, searched for at the speed of memory, and the pattern that is tried where one is found, for ASCII.
# No pattern is open at its end: the least that makes a token is enough, and a piece of a large file has it whole.
SHAPES: dict[str, tuple[tuple[str, ...], str]] = {
    "a Hugging Face token": (("hf_",), r"hf_[A-Za-z0-9]{30}"),
    "an Anthropic key": (("sk-ant-",), r"sk-ant-[\w-]{20}"),
    "an OpenAI key": (
        ("sk-",),
        r"sk-(?:(?:proj|svcacct|admin|None)-[\w-]{40}|or-v1-[0-9a-f]{64}"
        r"|[\w-]{20,200}T3BlbkFJ|(?=[A-Za-z]{0,31}[0-9])[A-Za-z0-9]{32})",
    ),
    "a GitHub token": (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40})",
    ),
    "an AWS access key id": (("AKIA", "ASIA"), r"A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "a Google API key": (("AIza",), r"AIza[\w-]{35}(?![\w-])"),
    "a Slack token": (("xoxa-", "xoxb-", "xoxp-", "xoxr-"), r"xox[abpr]-[A-Za-z0-9-]{20}"),
    "a private key": (("-----BEGIN ",), r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"),
}
