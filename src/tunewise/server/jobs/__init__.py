"""Fine-tuning jobs: what the API promises, the queue, and the processes that train."""
