"""Declares the limits of tasks: how many of their jobs run at a time, and how often they start.

A limit with ``by`` counts the jobs of each value separately: such a job lies in a lane, ``task[value]``, which is
computed from its arguments when it is enqueued.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, iscoroutinefunction, isfunction, signature
from typing import Any, Final, NoReturn, TypedDict, TypeVar, get_type_hints

from pydantic import BaseModel
from pydantic_core import to_json
from typing_extensions import is_typeddict

from jobrunner.core.errors import InvalidArguments, InvalidTask, shown
from jobrunner.core.exports import exported
from jobrunner.core.limits import MAX_LIMIT, NO_LIMIT, Limit, RateLimit
from jobrunner.core.units import MAX_DURATION_US, Seconds, positive_us
from jobrunner.tasks.annotations import parameters_of, union_parts

Path = str | Callable[..., object]
By = Path | tuple[Path, ...]
"""The parameters by whose values jobs are counted; a dotted path reads a field, a function computes a value of them."""

_BY_NAME: Final = frozenset({Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY})
MAX_KEY_CHARS: Final = 500
"""A longer value is replaced by its hash in the name of the lane."""


@exported
@dataclass(frozen=True, slots=True)
class Concurrency:
    """The most jobs of a task that run at a time, over all workers.

    ::

        @jobs.task(concurrency=[Concurrency(20), Concurrency(2, by="account_id")])
        async def sync(account_id: int, since: date) -> None: ...

    Args:
        limit: A whole number from 1 to 1,000,000.
        by: A parameter, or a tuple of them, by whose values the jobs are counted separately; ``"order.customer_id"``
            reads a field of a model, and a function computes a value from the parameters that it names. None is a
            value like any other. Default: all jobs of the task are counted together.
        ordered: True to run the jobs in the order in which they were enqueued: a job that waits for a retry holds those
            behind it. Needs ``limit=1``. Default: False.

    Raises:
        InvalidTask: An argument has an invalid value.
    """

    limit: int
    by: By | None = None
    ordered: bool = False

    def __post_init__(self) -> None:
        _check_count(self.limit, "Concurrency", "concurrency=Concurrency(1)")
        if self.ordered and self.limit != 1:
            raise InvalidTask(
                f"Concurrency({self.limit}, ordered=True): jobs in order run one at a time; write"
                " Concurrency(1, by=..., ordered=True)"
            )


@exported
@dataclass(frozen=True, slots=True)
class Rate:
    """The most jobs that start in a time, over all workers, evenly spaced.

    ::

        @jobs.task(rate_limit=Rate(100, per=60, by="account_id"))
        async def sync(account_id: int, since: date) -> None: ...

    Args:
        limit: The number of starts, a whole number from 1 to 1,000,000.
        per: The time in which so many start; seconds or a timedelta. Default: 1 second.
        burst: The starts that are allowed at once after a pause. Default: 1.
        by: See ``Concurrency``; not for a queue. Default: all jobs are counted together.

    Raises:
        InvalidTask: An argument has an invalid value.
    """

    limit: int
    per: Seconds = 1
    burst: int = 1
    by: By | None = None

    def __post_init__(self) -> None:
        _check_count(self.limit, "Rate", "rate_limit=Rate(100, per=60)")
        _check_count(self.burst, "burst of Rate", "Rate(100, per=60, burst=10)")
        try:
            per = positive_us(self.per, "per")
        except ValueError as error:
            raise InvalidTask(f"Rate: {error}; write Rate(100, per=60)") from None
        if self.burst * per // self.limit > MAX_DURATION_US:
            raise InvalidTask(
                f"{self}: so large a burst would take more than 100 years to come back; write a smaller burst="
            )

    @property
    def stored(self) -> RateLimit:
        """The rate in microseconds."""
        return RateLimit(self.limit, positive_us(self.per, "per"), self.burst)


def _check_count(value: object, what: str, line: str) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 1 <= value <= MAX_LIMIT:  # type: ignore[operator]
        raise InvalidTask(
            f"{what}: {value!r} is not a whole number from 1 to {MAX_LIMIT:,}; write {line}, and to stop jobs pause"
            ' their queue: await jobs.queues.pause("name")'
        )


L = TypeVar("L", Concurrency, Rate)


class LimitOptions(TypedDict, total=False):
    """The limits of a task, as declared."""

    concurrency: int | Concurrency | Sequence[Concurrency] | None
    rate_limit: Rate | Sequence[Rate] | None
    fair: By | None


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """The limits of a task, checked."""

    own: Limit = NO_LIMIT
    """Of all jobs of the task."""
    lane: Limit = NO_LIMIT
    """Of each lane."""
    by: tuple[Path, ...] | None = None
    """The paths and functions whose values name the lane; None if its jobs lie in none."""
    ordered: bool = False
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """The defaults of the function's parameters."""

    def lane_of(self, task: str, args: Mapping[str, object]) -> str:
        """Return the lane of a job.

        Args:
            task: The stored name of the task.
            args: The validated arguments that were passed.

        Raises:
            InvalidArguments: A function of ``by`` fails, or returns no value that JSON can hold.
        """
        try:
            return lane_name(task, [_value_at(path, args, self.defaults) for path in self.by or ()])
        except Exception as error:
            # Fields of validated models can be read and written as JSON, so that only a function can fail.
            raise InvalidArguments(
                f"{task}: by={by_text(self.by or ())} gives no value for these arguments: {error!r}"
            ) from error

    @property
    def parameters(self) -> frozenset[str]:
        """The parameters whose values name the lane."""
        return frozenset(
            name
            for path in self.by or ()
            for name in (
                (path.partition(".")[0],) if isinstance(path, str) else signature(path).parameters
            )
        )


