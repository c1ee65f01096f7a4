"""Tests that every store must pass, one file per operation.

They test the sentences of ``jobrunner/store/protocol.py``.
"""
