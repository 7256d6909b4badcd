"""Metrics: one answer, and a set."""
