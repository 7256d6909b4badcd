"""Answers over HTTP: chat completions, completions, embeddings and responses."""
