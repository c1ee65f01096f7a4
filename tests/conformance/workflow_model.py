"""A model of what stories of workflows have stored, compared with the store after every step.

The store's own checks (``WorkflowStore.check``) compare rows with each other.  These compare them with what the story
has done: what was remembered, who was cancelled by a person, which callbacks have started.
"""

import json
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from jobrunner.core.model import Claimed, Edge, Filter, JobRow, MemoKind
from jobrunner.core.workflows import BatchRow
from jobrunner.store.protocol import Store
from tests.support.workflows import CALLBACKS

MOST: Final = 1_000
"""More rows than a story stores."""
ENDED: Final = frozenset({"succeeded", "cancelled", "expired", "dead"})
STARTED: Final = frozenset({"queued", "scheduled", "running", "succeeded", "dead"})
"""The states of a callback that no longer waits for its batch."""


class Stored(NamedTuple):
    """All that a small store holds."""

    store: Store
    jobs: Mapping[str, JobRow]
    """With dead letters, also those that another job has replaced."""
    batches: Mapping[str, BatchRow]

    @classmethod
    async def read(cls, store: Store) -> "Stored":
        jobs = (await store.jobs.list(Filter(), before=None, limit=MOST)).rows
        letters = (await store.dead_letters.list(Filter(), before=None, limit=MOST)).rows
        batches = await store.workflows.list(state=None, name=None, before=None, limit=MOST)
        assert max(len(jobs), len(letters), len(batches.rows)) < MOST
        return cls(
            store,
            {row.id: row for row in (*letters, *jobs)},
            {row.id: row for row in batches.rows},
        )

    def members(self, id: str) -> list[JobRow]:
        return [row for row in self.jobs.values() if row.batch == id]


class Memos:
    """The memos of jobs: the first value of a kind and name stays until it is forgotten."""

    def __init__(self) -> None:
        self.ids: dict[int, str] = {}
        self.kept: dict[int, dict[tuple[MemoKind, str], str | None]] = {}
        self.recent: deque[int] = deque(maxlen=3)

    def add(self, seq: int, id: str, kind: MemoKind, name: str, value: str | None) -> bool:
        """Note a memo; return whether the store has to accept it."""
        self.ids[seq] = id
        self.recent.append(seq)
        kept = self.kept.setdefault(seq, {})
        if (kind, name) in kept:
            return False
        kept[kind, name] = value
        return True

    def forget(self, seq: int, names: Iterable[str]) -> None:
        gone = {*names, *(f"!{name}" for name in names)}
        kept = self.kept.get(seq, {})
        for key in [key for key in kept if key[1] in gone]:
            del kept[key]

    def names(self, seq: int) -> list[str]:
        return sorted({name for _, name in self.kept.get(seq, {})})

    async def check(self, now: Stored, *, every: bool = False) -> None:
        """Compare the memos of jobs: of those that the last steps have touched, or of all."""
        for seq in self.kept if every else self.recent:
            found = {
                (row.kind, row.name): row.value for row in await now.store.workflows.steps(seq)
            }
            id = self.ids[seq]
            # A dead letter that was replaced is in no list.
            if id not in now.jobs and await now.store.jobs.get(id) is None:
                assert found == {}, f"memos of {id} outlive it"
            else:
                assert found == self.kept[seq], f"{id} remembers something else"


class Callbacks:
    """The callbacks of batches: each leaves ``blocked`` once, and for the end that it names."""

    def __init__(self) -> None:
        self.batch_of: dict[str, str] = {}
        self.started: set[str] = set()

    def replaced(self, old: str, new: str) -> None:
        if old in self.batch_of:
            self.batch_of[new] = self.batch_of.pop(old)
            self.started.add(new)

    def check(self, now: Stored) -> None:
        for id, batch_id in self.batch_of.items():
            row = now.jobs.get(id)
            if row is None:
                continue
            if row.state == "blocked":
                # One that has run may be parked.
                assert id not in self.started or row.first_started_at is not None, (
                    f"callback {id} waits again"
                )
            elif row.state in STARTED and id not in self.started:
                self.started.add(id)
                batch = now.batches[batch_id]
                assert batch.state != "running", f"callback {id} does not wait for the end"
                need = CALLBACKS[row.task]
                assert need == "end" or (batch.state == "succeeded") == (need == "success"), (
                    f"{row.task} {id} starts after a batch that has {batch.state}"
                )


class Stopped:
    """Jobs that a person has cancelled while they waited: nothing revives them."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def check(self, now: Stored) -> None:
        for id in self.ids:
            row = now.jobs.get(id)
            assert row is None or row.state == "cancelled", f"{id} was cancelled and is {row}"


def handing(edges: Iterable[Edge]) -> str | None:
    """Return the references of a job that takes the results of those whose success it needs."""
    taken = {f"p{place}": edge.needs for place, edge in enumerate(edges) if edge.need == "success"}
    return json.dumps(taken) if taken else None


async def check_start(
    store: Store, job: Claimed, edges: Iterable[Edge], ended: Collection[str]
) -> None:
    """No job starts before what it needs, and what it takes is the result of a job that has succeeded.

    Args:
        store: the store.
        job: the job that starts.
        edges: its edges to other jobs.
        ended: the jobs that had ended in some earlier step; they may have been replayed since.
    """
    taken = json.loads(job.handed or "{}").values()
    waits = [*edges, *(Edge(job.id, id, "success") for id in taken)]
    if not waits:
        return
    results = await store.workflows.results({edge.needs for edge in waits})
    for edge in waits:
        if edge.need == "end" and edge.needs in ended:
            continue  # it may have been replayed since, or its dead letter deleted
        result = results.get(edge.needs)
        assert result is not None, f"{job.id} starts, and {edge.needs} is gone"
        expected = {"succeeded"} if edge.need == "success" else ENDED
        assert result.state in expected, f"{job.id} starts, {edge.needs} is {result.state}"


def check_numbers(row: BatchRow, members: Iterable[JobRow]) -> None:
    """The numbers of a batch are those of its members."""
    states = [one.state for one in members]
    assert (row.succeeded, row.running, row.waiting, row.cancelled) == (
        states.count("succeeded"),
        states.count("running"),
        sum(state in ("queued", "scheduled", "blocked") for state in states),
        sum(state in ("cancelled", "expired") for state in states),
    )
    # Dead letters that were deleted count too.
    assert row.dead >= states.count("dead")
    assert row.total == len(states) - states.count("dead") + row.dead
