"""Examples: read, audited, split and counted."""
