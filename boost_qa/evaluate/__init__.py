"""Evaluation: benchmarks as the paper asked them, on lm-evaluation-harness.

`benchmark` reads questions, `scoring` reads replies, `tasks` brings both to the harness, `replies` keeps what a model
said, `loading` loads it, `judge` is a model that decides, `run` does one after the other, and `intervals`, `kappa`,
`results` and `compare` say what came out.
"""
