"""The OpenAI- and Azure-compatible HTTP API on your own hardware, and its job queue."""
