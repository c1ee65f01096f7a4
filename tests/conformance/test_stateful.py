"""The store against a model of plain dicts, through stories that Hypothesis makes up.

The model says what each verb does to one job.  The machine compares all rows after each step, and with them that no job
is lost or doubled, that leases only grow, that a stale outcome changes nothing, that no dead worker holds a job, and
that what is blocked waits for a job that is there and unfinished, and not for ever.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, TypeVar

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

from jobrunner.core.errors import (
    AlreadyReplayed,
    InvalidOptions,
    JobNotFound,
    JobNotWaiting,
    KeyTaken,
    StoreError,
)
from jobrunner.core.model import (
    LOST_LIMIT,
    Claim,
    Claimed,
    Enqueue,
    Enqueued,
    Filter,
    Outcome,
    chained,
)
from jobrunner.store.round import Round, Written
from tests.conformance.rigs import STORES, MakeRig, Rig, maker
from tests.soak.budget import Figures, rounds
from tests.support.factories import NOW, OUTCOMES, SECOND, claim_of, new, succeeded, worker_row

T = TypeVar("T")

WORKERS: Final = (1, 2, 3)
TASKS: Final = ("work", "play")
MAX_ATTEMPTS: Final = {"work": 4, "play": None}
STEP_US: Final = 10 * SECOND

TIMES = st.integers(min_value=0, max_value=4).map(lambda n: n * STEP_US)


@dataclass
class Job:
    """A job in the model; ``lease`` is the lease of its last attempt."""

    enqueue: Enqueue
    age: int
    state: str
    run_at: int
    attempt: int = 0
    lease: int = 0
    worker: int | None = None
    expires_at: int | None = None
    finished_at: int | None = None
    cancel_requested: bool = False
    crashes: int = 0
    suspect: bool = False
    replays: int = 0
    replayed_as: str | None = None
    chain: str | None = None
    after: str | None = None
    attempts: dict[int, str | None] = field(default_factory=dict)
    """The outcome of each attempt, by lease; None for the running one."""

    @property
    def unfinished(self) -> bool:
        return self.state in {"scheduled", "queued", "running", "blocked"}

    def stop(self, outcome: str, state: str) -> None:
        """End the running attempt."""
        self.attempts[self.lease] = outcome
        self.state, self.worker = state, None


class StoreMachine(RuleBasedStateMachine):
    """Stories of enqueue, claim, settle, cancel, death, replay and time."""

    make_rig: MakeRig
    queues: ClassVar[Sequence[str]] = ("default",)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.ending = ExitStack()
        self.rig: Rig = self.ending.enter_context(type(self).make_rig())
        self.do(self.rig.open())
        self.now = NOW
        self.jobs: dict[str, Job] = {}
        self.claims: list[Claimed] = []
        """Every attempt that was ever granted, stale ones too."""
        self.alive: set[int] = set()
        self.paused = False
        self.gone = 0

    def do(self, verb: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(verb)

    def teardown(self) -> None:
        self.do(self.rig.close())
        self.runner.close()
        self.ending.close()

    # -- what the model knows ------------------------------------------------------------------

    def holder(self, task: str, key: str | None) -> Job | None:
        return next(
            (
                job
                for job in self.jobs.values()
                if key is not None
                and job.unfinished
                and (job.enqueue.task, job.enqueue.key) == (task, key)
            ),
            None,
        )

    def pick(self, data: st.DataObject, *states: str) -> Job:
        return data.draw(
            st.sampled_from([job for job in self.jobs.values() if job.state in states])
        )

    def any_in(self, *states: str) -> bool:
        return any(job.state in states for job in self.jobs.values())

    def ended(self, job: Job) -> None:
        """Unblock, or cancel, the jobs behind a job that has ended."""
        for behind in self.jobs.values():
            if behind.state != "blocked" or behind.after != job.enqueue.id:
                continue
            if job.state in {"succeeded", "dead"}:
                behind.state = "queued" if behind.run_at <= self.now else "scheduled"
                # Also when the clock has stepped back since it was made.
                if behind.run_at <= behind.enqueue.created_at:
                    behind.state = "queued"
                behind.run_at = max(behind.run_at, self.now)
            else:
                behind.state, behind.finished_at = "cancelled", self.now
                self.ended(behind)

    # -- workers ------------------------------------------------------------------------------------

    @initialize()
    def one_joins(self) -> None:
        self.join(WORKERS[0])

    @rule(worker=st.sampled_from(WORKERS))
    def join(self, worker: int) -> None:
        if worker not in self.alive:
            row = worker_row(worker, tasks=MAX_ATTEMPTS, now=self.now)
            self.do(self.rig.store.workers.join(row, lambda: None))
            self.alive.add(worker)

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.sign_off(data.draw(st.sampled_from(sorted(self.alive))))

    def sign_off(self, worker: int) -> None:
        self.do(self.rig.store.workers.leave(worker, now=self.now))
        self.alive.discard(worker)
        for job in self.jobs.values():
            if job.worker == worker:
                job.stop("released", "cancelled" if job.cancel_requested else "queued")
                job.attempt -= 1
                if job.state == "cancelled":
                    job.finished_at = self.now
                    self.ended(job)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), others=st.booleans())
    def die_and_be_recovered(self, data: st.DataObject, others: bool) -> None:
        self.die(data.draw(st.sampled_from(sorted(self.alive))), others=others)

    def die(self, worker: int, *, others: bool) -> None:
        self.rig.kill_worker(worker)
        self.alive.discard(worker)
        found = self.do(self.rig.store.workers.recover(now=self.now, thorough=others))
        assert found.workers == [worker]
        buried = set()
        for job in list(self.jobs.values()):
            if job.worker == worker:
                self.lose(job)
                if not job.unfinished:
                    self.ended(job)
                if job.state == "dead":
                    buried.add(job.enqueue.id)
        assert set(found.buried) == buried

    def lose(self, job: Job) -> None:
        most = job.enqueue.max_attempts or MAX_ATTEMPTS[job.enqueue.task]
        deaths = job.crashes + 1
        if job.cancel_requested:
            job.stop("lost", "cancelled")
            job.finished_at = self.now
            return
        job.crashes = deaths
        if job.attempt >= most if most is not None else deaths >= LOST_LIMIT:
            job.stop("lost", "dead")
            job.finished_at = self.now
        else:
            job.stop("lost", "queued")
            job.suspect = deaths >= 2 or (most is not None and job.attempt + 1 >= most)

    # -- rounds -----------------------------------------------------------------------------------------

    @rule(
        data=st.data(),
        time=TIMES,
        count=st.integers(0, 3),
        look=st.booleans(),
        claims=st.booleans(),
        settles=st.booleans(),
    )
    def round(
        self, data: st.DataObject, time: int, count: int, look: bool, claims: bool, settles: bool
    ) -> None:
        self.now += time
        outcomes = self.some_outcomes(data) if settles and self.claims else []
        enqueues = [job for _ in range(count) for job in self.some_unit(data)]
        claim = None
        if claims and self.alive:
            claim = claim_of(
                *self.queues,
                worker=data.draw(st.sampled_from(sorted(self.alive))),
                slots=data.draw(st.integers(1, 3)),
                tasks=data.draw(st.sampled_from([TASKS, TASKS[:1], TASKS[1:]])),
                suspects=data.draw(st.booleans()),
            )
        self.write(
            Round(self.now, outcomes=outcomes, promote_due=look, enqueues=enqueues, claim=claim)
        )

    def write(self, request: Round) -> None:
        """Write a round, and do the same to the model."""
        outcomes, enqueues, claim, look = (
            request.outcomes,
            request.enqueues,
            request.claim,
            request.promote_due,
        )
        written = self.do(self.rig.store.write(request))
        stale = sorted(written.stale, key=outcomes.index)
        assert stale == [one for one in outcomes if not self.settled(one)]
        if look:
            self.promote_due()
            assert not written.more_due
        self.stored(enqueues, written.enqueued)
        self.check_claimed(claim, written.claimed, promoted=look)
        if look:
            self.check_next_due(written)

    def some_unit(self, data: st.DataObject) -> Sequence[Enqueue]:
        """Draw a job, or a chain of a few."""
        length = data.draw(st.sampled_from([1, 1, 2, 3]))
        return chained([self.some_job(data) for _ in range(length)])

    def some_job(self, data: st.DataObject) -> Enqueue:
        run_at = self.now + data.draw(TIMES)
        return new(
            data.draw(st.sampled_from(TASKS)),
            created_at=self.now,
            run_at=run_at,
            priority=data.draw(st.integers(0, 1)),
            key=data.draw(st.sampled_from([None, None, "a", "b"])),
            expires_at=data.draw(st.sampled_from([None, None, run_at + STEP_US])),
            max_attempts=data.draw(st.sampled_from([None, None, 1, 2])),
        )

    def some_outcomes(self, data: st.DataObject) -> list[Outcome]:
        """Draw outcomes of attempts, running or stale; each attempt ends in one way, as the executor has it."""
        attempts = data.draw(st.lists(st.sampled_from(self.claims), unique=True, max_size=3))
        return [self.some_outcome(data, claimed) for claimed in attempts]

    def some_outcome(self, data: st.DataObject, claimed: Claimed) -> Outcome:
        kind = data.draw(st.sampled_from(sorted(OUTCOMES.keys() - {"parked"})))
        outcome = OUTCOMES[kind](claimed)
        outcome = outcome._replace(ended=outcome.ended._replace(at=self.now))
        if "run_at" in outcome._fields:
            outcome = outcome._replace(run_at=self.now + data.draw(TIMES))  # type: ignore[call-arg]
        return outcome

    def settled(self, outcome: Outcome) -> bool:
        """Do to the model what an outcome does; return False if it is stale."""
        claimed, ended = outcome.job, outcome.ended
        job = self.jobs.get(claimed.id)
        if job is None or (job.lease, job.worker) != (claimed.lease, claimed.worker):
            return False
        kind = type(outcome).__name__
        if kind in {"RetryAt", "Snoozed", "Released"} and job.cancel_requested:
            kind = "Cancelled"
        states = {
            "Succeeded": "succeeded",
            "RetryAt": "scheduled",
            "Snoozed": "scheduled",
            "Released": "queued",
            "Cancelled": "cancelled",
            "Dead": "dead",
        }
        job.stop(ended.outcome, states[kind])
        if kind in {"Succeeded", "Cancelled", "Dead"}:
            job.finished_at = ended.at
            self.ended(job)
        if kind in {"Snoozed", "Released"}:
            job.attempt -= 1
        if kind in {"RetryAt", "Snoozed"}:
            job.run_at = outcome.run_at  # type: ignore[union-attr]
        if kind in {"RetryAt", "Snoozed", "Succeeded"}:
            job.suspect = False
        return True

    def promote_due(self) -> None:
        for job in self.jobs.values():
            if job.state in {"scheduled", "queued"}:
                if job.expires_at is not None and job.expires_at <= self.now:
                    job.state, job.finished_at = "expired", self.now
                    self.ended(job)
                elif job.run_at <= self.now:
                    job.state = "queued"

    def check_next_due(self, written: Written) -> None:
        assert written.next_due == self.next_due()

    def next_due(self) -> int | None:
        waiting = [job for job in self.jobs.values() if job.state in {"scheduled", "queued"}]
        due = [job.run_at for job in waiting if job.state == "scheduled"]
        due += [job.expires_at for job in waiting if job.expires_at is not None]
        return min(due, default=None)

    def stored(self, jobs: Sequence[Enqueue], made: Sequence[Enqueued | StoreError]) -> None:
        """Add what was stored to the model; those of a chain follow the last one before them that was."""
        last: dict[str, tuple[str, str]] = {}
        for job, one in zip(jobs, made, strict=True):
            assert isinstance(one, Enqueued)
            if job.chain is None:
                self.enqueued(job, one)
                continue
            chain, after = last.get(job.chain, (job.id, None))
            self.enqueued(job._replace(chain=chain, after=after), one)
            if one.created:
                last[job.chain] = chain, job.id

    def enqueued(self, job: Enqueue, made: Enqueued) -> None:
        holder = self.holder(job.task, job.key)
        if holder is not None:
            assert (made.id, made.created, made.state) == (holder.enqueue.id, False, holder.state)
            return
        state = "queued" if job.run_at <= self.now else "scheduled"
        if job.after is not None and job.replay_of is None:
            state = "blocked"
        assert (made.id, made.created, made.state) == (job.id, True, state)
        age = len(self.jobs) + self.gone
        self.jobs[job.id] = Job(
            job,
            age,
            state,
            job.run_at,
            expires_at=job.expires_at,
            chain=job.chain,
            after=job.after,
        )

    def check_claimed(
        self, claim: Claim | None, claimed: Sequence[Claimed], *, promoted: bool
    ) -> None:
        """Compare what a claim has started with what it should, and start it in the model."""
        expected = [] if claim is None else self.claimable(claim)
        assert [job.id for job in claimed] == [job.enqueue.id for job in expected]
        for one in claimed:
            self.claimed(one)

    def ready(self, claim: Claim) -> list[Job]:
        """Return the jobs that a claim could take without limits, in order."""
        return sorted(
            (
                job
                for job in self.jobs.values()
                if job.state == "queued"
                and job.enqueue.queue in claim.slots
                and not (self.paused and job.enqueue.queue == "default")
                and job.enqueue.task in claim.tasks
                and (job.expires_at is None or job.expires_at > self.now)
            ),
            key=claim_order,
        )

    def claimable(self, claim: Claim) -> list[Job]:
        """Return the jobs that a claim takes, in order."""
        free = claim.slots["default"]
        ready = self.ready(claim)
        suspects = [job for job in ready if job.suspect][: 1 if claim.suspects else 0]
        innocent = [job for job in ready if not job.suspect][: free - len(suspects)]
        return sorted(suspects + innocent, key=claim_order)

    def claimed(self, claimed: Claimed) -> None:
        job = self.jobs[claimed.id]
        assert claimed.lease == job.lease + 1
        assert claimed.attempt == job.attempt + 1
        assert bool(claimed.suspect) == job.suspect
        job.state, job.worker = "running", claimed.worker
        job.lease, job.attempt = claimed.lease, claimed.attempt
        job.attempts[job.lease] = None
        self.claims.append(claimed)

    # -- what people do ----------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        before = self.do(self.rig.store.jobs.cancel(job.enqueue.id, now=self.now))
        assert before is not None
        assert before.state == job.state
        if job.state in {"scheduled", "queued", "blocked"}:
            job.state, job.finished_at = "cancelled", self.now
            self.ended(job)
        elif job.state == "running":
            job.cancel_requested = True

    @rule(task=st.sampled_from([None, *TASKS]), limit=st.integers(1, 3))
    def cancel_all(self, task: str | None, limit: int) -> None:
        where = Filter(task=task)
        plan = self.do(self.rig.store.jobs.plan_cancel_all(where))
        cancelled, requested, cursor = 0, 0, None
        while True:
            done = self.do(
                self.rig.store.jobs.cancel_all(where, before=cursor, now=self.now, limit=limit)
            )
            cancelled, requested = cancelled + len(done.cancelled), requested + len(done.requested)
            cursor = done.cursor
            if cursor is None:
                break
        waiting = [job for job in self.jobs.values() if job.unfinished and job.state != "running"]
        for job in sorted(self.jobs.values(), key=lambda job: -job.age):
            if task is not None and job.enqueue.task != task:
                continue
            if job.state == "running":
                job.cancel_requested = True
                requested -= 1
            elif job.unfinished:
                job.state, job.finished_at = "cancelled", self.now
                self.ended(job)
        gone = sum(job.state == "cancelled" for job in waiting)
        assert (cancelled, requested) == (gone, 0)
        assert plan.cancelled == gone

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), later=TIMES)
    def reschedule(self, data: st.DataObject, later: int) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        run_at = self.now + later
        verb = self.rig.store.jobs.reschedule(job.enqueue.id, run_at=run_at, now=self.now)
        if job.state not in {"scheduled", "queued"}:
            self.refused(JobNotWaiting, verb)
        elif later == 0:
            self.do(verb)
            job.state, job.run_at = "queued", min(job.run_at, self.now)
        elif job.expires_at is not None and job.expires_at <= run_at:
            self.refused(InvalidOptions, verb)
        else:
            self.do(verb)
            job.state, job.run_at = "scheduled", run_at

    @precondition(lambda self: self.any_in("dead"))
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        job = self.pick(data, "dead")
        verb = self.rig.store.dead_letters.replay(job.enqueue.id, now=self.now)
        if job.replayed_as is not None:
            self.refused(AlreadyReplayed, verb)
        elif self.holder(job.enqueue.task, job.enqueue.key) is not None:
            self.refused(KeyTaken, verb)
        else:
            self.do(verb)
            self.put_back(job)

    def put_back(self, job: Job) -> None:
        self.jobs[job.enqueue.id] = replace(
            job,
            state="queued",
            run_at=self.now,
            attempt=0,
            expires_at=None,
            finished_at=None,
            cancel_requested=False,
            crashes=0,
            suspect=False,
            replays=job.replays + 1,
        )

    @precondition(lambda self: self.any_in("dead"))
    @rule(data=st.data())
    def replay_edited(self, data: st.DataObject) -> None:
        letter = self.pick(data, "dead")
        job = letter.enqueue._replace(
            id=new().id,
            created_at=self.now,
            run_at=self.now,
            replay_of=letter.enqueue.id,
            expires_at=None,
        )
        verb = self.rig.store.dead_letters.replay_edited(letter.enqueue.id, job)
        if letter.replayed_as is not None:
            self.refused(AlreadyReplayed, verb)
        elif self.holder(job.task, job.key) is not None:
            self.refused(KeyTaken, verb)
        else:
            self.enqueued(job, self.do(verb))
            letter.replayed_as = job.id

    @precondition(lambda self: self.any_in("dead"))
    @rule(limit=st.integers(1, 3))
    def replay_all(self, limit: int) -> None:
        conflicts, replayed, cursor = 0, 0, None
        while True:
            done = self.do(
                self.rig.store.dead_letters.replay_all(
                    Filter(), before=cursor, now=self.now, limit=limit
                )
            )
            replayed, conflicts = replayed + done.replayed, conflicts + done.conflicts
            cursor = done.cursor
            if cursor is None:
                break
        letters = [j for j in self.jobs.values() if j.state == "dead" and j.replayed_as is None]
        assert replayed + conflicts == len(letters)
        for job in letters:
            row = self.do(self.rig.store.jobs.get(job.enqueue.id))
            assert row is not None
            if row.state == "dead":
                conflicts -= 1
            else:
                assert self.holder(job.enqueue.task, job.enqueue.key) is None
                self.put_back(job)
        assert conflicts == 0
        for job in letters:
            if self.jobs[job.enqueue.id].state == "dead":
                assert self.holder(job.enqueue.task, job.enqueue.key) is not None

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def verbs_for_dead_letters_leave_jobs_alone(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        if job.state != "dead":
            self.refused(
                JobNotFound, self.rig.store.dead_letters.replay(job.enqueue.id, now=self.now)
            )
            assert not self.do(self.rig.store.dead_letters.delete(job.enqueue.id))

    def refused(self, error: type[Exception], verb: Coroutine[Any, Any, object]) -> None:
        with pytest.raises(error):
            self.do(verb)

    @precondition(lambda self: self.any_in("dead"))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        job = self.pick(data, "dead")
        assert self.do(self.rig.store.dead_letters.delete(job.enqueue.id))
        self.forget(job)

    @rule()
    def pause_or_resume(self) -> None:
        store = self.rig.store
        self.do(
            store.jobs.resume("default")
            if self.paused
            else store.jobs.pause("default", now=self.now)
        )
        self.paused = not self.paused

    @precondition(lambda self: self.any_in("succeeded", "cancelled", "expired", "dead"))
    @rule(age=TIMES)
    def prune(self, age: int) -> None:
        doomed = [
            job
            for job in self.jobs.values()
            if not job.unfinished and (job.finished_at or 0) < self.now - age
        ]
        pruned = self.do(
            self.rig.store.jobs.prune(
                finished_before=self.now - age,
                by_task={},
                died_before=self.now - age,
                keep_finished=1_000,
                limit=1_000,
            )
        )
        assert pruned == len(doomed)
        for job in doomed:
            self.forget(job)

    def forget(self, job: Job) -> None:
        del self.jobs[job.enqueue.id]
        self.gone += 1

    @precondition(lambda self: self.any_in("blocked"))
    @rule()
    def everybody_works_until_nothing_waits(self) -> None:
        """After every story, with time and a worker, no job stays blocked or unfinished."""
        for worker in sorted(self.alive):
            self.sign_off(worker)
        self.join(WORKERS[0])
        if self.paused:
            self.pause_or_resume()
        self.now += 100 * STEP_US
        for _ in range(2 * len(self.jobs)):
            if not any(job.unfinished for job in self.jobs.values()):
                break
            before = len(self.claims)
            self.time_passes()
            claim = claim_of(*self.queues, slots=99, tasks=TASKS)
            self.write(Round(self.now, promote_due=True, claim=claim))
            ends = [succeeded(job, at=self.now) for job in self.claims[before:]]
            self.write(Round(self.now, outcomes=ends))
        assert not any(job.unfinished for job in self.jobs.values())

    def time_passes(self) -> None:
        """Move the clock on, if jobs need it to start."""

    @rule(seconds=st.integers(1, 30))
    def the_clock_steps_back(self, seconds: int) -> None:
        self.now -= seconds * SECOND

    @rule()
    def the_store_is_opened_again(self) -> None:
        for worker in sorted(self.alive):
            self.sign_off(worker)
        self.do(self.rig.close())
        self.do(self.rig.open())

    # -- what must hold after each step -----------------------------------------------------------------

    @invariant()
    def every_job_is_as_the_model_says_and_there_are_no_others(self) -> None:
        stored = self.do(self.everything())
        assert set(stored) == set(self.jobs)
        for id, job in self.jobs.items():
            row, attempts = stored[id]
            told = (row.state, row.run_at, row.attempt, row.finished_at, row.crashes, row.replays)
            assert told == (
                job.state,
                job.run_at,
                job.attempt,
                job.finished_at,
                job.crashes,
                job.replays,
            )
            if job.state != "dead":
                assert bool(row.cancel_requested) == job.cancel_requested
            assert row.replayed_as == job.replayed_as
            assert (row.chain, row.after) == (job.chain, job.after)
            if row.state == "blocked":
                assert self.jobs[row.after].unfinished
            assert [(one.lease, one.outcome) for one in attempts] == sorted(job.attempts.items())
            if job.state == "running":
                assert attempts[-1].worker in self.alive

    async def everything(self) -> dict[str, Any]:
        store = self.rig.store
        rows = list((await store.jobs.list(Filter(), before=None, limit=1_000)).rows)
        listed = (await store.dead_letters.list(Filter(), before=None, limit=1_000)).rows
        rows += listed
        known = {row.id for row in rows}
        for id, job in self.jobs.items():
            # Those that were replayed with other arguments are in no list.
            if id not in known and job.replayed_as is not None:
                row = await store.jobs.get(id)
                assert row is not None
                rows.append(row)
        return {row.id: (row, await store.jobs.attempts(row.seq)) for row in rows}


def claim_order(job: Job) -> tuple[int, int, int]:
    return (-job.enqueue.priority, job.run_at, job.age)


STORIES = 10
"""Stories per run of Hypothesis; between two runs the time limit is checked."""
STEPS = 40


def tell_stories(
    make_rig: MakeRig,
    *,
    seed: int,
    seconds: float,
    machine_class: type[StoreMachine] = StoreMachine,
) -> Figures:
    """Run the machine on fresh stores, with other stories in each round."""
    told = 0
    for number in rounds(seconds, least=1):
        machine = type("Machine", (machine_class,), {"make_rig": staticmethod(make_rig)})
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
    return {"stories": told, "steps in each, at most": STEPS, "differences from the model": 0}


@pytest.mark.slow
@pytest.mark.timeout(420)  # when it fails: the story is made as short as can be
@pytest.mark.parametrize("kind", STORES)
def test_store_in_any_story_does_what_the_model_does(
    kind: str, seed: int, request: pytest.FixtureRequest, seconds: float
) -> None:
    make_rig = maker(kind, lambda: request.getfixturevalue("postgres"))
    tell_stories(make_rig, seed=seed, seconds=seconds)
