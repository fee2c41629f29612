"""Turns question-answer data into teaching dialogues between language models of unequal ability.

Importing this package makes `datasets.load_dataset("boost_qa")` work. From Python:

    run = boost_qa.generate("demo")           # a run folder, resumed if it was stopped
    boost_qa.export(run, "my_dataset")        # Parquet with a card, for anybody
    data = boost_qa.load("debate", split="train")
"""

from boost_qa.register import register

register()

from boost_qa.builder import load  # noqa: E402
from boost_qa.export import export  # noqa: E402

# Bound here and not looked up lazily: `generate` and `export` are modules, too, and the first import of
# such a module would put it in the place of the function.
from boost_qa.generate import generate  # noqa: E402
from boost_qa.run_folder import RunFolder  # noqa: E402

__version__ = "0.1.0"
__all__ = ["RunFolder", "export", "generate", "load"]
