"""Schedules as they are written: the words of ``cron`` and ``every`` checked, and held against what is stored.

Rules for what stands in the code, so that deploys may roll and processes start in any order:

- A schedule that is declared as it was keeps its next tick: to compute it anew at each start would skip the tick that
  falls on the start.
- A declaration never overwrites one of a later revision of the application.
- What is declared no more is disabled, not forgotten: at once if an earlier revision declared it; if this very revision
  did, only where no other live worker knows its task, which may be another application's on the same store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict, get_args

from jobrunner.core.errors import InvalidArguments, InvalidOptions, InvalidSchedule
from jobrunner.core.hints import answer_to
from jobrunner.core.model import (
    Definition,
    Misfire,
    Overlap,
    ScheduleChange,
    ScheduleRow,
    Timing,
)
from jobrunner.core.units import Seconds, checked_schedule_id, duration_us, instant_us
from jobrunner.tasks.call import NO_OPTIONS, ResolvedJobOptions
from jobrunner.tasks.recurrence import Cron, Every, Once, Recurrence
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.ticks import MOST_CAP, dump_options, first_tick

DEFAULT_CAP: Final = 100
SKIP_GRACE_US: Final = 60_000_000
"""What ``misfire="skip"`` calls on time, if nothing else is said."""

Args = Sequence[object] | Mapping[str, object]


class ScheduleOptions(TypedDict, total=False):
    """The options of a schedule, in code and at run time."""

    args: Args
    """The arguments of each call of the task, in order or by name."""
    misfire: Misfire
    """What becomes of ticks that were missed: no worker was there, or the clock jumped.

    ``"latest"``, the default, makes one job for the last of them; ``"all"`` one for each, the newest ``cap`` at most;
    ``"skip"`` as ``"latest"``, but none for a tick later than ``grace``, here 60 seconds if not given.
    """
    grace: Seconds | None
    """Seconds or a timedelta after which a tick is too late to make a job; None for never."""
    cap: int
    """1 to 400; 100 if left out."""
    overlap: Overlap
    """``"allow"``, or ``"skip"`` for no job while one of the schedule's is unfinished."""
    jitter: Seconds
    """Seconds or a timedelta within which the job starts after its tick.

    By chance, but always the same for one tick; ``job.scheduled_for`` is the tick itself.
    """
    start: datetime | None
    """An aware datetime before which no tick lies; an interval ticks at its start first."""
    end: datetime | None
    """An aware datetime after which no tick lies."""


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """A schedule that stands in the code."""

    id: str
    spec: TaskSpec
    definition: Definition
    zoned: bool
    """Whether it names its time zone itself; otherwise it is the runner's."""

    def defined(self, timezone: str) -> Definition:
        """Return what it does under a runner with that time zone."""
        timing = self.definition.timing
        if self.zoned or timing.cron is None:
            return self.definition
        return self.definition._replace(timing=timing._replace(timezone=timezone))


def check_words(call: str, words: Iterable[str]) -> None:
    """Refuse a keyword that no schedule has.

    Raises:
        TypeError: there is one.
    """
    for word in words:
        if word not in ScheduleOptions.__annotations__:
            line = answer_to("schedule option", word)
            instead = f"write {line}"
            if line is None:
                own = ", ".join(ScheduleOptions.__annotations__)
                instead = (
                    f"it has {own}. What its jobs differ in from the task's is task.options(...)"
                )
            raise TypeError(f"{call}() has no option {word!r}; {instead}")


def define(
    spec: TaskSpec,
    options: ResolvedJobOptions,
    recurrence: Recurrence,
    words: ScheduleOptions,
    call: str,
) -> Definition:
    """Return what a schedule does.

    Args:
        options: those that its jobs have besides the task's.
        words: as they were written.
        call: how the caller wrote it, for the errors.

    Raises:
        InvalidSchedule: a word has a value that cannot be.
        InvalidArguments: ``args`` do not fit the task.
        TypeError: a word that is no option of a schedule.
    """
    check_words(call, words)
    _check_options(options, call)
    misfire = words.get("misfire", "latest")
    overlap = words.get("overlap", "allow")
    _check_choice("misfire", misfire, get_args(Misfire))
    _check_choice("overlap", overlap, get_args(Overlap))
    grace = words.get("grace")
    try:
        timing = _timing(recurrence, words.get("start"), words.get("end"))
        grace_us = None if grace is None else duration_us(grace, "grace")
        jitter_us = duration_us(words.get("jitter", 0), "jitter")
    except InvalidOptions as error:
        raise InvalidSchedule(str(error)) from None
    if grace_us is None and misfire == "skip":
        grace_us = SKIP_GRACE_US
    return Definition(
        task=spec.name,
        args=_encoded(spec, words.get("args", ())),
        timing=timing,
        options=dump_options(options),
        misfire=misfire,
        grace=grace_us,
        cap=_checked_cap(words.get("cap", DEFAULT_CAP)),
        overlap=overlap,
        jitter=jitter_us,
    )


