"""How its training data changed an adapter: measures of what MASTER (arXiv 2506.02689) claims and did not measure.

noise        the gradient noise scale over the training dialogues: is error correction structured noise?
landscape    the loss along random directions around what was learnt: does debate smooth it?
transfer     what was gained on questions near to and far from those trained on: does analogy carry over?

Each is of one adapter; what a scenario does is the difference between adapters that were trained alike on other data.
"""
