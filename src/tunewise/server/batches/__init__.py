"""Files of requests, answered in the background: ``/v1/batches``."""
