"""Tests of jobrunner and of the shop."""
