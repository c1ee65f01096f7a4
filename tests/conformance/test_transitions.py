"""Every transition from every state: the few that are allowed, and that all others leave the job as it was."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import pytest

from jobrunner.core.errors import JobFinished, JobNotFound
from jobrunner.core.model import FINISHED
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DAY,
    DUE,
    EXPIRY,
    NOW,
    OUTCOMES,
    STARTS,
    STATE_OF,
    WORKER,
    Specimen,
    Start,
    bring,
    claim_of,
    enqueue,
    new,
    row_of,
    settle,
    worker_row,
)

Transition = Callable[[Rig, Specimen], Awaitable[bool]]
"""Try something on a job; return whether the store says that it did it, as far as it says so."""


def an_outcome(kind: str) -> Transition:
    async def settles(rig: Rig, specimen: Specimen) -> bool:
        return not (await settle(rig.store, OUTCOMES[kind](specimen.claimed))).stale

    return settles


async def promote(rig: Rig, specimen: Specimen) -> bool:
    await rig.store.write(Round(DUE, promote_due=True))
    return (await row_of(rig.store, specimen.row.id)).state != specimen.row.state


async def expire(rig: Rig, specimen: Specimen) -> bool:
    await rig.store.write(Round(EXPIRY, promote_due=True))
    return (await row_of(rig.store, specimen.row.id)).state != specimen.row.state


async def claims(rig: Rig, specimen: Specimen) -> bool:
    return bool((await rig.store.write(Round(NOW, claim=claim_of()))).claimed)


async def signal(rig: Rig, specimen: Specimen) -> bool:
    try:
        await rig.store.workflows.signal(specimen.row.id, "approved", "1", now=NOW)
    except JobFinished:
        assert specimen.row.state in FINISHED
    return (await row_of(rig.store, specimen.row.id)).state != specimen.row.state


async def cancel(rig: Rig, specimen: Specimen) -> bool:
    before = await rig.store.jobs.cancel(specimen.row.id, now=NOW)
    assert before == specimen.row
    after = await row_of(rig.store, specimen.row.id)
    return after.state == "cancelled" or after.cancel_requested


async def replay(rig: Rig, specimen: Specimen) -> bool:
    try:
        made = await rig.store.dead_letters.replay(specimen.row.id, now=NOW)
    except JobNotFound:
        return False
    return made.created


async def replay_edited(rig: Rig, specimen: Specimen) -> bool:
    try:
        made = await rig.store.dead_letters.replay_edited(
            specimen.row.id, new(replay_of=specimen.row.id)
        )
    except JobNotFound:
        return False
    return made.created


async def delete(rig: Rig, specimen: Specimen) -> bool:
    return await rig.store.dead_letters.delete(specimen.row.id)


async def prune(rig: Rig, specimen: Specimen) -> bool:
    end = NOW + DAY
    return bool(
        await rig.store.jobs.prune(
            finished_before=end, by_task={}, died_before=end, keep_finished=100, limit=100
        )
    )


async def bury_waiting(rig: Rig, specimen: Specimen) -> bool:
    row = specimen.row
    return bool(
        await rig.store.dead_letters.bury_waiting(
            row.queue,
            row.task,
            due_before=NOW + DAY,
            reason="unknown_task",
            error="nobody knows it",
            now=NOW,
            limit=100,
        )
    )


async def leave(rig: Rig, specimen: Specimen) -> bool:
    await rig.store.workers.leave(WORKER, now=NOW)
    return (await row_of(rig.store, specimen.row.id)).state != specimen.row.state


async def recover(rig: Rig, specimen: Specimen) -> bool:
    rig.kill_worker(WORKER)
    await rig.store.workers.recover(now=NOW, thorough=True)
    return (await row_of(rig.store, specimen.row.id)).state != specimen.row.state


GONE: Final = "gone"

# By transition: what becomes of a job in each state from which it does something. From all others it does nothing.
ALLOWED: Final[Mapping[str, tuple[Transition, Mapping[Start, str]]]] = {
    "succeeded": (
        an_outcome("succeeded"),
        {"running": "succeeded", "running, asked to stop": "succeeded"},
    ),
    "retry": (
        an_outcome("retry"),
        {"running": "scheduled", "running, asked to stop": "cancelled"},
    ),
    "snoozed": (
        an_outcome("snoozed"),
        {"running": "scheduled", "running, asked to stop": "cancelled"},
    ),
    "parked": (
        an_outcome("parked"),
        {"running": "blocked", "running, asked to stop": "cancelled"},
    ),
    "signal": (signal, {"parked": "queued"}),
    "released": (
        an_outcome("released"),
        {"running": "queued", "running, asked to stop": "cancelled"},
    ),
    "cancelled": (
        an_outcome("cancelled"),
        {"running": "cancelled", "running, asked to stop": "cancelled"},
    ),
    "dead": (an_outcome("dead"), {"running": "dead", "running, asked to stop": "dead"}),
    "promote": (promote, {"scheduled": "queued", "scheduled again": "queued"}),
    "expire": (
        expire,
        {
            "scheduled": "expired",
            "scheduled again": "expired",
            "queued": "expired",
            "queued again": "expired",
        },
    ),
    "claim": (claims, {"queued": "running", "queued again": "running"}),
    "cancel": (
        cancel,
        {
            "scheduled": "cancelled",
            "scheduled again": "cancelled",
            "queued": "cancelled",
            "queued again": "cancelled",
            "blocked": "cancelled",
            "parked": "cancelled",
            "cancelled": "cancelled",
            "running": "running",
            "running, asked to stop": "running",
        },
    ),
    "replay": (replay, {"dead": "queued"}),
    "replay, edited": (replay_edited, {"dead": "dead"}),
    "delete": (delete, {"dead": GONE}),
    "prune": (prune, {"succeeded": GONE, "cancelled": GONE, "expired": GONE, "dead": GONE}),
    "bury waiting": (bury_waiting, {"queued": "dead", "queued again": "dead"}),
    "leave": (leave, {"running": "queued", "running, asked to stop": "cancelled"}),
    "recover": (recover, {"running": "queued", "running, asked to stop": "cancelled"}),
}

UNFINISHED: Final = {"scheduled", "queued", "running", "blocked"}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ALLOWED)
async def test_transition_from_any_state_goes_where_it_may_or_leaves_it(
    rig: Rig, name: str, start: Start
) -> None:
    store = rig.store
    # One that knows the task would keep its jobs from being buried.
    await store.workers.join(worker_row(tasks={"other": None}), lambda: None)
    specimen = await bring(store, start)
    attempts = await store.jobs.attempts(specimen.row.seq)
    transition, allowed = ALLOWED[name]

    did = await transition(rig, specimen)

    assert did == (start in allowed)
    end = allowed.get(start, STATE_OF[start])
    row = await store.jobs.get(specimen.row.id)
    assert end == ("gone" if row is None else row.state)
    if start not in allowed or (name, start) == ("cancel", "cancelled"):
        assert row == specimen.row
        assert await store.jobs.attempts(specimen.row.seq) == attempts
    if end == GONE:
        assert await store.jobs.attempts(specimen.row.seq) == []
    await assert_key_is_held_by_the_unfinished(store, specimen, end)


async def assert_key_is_held_by_the_unfinished(store: Store, specimen: Specimen, end: str) -> None:
    (rival,) = await enqueue(store, new(key="key"))
    assert rival.created == (end not in UNFINISHED)
    if not rival.created:
        assert rival.id == specimen.row.id
