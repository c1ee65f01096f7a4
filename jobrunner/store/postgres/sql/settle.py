"""Writes outcomes behind the fence, with their writes, their jobs and their chains.

Runs inside an open transaction.  Each kind of outcome is one statement for all of them; what the fence refuses is
missing in its answer.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from jobrunner.core.errors import InvalidWrite
from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.model import (
    RESULT_PENDING,
    Cancelled,
    Dead,
    Enqueued,
    Outcome,
    Parked,
    Released,
    RetryAt,
    Returned,
    Snoozed,
    Succeeded,
)
from jobrunner.store import rules
from jobrunner.store.counters import CANCELLED, PARKED, RETRIED, CounterKey, attempts, dead
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.driver_errors import HELD_ERRORS, NO_SAVEPOINT
from jobrunner.store.postgres.sql import batches, ends, lanes, steps
from jobrunner.store.postgres.sql.ends import End
from jobrunner.store.postgres.sql.history import failure
from jobrunner.store.postgres.sql.insert import insert_all
from jobrunner.store.postgres.sql.task_writes import (
    IS_SAME,
    TransactionEnded,
    ended_savepoint,
    refuse_other,
    run_writes,
)
from jobrunner.store.postgres.sql.transaction import Transaction

# No join: of a table that was nearly empty at the last ANALYZE the planner would read all rows for each of ours. The
# numbers of a group ascend, so this is a binary search.
_PLACE: Final = "width_bucket(job.seq, $1::bigint[])"


def _given(number: int, of: str = "bigint") -> str:
    """Return the job's own value of a parameter; the first three are the fence of each job."""
    return f"(${number}::{of}[])[{_PLACE}]"


_FENCED: Final = f"""
    WHERE job.seq = ANY ($1::bigint[]) AND job.lease = {_given(2)} AND job.worker = {_given(3)}"""
_FENCE: Final = f"{_FENCED} RETURNING job.seq, job.lease"

# With its attempt in one statement, since nearly all outcomes are successes.
_SUCCEED_AND_KEEP: Final = f"""
WITH done AS (
    UPDATE jobrunner.jobs job SET state = 'succeeded', worker = NULL, suspect = false,
        finished_at = {_given(4)} {{assigned}}
    {_FENCED} {{only}} RETURNING job.seq, job.lease, job.attempt, {_given(3)}, job.started_at, job.finished_at
), kept AS (
    INSERT INTO jobrunner.attempts (job, lease, attempt, worker, started_at, finished_at, outcome)
    SELECT *, 'succeeded' FROM done
)
SELECT seq, lease FROM done"""
_SUCCEED: Final = _SUCCEED_AND_KEEP.format(assigned="", only="")
_WITH_RESULT: Final = f", result = {_given(5, 'text')}, result_omitted = {_given(6, 'text')}"
_SUCCEED_WITH_RESULT: Final = _SUCCEED_AND_KEEP.format(assigned=_WITH_RESULT, only="")
_SUCCEED_AFTER_WRITES: Final = _SUCCEED_AND_KEEP.format(
    assigned=_WITH_RESULT, only=f"AND {IS_SAME} = $7"
)

# Without the worker: a settled job has none. The lease still identifies the attempt.
_KEEP_RESULT: Final = f"""
UPDATE jobrunner.jobs job SET result = {_given(3, "text")}, result_omitted = {_given(4, "text")}
WHERE job.seq = ANY ($1::bigint[]) AND job.lease = {_given(2)}
    AND state || '' = 'succeeded' AND result_omitted = $5
RETURNING job.seq, job.lease"""

_RUN_AGAIN: Final = f"""
UPDATE jobrunner.jobs job SET state = {_given(4, "text")}, worker = NULL, run_at = {_given(5)},
    attempt = attempt - {_given(6)}, suspect = suspect AND {_given(7, "boolean")}
{_FENCE}"""

_CANCEL: Final = f"""
UPDATE jobrunner.jobs job SET state = 'cancelled', worker = NULL, finished_at = {_given(4)}
{_FENCE}"""

MOVED: Final = """
    seq, id, task, queue, args, priority, created_at, run_at, attempt, lease, started_at, first_started_at, key, tag,
    expires_at, max_attempts, timeout, crashes, replays, replay_of, schedule, scheduled_for, chain, after, trace, lane,
    ordered, batch, handed, on_dead"""
