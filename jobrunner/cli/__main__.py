"""Runs the command ``jobrunner`` as ``python -m jobrunner.cli``."""

from jobrunner.cli import main

if __name__ == "__main__":
    main()
