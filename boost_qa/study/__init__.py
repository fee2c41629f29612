"""A study: several datasets, a model trained on each with several seeds, and what the differences are worth.

settings   what a study is: one YAML file, with its question and its scales
steps      the commands it consists of, each one that a user could give
work       runs them, on as many devices as there are, and goes on where it was stopped
held_out   questions that no run has seen
gather     what became of it: figures with intervals over questions and seeds, differences between arms
paper      the figures of a paper, read from the tables of a Markdown file
plots      pictures of the figures
report     all of it as Markdown and HTML
hours      what it will cost
"""

from __future__ import annotations
