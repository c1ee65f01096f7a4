"""Rules about batches that rows on PostgreSQL break are found; two processes share batches without losing one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from jobrunner.core.model import Enqueue
from jobrunner.store.postgres.connection import WRITER, close, connect
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.conformance.peer import Peer
from tests.store.test_workflow_checks import FAULTS, Fault
from tests.support.factories import (
    NOW,
    OTHER_WORKER,
    WORKER,
    claim_of,
    new,
    quiet,
    succeeded,
    worker_row,
)
from tests.support.workflows import TASKS, a_batch, batch_row, states_of


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()


async def execute(url: str, statement: str) -> None:
    """Change rows behind the store's back."""
    connection: Any = await connect(url, WRITER)
    await connection.execute(statement)
    await close(connection)


@pytest.mark.parametrize("fault", FAULTS)
async def test_check_names_the_rule_that_rows_break(
    store: PostgresStore, postgres_url: str, fault: Fault
) -> None:
    ids = await fault.stored(store)
    assert list(await store.workflows.check(limit=5)) == []
    values = dict(zip("abc", ids, strict=False))
    statement = fault.broken_by.replace("jobrunner_", "jobrunner.")
    for name, id in values.items():
        statement = statement.replace(f":{name}", f"'{id}'")
    await execute(postgres_url, statement)
    found = {one.rule: one.ids for one in await store.workflows.check(limit=5)}
    assert values[fault.named] in found[fault.rule]


@pytest.fixture
def peer(postgres_url: str) -> Iterator[Peer]:
    """Another process with the store open."""
    peer = Peer(postgres_url)
    yield peer
    peer.kill()


BATCHES = 12
MEMBERS = 6


async def test_two_processes_that_end_members_of_the_same_batches_end_each_batch_once(
    store: PostgresStore, peer: Peer
) -> None:
    """Members are split between them, so that most batches are ended by whichever comes second."""
    peer.opened()
    await store.workers.join(worker_row(WORKER), lambda: None)
    peer.call("join", worker_row(OTHER_WORKER))
    batches = [[new() for _ in range(MEMBERS)] for _ in range(BATCHES)]
    made = [await a_batch(store, *members) for members in batches]
    ours = await claim(store, BATCHES * MEMBERS // 2)
    theirs = peer.call("write", Round(NOW, claim=claim_of(tasks=TASKS, worker=OTHER_WORKER)))
    assert len(ours) + len(theirs.claimed) == BATCHES * MEMBERS
    ended: list[str] = []
    rest = list(theirs.claimed)
    while ours or rest:
        # Both settle a few at once, of all batches.
        mine, ours = ours[::5], [job for job in ours if job not in ours[::5]]
        yours, rest = rest[::4], [job for job in rest if job not in rest[::4]]
        peer.begin("write", Round(NOW, outcomes=[succeeded(job) for job in yours]))
        written = await store.write(Round(NOW, outcomes=[succeeded(job) for job in mine]))
        answer = await asyncio.to_thread(peer.answer)
        ended += (*written.ended, *answer.ended)
    assert sorted(ended) == sorted(one.id for one in made)
    assert list(await store.workflows.check(limit=5)) == []
    for one in made:
        assert await states_of(store, one.callbacks) == ["queued", "cancelled", "queued"]


async def claim(store: PostgresStore, slots: int) -> list[Any]:
    request = Round(NOW, claim=claim_of(tasks=TASKS, slots=slots))
    return list((await store.write(request)).claimed)


async def test_batch_goes_on_after_a_process_was_killed_between_two_slices_of_its_cancel(
    store: PostgresStore, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.opened()
    members: list[Enqueue] = [new() for _ in range(600)]
    made = await a_batch(store, *members)
    peer.call("workflows.cancel", made.id, now=NOW)
    assert peer.call("write", Round(NOW, promote_due=True)).more_due
    peer.kill()
    row = await batch_row(store, made.id)
    assert (row.state, row.cancelled, row.waiting) == ("running", 250, 350)
    await quiet(store)
    row = await batch_row(store, made.id)
    assert (row.state, row.cancelled, row.waiting) == ("cancelled", 600, 0)
