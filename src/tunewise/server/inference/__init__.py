"""The serving engine: a process of its own that answers many requests at once."""
