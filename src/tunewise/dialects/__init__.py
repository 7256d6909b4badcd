"""Other tools' configurations, read as studies of ours: what was mapped, defaulted, left out."""
