"""Describes a task for the runner: its function, its codecs and its defaults."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobrunner.core.errors import InvalidBatch, InvalidOptions, InvalidTask
from jobrunner.core.units import checked_name
from jobrunner.tasks.codec import ArgsCodec, ResultCodec
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.defaults import ResolvedOptions
from jobrunner.tasks.dependencies import Dependency
from jobrunner.tasks.inspection import Function, read_function
from jobrunner.tasks.limits import LimitOptions, TaskLimits, by_text, limits_of


@dataclass(frozen=True, slots=True, eq=False)
class TaskSpec:
    """The function, codecs and defaults of a task; compared by identity."""

    name: str
    """The stored name: with the router's prefix, never with the module."""
    fn: Callable[..., Any]
    is_async: bool
    wants_context: bool
    args: ArgsCodec
    result: ResultCodec
    options: ResolvedOptions
    aliases: tuple[str, ...]
    """Older stored names, with their prefixes, whose jobs it runs too."""
    where: str
    """The source location, as ``file.py:12``."""
    positional_only: tuple[tuple[str, Any], ...] = ()
    """Name and default of each positional-only parameter."""
    limits: TaskLimits | None = None
    """None if the task declares none."""
    injected: tuple[Dependency, ...] = ()
    """The dependencies that each attempt resolves and passes besides the arguments."""

    def is_same(self, other: "TaskSpec | None") -> bool:
        """Return whether both come from the same declaration.

        Their options may differ, because ``include`` can set them.
        """
        return other is not None and self.args is other.args

    def lane_of(self, args: str, without: Collection[str] = ()) -> str | None:
        """Return the lane of a job with these stored arguments; None if it lies in none.

        Args:
            args: The stored arguments.
            without: Parameters that the results of other jobs will fill.

        Raises:
            InvalidBatch: The value of such a parameter would name the lane.
        """
        if self.limits is None or self.limits.by is None:
            return None
        unknown = sorted(self.limits.parameters.intersection(without)) if without else ()
        if unknown:
            raise InvalidBatch(
                f"{self.name} has limits by {by_text(self.limits.by)}, and {unknown[0]} is the result of another job,"
                " which is known too late to count by it: leave it out of by=, or give it as a plain value"
            )
        return self.limits.lane_of(self.name, self.args.decode(args, without))

    @property
    def ordered(self) -> bool:
        """True if its jobs wait for the older ones of their lane."""
        return self.limits is not None and self.limits.ordered

    def check_injected(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Refuse a direct call without the injected parameters, which only an attempt fills.

        Raises:
            TypeError: An injected parameter is not passed.
        """
        try:
            given = inspect.signature(self.fn).bind_partial(*args, **kwargs).arguments
        except TypeError:
            return  # the call itself will raise Python's own error
        missing = [need.name for need in self.injected if need.name not in given]
        if missing:
            called = self.fn.__name__
            raise TypeError(
                f"{called}() is called directly, and only an attempt of a job is handed {', '.join(missing)}:"
                f" write {called}(..., {', '.join(f'{name}=...' for name in missing)}), or enqueue it"
            )

    def call(self, ctx: JobContext, kwargs: Mapping[str, Any]) -> Any:
        """Call the function with decoded arguments; an ``async def`` returns its coroutine."""
        if self.positional_only:
            named = dict(kwargs)
            first = [named.pop(name, default) for name, default in self.positional_only]
            return self.fn(ctx, *first, **named) if self.wants_context else self.fn(*first, **named)
        return self.fn(ctx, **kwargs) if self.wants_context else self.fn(**kwargs)


def make_spec(
    fn: Callable[..., Any],
    *,
    prefix: str,
    name: str | None,
    aliases: Iterable[str],
    namespace: Mapping[str, Any] | None,
    options: ResolvedOptions,
    limits: LimitOptions | None = None,
) -> TaskSpec:
    """Make the specification of a task from its function.

    Args:
        fn: The decorated function.
        prefix: The router's prefix, put before the name.
        name: The name of the task; None for the function's.
        aliases: Whole stored names, with their prefixes.
        namespace: The local names around the decorator; see ``read_function``.
        options: The task's defaults.
        limits: The declared limits.

    Raises:
        InvalidTask: The function cannot be used as a task.
        InvalidOptions: The name or an alias is invalid.
    """
    function = read_function(fn, namespace)
    bare = fn.__name__ if name is None else name
    if bare == "<lambda>":
        raise InvalidTask(
            f"the lambda at {function.where} has no name to be stored under: write a def, or name=..."
        )
    stored = checked_name(prefix + bare if isinstance(bare, str) else bare, "name")
    if isinstance(aliases, str):
        raise InvalidOptions(f"aliases={aliases!r} is one text: write aliases=[{aliases!r}]")
    return TaskSpec(
        name=stored,
        fn=fn,
        is_async=function.is_async,
        wants_context=function.wants_context,
        args=ArgsCodec(
            stored,
            function.parameters,
            frozenset(need.name for need in function.injected),
            written=fn.__name__,
            wrapper=function.wrapper,
        ),
        result=ResultCodec(stored, function.returns),
        aliases=tuple(checked_name(alias, "aliases") for alias in aliases),
        where=function.where,
        positional_only=tuple(
            (p.name, p.default) for p in function.parameters if p.kind is p.POSITIONAL_ONLY
        ),
        injected=function.injected,
        limits=_limits(stored, limits, function, options.priority),
        options=options,
    )


def _limits(
    name: str, declared: LimitOptions | None, function: Function, priority: int
) -> TaskLimits | None:
    """Return the checked limits of a task; None if it declares none."""
    if not declared or all(value is None for value in declared.values()):
        return None
    injected = {need.name for need in function.injected}
    stored = [parameter for parameter in function.parameters if parameter.name not in injected]
    return limits_of(f"{name} ({function.where})", declared, stored, priority=priority)
