"""The verdict for eyes: terminal, HTML, JSON."""
