"""What all settings of a recipe have in common."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

SECRET = re.compile(r"(^|[._-])(api[_-]?key|token|secret|password|authorization)$", re.IGNORECASE)
"""Names of settings that would hold a secret."""


class Strict(BaseModel):
    """Base of all settings: immutable, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
