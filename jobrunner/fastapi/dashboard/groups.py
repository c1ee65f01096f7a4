"""The page of groups: dead letters that failed in the same way, and what can be done about them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from starlette.responses import Response

from jobrunner.core.clock import from_us, to_us
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.errors import InvalidOptions, JobNotFound, KeyTaken, UnknownTask
from jobrunner.core.groups import DeadLetterGroup
from jobrunner.core.model import Filter, JobRow
from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.charts import Spark, spark_bars
from jobrunner.fastapi.dashboard.facts import REASONS
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.frames import Piece, pieces_of
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.starts import read_starts, sentence_of, worker_names
from jobrunner.fastapi.dashboard.verdict import started_before
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.replay import fits

SAMPLE: Final = 200
"""The newest dead letters of a group that are read to find what they share."""
NEWEST: Final = 6
FILTERS: Final = ("task", "words")
RATES: Final = (60, 300, 1_000, 0)
"""Jobs per minute; 0 replays all at once."""
DEFAULT_RATE: Final = 300


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group in a list."""

    fingerprint: str
    task: str
    error_type: str
    """The class of the exception, without its module; empty if there was none."""
    message: str
    dead: int
    retrying: int
    since: datetime | None
    first_died_at: datetime | None
    last_died_at: datetime | None
    hours: Spark

    @property
    def title(self) -> str:
        """The error in one line."""
        return ": ".join(part for part in (self.error_type, self.message) if part) or "no error"


@dataclass(frozen=True, slots=True)
class Newest:
    """One of the newest dead letters of a group."""

    id: str
    died_at: datetime
    attempt: int
    message: str


@dataclass(frozen=True, slots=True)
class TestView:
    """The dead letter that was replayed first, to see whether the fault is gone."""

    id: str
    state: str
    look: str
    """`ok`, `bad` or `warn`."""
    text: str


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """The open group, with the plan of its replay."""

    group: GroupView
    sampled: int
    shares: Sequence[tuple[str, str]]
    pieces: Sequence[Piece]
    newest: Sequence[Newest]
    plan: ReplayCounts
    until: str
    """The time after the last death that is counted; what dies later is not replayed with these."""
    started: str
    """The worker that had started shortly before, in words."""
    takes: Sequence[tuple[int, str]]
    """The rates that can be chosen, each with the time until the last job is due."""


@dataclass(frozen=True, slots=True)
class GroupsView:
    """The page."""

    filters: Mapping[str, str]
    """Every one of ``FILTERS``; an empty one is not set."""
    tasks: Sequence[str]
    """The tasks of all groups."""
    groups: Sequence[GroupView]
    """The groups that match, and the open one."""
    total: int
    """The number of all groups."""
    letters: int
    """The dead letters of all groups."""
    ungrouped: int
    complete: bool
    asked: str
    """The group that the address asks for."""
    opened: OpenGroup | None
    test: TestView | None

    @property
    def is_filtered(self) -> bool:
        """True if a filter is set."""
        return any(self.filters.values())


def group_view(group: DeadLetterGroup) -> GroupView:
    """Return a group for a list."""
    return GroupView(
        fingerprint=group.fingerprint,
        task=group.task,
        error_type=(group.error_type or "").rpartition(".")[2],
        message=_first_line(group.error),
        dead=group.count,
        retrying=group.retrying,
        since=group.since,
        first_died_at=group.first_died_at,
        last_died_at=group.last_died_at,
        hours=spark_bars(
            group.deaths_per_hour,
            f"Deaths in each of the last 24 hours of {group.task}",
            bad=group.recent_deaths > 0,
        ),
    )


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _share(values: Iterable[str] | Mapping[str, int]) -> str:
    """Return the most frequent values with their shares.

    For example ``mail 97 %, bulk 3 %``.
    """
    counts = Counter(values)
    total = counts.total()
    if len(counts) == 1:
        return next(iter(counts))
    some = [
        f"{value} {count / total:.0%}".replace("%", " %") for value, count in counts.most_common(3)
    ]
    return ", ".join(some) + (", …" if len(counts) > 3 else "")  # noqa: PLR2004 - as above


