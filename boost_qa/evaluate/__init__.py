"""Evaluation: benchmarks as the paper asked them, on lm-evaluation-harness.

`benchmark` reads questions, `scoring` reads replies, `tasks` brings both to the harness, `replies` keeps what a model
said, `loading` loads it, `run` does one after the other, and `intervals`, `results` and `compare` say what came out.
"""
