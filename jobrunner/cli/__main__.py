"""Runs the command as ``python -m jobrunner.cli``, where its script is not on the path."""

from jobrunner.cli import main

if __name__ == "__main__":
    main()
