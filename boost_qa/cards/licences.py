"""What the licences of the sources come to: one for the card's YAML, and what each source allows, for its readers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import yaml

PERMISSIVE = frozenset(
    (
        *("mit", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "unlicense"),
        *("cc0-1.0", "pddl", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "odc-by"),
    )
)
"""Licences whose text may be part of a work under CC BY-SA, by their names on the Hub."""

SHARE_ALIKE = ("cc-by-sa-3.0", "cc-by-sa-4.0")
"""Oldest first: what is made of text under the older one may be shared under the newer one (CC BY-SA 3.0, 4b)."""

_OTHERS = frozenset(
    (
        *("mpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "odbl", "openrail"),
        *("cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0"),
    )
)
KNOWN = PERMISSIVE | frozenset(SHARE_ALIKE) | _OTHERS
"""Names that the Hub knows."""


class Licence(NamedTuple):
    """`id` as the Hub's YAML has it, and why it is this one, as a sentence."""

    id: str
    why: str


class Terms(NamedTuple):
    """What a source allows: its name in the rows; its title and address if they were looked up."""

    source: str
    title: str | None
    url: str | None
    allows: str


def together(licences: Iterable[str | None]) -> Licence:
    """The licence of a dataset that is made of sources under `licences`.

    * One licence that the Hub knows, and the same for all sources: that one.
    * CC BY-SA beside licences that only ask for attribution or a notice: that CC BY-SA (the newest of them), because
      it asks that what is made of it is shared alike, and the others allow it.
    * Everything else, such as a source that declares none, one that forbids commercial use beside another, or two
      that differ with nothing to decide between them: `other`, and each row says what it is under.
    """
    found = {str(licence or "unknown").strip().lower() for licence in licences}
    if len(found) == 1 and found <= KNOWN:
        return Licence(found.pop(), "All sources are under it.")
    alike = [licence for licence in SHARE_ALIKE if licence in found]
    if alike and found <= PERMISSIVE | set(SHARE_ALIKE):
        why = "It asks that what is made of its text is shared alike, and the licences of the other sources allow that."
        return Licence(alike[-1], why)
    unknown = found - KNOWN
    what = "A source declares no licence, or one that is not known here" if unknown else "The sources' licences differ"
    return Licence("other", f"{what}, so no single licence covers all rows; each row names its own.")


def terms(sources: Sequence[Mapping[str, Any]], own: Collection[str] = ()) -> list[Terms]:
    """What each source of a manifest allows, as far as it was looked up.

    Args:
        sources: the manifest's.
        own: names that the recipe gave to tables of its own; they may be like ours and mean something else.
    """
    facts = yaml.safe_load(resources.files("boost_qa.cards").joinpath("licences.yaml").read_text(encoding="utf-8"))
    return [_terms(source, {} if source["source"] in own else facts) for source in sources]


def _terms(source: Mapping[str, Any], facts: Mapping[str, Mapping[str, str]]) -> Terms:
    name = str(source["source"])
    known = facts.get("sample" if name.startswith("sample_") else name)
    if known is None:
        said = f"Its licence is given as {source['licence']}; what that allows was not looked up."
        return Terms(name, None, None, said)
    return Terms(name, known["name"], known["url"], known["allows"])