"""The columns that a dead letter keeps of its job."""

# Deleted and inserted in one statement, the earliest death first.
_BURY: Final = f"""
WITH job AS (DELETE FROM jobrunner.jobs job {_FENCED} RETURNING *)
INSERT INTO jobrunner.dead_letters (
    {MOVED}, died_at, reason, error_type, error, traceback, fingerprint
)
SELECT {MOVED},
    {_given(4)}, {", ".join(_given(number, "text") for number in range(5, 10))}
FROM job ORDER BY {_given(4)}, job.seq
RETURNING seq, lease"""

_KEEP_ATTEMPTS: Final = """
INSERT INTO jobrunner.attempts (
    job, lease, attempt, worker, started_at, finished_at, outcome, error_type, error, traceback
)
SELECT * FROM unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
    $9::text[], $10::text[]
)"""

_CANCEL_REQUESTS: Final = """
SELECT seq, lease FROM jobrunner.jobs WHERE state = 'running' AND cancel_requested AND worker = ANY ($1::bigint[])"""


Written = Sequence[Any]
"""``(seq, lease)`` of the attempts that the fence let through."""


class WriteFailed(Exception):
    """A write of a success has ended the transaction: no savepoint can undo it."""

    def __init__(self, success: Succeeded, error: BaseException) -> None:
        self.success = success
        self.error = error


