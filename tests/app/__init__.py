"""Tests of the shop: real files, a real mail server, real processes."""
