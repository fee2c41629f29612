"""The result that a text comes to, and whether two are the same."""
