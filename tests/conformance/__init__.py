"""What every store must do, one file per operation; the sentences are those of ``jobrunner/store/protocol.py``."""
