"""Datasets and adapters to the Hub: whole, once, with cards that say what was done.

A release is one commit over the head that it was compared with. If somebody else was quicker, it is compared again;
if an answer was lost, the comparison finds the release already there. So a repository is always the old release
or the new one, and the same command again completes what was interrupted.
"""
