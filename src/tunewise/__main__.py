"""``python -m tunewise`` is the command ``tunewise``."""

from tunewise.processes import forget_working_directory

forget_working_directory()

from tunewise.cli import main  # noqa: E402 (what it imports must not come from where we are)

if __name__ == "__main__":
    main()
