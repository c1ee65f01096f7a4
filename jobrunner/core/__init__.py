"""Values, errors, the clock, ids and units.

Imports no other part of jobrunner and does no I/O.
"""
