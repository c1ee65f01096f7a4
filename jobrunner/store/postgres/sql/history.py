"""Stores the progress of attempts, and deletes the history of jobs."""

from collections.abc import Sequence
from typing import Final

from jobrunner.core.model import Ended, Progressed
from jobrunner.store.postgres.sql.transaction import Transaction

# An attempt whose session has settled the job may still report what it did before.
_KEEP_PROGRESS: Final = """
INSERT INTO jobrunner.progress (job, lease, value)
SELECT job.seq, job.lease, given.value
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS given (seq, lease, worker, value)
JOIN jobrunner.jobs job ON job.seq = ANY ($1::bigint[]) AND job.seq = given.seq AND job.lease = given.lease
    AND (job.worker = given.worker OR job.state || '' = 'succeeded')
ORDER BY job.seq
ON CONFLICT (job) DO UPDATE SET lease = excluded.lease, value = excluded.value"""


async def keep_progress(tx: Transaction, progress: Sequence[Progressed]) -> None:
    """Store the progress of attempts; drop that of attempts that are no longer their worker's."""
    given = [(job.seq, job.lease, job.worker, value) for job, value in progress]
    await tx.execute(_KEEP_PROGRESS, *zip(*given, strict=True))


def storable(text: str | None) -> str | None:
    """Return a text as the server can store it: without NUL and halves of surrogate pairs."""
    if text is None:
        return None
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def failure(ended: Ended) -> tuple[str | None, str | None, str | None]:
    """Return the storable type, message and traceback of an attempt's error."""
    return storable(ended.error_type), storable(ended.error), storable(ended.traceback)


async def delete(tx: Transaction, seqs: Sequence[int]) -> None:
    """Delete the attempts, the progress and the memos of jobs, given by ``seq``."""
    if seqs:
        await tx.execute("DELETE FROM jobrunner.attempts WHERE job = ANY ($1::bigint[])", seqs)
        await tx.execute("DELETE FROM jobrunner.progress WHERE job = ANY ($1::bigint[])", seqs)
        await tx.execute("DELETE FROM jobrunner.steps WHERE job = ANY ($1::bigint[])", seqs)
