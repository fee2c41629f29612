"""Checks: what neither paper does. Each looks at a finished dialogue for one kind of fault, and says what it saw.

A check says what it found, as labels, and never decides what becomes of a dialogue: a recipe does. What takes long or
could do harm (comparing answers, running code, asking a judge) is a request like any other, so that it is in the
journal, and a run that is played again needs none of it.
"""
