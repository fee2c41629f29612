"""BOOST-QA datasets by simulated teaching (MASTER, arXiv 2506.02689).

Importing this package makes `datasets.load_dataset("boost_qa")` work.
"""

from boost_qa.register import register

register()

from boost_qa.builder import load  # noqa: E402
from boost_qa.export import export  # noqa: E402

# Bound here and not looked up lazily: `generate` and `export` are modules, too, and the first import of
# such a module would put it in the place of the function.
from boost_qa.generate import generate  # noqa: E402

__all__ = ["export", "generate", "load"]
