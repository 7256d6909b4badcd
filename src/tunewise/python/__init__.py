"""The library's public functions, for scripts and notebooks; ``import tunewise`` gives them."""
