"""The command line, as real processes with real signals; and the single-file executable."""
