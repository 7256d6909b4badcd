"""What is asked: the study file."""