async def _worker_share(visit: Visit, rows: Sequence[JobRow]) -> str:
    """Return the workers of the last attempts; empty if the dead letters never ran."""
    names = await worker_names(visit)
    last = await visit.parts.store.dead_letters.last_workers([row.seq for row in rows])
    found = Counter[str]()
    for worker, number in last.items():
        found[names.get(worker, f"{worker:x} (left)")] += number
    return _share(found) if found else ""


def _shares(rows: Sequence[JobRow], workers: str) -> list[tuple[str, str]]:
    """Return what the dead letters have in common, by its name."""
    found = [
        ("Reason", _share(REASONS[row.reason] for row in rows if row.reason is not None)),
        ("Queue", _share(row.queue for row in rows)),
        ("Attempts", _share(str(row.attempt) for row in rows)),
        *([("Worker", workers)] if workers else []),
    ]
    if any(row.tag is not None for row in rows):
        found.append(("Tag", _share(row.tag or "none" for row in rows)))
    return found


def _takes(number: int) -> list[tuple[int, str]]:
    """Return each rate with the time until the last of the jobs is due."""
    return [
        (rate, words.duration(timedelta(minutes=max(number - 1, 0) / rate)) if rate else "")
        for rate in RATES
    ]


async def _open(visit: Visit, group: DeadLetterGroup) -> OpenGroup:
    where = Filter(group=group.fingerprint)
    page = await visit.parts.store.dead_letters.list(where, before=None, limit=SAMPLE)
    last = group.last_died_at or visit.now
    began = group.since or group.first_died_at or last
    until = last + timedelta(microseconds=1)
    plan = await visit.queue.dead_letters.replay_all(
        group=group.fingerprint, until=until, dry_run=True
    )
    traceback = next((row.traceback for row in page.rows if row.traceback), None)
    return OpenGroup(
        group=group_view(group),
        sampled=len(page.rows),
        shares=_shares(page.rows, await _worker_share(visit, page.rows)),
        pieces=[] if traceback is None else pieces_of(traceback),
        newest=[
            Newest(row.id, from_us(row.finished_at or 0), row.attempt, _first_line(row.error))
            for row in page.rows[:NEWEST]
        ],
        plan=plan,
        until=until.isoformat(),
        started=sentence_of(started_before(await read_starts(visit), began), began),
        takes=_takes(plan.replayed),
    )


_TESTED: Final[Mapping[str, tuple[str, str]]] = {
    "succeeded": ("ok", "Test passed: the job succeeded."),
    "dead": ("bad", "Test failed: the job is a dead letter again."),
    "scheduled": ("bad", "Test failed: the job waits for another attempt."),
    "cancelled": ("warn", "The test has no result: the job was cancelled."),
    "expired": ("warn", "The test has no result: the job has expired."),
}
"""Kind and text for each state of the tested job; in other states the test is under way."""


async def _test(visit: Visit) -> TestView | None:
    """Return how the job is doing that the address names as the test."""
    id = visit.asked("test")
    if not id:
        return None
    try:
        job = await visit.queue.get(id)
    except JobNotFound:
        return None
    look, text = _TESTED.get(job.state, ("warn", f"The test is under way: the job is {job.state}."))
    return TestView(id, job.state, look, text)


def _matches(group: GroupView, filters: Mapping[str, str]) -> bool:
    """Return whether a group has the task and all words in its texts."""
    text = f"{group.task} {group.title}".casefold()
    return filters["task"] in {"", group.task} and all(
        word in text for word in filters["words"].casefold().split()
    )


async def read_groups(visit: Visit) -> GroupsView:
    """Read the page of groups."""
    found = await visit.queue.dead_letters.groups()
    asked = visit.asked("group")
    chosen = next((one for one in found.items if one.fingerprint == asked and one.count), None)
    filters = {name: visit.asked(name) for name in FILTERS}
    groups = [group_view(one) for one in found.items if one.count]
    return GroupsView(
        filters=filters,
        tasks=sorted({one.task for one in groups}),
        groups=[one for one in groups if one.fingerprint == asked or _matches(one, filters)],
        total=len(groups),
        letters=sum(one.dead for one in groups) + found.ungrouped,
        ungrouped=found.ungrouped,
        complete=found.complete,
        asked=asked,
        opened=None if chosen is None else await _open(visit, chosen),
        test=await _test(visit),
    )


