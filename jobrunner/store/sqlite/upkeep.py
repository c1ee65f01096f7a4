"""Retention: deleting what is past its time, a slice at a time so that no claim waits for it."""

import json
import sqlite3
from collections.abc import Mapping

from jobrunner.store.sqlite.statements import FINISHED


def surplus_before(conn: sqlite3.Connection, keep: int) -> tuple[int, int] | None:
    """Return the place (end, seq) up to which finished jobs are more than ``keep``, None if they are not."""
    row = conn.execute(
        f"""
        SELECT finished_at, seq FROM jobrunner_jobs WHERE {FINISHED}
        ORDER BY finished_at DESC, seq DESC LIMIT 1 OFFSET ?
        """,
        (keep,),
    ).fetchone()
    return None if row is None else (int(row[0]), int(row[1]))


def prune(
    conn: sqlite3.Connection,
    finished_before: int,
    by_task: Mapping[str, int],
    died_before: int,
    surplus: tuple[int, int] | None,
    limit: int,
) -> int:
    """Delete one slice; return how many jobs and dead letters went."""
    gone = _delete_finished(
        conn,
        "finished_at < ? AND task NOT IN (SELECT key FROM json_each(?))",
        (finished_before, json.dumps(dict(by_task))),
        limit,
    )
    for task, before in by_task.items():
        gone += _delete_finished(conn, "finished_at < ? AND task = ?", (before, task), limit - gone)
    if surplus is not None:
        # Of many that ended at one instant the later ones in order of age stay.
        gone += _delete_finished(conn, "(finished_at, seq) <= (?, ?)", surplus, limit - gone)
    letters = conn.execute(
        "DELETE FROM jobrunner_dead_letters WHERE letter IN ("
        " SELECT letter FROM jobrunner_dead_letters WHERE died_at < ? ORDER BY died_at LIMIT ?"
        ") RETURNING seq",
        (died_before, limit - gone),
    ).fetchall()
    _delete_attempts(conn, letters)
    return gone + len(letters)


def _delete_finished(
    conn: sqlite3.Connection, which: str, values: tuple[int | str, ...], limit: int
) -> int:
    """Delete the oldest ``limit`` of the finished jobs that are meant, with their attempts."""
    if not limit:
        return 0
    doomed = conn.execute(
        f"SELECT seq FROM jobrunner_jobs WHERE {FINISHED} AND {which} ORDER BY finished_at, seq LIMIT ?",
        (*values, limit),
    ).fetchall()
    conn.executemany("DELETE FROM jobrunner_jobs WHERE seq = ?", doomed)
    _delete_attempts(conn, doomed)
    return len(doomed)


def _delete_attempts(conn: sqlite3.Connection, jobs: list[tuple[int]]) -> None:
    conn.executemany("DELETE FROM jobrunner_attempts WHERE job = ?", jobs)