def lane_name(task: str, values: Sequence[object]) -> str:
    """Return the name of the lane of these values: ``task[42]``, ``task["a","b"]``.

    The values are written as JSON, so no two lists of values share a lane.
    """
    text = to_json(values)[1:-1].decode()
    if len(text) > MAX_KEY_CHARS:
        text = f"#{hashlib.sha256(text.encode()).hexdigest()}"
    return f"{task}[{text}]"


def is_key_hash(key: str) -> bool:
    """Return whether the key of a lane is the hash of a long value."""
    return re.fullmatch("#[0-9a-f]{64}", key) is not None


def by_text(by: tuple[Path, ...]) -> str:
    """Return ``by`` as it is written in a task."""
    words = [repr(one) if isinstance(one, str) else one.__name__ for one in by]
    return words[0] if len(words) == 1 else f"({', '.join(words)})"


def _value_at(path: Path, args: Mapping[str, object], defaults: Mapping[str, object]) -> object:
    if not isinstance(path, str):
        given = {**defaults, **args}
        return path(**{name: given[name] for name in signature(path).parameters})
    name, *fields = path.split(".")
    value = args[name] if name in args else defaults[name]
    for field in fields:
        if value is None:
            break
        value = value[field] if isinstance(value, Mapping) else getattr(value, field)
    return value


def limits_of(
    task: str, declared: LimitOptions, parameters: Iterable[Parameter], *, priority: int
) -> TaskLimits:
    """Check the limits of a task against the parameters of its function.

    Raises:
        InvalidTask: A limit has an invalid value; the message says the line to write.
    """
    concurrency = declared.get("concurrency")
    try:
        if isinstance(concurrency, int):
            concurrency = Concurrency(concurrency)
    except InvalidTask as error:
        raise InvalidTask(f"{task}: {error}") from None
    running: Sequence[Concurrency] = _listed(task, "concurrency", concurrency, Concurrency)
    rates: Sequence[Rate] = _listed(task, "rate_limit", declared.get("rate_limit"), Rate)
    fair = declared.get("fair")
    ordered = any(one.ordered for one in running)
    given = [one.by for one in running if one.by is not None]
    given += [one.by for one in rates if one.by is not None]
    paths = {_paths(task, by) for by in (*given, *(() if fair is None else (fair,)))}
    if ordered and not any(one.ordered and one.by for one in running):
        paths.add(())
    if len(paths) > 1:
        texts = " and ".join(sorted(by_text(path) if path else "no by=" for path in paths))
        raise InvalidTask(
            f"{task} has limits by {texts}: a job lies in one lane, so write the same by= at each limit of the task"
        )
    known = {p.name: p for p in parameters}
    by = next(iter(paths), None)
    for path in by or ():
        if isinstance(path, str):
            _check_path(task, path, known)
        else:
            _check_function(task, path, known)
    if ordered and priority:
        raise InvalidTask(
            f"{task} has priority={priority} and ordered=True: its jobs run in the order in which they are enqueued;"
            " leave priority= out, or ordered=True"
        )
    return TaskLimits(
        own=_limit(
            [one for one in running if not one.by and not one.ordered],
            [one for one in rates if not one.by],
        ),
        lane=_limit(
            [one for one in running if one.by or one.ordered], [one for one in rates if one.by]
        ),
        by=by,
        ordered=ordered,
        defaults={p.name: p.default for p in known.values() if p.default is not p.empty},
    )


