"""The classroom's scenarios, each one straight-line code from a record to a dialogue."""

from __future__ import annotations

from boost_qa.scenarios.analogical_reasoning import analogical_reasoning
from boost_qa.scenarios.debate import debate
from boost_qa.scenarios.direct import direct
from boost_qa.scenarios.error_correction import error_correction

SCENARIOS = {
    "error_correction": error_correction,
    "debate": debate,
    "analogical_reasoning": analogical_reasoning,
    "direct": direct,
}

__all__ = ["SCENARIOS", "analogical_reasoning", "debate", "direct", "error_correction"]
