"""Analogical retrieval at the size of a whole source: seconds and memory of an exact top-k.

Vectors of the embedder's width lie in a file and are memory-mapped, as the embedding cache has them; the
search is `boost_qa.retrieval.similar`. The baseline is one plain matrix product of the same shape without
any choice of neighbours. Each repeat runs in a process of its own, whose peak memory is reported.

    python benchmarks/retrieval.py --pool 200000 --queries 2000
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import report

PREDICTION = """
The vectors are 307 MB in the page cache, and a block of similarities with its masks some 200 MB; with the
interpreter and numpy under 700 MB in all. The product costs a third of the time, choosing neighbours the rest.
"""
DIMENSIONS = 384
SEARCH = """
import json, resource, sys, time
import numpy as np
from boost_qa.retrieval import BLOCK_BYTES, similar
pool, queries = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2], mmap_mode="r")
began = time.perf_counter()
if sys.argv[3] == "search":
    found = similar(queries, pool, 6, 0.95)
    assert len(found) == len(queries) and all(len(near) == 6 for near in found)
else:
    rows = BLOCK_BYTES // (4 * len(pool))
    for start in range(0, len(queries), rows):
        queries[start : start + rows] @ pool.T
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([seconds, peak]))
"""


def vectors(path: Path, rows: int, seed: int) -> None:
    """Random rows of length 1."""
    drawn = np.random.default_rng(seed).standard_normal((rows, DIMENSIONS), dtype=np.float32)
    np.save(path, drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def main() -> None:
    parser = report.parser("retrieval", __doc__)
    parser.add_argument("--pool", type=int, default=200_000, help="questions searched (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=2_000, help="questions asked for (default: %(default)s)")
    options = parser.parse_args()
    measured: dict[str, list[list[float]]] = {"search": [], "product": []}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "pool.npy", Path(folder) / "queries.npy"]
        vectors(files[0], options.pool, 0)
        vectors(files[1], options.queries, 1)
        for _ in range(options.repeats):
            for way, found in measured.items():
                command = [sys.executable, "-c", SEARCH, *map(str, files), way]
                found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    result = {
        "seconds": report.spread([seconds for seconds, _ in measured["search"]]),
        "peak_mb": report.spread([peak for _, peak in measured["search"]], 1),
        "seconds_of_the_product_alone": report.spread([seconds for seconds, _ in measured["product"]]),
    }
    rows = [(name, *(f"{each[key]:g}" for key in ("median", "min", "max"))) for name, each in result.items()]
    title = f"{options.queries:,} questions among {options.pool:,}"
    report.show(title, ("", "median", "min", "max"), rows)
    report.write(options.output, PREDICTION, {name: getattr(options, name) for name in ("pool", "queries")}, result)


if __name__ == "__main__":
    main()
