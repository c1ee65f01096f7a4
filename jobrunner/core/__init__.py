"""Values, errors, the clock, ids and units; imports no other part of jobrunner and does no I/O."""
