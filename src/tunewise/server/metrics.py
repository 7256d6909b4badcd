"""Counters for Prometheus. Other modules add to them; ``health.py`` shows them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

REQUESTS = Counter(
    "tunewise_requests", "Requests answered.", ("method", "route", "status"), registry=REGISTRY
)
LATENCY = Histogram(
    "tunewise_request_seconds",
    "Seconds until an answer began.",
    ("method", "route"),
    registry=REGISTRY,
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
IN_FLIGHT = Gauge("tunewise_requests_in_flight", "Requests being answered.", registry=REGISTRY)
UPLOADED = Counter("tunewise_uploaded_bytes", "Bytes of files stored.", registry=REGISTRY)
JOBS = Counter(
    "tunewise_jobs", "Fine-tuning jobs by the state they came to.", ("status",), registry=REGISTRY
)
TOKENS = Counter(
    "tunewise_tokens", "Tokens by kind: prompt, completion, cached, trained.", ("kind",),
    registry=REGISTRY,
)  # fmt: skip
