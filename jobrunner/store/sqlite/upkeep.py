"""Retention: deleting what is past its time, a slice at a time so that no claim waits for it."""

import json
import sqlite3
from collections.abc import Mapping

from jobrunner.store.sqlite.rounds import FINISHED


def surplus_before(conn: sqlite3.Connection, keep: int) -> int | None:
    """Return the instant up to which finished jobs are more than ``keep``, None if they are not."""
    row = conn.execute(
        f"SELECT finished_at FROM jobrunner_jobs WHERE {FINISHED} ORDER BY finished_at DESC LIMIT 1 OFFSET ?",
        (keep,),
    ).fetchone()
    return None if row is None else int(row[0])


def prune(
    conn: sqlite3.Connection,
    finished_before: int,
    by_task: Mapping[str, int],
    died_before: int,
    surplus: int | None,
    limit: int,
) -> int:
    """Delete one slice; return how many jobs and dead letters went."""
    doomed: list[tuple[int]] = conn.execute(
        f"""
        SELECT seq FROM jobrunner_jobs
        WHERE {FINISHED} AND finished_at < ? AND task NOT IN (SELECT key FROM json_each(?))
        ORDER BY finished_at LIMIT ?
        """,
        (finished_before, json.dumps(dict(by_task)), limit),
    ).fetchall()
    for task, before in by_task.items():
        if len(doomed) < limit:
            doomed += conn.execute(
                f"""
                SELECT seq FROM jobrunner_jobs WHERE {FINISHED} AND finished_at < ? AND task = ?
                ORDER BY finished_at LIMIT ?
                """,
                (before, task, limit - len(doomed)),
            ).fetchall()
    if surplus is not None and len(doomed) < limit:
        doomed += conn.execute(
            f"SELECT seq FROM jobrunner_jobs WHERE {FINISHED} AND finished_at <= ? ORDER BY finished_at LIMIT ?",
            (surplus, limit - len(doomed)),
        ).fetchall()
    doomed = list(set(doomed))
    conn.executemany("DELETE FROM jobrunner_jobs WHERE seq = ?", doomed)
    if len(doomed) < limit:
        letters = conn.execute(
            "DELETE FROM jobrunner_dead_letters WHERE letter IN ("
            " SELECT letter FROM jobrunner_dead_letters WHERE died_at < ? ORDER BY died_at LIMIT ?"
            ") RETURNING seq",
            (died_before, limit - len(doomed)),
        ).fetchall()
        doomed += letters
    conn.executemany("DELETE FROM jobrunner_attempts WHERE job = ?", doomed)
    return len(doomed)
