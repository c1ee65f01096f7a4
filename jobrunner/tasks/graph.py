"""Checks the calls of a batch and makes its rows: members, callbacks and the edges between them."""

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from jobrunner.core.errors import InvalidBatch
from jobrunner.core.ids import new_id
from jobrunner.core.model import BatchEnqueue, Edge, Enqueue, Need, NewBatch
from jobrunner.core.workflows import MOST_EDGES, MOST_MEMBERS, MOST_NEEDS
from jobrunner.tasks.call import Call
from jobrunner.tasks.placeholder import source_of

MOST_SHOWN: Final = 8
"""The most calls of a cycle that its error names."""


class Callbacks(NamedTuple):
    """The calls that run when a batch has ended."""

    then: Call[Any] | None = None
    otherwise: Call[Any] | None = None
    at_end: Call[Any] | None = None

    def named(self) -> Sequence[tuple[str, Call[Any]]]:
        """Return those that are given, each with the name of its parameter."""
        given = zip(self._fields, self, strict=True)
        return [(name, call) for name, call in given if call is not None]


NO_CALLBACKS: Final = Callbacks()

_NEEDS: Final[Mapping[str, Need]] = {"then": "success", "otherwise": "failure", "at_end": "end"}
"""The end of the batch for which each callback waits."""


def to_batch(
    batch: NewBatch | str,
    calls: Sequence[Call[Any]],
    callbacks: Callbacks,
    *,
    now: int,
    to_enqueue: Callable[[Call[Any], str], Enqueue],
) -> BatchEnqueue:
    """Return the rows of a batch, or of members that are added to one.

    Args:
        batch: The new batch, or the id of the batch to which the calls are added.
        calls: The calls of its members.
        callbacks: Those of its callbacks.
        now: The current time, in microseconds.
        to_enqueue: Returns the row of a call, with the id that is passed.

    Raises:
        InvalidBatch: The calls wait for each other in a circle, need a call that is not among them, or are too many.
    """
    if len(calls) > MOST_MEMBERS:
        raise InvalidBatch(
            f"a batch takes {MOST_MEMBERS:,} calls at once, not {len(calls):,}: it is one transaction, and nobody else"
            " can write meanwhile. Enqueue one call that adds the others in parts: `job.batch.add(*calls)`"
        )
    named = callbacks.named()
    ids = {call: new_id(now) for call in calls}
    _check_once(calls, ids, named)
    edges = _edges(calls, ids)
    if edges:
        _check_cycles(ids, edges)
    id = batch if isinstance(batch, str) else batch.id
    rows = [_with_handed(to_enqueue(call, ids[call]), call, ids) for call in calls]
    last: list[Enqueue] = []
    for name, call in named:
        _check_callback(name, call, ids)
        row = _with_handed(to_enqueue(call, new_id(now)), call, ids)
        edges.append(Edge(row.id, id, _NEEDS[name]))
        last.append(row)
    return BatchEnqueue(batch, rows, last, edges)


def _check_once(
    calls: Sequence[Call[Any]],
    ids: Mapping[Call[Any], str],
    callbacks: Sequence[tuple[str, Call[Any]]],
) -> None:
    seen: set[Call[Any]] = set()
    if len(ids) < len(calls) or callbacks:
        for call in (*calls, *(call for _, call in callbacks)):
            if call in seen:
                name = _name(call)
                raise InvalidBatch(
                    f"{call!r} is in the batch twice, and each call is one job: write {name}.call(...) for each"
                )
            seen.add(call)


def _edges(calls: Sequence[Call[Any]], ids: Mapping[Call[Any], str]) -> list[Edge]:
    """Return the edges between the members."""
    edges: list[Edge] = []
    for call in calls:
        if call.handed is None and call.waits is None:
            continue
        needs = call.needs
        if len(needs) > MOST_NEEDS:
            raise InvalidBatch(
                f"{call!r} waits for {len(needs):,} calls, and {MOST_NEEDS:,} are the most: give it to the batch as"
                f" then={_name(call)}.call(...), and read `job.batch.results(...)` there"
            )
        for needed, need in needs.items():
            if needed not in ids:
                raise InvalidBatch(_not_there(call, needed))
            edges.append(Edge(ids[call], ids[needed], need))
        if len(edges) > MOST_EDGES:
            raise InvalidBatch(
                f"the calls of a batch wait for each other more than {MOST_EDGES:,} times: let a call between them"
                " gather the results of many, or enqueue a batch for each part"
            )
    return edges


def _not_there(call: Call[Any], needed: Call[Any]) -> str:
    takes = "takes the result of" if needed in call.sources else "waits for"
    return (
        f"{_name(call)} {takes} a call of {_name(needed)} that is not in the batch: add that call to the list, and once"
        " only, since a new call would be another job"
    )


def _check_cycles(ids: Mapping[Call[Any], str], edges: Sequence[Edge]) -> None:
    """Raise if calls wait for each other in a circle."""
    left = Counter(edge.job for edge in edges)
    behind: dict[str, list[str]] = {}
    for edge in edges:
        behind.setdefault(edge.needs, []).append(edge.job)
    free = deque(id for id in behind if id not in left)
    while free:
        for job in behind.get(free.popleft(), ()):
            left[job] -= 1
            if left[job] == 0:
                del left[job]
                free.append(job)
    if not left:
        return
    # Each job that is left needs another one that is left.
    needs = {edge.job: edge.needs for edge in edges if edge.needs in left}
    path = [next(iter(left))]
    while path.count(path[-1]) == 1:
        path.append(needs[path[-1]])
    circle = path[path.index(path[-1]) :]
    names = {id: _name(call) for call, id in ids.items()}
    shown = [names[id] for id in circle]
    if len(shown) > MOST_SHOWN:
        shown[MOST_SHOWN - 1 : -1] = ["..."]
    raise InvalidBatch(
        "calls of the batch wait for each other in a circle, and none of them could start:"
        f" {' waits for '.join(shown)}. Leave out one `.after(...)` of them"
    )


def _check_callback(name: str, call: Call[Any], ids: Mapping[Call[Any], str]) -> None:
    task = _name(call)
    if call.waits:
        raise InvalidBatch(
            f"{name}={task}.call(...).after(...): a callback waits for the whole batch; leave out `.after(...)`, or put"
            " the call into the list"
        )
    if name != "then" and call.handed:
        taken = _name(call.sources[0])
        raise InvalidBatch(
            f"{name}={task}.call(...) takes the result of {taken}, which there is none of if that call fails: write"
            f" then={task}.call(...), or read `job.batch.results({taken})` in {task}"
        )
    for source in call.sources:
        if source not in ids:
            raise InvalidBatch(_not_there(call, source))


def _with_handed(row: Enqueue, call: Call[Any], ids: Mapping[Call[Any], str]) -> Enqueue:
    """Return the row of a call with the sources of its results."""
    if call.handed is None:
        return row
    handed = {
        name: [ids[source_of(each)] for each in one]
        if isinstance(one, list)
        else ids[source_of(one)]
        for name, one in call.handed.items()
    }
    return row._replace(handed=json.dumps(handed, ensure_ascii=False))


def _name(call: Call[Any]) -> str:
    return call.spec.name.rpartition(".")[2]
