"""A run as one HTML file: what came of its records, how dialogues are distributed, and every one of them to read.

The file needs no server, asks the network for nothing, and carries dialogues and prompts in packed blocks that the
browser opens when they are wanted. Whatever models and sources wrote is text, never markup.

    journal_side   the request behind a turn, and the replies that could not be used
    entry          what there is to show of a dialogue or a rejected record
    material       reads a run folder: one entry after another
    figures        counts them
    blocks         packs them
    overview       what the figures come to, as rows and shares for the template
    sealed         templates that escape, and the policy of a page that asks nobody
    document       renders and writes

The templates beside these modules: `page.jinja` and `charts.jinja` are HTML; `style.jinja` is CSS and `unpack`, `list`,
`reader` and `browse` are the script, all of which stand in the page as they are.
"""

from __future__ import annotations

from boost_qa.page.document import write

__all__ = ["write"]
