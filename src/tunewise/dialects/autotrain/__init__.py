"""AutoTrain's YAML and command line, unchanged."""
