"""A study from file to verdict: stages in order, each with a file to show for it."""
