"""Names the conditions of the partial indexes, worded as in the schema."""

from typing import Final

UNFINISHED: Final = "state IN ('scheduled', 'queued', 'running', 'blocked')"
FINISHED: Final = "state IN ('succeeded', 'cancelled', 'expired')"
WAITING: Final = "state IN ('queued', 'scheduled')"
PLAIN: Final = "state = 'queued' AND NOT suspect AND lane IS NULL"
LANED: Final = "state = 'queued' AND NOT suspect AND lane IS NOT NULL"
SUSPECT: Final = "state = 'queued' AND suspect"

# Waits for another attempt. A parked job may have failed before; its last lease has left no attempt in the history.
RETRYING: Final = """(state = 'scheduled' AND attempt > 0 AND EXISTS (
    SELECT FROM jobrunner.attempts last WHERE last.job = jobs.seq AND last.lease = jobs.lease
))"""
# The last lease of a parked job has left no attempt in the history. One that has never run waits in a chain or a graph,
# which a signal does not end; one that has failed since a time ended its wait is retried at its time.
# OFFSET 0 keeps the subquery apart: joined, the planner may look for the job by another index than that of its id, and
# read all of it, if it takes the table for an empty one.
PARKED: Final = """state || '' IN ('blocked', 'scheduled') AND lease > 0 AND NOT EXISTS (
    SELECT FROM jobrunner.attempts last WHERE last.job = jobs.seq AND last.lease = jobs.lease OFFSET 0
)"""

# For statements that find rows by their number or id. In these words the planner does not recognise the condition of a
# partial index; else it takes one that it believes to be small, as it does for a table that was empty at the last
# ANALYZE, and reads all of it for each row.
#
# The same holds for edges: those of a job are asked for by ``state``, as the partial index ``edges_unmet`` has it, and
# those to a job or a batch by ``state + 0``, as ``edges_needs`` has it.
PLAIN_ROW: Final = "state || '' = 'queued' AND NOT suspect AND lane IS NULL"
LANED_ROW: Final = "state || '' = 'queued' AND NOT suspect AND lane IS NOT NULL"

EARLIER_IN_LANE: Final = "ordered AND state IN ('scheduled', 'queued', 'running')"
