"""How somebody speaks: prose, its language, its end, and what it withholds."""
