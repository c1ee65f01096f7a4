"""Helpers that the tests of several rooms share; no tests."""
