"""Are the questions that retrieval calls similar analogous? Pairs of a run, to read and to be judged.

MASTER takes a question's neighbours by the likeness of their texts (Eq. 3) and hopes that their solutions are alike;
it measures that nowhere. Here some pairs are drawn, and as many of questions that have nothing to do with each other
but their source, mixed among them and not told apart.

    draw       which pairs
    judging    what a model says of them, in both orders
    figures    how often, with intervals
    layout     the pairs as Markdown, and as a page that asks its reader for verdicts
    reader     how far such a reader and the judge agree
    run        one after the other

A folder of them holds `pairs.html` and `pairs.md`; `analogies.json`, what was drawn and what came out;
`judge.sqlite`, the judge's replies; and `agreement.json`, once verdicts of a reader were given.
"""