async def show_groups(visit: Visit) -> Response:
    """Answer with the page of groups."""
    view = await read_groups(visit)
    return await visit.page("groups.html", view, title="Dead letters", section="dead")


def _address(group: str, **more: str) -> str:
    return urls.with_query("dead", {"group": group, **more})


def _rate(form: Form) -> int | None:
    """Return the chosen number of jobs per minute; None for all at once.

    Raises:
        InvalidOptions: The field was changed.
    """
    text = form.get("rate") or str(DEFAULT_RATE)
    if text not in {str(rate) for rate in RATES}:
        raise InvalidOptions(
            f"rate={text!r} is none of the rates of the form: open the group again"
        )
    return int(text) or None


@dataclass(frozen=True, slots=True)
class DeleteView:
    """The question before a group is deleted."""

    group: str
    letters: int
    until: str
    task: str


def add_groups(pages: Pages) -> None:
    """Add the forms that act on a group."""

    @pages.do("/dead/{group}/test")
    async def test(visit: Visit, form: Form) -> Response:
        group = visit.path("group")
        where = Filter(group=group, until=to_us(form.until()))
        page = await visit.parts.store.dead_letters.list(where, before=None, limit=SAMPLE)
        rows = [row for row in page.rows if _fits(visit, row)]
        tested = await _replay_first(visit, rows, form.get("reason"))
        if tested is None:
            said = "none-fits" if page.rows and not rows else "nothing-to-test"
            return visit.go(_address(group), said)
        return visit.go(_address(group, test=tested))

    @pages.do("/dead/{group}/replay")
    async def replay(visit: Visit, form: Form) -> Response:
        group = visit.path("group")
        rate, until = _rate(form), form.until()
        where = {"group": group, "until": until.isoformat(), "per_minute": rate}
        async with visit.act(
            "dead_letters.replay_all", filter=where, reason=form.get("reason")
        ) as act:
            counts = await visit.queue.dead_letters.replay_all(
                group=group, until=until, per_minute=rate
            )
            act.count = counts.replayed
        return visit.go(_address(group), "many-replayed", counts.replayed)

    @pages.show("/dead/{group}/delete", acting=True)
    async def ask_delete(visit: Visit) -> Response:
        group = visit.path("group")
        found = await visit.queue.dead_letters.groups()
        one = next((each for each in found.items if each.fingerprint == group and each.count), None)
        if one is None or one.last_died_at is None:
            return visit.go("dead")
        until = (one.last_died_at + timedelta(microseconds=1)).isoformat()
        view = DeleteView(group, one.count, until, one.task)
        return await visit.page(
            "delete_group.html", view, title="Delete", section="dead", live=False
        )

    @pages.do("/dead/{group}/delete")
    async def delete(visit: Visit, form: Form) -> Response:
        group, until = visit.path("group"), form.until()
        where = {"group": group, "until": until.isoformat()}
        async with visit.act(
            "dead_letters.delete_all", filter=where, reason=form.get("reason")
        ) as act:
            act.count = await visit.queue.dead_letters.delete_all(group=group, until=until)
        return visit.go("dead", "many-deleted", act.count)


def _fits(visit: Visit, row: JobRow) -> bool:
    """Return whether a letter's arguments fit its task, if that is known."""
    spec = visit.parts.tasks.get(row.task)
    return spec is None or fits(spec, row.args)


async def _replay_first(visit: Visit, rows: Sequence[JobRow], reason: str) -> str | None:
    """Replay the newest dead letter whose key is free; return its id, None if there is none."""
    for row in rows:
        try:
            async with visit.act("dead_letters.replay", target=row.id, reason=reason):
                await visit.queue.dead_letters.replay(row.id)
        except (JobNotFound, KeyTaken, UnknownTask):
            continue
        return row.id
    return None
