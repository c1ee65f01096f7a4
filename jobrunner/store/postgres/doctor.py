"""Checks a store on PostgreSQL without changing it, and names faults with their remedies."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from jobrunner.core.clock import SECOND_US, from_us
from jobrunner.core.errors import InvalidArguments, StoreError
from jobrunner.store.findings import Finding
from jobrunner.store.postgres import migrate
from jobrunner.store.postgres.connection import READER, Connection, close, connect
from jobrunner.store.postgres.driver_errors import DRIVER_ERRORS, as_ours
from jobrunner.store.postgres.location import location_of
from jobrunner.store.postgres.sql import queues, workers, workflow_checks
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.workflow_checks import MOST_NAMED, finding

LaneOf = Callable[[str], str | None]
"""Computes the lane of a job from its stored arguments."""

OLD_SNAPSHOT_S: Final = 600
"""A claim walks over what has left the queue since the last VACUUM, which cleans up behind the oldest snapshot only."""
CLOCK_STEP_US: Final = 2 * SECOND_US
STALLED_US: Final = 30 * SECOND_US
FEW_CONNECTIONS: Final = 0.8
_FIRST: Final = 1_000
"""Jobs of each queue and task whose lanes are compared."""

_SNAPSHOTS: Final = """
SELECT coalesce(nullif(application_name, ''), usename, 'a session') || ' (pid ' || pid || ')',
    extract(epoch FROM clock_timestamp() - xact_start)::float8
FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL AND xact_start < clock_timestamp() - make_interval(secs => $1)
    AND pid <> pg_backend_pid() AND datname = current_database()
UNION ALL
SELECT 'the prepared transaction ' || gid, extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_prepared_xacts
WHERE prepared < clock_timestamp() - make_interval(secs => $1) AND database = current_database()
ORDER BY 2 DESC"""
_SLOTS: Final = """
SELECT slot_name FROM pg_replication_slots WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)"""
_RIGHTS: Final = """
SELECT 'USAGE on schema jobrunner', 'GRANT USAGE ON SCHEMA jobrunner TO %s'
WHERE NOT has_schema_privilege('jobrunner', 'USAGE')
UNION ALL
SELECT r.name || ' on ' || c.relname, 'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobrunner TO %s'
FROM pg_class c CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (name)
WHERE c.relnamespace = 'jobrunner'::regnamespace AND c.relkind = 'r' AND NOT has_table_privilege(c.oid, r.name)
UNION ALL
SELECT 'USAGE on ' || relname, 'GRANT USAGE ON ALL SEQUENCES IN SCHEMA jobrunner TO %s'
FROM pg_class
WHERE relnamespace = 'jobrunner'::regnamespace
    AND CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(oid, 'USAGE') ELSE false END
