"""A coreset of a run's records by their gradients, as TAGCOS chooses it (arXiv 2407.15235); the config `tagcos`.

    gradients    what one record would change in a model, as a short vector
    features     these vectors of all records, kept block by block in the run folder
    selection    clusters of vectors, and a greedy choice in each
    choose       all of it for one run

MASTER compares with TAGCOS on the same three sources, 5,000 + 5,000 + 9,000 records of them (section 4.2); from how
many these were chosen is UNKNOWN. Here it is from all records of the run, as many for each source and split as were
taught.

Where this is not what the authors did:

* They train LoRA on a twentieth of the data first, and take the gradients of LoRA's weights, scaled by Adam's
  moments, at several checkpoints. Here the model is not trained: it is the gradient of all linear layers of its
  decoder, as LoRA would see it at its first step.
* They project to 8,192 numbers, here it is 1,024.
* They cluster all sources together. MASTER's counts are by source, so here each source has clusters of its own.
* They take out what comes to have a negative weight; here only positive steps are made and nothing is taken out.
"""

from __future__ import annotations
