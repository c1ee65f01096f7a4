"""``python -m jobrunner.cli``: the command, where its script is not on the path."""

from jobrunner.cli import main

if __name__ == "__main__":
    main()
