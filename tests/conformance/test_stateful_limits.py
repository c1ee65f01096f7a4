"""The machine of the store with lanes, ordered lanes and limits that change while jobs run.

What the model adds: no claim starts a job that a limit holds back, and with free slots none leaves a job that nothing
holds back, nor serves a lane twice before another once.  A round says when the next token is there.  No call adds jobs
that a queue has no room for.  The store says of each job what it waits for, and a repair of the list of lanes finds
nothing to do.
"""

from collections import Counter
from collections.abc import Container, Sequence
from typing import ClassVar, Final, Literal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from jobrunner.core.errors import QueueFull, StoreError
from jobrunner.core.limits import Limit, LimitName, RateLimit, Wait
from jobrunner.core.model import Claim, Claimed, Enqueue, Enqueued, Filter
from jobrunner.store import rules
from jobrunner.store.limits import GRAIN_US, SKEW_US, SLACK_US
from jobrunner.store.round import Round, Written
from tests.conformance.rigs import STORES, maker
from tests.conformance.test_stateful import STEP_US, TASKS, WORKERS, Job, StoreMachine, tell_stories
from tests.support.factories import SECOND, claim_of, new

LANES: Final = {
    "work": (None, "work[1]", "work[1]", "work[2]", "work[3]"),
    "play": ("play[1]",),
}
"""The lanes of each task; that of ``play`` is ordered."""
IS_ORDERED: Final[dict[str, Literal[True] | None]] = {"work": None, "play": True}
QUEUES: Final = ("default", "mail")
QUEUE: Final = LimitName("queue", "default")
NAMES: Final = (
    QUEUE,
    LimitName("task", "work"),
    LimitName("lanes", "work"),
    LimitName("lane", "work[1]"),
)
ORDERED: Final = LimitName("lanes", "play")
RATES: Final = (
    RateLimit(1, 10 * SECOND),
    RateLimit(3, 10 * SECOND),
    RateLimit(1, 5 * SECOND, burst=2),
)

SOME: Final = (Limit(1), Limit(2), *(Limit(rate=rate) for rate in RATES))


