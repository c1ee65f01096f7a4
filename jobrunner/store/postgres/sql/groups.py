"""Groups dead letters by the fingerprint of their failure."""

from collections.abc import Sequence
from typing import Any, Final

from jobrunner.core.clock import SECOND_US
from jobrunner.core.fingerprint import fingerprint
from jobrunner.store.groups import HOURS, RECENT_US, RETRYING_CAP, GroupRow, Groups
from jobrunner.store.postgres.sql import walks
from jobrunner.store.postgres.sql.transaction import Transaction

HOUR_US: Final = 3600 * SECOND_US

_CURRENT: Final = "FROM jobrunner.dead_letters WHERE replayed_as IS NULL"
_IN_GROUP: Final = f"{_CURRENT} AND fingerprint = $1"

# One index seek for each group, however many dead letters it has.
_GROUPS: Final = f"""
WITH RECURSIVE groups (fingerprint) AS (
    (SELECT fingerprint {_CURRENT} AND fingerprint IS NOT NULL ORDER BY fingerprint LIMIT 1)
    UNION ALL
    SELECT next.fingerprint FROM groups, LATERAL (
        SELECT fingerprint {_CURRENT} AND fingerprint > groups.fingerprint ORDER BY fingerprint LIMIT 1
    ) AS next
)
SELECT fingerprint, (SELECT max(died_at) {_CURRENT} AND fingerprint = groups.fingerprint) AS last
FROM groups ORDER BY last DESC, fingerprint DESC"""

_NEWEST: Final = f"""
SELECT task, error_type, error, (SELECT min(died_at) {_IN_GROUP}), died_at, id, (SELECT count(*) {_IN_GROUP})
{_IN_GROUP} ORDER BY died_at DESC, letter DESC LIMIT 1"""
# A death after ``now`` counts in the last hour: it came in since, or the clock was set back.
_BY_HOUR: Final = f"""
SELECT least((died_at - $2) / {HOUR_US}, {HOURS - 1}), count(*) {_IN_GROUP} AND died_at >= $2 GROUP BY 1"""
_RECENT: Final = f"""
SELECT count(*) FILTER (WHERE died_at >= $2), count(*) FILTER (WHERE died_at < $2) {_IN_GROUP} AND died_at >= $3"""
_FIRST: Final = f"SELECT min(died_at) {_IN_GROUP} AND died_at >= $2"

# The lease of a waiting job is that of its last attempt.
_RETRYING: Final = """
SELECT waiting.task, last.outcome, last.finished_at, last.error_type, last.error, last.traceback FROM (
    SELECT run_at, seq, task, lease FROM jobrunner.jobs
    WHERE state = 'scheduled' AND attempt > 0 ORDER BY run_at, seq LIMIT $1
) waiting
LEFT JOIN jobrunner.attempts last ON last.job = waiting.seq AND last.lease = waiting.lease
ORDER BY waiting.run_at, waiting.seq"""

_WITHOUT: Final = (
    f"SELECT letter, task, error_type, error, traceback {_CURRENT} AND fingerprint IS NULL LIMIT $1"
)


async def groups(tx: Transaction, now: int, limit: int) -> Groups:
    """Return the groups; see ``DeadLetterStore.groups``."""
    is_over = walks.timer(walks.PAGE_S)
    ungrouped = await tx.fetchval(f"SELECT count(*) {_CURRENT} AND fingerprint IS NULL")
    found = await tx.fetch(_GROUPS)
    rows: list[GroupRow] = []
    has_all = len(found) <= limit
    for group, last in found[:limit]:
        if is_over():
            has_all = False
            break
        rows.append(await _read(tx, group, last, now))
    retrying, complete = await _retrying(tx)
    rows = [_with_retrying(row, retrying.pop(row.fingerprint, None)) for row in rows]
    if has_all:
        rows += sorted(retrying.values(), key=lambda row: (-row.retrying, row.fingerprint))
    complete = complete and has_all and len(rows) <= limit
    return Groups(rows[:limit], ungrouped, complete)


async def _read(tx: Transaction, group: str, last: int, now: int) -> GroupRow:
    task, error_type, error, first, last, id, letters = await tx.fetchrow(_NEWEST, group)
    row = GroupRow(group, task, error_type, error, letters, first, last, id)
    day_ago = now - HOURS * HOUR_US
    if last < day_ago:
        return row._replace(since=last)
    deaths: dict[int, int] = dict(map(tuple, await tx.fetch(_BY_HOUR, group, day_ago)))
    recently = now - RECENT_US
    recent, before = await tx.fetchrow(_RECENT, group, recently, recently - HOUR_US)
    return row._replace(
        hours=tuple(deaths.get(hour, 0) for hour in range(HOURS)),
        recent=recent,
        before=before,
        since=await _series(tx, group, last, day_ago),
    )


async def _series(tx: Transaction, group: str, last: int, earliest: int) -> int:
    """Return the first death of the series that ends with the last one.

    Each step is one index seek, and goes back by up to ``RECENT_US``.
    """
    first = last
    while first > earliest:
        before = await tx.fetchval(_FIRST, group, first - RECENT_US)
        if before is None or before >= first:
            break
        first = before
    return first


async def _retrying(tx: Transaction) -> tuple[dict[str, GroupRow], bool]:
    """Return the groups of retrying jobs, and whether all were read."""
    jobs = await tx.fetch(_RETRYING, RETRYING_CAP + 1)
    found: dict[str, GroupRow] = {}
    for task, outcome, at, *failure in jobs[:RETRYING_CAP]:
        # A job that has snoozed does not wait for a retry.
        if outcome in ("failed", "timed_out"):
            _add_retrying(found, task, at, failure)
    return found, len(jobs) <= RETRYING_CAP


def _add_retrying(found: dict[str, GroupRow], task: str, at: int, failure: Sequence[Any]) -> None:
    error_type, error, traceback = failure
    group = fingerprint(task, error_type, error, traceback)
    row = found.get(group) or GroupRow(group, task, error_type, error, since=at)
    since = at if row.since is None else min(at, row.since)
    found[group] = row._replace(retrying=row.retrying + 1, since=since)


def _with_retrying(row: GroupRow, retrying: GroupRow | None) -> GroupRow:
    """Return a group of dead letters with its retrying jobs."""
    if retrying is None:
        return row
    since, failed_at = row.since, retrying.since
    if since is not None and failed_at is not None and failed_at >= since - HOUR_US:
        since = min(since, failed_at)
    return row._replace(retrying=retrying.retrying, since=since)


async def fill(tx: Transaction, limit: int) -> int:
    """Fill in the fingerprints of one slice of dead letters; return the number of its rows."""
    found = [
        (fingerprint(*failure), letter) for letter, *failure in await tx.fetch(_WITHOUT, limit)
    ]
    if found:
        await tx.execute(
            "UPDATE jobrunner.dead_letters l SET fingerprint = d.fingerprint"
            " FROM unnest($1::text[], $2::bigint[]) AS d (fingerprint, letter) WHERE l.letter = d.letter",
            *zip(*found, strict=True),
        )
    return len(found)