class Settling:
    """Writes the outcomes of one transaction."""

    def __init__(self, tx: Transaction, now: int, effects: Effects) -> None:
        self.tx = tx
        self.now = now
        self.effects = effects
        self.stale: list[Outcome] = []
        self.refused: list[tuple[Succeeded, BaseException]] = []
        """The successes of which nothing is written, since a write has failed, with its error."""

    async def settle(self, outcomes: Sequence[Outcome]) -> frozenset[int]:
        """Write outcomes; return ``seq`` of the jobs cancelled instead of running again."""
        cancelled: frozenset[int] = frozenset()
        if set(map(type, outcomes)) != {Succeeded}:
            outcomes, cancelled = await self._obey_cancels(outcomes)
            self._record_due(outcomes)
        alone = [one for one in outcomes if isinstance(one, Succeeded) and has_writes_or_jobs(one)]
        await self._settle_with_writes(alone)
        for kind, group in _groups(outcomes):
            if kind is Parked:
                await self._park(group)
            else:
                await self._end(group, await _SETTLE[kind](self.tx, group))
        return cancelled

    async def _park(self, group: Sequence[Parked]) -> None:
        """Park jobs; those that the fence refuses are stale."""
        if not group:
            return
        placed = await steps.park(self.tx, group, self.now, self.effects)
        passed = {id(one) for one, _ in placed}
        self.stale += [one for one in group if id(one) not in passed]
        self.tx.count(PARKED, [(one.job.queue, one.job.task) for one, _ in placed])
        for _, place in placed:
            self.effects.add(place.state, place.run_at, None)
        laned = [one.job for one, _ in placed if one.job.lane is not None]
        if laned:
            self.effects.added += await lanes.left(self.tx, {job.lane for job in laned})
            await lanes.arrived(self.tx, [job.seq for job in laned])

    async def _end(self, group: Sequence[Any], written: Iterable[Sequence[int]]) -> None:
        """Record the attempts of the outcomes that the fence let through; the others are stale."""
        left = {(seq, lease) for seq, lease in written}
        passed: list[Any] = []
        for one in group:
            attempt = one.job.seq, one.job.lease
            # The first of two outcomes of one attempt counts.
            (passed if attempt in left else self.stale).append(one)
            left.discard(attempt)
        ended = [one for one in passed if type(one) is not Returned]
        if ended:
            if type(ended[0]) is not Succeeded:
                await self._keep_attempts(ended)
            await self._leave_lanes(ended)
            await self._follow(ended)

    async def _settle_with_writes(self, successes: Sequence[Succeeded]) -> None:
        """Settle jobs, each with its writes and its new jobs or not at all."""
        tx, item = self.tx, None
        for left, success in zip(reversed(range(len(successes))), successes, strict=True):
            item = item or await tx.begin_item()
            try:
                made = await self._write(success)
            except TransactionEnded as error:
                raise WriteFailed(success, InvalidWrite(str(error))) from error
            except HELD_ERRORS:
                await tx.undo(item)
                raise
            except Exception as error:  # noqa: BLE001 - whatever a function raises is its attempt's
                try:
                    # Raises if the connection is lost, whatever the function has raised.
                    await tx.undo(item)
                except NO_SAVEPOINT:
                    # A function has ended the transaction and then failed.
                    raise WriteFailed(success, error) from error
                item = None
                self.refused.append((success, error))
                continue
            if made is None:
                await tx.undo(item)
                item = None
                self.stale.append(success)
                continue
            self.effects.add_stored(success.enqueues, made)
            await self._leave_lanes([success])
            await self._follow([success])
            try:
                if left:
                    item = await tx.next_item(item)
                else:
                    await tx.keep_item(item)
            except NO_SAVEPOINT as error:
                raise WriteFailed(success, ended_savepoint(success.writes)) from error

    async def _write(self, success: Succeeded) -> Sequence[Enqueued] | None:
        """Write a success; return its new jobs, or None if the fence refuses it."""
        tx = self.tx
        number = None
        if success.writes:
            # Before the job is settled: a COMMIT in there must not commit its success.
            await run_writes(tx, success.writes)
            number = await tx.number()
        if not await _succeed(tx, [success], number):
            if success.writes:
                await refuse_other(tx, success.writes)
            return None
        made = await insert_all(tx, success.enqueues, self.now)
        await batches.added(tx, success.enqueues, self.effects)
        return made

    def _record_due(self, outcomes: Iterable[Outcome]) -> None:
        """Record when jobs will run again."""
        for outcome in outcomes:
            if isinstance(outcome, (RetryAt, Snoozed, Released)):
                state, run_at, *_ = rules.run_again(outcome)
                self.effects.add(state, run_at, None)

    async def _obey_cancels(
        self, outcomes: Sequence[Outcome]
    ) -> tuple[Sequence[Outcome], frozenset[int]]:
        """Read the requested cancels and apply ``rules.obey_cancels``.

        The rows stay locked, so that no cancel is asked for between this and the outcome.
        """
        workers = sorted({outcome.job.worker for outcome in outcomes})
        again = [one.job.seq for one in outcomes if isinstance(one, _RUNS_AGAIN)]
        if again:
            await self.tx.execute(
                "SELECT FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[]) ORDER BY seq FOR NO KEY UPDATE",
                again,
            )
        requested = {(seq, lease) for seq, lease in await self.tx.fetch(_CANCEL_REQUESTS, workers)}
        return rules.obey_cancels(outcomes, requested)

    async def _keep_attempts(self, outcomes: Sequence[Outcome]) -> None:
        rows = [
            (job.seq, job.lease, job.attempt, job.worker, job.started_at, ended.at)
            for job, ended, *_ in outcomes
        ]
        failures = [(one.ended.outcome, *failure(one.ended)) for one in outcomes]
        await self.tx.execute(
            _KEEP_ATTEMPTS, *zip(*rows, strict=True), *zip(*failures, strict=True)
        )
        self.tx.counted.update(_counted(outcomes))

    async def _leave_lanes(self, outcomes: Sequence[Outcome]) -> None:
        """Let the next jobs of the lanes start, in which these attempts have ended."""
        left = {outcome.job.lane for outcome in outcomes}
        if left <= {None}:
            return
        self.effects.added += await lanes.left(self.tx, left)
        again = [one.job for one in outcomes if isinstance(one, Released)]
        await lanes.arrived(self.tx, [job.seq for job in again if job.lane is not None])

    async def _follow(self, outcomes: Sequence[Outcome]) -> None:
        """Unblock, cancel and finish what waits for the jobs that have ended."""
        ended = [
            End(job.id, job.chain, job.batch, _HOW[type(outcome)])
            for outcome in outcomes
            if (job := outcome.job).chain is not None
            or job.batch is not None
            or type(outcome) is Cancelled
            if type(outcome) in _HOW
        ]
        if ended:
            await ends.follow(self.tx, self.now, ended, self.effects)


