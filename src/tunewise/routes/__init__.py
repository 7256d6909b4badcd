"""Where training runs: one file a route."""
