"""Mathematics: whether a reply comes to the reference's result, by math-verify.

Comparing formulas can hang or take all memory (`9^{9^{9^9}}`), so `verdict` runs in processes that are killed
(`engines.workers`), and takes and gives text. What it needs is imported here, before the clock of the first call runs.
"""

from __future__ import annotations

import json
import logging

from math_verify import parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of time limits, which are set elsewhere


def verdict(payload: str) -> str:
    """Takes JSON of a text that ends in the right result, and a reply. Gives `right` or `wrong`; `none` where the
    reply comes to no result, `undecided` where the reference does not."""
    reference, reply = json.loads(payload)
    gold = parse(reference, parsing_timeout=None)
    if not gold:
        return "undecided"
    given = parse(reply, parsing_timeout=None)
    if not given:
        return "none"
    return "right" if verify(gold, given, timeout_seconds=None) else "wrong"
