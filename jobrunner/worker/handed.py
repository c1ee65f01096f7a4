"""Reads the results of other jobs that an attempt takes as arguments."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import InvalidArguments, NotRunning, StoreError
from jobrunner.core.logs import log_of
from jobrunner.core.model import RESULT_PENDING, Claimed
from jobrunner.core.steering import Snooze
from jobrunner.core.workflows import ResultRow
from jobrunner.worker.outcomes import extra
from jobrunner.worker.transactions import Transactions

logger = log_of("jobrunner")

RETURN_US: Final = 5 * SECOND_US
"""The time to return for a task whose own transaction has settled its job; later, no result is expected."""
WAITS_S: Final = (0.005, 0.02, 0.1)
"""The pauses in which an attempt waits for such a result; afterwards it frees its slot."""
AGAIN_S: Final = 1
"""The seconds after which an attempt starts again if a result could not be read."""


async def with_results(job: Claimed, transactions: Transactions | None) -> str:
    """Return the arguments of a job as JSON, with the results that it takes.

    Args:
        job: The claimed job, which takes results (``handed``).
        transactions: Has the store from which they are read.

    Raises:
        InvalidArguments: A result does not exist.
        Snooze: A result may still come, or the store cannot be read.
    """
    if transactions is None:
        raise NotRunning(f"{job.task} takes the results of other jobs, which only a runner reads")
    store = transactions.store.workflows
    taken: Mapping[str, str | Sequence[str]] = json.loads(job.handed or "{}")
    ids = list({id for one in taken.values() for id in _ids(one)})
    if not ids:
        return job.args
    rows: Mapping[str, ResultRow] = {}
    for pause_s in (*WAITS_S, None):
        try:
            rows = await store.results(ids)
        except StoreError as error:
            logger.warning(
                "%s %s starts again in a second: the results that it takes cannot be read: %s",
                job.task,
                job.id,
                error,
                extra=extra(job),
                like=job.task,
            )
            raise Snooze(AGAIN_S) from error
        if not any(map(_is_returning, rows.values())):
            break
        if pause_s is None:
            raise Snooze(AGAIN_S)
        await asyncio.sleep(pause_s)
    return _filled(job.args, taken, rows)


def _ids(taken: str | Sequence[str]) -> Sequence[str]:
    return (taken,) if isinstance(taken, str) else taken


def _is_returning(row: ResultRow) -> bool:
    """Return whether a task may still return the result; see ``RESULT_PENDING``."""
    return (
        row.result_omitted == RESULT_PENDING
        and row.finished_at is not None
        and now_us() - row.finished_at < RETURN_US
    )


def _filled(
    args: str, taken: Mapping[str, str | Sequence[str]], rows: Mapping[str, ResultRow]
) -> str:
    """Return stored arguments together with results, as one JSON object.

    The texts are joined and not parsed: a result may have a megabyte, and is validated once, as an argument.

    Raises:
        InvalidArguments: A result does not exist.
    """
    parts = [] if args == "{}" else [args[1:-1]]
    for name, one in taken.items():
        texts = [_text(name, id, rows) for id in _ids(one)]
        value = texts[0] if isinstance(one, str) else f"[{','.join(texts)}]"
        parts.append(f"{json.dumps(name)}:{value}")
    return f"{{{','.join(parts)}}}"


def _text(name: str, id: str, rows: Mapping[str, ResultRow]) -> str:
    row = rows.get(id)
    if row is None:
        raise InvalidArguments(
            f"{name} is the result of job {id}, which is not there: it may have been deleted. Replay this job with the"
            f" argument, replay(id, args={{{name!r}: ...}})"
        )
    if row.state != "succeeded" or row.result_omitted is not None:
        why = row.result_omitted or f"that job is {row.state}"
        raise InvalidArguments(
            f"{name} is the result of {row.task} {id}, which was not stored: {why}. Replay this job with the argument,"
            f" replay(id, args={{{name!r}: ...}})"
        )
    return "null" if row.result is None else row.result