def declare(
    id: str | None,
    spec: TaskSpec,
    options: ResolvedJobOptions,
    recurrence: Recurrence,
    words: ScheduleOptions,
    *,
    call: str,
    zoned: bool,
) -> Declaration:
    """Return the declaration that stands above a task.

    Raises:
        InvalidSchedule: it cannot be; the message says where it stands.
        TypeError: a word that is no option of a schedule.
    """
    try:
        name = checked_schedule_id(spec.name if id is None else id)
        definition = define(spec, options, recurrence, words, call)
    except (InvalidSchedule, InvalidOptions) as error:
        raise InvalidSchedule(f"{call} above {spec.name} ({spec.where}): {error}") from None
    except InvalidArguments as error:
        raise InvalidSchedule(
            f"{call} above {spec.name} ({spec.where}): the task cannot be called like that; write"
            f" {call}(..., args=[...]) or give its parameters defaults: {error}"
        ) from None
    return Declaration(name, spec, definition, zoned)


def _check_options(options: ResolvedJobOptions, call: str) -> None:
    if options is NO_OPTIONS:
        return
    if options.delay is not None or options.run_at is not None or options.expires_at is not None:
        raise InvalidSchedule(
            f"{call}: task.options(delay=, run_at=, or a date for expires=) says when, and so does the schedule; for"
            " a later start write jitter=, start= or another expression"
        )


def _check_choice(what: str, value: object, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise InvalidSchedule(f"{what}={value!r} is none of {', '.join(map(repr, choices))}")


def _checked_cap(cap: int) -> int:
    if not isinstance(cap, int) or isinstance(cap, bool) or not 1 <= cap <= MOST_CAP:
        raise InvalidSchedule(f"cap={cap!r} is not a whole number from 1 to {MOST_CAP}")
    return cap


def _timing(recurrence: Recurrence, start: datetime | None, end: datetime | None) -> Timing:
    start_us = None if start is None else instant_us(start, "start")
    end_us = None if end is None else instant_us(end, "end")
    if start_us is not None and end_us is not None and end_us < start_us:
        raise InvalidSchedule("end is before start: the schedule would never tick")
    match recurrence:
        case Cron():
            return Timing(
                cron=recurrence.expression,
                timezone=recurrence.timezone,
                start=start_us,
                end=end_us,
            )
        case Every():
            return Timing(every=recurrence.interval_us, start=start_us, end=end_us)
        case Once():
            if start_us is not None or end_us is not None:
                raise InvalidSchedule("a date that fires once takes neither start nor end")
            return Timing(run_at=instant_us(recurrence.at, "run_at"))


def _encoded(spec: TaskSpec, args: Args) -> str:
    if isinstance(args, Mapping):
        return spec.args.encode((), dict(args))
    if isinstance(args, Sequence) and not isinstance(args, (str, bytes)):
        return spec.args.encode(tuple(args), {})
    raise InvalidSchedule(f"args={args!r} is neither a list of arguments nor a mapping by name")


# -- held against what is stored ----------------------------------------------------------------


def reconcile(
    declared: Mapping[str, Definition],
    rows: Iterable[ScheduleRow],
    *,
    revision: int,
    now: int,
    elsewhere: frozenset[str],
) -> list[ScheduleChange]:
    """Return what is to be changed so that the store holds what the code declares.

    Args:
        declared: by id.
        rows: everything that was ever declared, and whatever else has one of the ids.
        revision: of the application that declares.
        elsewhere: tasks that only other live workers know.
    """
    stored = {row.id: row for row in rows}
    changes: list[ScheduleChange] = []
    for id, definition in declared.items():
        seen = stored.get(id)
        row = _declared_row(id, definition, seen, revision, now)
        if row != seen:
            changes.append(ScheduleChange(seen, row))
    for id, row in stored.items():
        if id in declared or row.source != "code" or row.disabled or row.revision > revision:
            continue
        if row.revision < revision or row.definition.task not in elsewhere:
            changes.append(ScheduleChange(row, row._replace(disabled=True, revision=revision)))
    return changes


def _declared_row(
    id: str, definition: Definition, seen: ScheduleRow | None, revision: int, now: int
) -> ScheduleRow:
    if seen is None:
        tick = first_tick(definition.timing, now)
        return ScheduleRow(id, "code", definition, revision, 0, False, False, now, tick)
    if seen.source == "code" and seen.revision > revision:
        return seen
    same_ticks = seen.definition.timing == definition.timing and not seen.disabled
    return seen._replace(
        source="code",
        definition=definition,
        revision=revision,
        disabled=False,
        next=seen.next if same_ticks else first_tick(definition.timing, now, last=seen.last),
    )
