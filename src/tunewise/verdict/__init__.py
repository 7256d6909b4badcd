"""Statistics, cost, forecast and decision: pure functions over numbers."""