def _groups(outcomes: Iterable[Outcome]) -> Iterator[tuple[type, list[Any]]]:
    """Yield the outcomes that one statement writes, in the order of their jobs' numbers.

    Parked ones come first.

    A statement finds a job's values by the job's number, so of several outcomes of a job, of which the fence lets one
    through, each is in another statement.
    """
    times = Counter[tuple[type, int]]()
    groups: dict[tuple[type, int], list[Any]] = {}
    for outcome in outcomes:
        if isinstance(outcome, Succeeded) and has_writes_or_jobs(outcome):
            continue
        kind = type(outcome)
        groups.setdefault((kind, times[kind, outcome.job.seq]), []).append(outcome)
        times[kind, outcome.job.seq] += 1
    for kind, number in sorted(groups, key=lambda group: group[0] is not Parked):
        yield kind, sorted(groups[kind, number], key=lambda one: one.job.seq)


def _counted(outcomes: Iterable[Outcome]) -> Iterator[CounterKey]:
    """Yield the counters to which outcomes add; workers count those that are only a success."""
    for outcome in outcomes:
        job, ended = outcome.job, outcome.ended
        if ended.outcome != "succeeded":
            yield attempts(ended.outcome), job.queue, job.task
        match outcome:
            case RetryAt():
                yield RETRIED, job.queue, job.task
            case Cancelled():
                yield CANCELLED, job.queue, job.task
            case Dead():
                yield dead(outcome.reason), job.queue, job.task


def has_writes_or_jobs(success: Succeeded) -> bool:
    """Return whether a success stores more than its own end."""
    return bool(success.writes or success.enqueues)


def _fences(group: Sequence[Any]) -> list[Sequence[int]]:
    return list(zip(*((one.job.seq, one.job.lease, one.job.worker) for one in group), strict=True))


async def _succeed(
    tx: Transaction, group: Sequence[Succeeded], number: str | None = None
) -> Written:
    """Write successes; nothing if the transaction has another number than the given one."""
    at = [one.ended.at for one in group]
    if number is None and all(one.result is None and one.result_omitted is None for one in group):
        return await tx.fetch(_SUCCEED, *_fences(group), at)
    results = [one.result for one in group], [one.result_omitted for one in group]
    if number is None:
        return await tx.fetch(_SUCCEED_WITH_RESULT, *_fences(group), at, *results)
    return await tx.fetch(_SUCCEED_AFTER_WRITES, *_fences(group), at, *results, number)


async def _keep_result(tx: Transaction, group: Sequence[Returned]) -> Written:
    rows = [(one.job.seq, one.job.lease, one.result, one.result_omitted) for one in group]
    return await tx.fetch(_KEEP_RESULT, *zip(*rows, strict=True), RESULT_PENDING)


async def _run_again(
    tx: Transaction, group: Sequence[RetryAt] | Sequence[Snoozed] | Sequence[Released]
) -> Written:
    return await tx.fetch(
        _RUN_AGAIN, *_fences(group), *zip(*map(rules.run_again, group), strict=True)
    )


async def _cancel(tx: Transaction, group: Sequence[Cancelled]) -> Written:
    return await tx.fetch(_CANCEL, *_fences(group), [one.ended.at for one in group])


async def _bury(tx: Transaction, group: Sequence[Dead]) -> Written:
    deaths = [
        (
            one.ended.at,
            one.reason,
            *failure(one.ended),
            fingerprint(one.job.task, one.ended.error_type, one.ended.error, one.ended.traceback),
        )
        for one in group
    ]
    return await tx.fetch(_BURY, *_fences(group), *zip(*deaths, strict=True))


_RUNS_AGAIN: Final = (RetryAt, Snoozed, Parked, Released)
_HOW: Final[Mapping[type, Literal["succeeded", "dead", "stopped"]]] = {
    Succeeded: "succeeded",
    Dead: "dead",
    Cancelled: "stopped",
}

_SETTLE: Final[dict[type, Callable[[Transaction, Any], Awaitable[Written]]]] = {
    Succeeded: _succeed,
    Returned: _keep_result,
    RetryAt: _run_again,
    Snoozed: _run_again,
    Released: _run_again,
    Cancelled: _cancel,
    Dead: _bury,
}
