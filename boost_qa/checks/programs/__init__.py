"""Code in a text: where it is, in which language, and whether it parses."""
