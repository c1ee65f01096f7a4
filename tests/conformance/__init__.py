"""Tests that every store must pass, one file per operation.

They test the sentences of ``store/protocol.py`` and ``store/job_protocol.py``.
"""