class ModelBucket:
    """The tokens of one rate, as instants at which the bucket is full again.

    If the clock was set back, the store corrects a bucket when it reads it; the model does not always know when that
    is.  So the store's bucket is full at ``soonest``, at ``latest`` or between them; without such a clock both are the
    same.
    """

    def __init__(self) -> None:
        self.soonest = self.latest = 0

    def take(self, rate: RateLimit, now: int) -> None:
        interval = -(-rate.per // rate.starts)
        self.soonest = max(self.soonest, now) + interval
        self.latest = max(self.latest, now) + interval

    def set_back(self, rate: RateLimit, now: int) -> None:
        """Correct it as a claim at this time may do."""
        self.soonest = _corrected(self.soonest, rate, now)

    def read(self, rate: RateLimit, now: int) -> None:
        """Correct it as a claim at this time has done."""
        self.soonest = _corrected(self.soonest, rate, now)
        self.latest = _corrected(self.latest, rate, now)

    def prune(self, before: int) -> None:
        """Forget instants before this one; a bucket without one is full."""
        self.soonest = 0 if self.soonest < before else self.soonest
        self.latest = 0 if self.latest < before else self.latest

    def may_have_token(self, rate: RateLimit, now: int) -> bool:
        return now >= _next_at(rate, self.soonest)

    def has_token(self, rate: RateLimit, now: int) -> bool:
        return now >= _next_at(rate, self.latest)


def _depth(rate: RateLimit) -> int:
    return -(-rate.burst * rate.per // rate.starts) + SLACK_US


def _corrected(full_at: int, rate: RateLimit, now: int) -> int:
    fullest = now + _depth(rate)
    return fullest if full_at > fullest + SKEW_US else full_at


def _next_at(rate: RateLimit, full_at: int) -> int:
    """Return when a bucket has a token."""
    return full_at - _depth(rate) - (-rate.per // rate.starts)


def _text(name: LimitName) -> str:
    return name.name if name.scope == "lane" else f"{name.scope} {name.name}"


class LimitedMachine(StoreMachine):
    """The stories of the store, with limits and with lanes over two queues."""

    queues: ClassVar[Sequence[str]] = QUEUES

    def __init__(self) -> None:
        super().__init__()
        self.latest = self.now
        """The latest time of the story."""
        self.repaired = True
        """True if the list of lanes was repaired since the clock was last set back."""
        self.limits: dict[LimitName, Limit] = {}
        self.buckets: dict[LimitName, ModelBucket] = {}
        self.waits_for_token: list[int] = []
        """The time at which the jobs have tokens that the last claim has left."""

    @initialize(
        number=st.integers(1, 3),
        rate=st.sampled_from([None, None, *RATES]),
        more=st.lists(
            st.tuples(st.sampled_from([*NAMES, ORDERED]), st.sampled_from(SOME)), max_size=2
        ),
    )
    def lanes_are_limited(
        self, number: int, rate: RateLimit | None, more: list[tuple[LimitName, Limit]]
    ) -> None:
        self.set(ORDERED, Limit(1))
        self.set(LimitName("lanes", "work"), Limit(number, rate))
        for name, limit in more:
            if name != ORDERED or limit.concurrency is None:
                self.set(name, limit)

    @rule(name=st.sampled_from(NAMES), number=st.integers(1, 3))
    def limit(self, name: LimitName, number: int) -> None:
        self.set(name, Limit(number))

    @rule(name=st.sampled_from([*NAMES, ORDERED]), rate=st.sampled_from(RATES))
    def limit_rate(self, name: LimitName, rate: RateLimit) -> None:
        self.set(name, Limit(rate=rate))

    @rule(number=st.integers(3, 8))
    def limit_waiting(self, number: int) -> None:
        self.set(QUEUE, Limit(max_waiting=number))

    def set(self, name: LimitName, limit: Limit) -> None:
        row = self.do(self.rig.store.limits.set(name, limit, now=self.now))
        self.limits[name] = self.limits.get(name, Limit()).overridden(limit)
        assert row.limit == self.limits[name]

    @rule(name=st.sampled_from(NAMES))
    def unlimit(self, name: LimitName) -> None:
        assert self.do(self.rig.store.limits.reset(name)) == (name in self.limits)
        self.limits.pop(name, None)

    @rule(
        task=st.sampled_from(sorted(LANES)),
        queue=st.sampled_from(QUEUES),
        slots=st.integers(1, 5),
    )
    def jobs_of_a_lane_arrive_and_one_starts_and_then_those_that_may(
        self, task: str, queue: str, slots: int
    ) -> None:
        if self.paused:
            self.pause_or_resume()
        self.join(WORKERS[0])
        lane, ordered = f"{task}[1]", IS_ORDERED[task]
        jobs = [
            new(task, created_at=self.now, run_at=self.now, lane=lane)._replace(
                ordered=ordered, queue=one
            )
            for one in ("default", queue, "default")
        ]
        claim = claim_of(worker=WORKERS[0], slots=1, tasks=[task])
        self.write(Round(self.now, promote_due=True, enqueues=jobs, claim=claim))
        self.claim_many(WORKERS[0], slots)

    @precondition(lambda self: self.alive)
    @rule(time=st.integers(0, 2), slots=st.integers(2, 6))
    def a_worker_claims_many(self, time: int, slots: int) -> None:
        self.now += time * STEP_US
        self.claim_many(min(self.alive), slots)

    @rule(data=st.data(), rounds=st.integers(2, 6), slots=st.integers(1, 4))
    def a_worker_goes_on_with_its_work(self, data: st.DataObject, rounds: int, slots: int) -> None:
        """Jobs arrive, start and end; the other rules seldom come in this order."""
        if self.paused:
            self.pause_or_resume()
        worker = WORKERS[0]
        self.join(worker)
        for _ in range(rounds):
            self.now += data.draw(st.sampled_from([0, 0, STEP_US]))
            running = [one for one in self.claims if self.is_running(one)]
            ended = [one for one in running if data.draw(st.booleans())]
            work = Round(
                self.now,
                outcomes=[self.some_outcome(data, one) for one in ended],
                promote_due=True,
                enqueues=[self.some_job(data) for _ in range(data.draw(st.integers(0, 3)))],
                claim=claim_of(*QUEUES, worker=worker, slots=slots, tasks=TASKS),
            )
            self.write(work)

    def is_running(self, claimed: Claimed) -> bool:
        job = self.jobs.get(claimed.id)
        return job is not None and (job.state, job.lease) == ("running", claimed.lease)

    @rule(data=st.data(), slots=st.integers(1, 4))
    def jobs_kill_two_workers_and_are_suspects(self, data: st.DataObject, slots: int) -> None:
        self.a_worker_goes_on_with_its_work(data=data, rounds=1, slots=slots)
        self.die(WORKERS[0], others=False)
        for _ in range(2):
            # In the second round because of the rates.
            self.a_worker_goes_on_with_its_work(data=data, rounds=2, slots=slots)
            self.die(WORKERS[0], others=False)
        self.a_worker_goes_on_with_its_work(data=data, rounds=3, slots=slots)

    def claim_many(self, worker: int, slots: int) -> None:
        claim = claim_of(*QUEUES, worker=worker, slots=slots, tasks=TASKS)
        self.write(Round(self.now, promote_due=True, claim=claim))

    @rule(seconds=st.integers(1, 30))
    def the_clock_steps_back(self, seconds: int) -> None:
        super().the_clock_steps_back(seconds)
        self.repaired = False

    @precondition(lambda self: self.alive)
    @rule(seconds=st.integers(1, 30), time=st.integers(0, 2))
    def the_clock_steps_back_and_a_chore_repairs_the_list(self, seconds: int, time: int) -> None:
        self.the_clock_steps_back(seconds)
        self.repair()
        self.claim_many(min(self.alive), 9)
        self.now += time * STEP_US
        self.claim_many(min(self.alive), 9)

    def repair(self) -> int:
        self.repaired = True
        return self.do(self.rig.store.limits.repair(now=self.now))

    @rule(steps=st.integers(0, 3))
    def full_buckets_are_deleted(self, steps: int) -> None:
        before = self.now - steps * STEP_US
        self.do(self.rig.store.limits.prune(before=before))
        for bucket in self.buckets.values():
            bucket.prune(before)

    def some_job(self, data: st.DataObject) -> Enqueue:
        job = super().some_job(data)
        job = job._replace(queue=data.draw(st.sampled_from(["default", *QUEUES])))
        lane = data.draw(st.sampled_from(LANES[job.task]))
        ordered = IS_ORDERED[job.task]
        if ordered:
            job = job._replace(priority=0, run_at=self.now, expires_at=None)
        return job._replace(lane=lane, ordered=ordered)

    def time_passes(self) -> None:
        self.now += STEP_US
        self.repair()

    def write(self, request: Round) -> None:
        super().write(request)
        self.latest = max(self.latest, self.now)
        if not request.promote_due:
            return
        self.do(self.check_waits())
        # If the clock was set back, turns and waits of before lie ahead.
        if self.now == self.latest:
            assert self.repair() == 0, "the list of lanes was wrong"

    # -- max_waiting -----------------------------------------------------------------------------------

    def waiting(self) -> int:
        jobs = self.jobs.values()
        return sum((job.state, job.enqueue.queue) == ("queued", "default") for job in jobs)

    def due_of(self, call: Sequence[Enqueue]) -> int:
        """Return the number of jobs of a call that would wait now."""
        keys = {(job.enqueue.task, job.enqueue.key) for job in self.jobs.values() if job.unfinished}
        for job in call:
            if job.key is None or (job.task, job.key) not in keys:
                # The others of a chain are blocked by the first one that is stored.
                return int(job.run_at <= self.now and job.queue == "default")
        return 0

    def stored(self, jobs: Sequence[Enqueue], made: Sequence[Enqueued | StoreError]) -> None:
        most = self.limits.get(QUEUE, Limit()).max_waiting
        at = 0
        for call in rules.units(jobs):
            answers = made[at : at + len(call)]
            at += len(call)
            due = self.due_of(call)
            if most is not None and due and self.waiting() + due > most:
                assert all(isinstance(one, QueueFull) for one in answers), f"{call} was stored"
            else:
                super().stored(call, answers)

    # -- concurrency, rates and order ------------------------------------------------------------------

    def limits_of(self, job: Job) -> list[tuple[LimitName, Limit, int]]:
        """Return the limits of a job, each with the number of running jobs that it counts."""
        lane, task, queue = job.enqueue.lane, job.enqueue.task, job.enqueue.queue
        running = [one.enqueue for one in self.jobs.values() if one.state == "running"]
        of_queue, of_task, none = LimitName("queue", queue), LimitName("task", task), Limit()
        found = [
            (of_queue, self.limits.get(of_queue, none), sum(one.queue == queue for one in running)),
            (of_task, self.limits.get(of_task, none), sum(one.task == task for one in running)),
        ]
        if lane is not None:
            name = LimitName("lane", lane)
            limit = self.limits.get(LimitName("lanes", task), none)
            limit = limit.overridden(self.limits.get(name, none))
            found.append((name, limit, sum(one.lane == lane for one in running)))
        return found

    def older_in_lane(self, job: Job) -> Job | None:
        """Return the oldest unfinished job that is before this one in an ordered lane."""
        older = (
            one
            for one in self.jobs.values()
            if one.enqueue.lane == job.enqueue.lane
            and one.age < job.age
            and one.state in {"scheduled", "queued", "running"}
        )
        return min(older, key=lambda one: one.age, default=None) if job.enqueue.ordered else None

    def is_held_back(self, job: Job) -> bool:
        """Return whether a concurrency or the order of its lane holds a queued job back."""
        return self.older_in_lane(job) is not None or any(
            limit.concurrency is not None and running >= limit.concurrency
            for _, limit, running in self.limits_of(job)
        )

    def rates_of(self, job: Job) -> list[tuple[LimitName, ModelBucket, RateLimit]]:
        return [
            (name, self.bucket(name), limit.rate)
            for name, limit, _ in self.limits_of(job)
            if limit.rate is not None
        ]

    def bucket(self, name: LimitName) -> ModelBucket:
        return self.buckets.setdefault(name, ModelBucket())

    def check_claimed(
        self, claim: Claim | None, claimed: Sequence[Claimed], *, promoted: bool
    ) -> None:
        self.waits_for_token = []
        if claim is None:
            assert not claimed
            return
        self.read_buckets(claim)
        ready = {job.enqueue.id for job in self.ready(claim)}
        for one in claimed:
            job = self.jobs[one.id]
            assert one.id in ready
            assert not self.is_held_back(job), f"{job} was started"
            for _, bucket, rate in self.rates_of(job):
                assert bucket.may_have_token(rate, self.now), f"{job} was started without a token"
                bucket.take(rate, self.now)
            self.claimed(one)
        started = Counter(one.queue for one in claimed)
        assert all(started[queue] <= slots for queue, slots in claim.slots.items())
        assert sum(bool(one.suspect) for one in claimed) <= (1 if claim.suspects else 0)
        # Before a round looks for what is due, an expired job may still stand first in its lane.
        if promoted:
            self.check_left(claim, claimed)

    def read_buckets(self, claim: Claim) -> None:
        """Correct buckets of before the clock was set back: a claim reads those of its queues and tasks."""
        for job in self.jobs.values():
            for _, bucket, rate in self.rates_of(job):
                bucket.set_back(rate, self.now)
        of_claim: dict[str, Container[str]] = {"queue": claim.slots, "task": claim.tasks}
        for name, limit in self.limits.items():
            if limit.rate is not None and name.name in of_claim.get(name.scope, ()):
                self.bucket(name).read(limit.rate, self.now)

    def check_left(self, claim: Claim, claimed: Sequence[Claimed]) -> None:
        """With free slots a claim leaves no job that may start, and serves no lane twice before another once."""
        started = Counter(one.queue for one in claimed)
        served = Counter((one.queue, one.lane) for one in claimed if one.lane and not one.suspect)
        twice = {queue for (queue, _), number in served.items() if number > 1}
        for job in self.ready(claim):
            queue, lane = job.enqueue.queue, job.enqueue.lane
            has_slot = started[queue] < claim.slots[queue]
            is_next = queue in twice and lane is not None and not served[queue, lane]
            if job.suspect or self.is_held_back(job) or not (has_slot or is_next):
                continue
            empty = self.empty_buckets(job)
            assert empty, f"{job} was left"
            if has_slot:
                self.waits_for_token.append(max(empty))

    def empty_buckets(self, job: Job) -> list[int]:
        """Return when each empty bucket of a job has a token, after a claim that could have started it."""
        empty: list[int] = []
        for name, bucket, rate in self.rates_of(job):
            # The claim has read it: nothing else holds the job back, and no lane waits for an instant of before.
            if name.scope == "lane" and not empty and self.repaired:
                bucket.read(rate, self.now)
            if not bucket.has_token(rate, self.now):
                empty.append(_next_at(rate, bucket.latest))
        return empty

    # -- what a job waits for ----------------------------------------------------------------------------

    async def check_waits(self) -> None:
        """The store says of each queued job what it waits for."""
        store = self.rig.store
        rows = (await store.jobs.list(Filter(state="queued"), before=None, limit=1_000)).rows
        waits = await store.limits.waits(rows, now=self.now)
        assert waits.keys() <= {row.seq for row in rows}
        for row in rows:
            expected = self.waits_of(self.jobs[row.id])
            found = waits.get(row.seq)
            about = found and found._replace(next_at=0)
            assert {found, about} & set(expected), f"{found} is none of {expected}"

    def waits_of(self, job: Job) -> list[Wait | None]:
        """Return the wait of a queued job; several without an instant if the bucket may have been corrected."""
        older = self.older_in_lane(job)
        if older is not None:
            return [Wait("order", older.enqueue.id)]
        for name, limit, running in self.limits_of(job):
            if limit.concurrency is not None and running >= limit.concurrency:
                return [Wait("limit", _text(name), running, limit.concurrency)]
        possible: list[Wait | None] = []
        for name, bucket, rate in self.rates_of(job):
            first, last = (
                _next_at(rate, _corrected(full_at, rate, self.now))
                for full_at in (bucket.soonest, bucket.latest)
            )
            if last > self.now:
                at = -(-last // GRAIN_US) * GRAIN_US if first == last else 0
                possible.append(Wait("rate", _text(name), next_at=at))
            if first > self.now:
                return possible
        return [*possible, None]

    def check_next_due(self, written: Written) -> None:
        """A round says when jobs are due, or the next token of one that waits for it."""
        due, next_due = self.next_due(), written.next_due
        latest = [] if due is None else [due]
        latest += [-(-at // GRAIN_US) * GRAIN_US for at in self.waits_for_token]
        if latest:
            assert next_due is not None
            assert next_due <= min(latest)
        if next_due is not None and next_due != due:
            assert next_due > self.now, "a round for each token, and none more"


@pytest.mark.slow
@pytest.mark.timeout(420)  # when it fails: the story is made as short as can be
@pytest.mark.parametrize("kind", STORES)
def test_store_with_limits_in_any_story_starts_what_it_may_and_nothing_else(
    kind: str, seed: int, request: pytest.FixtureRequest, seconds: float
) -> None:
    make_rig = maker(kind, lambda: request.getfixturevalue("postgres"))
    tell_stories(make_rig, seed=seed, seconds=seconds, machine_class=LimitedMachine)