def _listed(task: str, word: str, given: Any, kind: type[L]) -> Sequence[L]:
    """Return the limits of one kind: at most one with ``by`` and one without."""
    if given is None:
        return ()
    listed: Any = [given] if isinstance(given, kind) else given
    line = f"{word}={kind.__name__}(10)"
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise InvalidTask(f"{task}: {word}={given!r} is no {kind.__name__}; write {line}")
    for one in listed:
        if not isinstance(one, kind):
            raise InvalidTask(
                f"{task}: {word}={given!r} is no list of {kind.__name__}; write {line}"
            )
    keyed = [bool(one.by) for one in listed]
    if len(keyed) > len(set(keyed)):
        raise InvalidTask(
            f"{task}: {word}={given!r} has two limits for the same jobs; write one, and one with by= for each value"
        )
    return listed


def _limit(running: Sequence[Concurrency], rates: Sequence[Rate]) -> Limit:
    return Limit(
        min((one.limit for one in running), default=None),
        next((one.stored for one in rates), None),
    )


def _paths(task: str, by: object) -> tuple[Path, ...]:
    paths = by if isinstance(by, tuple) else (by,)
    if not paths or not all(isinstance(one, str) or isfunction(one) for one in paths):
        raise InvalidTask(
            f'{task}: by={shown(by)} is no parameter; write by="account_id", or by=("account_id", "region")'
        )
    return paths


def _check_function(task: str, by: Callable[..., object], known: Mapping[str, Parameter]) -> None:
    """Check that a function takes parameters of the task, in their types."""
    if iscoroutinefunction(by):
        raise InvalidTask(f"{task}: by={by.__name__}: write `def {by.__name__}`, without async")
    for parameter in parameters_of(by, None):
        name = parameter.name
        if name not in known or parameter.kind not in _BY_NAME:
            raise InvalidTask(
                f"{task}: by={by.__name__}: its parameter `{parameter}` is none of the task; write"
                f" def {by.__name__}({', '.join(map(str, list(known.values())[:1]))})"
            )
        written, declared = parameter.annotation, known[name].annotation
        if written is not parameter.empty and written != declared:
            raise InvalidTask(
                f"{task}: by={by.__name__}: the task declares `{known[name]}`, and the function"
                f" `{parameter}`; write the same type"
            )


def _check_path(task: str, path: str, known: Mapping[str, Parameter]) -> None:
    name, *fields = path.split(".")
    if name not in known:
        _refuse(task, path, f"the function has no parameter {name!r}", name, list(known))
    types: tuple[Any, ...] = union_parts(known[name].annotation)
    for field in fields:
        found: list[Any] = []
        for kind in types:
            if kind is None or kind is type(None):
                continue
            annotations = _fields(kind)
            if annotations is None:
                raise InvalidTask(
                    f"{task}: by={path!r}: {getattr(kind, '__name__', kind)} has no declared fields; write a model, a"
                    f" dataclass or a TypedDict as the type of {name!r}, or pass the value as a parameter"
                )
            if field not in annotations:
                _refuse(
                    task, path, f"{kind.__name__} has no field {field!r}", field, list(annotations)
                )
            found += union_parts(annotations[field])
        types = tuple(found)


def _fields(kind: Any) -> Mapping[str, Any] | None:
    """Return the annotations of the fields of a type; None if it declares none."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return get_type_hints(kind)
    return None


def _refuse(task: str, path: str, why: str, word: str, known: Sequence[str]) -> NoReturn:
    close = get_close_matches(word, known, 1) or known[:1]
    advice = f"; write by={path.replace(word, close[0])!r}" if close else ""
    raise InvalidTask(f"{task}: by={path!r}: {why}{advice}")
