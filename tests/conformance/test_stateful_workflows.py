"""Batches, edges and parked jobs in any story: no stored rows ever contradict each other, and none is stuck.

There is no model of each row. After every step the store checks its own rules, and what it holds is compared with what
the story has done (``workflow_model``); each claim is compared with what the job needed; and at the end of a story
everything is brought to an end, and what is dead is replayed, until no job is left that waits.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobrunner.core.errors import BatchEnded, JobFinished, JobNotFound, KeyTaken
from jobrunner.core.model import (
    BatchEnqueue,
    Claimed,
    Edge,
    Ended,
    Enqueue,
    Filter,
    JobRow,
    Memo,
    MemoKind,
    NewBatch,
    Outcome,
    Parked,
)
from jobrunner.store.round import Round, Written
from tests.conformance.rigs import STORES, MakeRig, Rig, maker
from tests.conformance.workflow_model import (
    ENDED,
    Callbacks,
    Memos,
    Stopped,
    Stored,
    check_numbers,
    check_start,
    handing,
)
from tests.soak.budget import Figures, rounds
from tests.support.factories import (
    HOUR,
    NOW,
    cancelled,
    claim_of,
    dead,
    new,
    released,
    retry,
    snoozed,
    succeeded,
    worker_row,
)
from tests.support.workflows import CALLBACKS, TASKS, request

T = TypeVar("T")

SLICES: Final = st.one_of(st.integers(1, 5), st.sampled_from([1, 2, 3, 14]), st.integers(1, 250))
FANS: Final = (2, 6, 20)
KEYS: Final = (None, None, None, None, "a", "b")
ENDS: Final = (succeeded, succeeded, succeeded, dead, dead, cancelled, retry, snoozed, released)
PATIENCE: Final = 400
"""Rounds after which a story counts as stuck."""


class WorkflowMachine(RuleBasedStateMachine):
    """Stories of batches and of jobs that park."""

    make_rig: MakeRig

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.ending = ExitStack()
        self.rig: Rig = self.ending.enter_context(type(self).make_rig())
        self.do(self.rig.open())
        self.slices = ExitStack()
        self.now = NOW
        self.worker = 1
        self.ids = 0
        self.running: dict[str, Claimed] = {}
        self.stale: list[Claimed] = []
        self.batches: list[str] = []
        self.callbacks = Callbacks()
        self.memos = Memos()
        self.stopped = Stopped()
        self.ended: set[str] = set()
        """Jobs that had ended in some earlier step."""
        self.parents: dict[str, str] = {}
        """The batch for which each parent has parked last."""
        self.needs: dict[str, list[Edge]] = {}
        self.hopeless: set[str] = set()
        """Batches of which a member was cancelled on request, has expired, or was deleted while dead."""

    def next_id(self) -> str:
        """Return an id that is the same when the story is repeated."""
        self.ids += 1
        return f"00000000-0000-7000-8000-{self.ids:012x}"

    def do(self, verb: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(verb)

    def teardown(self) -> None:
        try:
            if self.batches:
                self.bring_to_an_end()
        finally:
            self.slices.close()
            self.do(self.rig.close())
            self.runner.close()
            self.ending.close()

    # -- rounds ----------------------------------------------------------------------------------

    def write(self, **parts: Any) -> Written:
        self.now += 1
        written = self.do(self.rig.store.write(Round(self.now, **parts)))
        for job in written.claimed:
            self.check_claimed(job)
            self.running[job.id] = job
        return written

    def settle(self, outcome: Outcome) -> None:
        self.running.pop(outcome.job.id, None)
        self.write(outcomes=[outcome])

    def check_claimed(self, job: Claimed) -> None:
        """No job starts before what it needs."""
        edges = [edge for edge in self.needs.get(job.id, ()) if edge.needs not in self.batches]
        self.do(check_start(self.rig.store, job, edges, self.ended))

    @invariant()
    def no_rows_contradict_each_other(self) -> None:
        assert self.do(self.rig.store.workflows.check(limit=5)) == []

    @invariant()
    def rows_are_what_the_story_has_made_of_them(self) -> None:
        self.compare()

    def compare(self, *, every: bool = False) -> Stored:
        """Compare what the store holds with what the story has done."""
        now = self.do(Stored.read(self.rig.store))
        self.callbacks.check(now)
        self.stopped.check(now)
        self.ended.update(id for id, row in now.jobs.items() if row.state in ENDED)
        self.do(self.memos.check(now, every=every))
        for id, batch in now.batches.items():
            check_numbers(batch, now.members(id))
        return now

    # -- batches ---------------------------------------------------------------------------------

    @initialize(size=SLICES)
    def slice(self, size: int) -> None:
        self.slices.enter_context(self.rig.slice(size))
        self.join()

    def join(self) -> None:
        row = worker_row(self.worker, tasks=dict.fromkeys(TASKS, None) | {"work": 3}, now=self.now)
        self.do(self.rig.store.workers.join(row, lambda: None))

    def some(self, data: st.DataObject, number: int) -> tuple[list[Enqueue], list[Edge]]:
        """Return members and edges from later ones to earlier ones."""
        jobs: list[Enqueue] = []
        edges: list[Edge] = []
        for _ in range(number):
            key = data.draw(st.sampled_from(KEYS))
            expires = data.draw(st.sampled_from([None, None, None, self.now + 30]))
            job = new(
                id=self.next_id(), created_at=self.now, key=key, expires_at=expires, max_attempts=2
            )
            known = (
                st.lists(st.sampled_from(jobs), max_size=3, unique=True) if jobs else st.just([])
            )
            own = [
                Edge(job.id, before.id, data.draw(st.sampled_from(["success", "success", "end"])))
                for before in data.draw(known)
            ]
            edges += own
            jobs.append(job._replace(handed=handing(own)))
        return jobs, edges

    @rule(data=st.data(), number=st.sampled_from([0, 1, 2, 4, 7]))
    def enqueue(self, data: st.DataObject, number: int) -> None:
        self.store_batch(*self.some(data, number))

    @rule(width=st.sampled_from(FANS), end=st.sampled_from(["success", "success", "end"]))
    def enqueue_fan(self, width: int, end: Any) -> None:
        """Wider than a slice: a job that others need, and one that needs them."""
        root, sink, *leaves = (
            new(id=self.next_id(), created_at=self.now, max_attempts=2) for _ in range(width + 2)
        )
        out = [Edge(leaf.id, root.id, end) for leaf in leaves]
        fan_in = [Edge(sink.id, leaf.id, "success") for leaf in leaves]
        sink = sink._replace(handed=handing(fan_in))
        self.store_batch([root, *leaves, sink], [*out, *fan_in])

    def store_batch(self, jobs: Sequence[Enqueue], edges: Sequence[Edge]) -> None:
        wanted = request(*jobs, edges=edges, now=self.now, ids=self.next_id)
        (answer,) = self.write(batches=[wanted]).batches
        if isinstance(answer, KeyTaken):
            return
        assert not isinstance(answer, Exception), answer
        assert isinstance(wanted.batch, NewBatch)
        self.batches.append(wanted.batch.id)
        self.callbacks.batch_of |= {job.id: wanted.batch.id for job in wanted.callbacks}
        self.know(wanted.edges)

    def know(self, edges: Sequence[Edge]) -> None:
        for edge in edges:
            self.needs.setdefault(edge.job, []).append(edge)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        jobs, edges = self.some(data, 2)
        id = data.draw(st.sampled_from(self.batches))
        members = self.do(self.rig.store.jobs.list(Filter(batch=id), before=None, limit=9)).rows
        if members:
            before = data.draw(st.sampled_from(members))
            edges.append(
                Edge(jobs[0].id, before.id, data.draw(st.sampled_from(["success", "end"])))
            )
        (answer,) = self.write(batches=[BatchEnqueue(id, jobs, (), edges)]).batches
        if isinstance(answer, (KeyTaken, BatchEnded)):
            return
        assert not isinstance(answer, Exception), answer
        self.know(edges)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def member_adds_members(self, data: st.DataObject) -> None:
        job = self.running[data.draw(st.sampled_from(list(self.running)))]
        more = [
            new(id=self.next_id(), created_at=self.now)._replace(batch=job.batch) for _ in range(2)
        ]
        self.settle(succeeded(job, at=self.now)._replace(enqueues=more))

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def cancel_batch(self, data: st.DataObject) -> None:
        self.do(
            self.rig.store.workflows.cancel(data.draw(st.sampled_from(self.batches)), now=self.now)
        )

    # -- attempts --------------------------------------------------------------------------------

    @rule(slots=st.sampled_from([1, 2, 5]))
    def claim(self, slots: int) -> None:
        self.write(promote_due=True, claim=claim_of(worker=self.worker, slots=slots, tasks=TASKS))

    @rule(end=st.sampled_from([succeeded, succeeded, dead]), promote=st.booleans())
    def run_all(self, end: Any, promote: bool) -> None:
        """Start what there is and end it in the next round; one that does not promote leaves slices to others."""
        self.write(promote_due=promote, claim=claim_of(worker=self.worker, slots=50, tasks=TASKS))
        jobs = [*self.running.values()]
        self.running.clear()
        if jobs:
            self.write(outcomes=[end(job, at=self.now) for job in jobs])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def end_one(self, data: st.DataObject, end: Any) -> None:
        job = self.running[data.draw(st.sampled_from(list(self.running)))]
        if end is cancelled:
            self.give_up(job.id)
            self.callbacks.batch_of.pop(job.id, None)
        self.settle(end(job, at=self.now))

    @precondition(lambda self: len(self.running) > 1)
    @rule(data=st.data())
    def end_several(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(list(self.running)), min_size=2, unique=True))
        jobs = [self.running.pop(id) for id in ids]
        ends = [data.draw(st.sampled_from([succeeded, succeeded, dead])) for _ in jobs]
        self.write(outcomes=[end(job, at=self.now) for end, job in zip(ends, jobs, strict=True)])

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def stale_outcome_changes_nothing(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.stale))
        before = self.do(self.rig.store.jobs.get(job.id))
        memo = Memo(job, "step", "stale", "1")
        park = Parked(job, Ended("released", self.now), None, [Edge(job.id, "!a", "end")])
        outcomes: list[Outcome] = [succeeded(job), dead(job), park]
        written = self.do(self.rig.store.write(Round(self.now, memos=[memo], outcomes=outcomes)))
        assert len(written.stale) == len(outcomes)
        assert list(written.memos) == [False]
        assert self.do(self.rig.store.jobs.get(job.id)) == before

    @rule()
    def look(self) -> None:
        self.write(promote_due=True)

    @rule()
    def time_passes(self) -> None:
        self.now += 40
        self.write(promote_due=True)

    @rule(kill=st.booleans())
    def worker_goes(self, kill: bool) -> None:
        self.stale += self.running.values()
        self.running.clear()
        if kill:
            self.rig.kill_worker(self.worker)
            self.do(self.rig.store.workers.recover(now=self.now, thorough=True))
        else:
            self.do(self.rig.store.workers.leave(self.worker, now=self.now))
        self.worker += 1
        self.join()

    # -- memos -----------------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(data=st.data(), name=st.sampled_from(["a", "b"]), is_late=st.booleans())
    def remember(self, data: st.DataObject, name: str, is_late: bool) -> None:
        """Store a step, or the time-out of a wait."""
        job = self.running[data.draw(st.sampled_from(list(self.running)))]
        kind: MemoKind = "signal" if is_late else "step"
        value = None if is_late else str(self.now)
        written = self.write(memos=[Memo(job, kind, name, value)])
        assert list(written.memos) == [self.memos.add(job.seq, job.id, kind, name, value)]

    # -- parks -----------------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(data=st.data(), name=st.sampled_from(["a", "b"]), until=st.sampled_from([None, 5, 60]))
    def park_for_a_signal(self, data: st.DataObject, name: str, until: int | None) -> None:
        job = self.running[data.draw(st.sampled_from(list(self.running)))]
        if data.draw(st.booleans()):
            # Between the look and the park.
            self.signal(job.id, name)
        due = None if until is None else self.now + until
        wait = Edge(job.id, f"!{name}", "end")
        self.settle(Parked(job, Ended("released", self.now), due, [wait]))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), number=st.sampled_from([0, 1, 3]))
    def park_for_children(self, data: st.DataObject, number: int) -> None:
        job = self.running[data.draw(st.sampled_from(list(self.running)))]
        jobs, edges = self.some(data, number)
        jobs = [one._replace(key=None) for one in jobs]
        batch = NewBatch(self.next_id(), None, self.now, job.id)
        wait = Edge(job.id, batch.id, "end")
        children = BatchEnqueue(batch, jobs, (), edges)
        self.parents[job.id] = batch.id
        self.batches.append(batch.id)
        self.know([*edges])
        self.settle(Parked(job, Ended("released", self.now), None, [wait], (), children))

    def signal(self, id: str, name: str) -> None:
        row = self.do(self.rig.store.jobs.get(id))
        value = str(self.now)
        with suppress(JobFinished, JobNotFound):
            kept = self.do(self.rig.store.workflows.signal(id, name, value, now=self.now))
            assert row is not None
            assert kept == self.memos.add(row.seq, id, "signal", name, value)

    @rule(data=st.data(), name=st.sampled_from(["a", "b"]))
    def signal_one(self, data: st.DataObject, name: str) -> None:
        rows = self.do(self.rig.store.jobs.list(Filter(), before=None, limit=50)).rows
        if rows:
            self.signal(data.draw(st.sampled_from(rows)).id, name)

    # -- operators -------------------------------------------------------------------------------

    def give_up(self, id: str) -> None:
        """Note that a member will be cancelled or expire, so that its batch cannot succeed."""
        row = self.do(self.rig.store.jobs.get(id))
        if row is not None and row.batch is not None and row.state not in ("succeeded", "dead"):
            self.hopeless.add(row.batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), by_filter=st.booleans())
    def cancel_member(self, data: st.DataObject, by_filter: bool) -> None:
        id = data.draw(st.sampled_from(self.batches))
        rows = self.do(self.rig.store.jobs.list(Filter(batch=id), before=None, limit=9)).rows
        if not rows:
            return
        row = data.draw(st.sampled_from(rows))
        self.give_up(row.id)
        if by_filter:
            where = Filter(batch=id, state="blocked")
            done = self.do(
                self.rig.store.jobs.cancel_all(where, before=None, now=self.now, limit=5)
            )
            self.hopeless.add(id)
            self.stopped.ids.update(done.cancelled)
        else:
            self.cancel_one(row.id)

    def cancel_one(self, id: str) -> None:
        before = self.do(self.rig.store.jobs.cancel(id, now=self.now))
        if before is not None and before.state in ("queued", "scheduled", "blocked"):
            self.stopped.ids.add(id)

    @precondition(lambda self: self.callbacks.batch_of)
    @rule(data=st.data())
    def cancel_callback(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(list(self.callbacks.batch_of)))
        self.cancel_one(id)
        self.callbacks.batch_of.pop(id)

    def letters(self) -> list[str]:
        page = self.do(self.rig.store.dead_letters.list(Filter(), before=None, limit=1_000))
        return [row.id for row in page.rows]

    @rule(data=st.data(), edited=st.booleans())
    def replay(self, data: st.DataObject, edited: bool) -> None:
        found = self.letters()
        if not found:
            return
        id = data.draw(st.sampled_from(found))
        try:
            row = self.do(self.rig.store.jobs.get(id))
            assert row is not None
            if not edited:
                forget = data.draw(st.sets(st.sampled_from(["a", "b"])))
                forget &= set(self.memos.names(row.seq))
                self.do(self.rig.store.dead_letters.replay(id, now=self.now, forget=sorted(forget)))
                self.memos.forget(row.seq, forget)
                return
            job = new(row.task, id=self.next_id(), created_at=self.now, key=row.key, replay_of=id)
            self.do(self.rig.store.dead_letters.replay_edited(id, job))
        except KeyTaken:
            return
        self.replaced(id, job.id)

    def replaced(self, old: str, new: str) -> None:
        for edges in self.needs.values():
            edges[:] = [edge._replace(needs=new) if edge.needs == old else edge for edge in edges]
        if old in self.needs:
            self.needs[new] = [edge._replace(job=new) for edge in self.needs.pop(old)]
        self.ended.add(new)  # for those that wait for any end, of the one that it replaces
        self.callbacks.replaced(old, new)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def retry_batch(self, data: st.DataObject) -> None:
        where = Filter(batch=data.draw(st.sampled_from(self.batches)))
        self.do(self.rig.store.dead_letters.replay_all(where, before=None, now=self.now, limit=3))

    @rule(data=st.data())
    def delete_letter(self, data: st.DataObject) -> None:
        found = self.letters()
        if found and data.draw(st.integers(0, 3)) == 0:
            id = data.draw(st.sampled_from(found))
            row = self.do(self.rig.store.jobs.get(id))
            assert row is not None
            if row.batch is not None:
                self.hopeless.add(row.batch)
            self.do(self.rig.store.dead_letters.delete(id))

    # -- retention -------------------------------------------------------------------------------

    @rule()
    def prune(self) -> None:
        """A batch goes with all of its members, once nobody needs it."""
        before = self.do(Stored.read(self.rig.store))
        self.do(
            self.rig.store.jobs.prune(
                finished_before=self.now - 20,
                by_task={},
                died_before=self.now - 20,
                keep_finished=1_000,
                limit=10_000,
            )
        )
        now = self.do(Stored.read(self.rig.store))
        for id, batch in before.batches.items():
            members = {row.id for row in before.members(id)}
            if id in now.batches:
                assert members <= now.jobs.keys(), f"members of {id} are gone, and it is not"
            else:
                assert not members & now.jobs.keys(), f"{id} is gone, and its members are not"
                assert batch.ended_at is not None, f"{id} is gone before its end"
                # A dead callback may have gone before it, by the retention of dead letters.
                needing = [row for row in self.waiting_for(id, before) if row.id in now.jobs]
                assert not needing, f"{id} is gone, and somebody needs it"

    def waiting_for(self, id: str, now: Stored) -> list[JobRow]:
        """Return the callbacks of a batch, and the job that made it, that may still need it."""
        waiting = [one for one, of in self.callbacks.batch_of.items() if of == id]
        waiting += [one for one, of in self.parents.items() if of == id]
        rows = [now.jobs[one] for one in waiting if one in now.jobs]
        # ``then`` of a batch that has failed waits for a replay, and goes with it.
        return [
            row
            for row in rows
            if row.state not in ("succeeded", "cancelled", "expired")
            and not (row.task == "then" and row.state == "blocked")
        ]

    # -- the end ---------------------------------------------------------------------------------

    def bring_to_an_end(self) -> None:
        self.settle_down()
        for _ in range(50):
            found = self.letters()
            if not found:
                break
            for id in found:
                try:
                    self.do(self.rig.store.dead_letters.replay(id, now=self.now))
                except KeyTaken:
                    self.give_up_letter(id)
                self.no_rows_contradict_each_other()
            self.settle_down()
        else:
            raise AssertionError("what is replayed dies for ever")
        for state in ("scheduled", "queued", "running", "blocked"):
            left = self.do(self.rig.store.jobs.list(Filter(state=state), before=None, limit=9)).rows
            assert not left, f"{state}: {left}"
        self.check_ends()

    def give_up_letter(self, id: str) -> None:
        row = self.do(self.rig.store.jobs.get(id))
        assert row is not None
        if row.batch is not None:
            self.hopeless.add(row.batch)
        self.do(self.rig.store.dead_letters.delete(id))

    def settle_down(self) -> None:
        """Let everything end well, and send every signal that somebody waits for."""
        for _ in range(PATIENCE):
            self.now += HOUR
            claim = claim_of(worker=self.worker, tasks=TASKS)
            written = self.write(promote_due=True, claim=claim)
            jobs = list(self.running.values())
            self.running.clear()
            if jobs:
                self.write(outcomes=[succeeded(job, at=self.now) for job in jobs])
            self.no_rows_contradict_each_other()
            self.compare()
            # What was unblocked in this round expires in the next one.
            is_due = written.next_due is not None and written.next_due <= self.now
            if not jobs and not is_due and not written.more_due and not self.send_signals():
                return
        raise AssertionError("the rounds never end")

    def send_signals(self) -> bool:
        rows = self.do(self.rig.store.jobs.list(Filter(), before=None, limit=1_000)).rows
        waits = self.do(self.rig.store.workflows.waits(rows))
        ids = {row.seq: row.id for row in rows}
        for seq, wait in waits.items():
            for needed in wait.needs:
                if needed.startswith("!"):
                    self.signal(ids[seq], needed[1:])
        return bool(waits)

    def check_ends(self) -> None:
        now = self.compare(every=True)
        for id, batch in now.batches.items():
            assert batch.state != "running"
            assert (batch.cancelled_at is not None) == (batch.state == "cancelled")
            if batch.state == "failed":
                # A member has expired, or could not be revived since its key was taken.
                has_lost = any(
                    row.state == "expired" or (row.state == "cancelled" and row.key)
                    for row in now.members(id)
                )
                assert id in self.hopeless or has_lost, f"{id} could have succeeded"
        for id, batch_id in self.callbacks.batch_of.items():
            if id not in now.jobs or batch_id not in now.batches:
                continue
            row, batch = now.jobs[id], now.batches[batch_id]
            if CALLBACKS[row.task] == "success":
                assert row.state == ("succeeded" if batch.state == "succeeded" else "cancelled")
            elif CALLBACKS[row.task] == "end":
                assert row.state == "succeeded"
        # A batch whose parent was cancelled is cancelled, if it had not ended before. One that had may run again after
        # a replay.
        for id, batch_id in self.parents.items():
            parent, children = now.jobs.get(id), now.batches.get(batch_id)
            if parent is None or children is None or parent.state != "cancelled":
                continue
            assert parent.finished_at is not None
            assert children.ended_at is not None
            if not any(row.replays or row.replay_of for row in now.members(batch_id)):
                assert children.state == "cancelled" or children.ended_at <= parent.finished_at


STORIES: Final = 10
STEPS: Final = 60


def tell_workflows(make_rig: MakeRig, *, seed: int, seconds: float) -> Figures:
    """Run the machine on fresh stores, with other stories in each round."""
    told = 0
    for number in rounds(seconds, least=1):
        machine = type("Machine", (WorkflowMachine,), {"make_rig": staticmethod(make_rig)})
        run_state_machine_as_test(
            seeded(seed + number)(machine),
            settings=settings(
                max_examples=STORIES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        told += STORIES
    return {"stories": told, "steps in each, at most": STEPS, "contradictions": 0, "stuck jobs": 0}


@pytest.mark.slow
@pytest.mark.timeout(420)  # when it fails: the story is made as short as can be
@pytest.mark.parametrize("kind", STORES)
def test_workflows_in_any_story_contradict_no_rule_and_come_to_an_end(
    kind: str, seed: int, request: pytest.FixtureRequest, seconds: float
) -> None:
    make_rig = maker(kind, lambda: request.getfixturevalue("postgres"))
    tell_workflows(make_rig, seed=seed, seconds=seconds)
