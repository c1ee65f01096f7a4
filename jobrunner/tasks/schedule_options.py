"""Checks the options of schedules and compares the declared ones with the stored ones.

The rules for schedules in code, so that rolling deploys work and processes may start in any order:

- A schedule whose declaration has not changed keeps its next tick: computing it again at each start would skip a tick
  that falls on the start.
- A declaration never overwrites one of a later revision of the application.
- A schedule that is not declared any longer is disabled, not deleted.  If an earlier revision declared it, it is
  disabled at once.  If this revision declared it, only if no other live worker knows its task: the task may belong to
  another application on the same store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict, get_args

from jobrunner.core.errors import InvalidArguments, InvalidOptions, InvalidSchedule
from jobrunner.core.hints import answer_to
from jobrunner.core.schedule import (
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
"""The default ``grace`` of ``misfire="skip"``."""

Args = Sequence[object] | Mapping[str, object]


class ScheduleOptions(TypedDict, total=False):
    """The options of a schedule, for ``@cron``, ``@every`` and ``jobs.schedules.upsert``."""

    args: Args
    """The arguments of each call of the task, as a list or as a mapping by name. Default: none."""
    misfire: Misfire
    """The rule for ticks that were missed because no worker was running or the clock jumped. Default: ``"latest"``.

    ``"latest"`` makes one job, for the last of them. ``"all"`` makes one job for each, for the newest ``cap`` at most.
    ``"skip"`` is like ``"latest"``, but makes no job if the tick is later than ``grace``.
    """
    grace: Seconds | None
    """The delay after which a tick makes no job; seconds or a timedelta.

    Default: None, no limit; with ``misfire="skip"`` 60 seconds.
    """
    cap: int
    """The most missed ticks for which ``misfire="all"`` makes a job, from 1 to 400. Default: 100."""
    overlap: Overlap
    """``"skip"`` makes no job while one of the schedule's jobs is unfinished. Default: ``"allow"``."""
    jitter: Seconds
    """A random delay of the job after its tick, up to these seconds or this timedelta. Default: 0.

    A tick always has the same delay. ``job.scheduled_for`` is the tick itself.
    """
    start: datetime | None
    """An aware datetime: the earliest tick. An interval has its first tick there. Default: none."""
    end: datetime | None
    """An aware datetime: the latest tick. Default: none."""


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """A schedule that is declared in code."""

    id: str
    spec: TaskSpec
    definition: Definition
    zoned: bool
    """True if the declaration names a time zone; otherwise the runner's is used."""

    def defined(self, timezone: str) -> Definition:
        """Return its definition under a runner with that time zone."""
        timing = self.definition.timing
        if self.zoned or timing.cron is None:
            return self.definition
        return self.definition._replace(timing=timing._replace(timezone=timezone))


def check_words(call: str, words: Iterable[str]) -> None:
    """Refuse keywords that are not options of a schedule.

    Raises:
        TypeError: A keyword is not an option of a schedule; the message says what to write.
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
    """Check the options of a schedule and return its definition.

    Args:
        spec: The task.
        options: The options of its jobs that differ from the task's.
        recurrence: The recurrence of its ticks.
        words: The options of the schedule, as passed.
        call: The call as its user writes it, for the errors.

    Raises:
        InvalidSchedule: An option has an invalid value.
        InvalidArguments: ``args`` do not fit the task.
        TypeError: A keyword is not an option of a schedule.
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
    """Return the declaration of a schedule above a task.

    Raises:
        InvalidSchedule: The declaration is invalid; the message names its source location.
        TypeError: A keyword is not an option of a schedule.
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


# -- compared with the stored schedules ---------------------------------------------------------


def reconcile(
    declared: Mapping[str, Definition],
    rows: Iterable[ScheduleRow],
    *,
    revision: int,
    now: int,
    elsewhere: frozenset[str],
) -> list[ScheduleChange]:
    """Return the changes that make the stored schedules match the declared ones.

    Args:
        declared: The declared schedules by id.
        rows: All stored schedules that were ever declared in code, and all others with one of the ids.
        revision: The revision of the declaring application.
        now: The current time (µs).
        elsewhere: The tasks that only other live workers know.
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