UNION ALL
SELECT 'EXECUTE on ' || proname, 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA jobrunner TO %s'
FROM pg_proc
WHERE pronamespace = 'jobrunner'::regnamespace AND NOT has_function_privilege(oid, 'EXECUTE')"""
_UNVACUUMED: Final = """
SELECT relname FROM pg_class
WHERE relnamespace = 'jobrunner'::regnamespace AND relkind = 'r'
    AND reloptions::text ~ 'autovacuum_enabled=(false|off|0)'"""
_WAITING: Final = """
SELECT args, lane FROM jobrunner.jobs WHERE state = 'queued' AND queue = $1 AND task = $2 LIMIT $3"""


def diagnose(
    url: str, *, now: Callable[[], int], lanes: Mapping[str, LaneOf] | None
) -> Sequence[Finding]:
    """Run all checks on a store.

    Args:
        url: the database.
        now: returns the current time in µs.
        lanes: see ``open.diagnose``.
    """
    return asyncio.run(_diagnose(url, now, lanes or {}))


async def _diagnose(
    url: str, now: Callable[[], int], lanes: Mapping[str, LaneOf]
) -> Sequence[Finding]:
    found: list[Finding] = []
    try:
        connection = await connect(url, READER)
    except StoreError as error:
        return [Finding("problem", "connection", str(error))]
    try:
        async for one in _checks(connection, location_of(url).name, now, lanes):
            found.append(one)  # noqa: PERF401 - what was found before an error is kept
    except DRIVER_ERRORS as error:
        found.append(Finding("problem", "database", str(as_ours(error))))
    except StoreError as error:
        found.append(Finding("problem", "database", str(error)))
    finally:
        await close(connection)
    return found


async def _checks(
    connection: Connection, name: str, now: Callable[[], int], lanes: Mapping[str, LaneOf]
) -> AsyncIterator[Finding]:
    await migrate.require_server(connection)
    version = await connection.fetchval("SELECT current_setting('server_version')")
    yield Finding("ok", "PostgreSQL", version)
    for check in (_pooler, _durability, _connections):
        yield await check(connection)
    yield await _clock(connection, now)
    async for one in _vacuum(connection):
        yield one
    if await connection.fetchval("SELECT to_regnamespace('jobrunner')") is None:
        await migrate.require_tables(connection, name)
    missing = await _rights(connection)
    yield missing
    if missing.level == "problem":
        return  # the other checks read the tables
    await migrate.require_tables(connection, name)
    yield Finding("ok", "schema", f"the tables are up to date ({name})")
    yield await _workers(connection, now)
    for broken in await workflow_checks.check(Transaction(connection), MOST_NAMED):
        yield finding(broken)
    for queue, task, _ in await queues.waiting_tasks(Transaction(connection)):
        changed = await _lanes(connection, queue, task, lanes[task]) if task in lanes else None
        if changed is not None:
            yield changed


async def _pooler(connection: Connection) -> Finding:
    try:
        await migrate.require_session(connection)
    except StoreError as error:
        return Finding("problem", "pooler", str(error))
    return Finding("ok", "pooler", "none that gives sessions away between transactions")


async def _durability(connection: Connection) -> Finding:
    fsync, commit, standbys, names = await connection.fetchrow(
        "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
        " (SELECT count(*) FROM pg_stat_replication), current_setting('synchronous_standby_names')"
    )
    if fsync == "off":
        return Finding(
            "problem",
            "durability",
            "fsync is off: a crash of the machine can damage the whole database",
            "set fsync = on",
        )
    if commit == "off":
        return Finding(
            "warning",
            "durability",
            "synchronous_commit is off: a crash of the server loses the last acknowledged jobs",
            "set synchronous_commit = on, for this role at least",
        )
    if standbys and not names:
        return Finding(
            "warning",
            "durability",
            "the standbys are asynchronous: a fail-over loses the jobs that were acknowledged last",
            "name one in synchronous_standby_names, or accept it",
        )
    return Finding("ok", "durability", "an acknowledged commit is on the server's disk")


async def _connections(connection: Connection) -> Finding:
    used, most = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
        " current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    )
    what = f"{used} of {most} are used"
    if used < most * FEW_CONNECTIONS:
        return Finding("ok", "connections", what)
    return Finding(
        "warning",
        "connections",
        f"{what}; each process of jobrunner takes up to 7",
        "raise max_connections, or start fewer processes",
    )


async def _clock(connection: Connection, now: Callable[[], int]) -> Finding:
    before = now()
    theirs = await connection.fetchval(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    )
    step = theirs - (before + now()) // 2
    if abs(step) <= CLOCK_STEP_US:
        return Finding("ok", "clock", "the clocks of this machine and the server agree")
    return Finding(
        "warning",
        "clock",
        f"the server's clock is {abs(step) / SECOND_US:.1f} s {'ahead' if step > 0 else 'behind'}: a process starts a"
        " job when its own clock says so",
        "let all machines follow the same time servers",
    )


async def _vacuum(connection: Connection) -> AsyncIterator[Finding]:
    problem = False
    if await connection.fetchval("SELECT current_setting('autovacuum')") == "off":
        problem = True
        yield Finding(
            "problem",
            "autovacuum",
            "it is off: claims become slower with every job",
            "set autovacuum = on",
        )
    if await connection.fetchval("SELECT to_regnamespace('jobrunner')") is not None:
        tables = [name for (name,) in await connection.fetch(_UNVACUUMED)]
        if tables:
            problem = True
            yield Finding(
                "problem",
                "autovacuum",
                f"it is switched off for {', '.join(tables)}",
                f"write ALTER TABLE jobrunner.{tables[0]} RESET (autovacuum_enabled)",
            )
    snapshots = await connection.fetch(_SNAPSHOTS, float(OLD_SNAPSHOT_S))
    if snapshots:
        problem = True
        who, seconds = snapshots[0]
        yield Finding(
            "warning",
            "autovacuum",
            f"{who} has held a snapshot for {seconds / 60:.0f} min: nothing that was deleted since can be cleaned up,"
            " and claims become slower",
            "end it (pg_terminate_backend), and set idle_in_transaction_session_timeout for its role",
        )
    slots = [name for (name,) in await connection.fetch(_SLOTS)]
    if slots:
        problem = True
        yield Finding(
            "warning",
            "autovacuum",
            f"nobody reads the replication slot {slots[0]}, which holds a snapshot back",
            f"write SELECT pg_drop_replication_slot('{slots[0]}') if its standby is gone",
        )
    if not problem:
        yield Finding("ok", "autovacuum", "it is on, and no old snapshot holds it up")


async def _rights(connection: Connection) -> Finding:
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    missing = await connection.fetch(_RIGHTS)
    if not missing:
        return Finding("ok", "rights", f"the role {role} has what it needs")
    names = [name for name, _ in missing]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004 - few enough for a line
    return Finding(
        "problem",
        "rights",
        f"the role {role} lacks {', '.join(names[:3])}{more}",
        "as the owner of the tables write "
        + "; ".join(dict.fromkeys(do % role for _, do in missing)),
    )


async def _workers(connection: Connection, now: Callable[[], int]) -> Finding:
    tx = Transaction(connection)
    rows = await workers.workers(tx)
    busy = await workers.busy(tx)
    stalled = [row for row in rows if now() - row.beat_at > STALLED_US]
    if stalled:
        first = stalled[0]
        return Finding(
            "warning",
            "workers",
            f"worker {first.worker} (pid {first.pid} on {first.host}) has not reported since {from_us(first.beat_at)}",
            "find out what blocks its event loop; if its process is gone, the next worker that starts takes its jobs",
        )
    return Finding("ok", "workers", f"{len(rows)} with {sum(busy.values())} running job(s)")


async def _lanes(connection: Connection, queue: str, task: str, lane_of: LaneOf) -> Finding | None:
    """Compare the lanes of waiting jobs with those that the code computes."""
    waiting: Sequence[Any] = await connection.fetch(_WAITING, queue, task, _FIRST)
    changed: list[tuple[str | None, str | None]] = []
    for args, lane in waiting:
        try:
            computed = lane_of(args)
        except InvalidArguments:
            continue  # such a job dies when it starts, and says why
        if _key(lane) != _key(computed):
            changed.append((lane, computed))
    if not changed:
        return None
    lane, computed = changed[0]
    return Finding(
        "warning",
        "limits",
        f"{len(changed):,} of the first {len(waiting):,} jobs of {task} that wait in queue {queue} are counted in other"
        f" lanes than by= says now, such as {lane or 'none'} instead of {computed or 'none'}",
        "let them run out, since jobs keep the lanes in which they were enqueued; or write the old by= again",
    )


def _key(lane: str | None) -> str | None:
    """Return a lane without its task, which may have another name by now."""
    return None if lane is None else lane.partition("[")[2]
