"""Computes the places of a batch's jobs, which the template writes as SVG."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jobrunner.core.model import JobRow
from jobrunner.core.workflows import BatchGraph
from jobrunner.fastapi.dashboard.words import count_of

MOST_NODES: Final = 200
"""The most boxes; a graph with more jobs shows a box for each task."""
MOST_IN_COLUMN: Final = 24
"""The most boxes of a column; jobs beside more others are shown by task too."""
WIDTH: Final = 190
HEIGHT: Final = 40
GAP_X: Final = 56
GAP_Y: Final = 12
MOST_CHARS: Final = 24
"""The most characters of a name in a box."""

_ORDER: Final = ("dead", "running", "queued", "scheduled", "blocked", "cancelled", "expired")
"""The states that name the colour of a group, the first that occurs."""


@dataclass(frozen=True, slots=True)
class Box:
    """A job, or the jobs of a task, in the graph."""

    key: str
    x: int
    y: int
    name: str
    """The task, cut to the width of the box."""
    text: str
    """The state, or the number of jobs in each state."""
    state: str
    """The state that colours it."""


@dataclass(frozen=True, slots=True)
class Line:
    """An edge: a curve from what is needed to what needs it."""

    path: str
    is_broken: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A job, or the jobs of a task, as a line of text."""

    name: str
    text: str
    needs: str
    """The names of what it waits for; empty if it waits for nothing."""
    id: str
    """The job's id; empty for several jobs."""


@dataclass(frozen=True, slots=True)
class GraphView:
    """The graph of a batch, and the same as text."""

    width: int
    height: int
    boxes: Sequence[Box]
    lines: Sequence[Line]
    entries: Sequence[Entry]
    label: str
    """The graph in words, for those who do not see it."""
    grouped: bool
    """True if a box stands for all jobs of a task."""
    complete: bool


@dataclass(slots=True)
class _Node:
    key: str
    name: str
    level: int
    jobs: list[JobRow]
    needs: dict[str, bool]
    """The keys of what it needs; True for a broken edge."""


def graph_of(batch: str, graph: BatchGraph) -> GraphView:
    """Return the graph of a batch in columns: each job stands right of what it waits for.

    Args:
        batch: The id of the batch.
        graph: Its jobs and edges.
    """
    nodes = _nodes(batch, graph)
    columns = Counter(node.level for node in nodes)
    grouped = (
        not graph.complete
        or len(nodes) > MOST_NODES
        or max(columns.values(), default=0) > MOST_IN_COLUMN
    )
    if grouped:
        nodes = _by_task(nodes, {node.key: f"{node.level} {node.name}" for node in nodes})
    if len(nodes) > MOST_NODES:
        # A path of many jobs: the columns are given up too.
        nodes = _by_task(nodes, {node.key: node.name for node in nodes})
    return _placed(nodes, grouped=grouped, complete=graph.complete)


def _nodes(batch: str, graph: BatchGraph) -> list[_Node]:
    """Return a node for each job, callbacks in the last column."""
    needs: dict[str, dict[str, bool]] = {}
    calls: dict[str, str] = {}
    shown = {job.id for job in graph.members}
    for edge in graph.edges:
        if edge.needs == batch:
            calls[edge.job] = {"success": "then", "failure": "otherwise", "end": "at end"}[
                edge.need
            ]
        elif edge.needs in shown:
            needs.setdefault(edge.job, {})[edge.needs] = edge.state == "broken"
    levels = _levels(list(shown), needs)
    last = max(levels.values(), default=-1) + 1
    nodes = [
        _Node(job.id, job.task, levels[job.id], [job], needs.get(job.id, {}))
        for job in graph.members
    ]
    # A callback waits for all members: the lines of all of them would hide the graph.
    nodes += [
        _Node(job.id, f"{calls.get(job.id, 'then')}: {job.task}", last, [job], {})
        for job in graph.callbacks
    ]
    return nodes


def _levels(jobs: Sequence[str], needs: Mapping[str, Mapping[str, bool]]) -> dict[str, int]:
    """Return the column of each job: one more than the last of what it needs."""
    levels: dict[str, int] = {}
    for start in jobs:
        left = [start]
        # Without recursion: a path may have thousands of jobs.
        while left:
            job = left[-1]
            open_needs = [one for one in needs.get(job, ()) if one not in levels]
            if open_needs:
                left += open_needs
                continue
            left.pop()
            levels[job] = max((levels[one] + 1 for one in needs.get(job, ())), default=0)
    return levels


def _by_task(nodes: Sequence[_Node], keys: Mapping[str, str]) -> list[_Node]:
    """Return a node for the jobs with the same new key."""
    groups: dict[str, _Node] = {}
    for node in nodes:
        key = keys[node.key]
        group = groups.setdefault(key, _Node(key, node.name, node.level, [], {}))
        group.jobs += node.jobs
        for need, is_broken in node.needs.items():
            if keys[need] != key:
                group.needs[keys[need]] = group.needs.get(keys[need], False) or is_broken
    return list(groups.values())


def _placed(nodes: Sequence[_Node], *, grouped: bool, complete: bool) -> GraphView:
    rows: Counter[int] = Counter()
    boxes: dict[str, Box] = {}
    entries: list[Entry] = []
    named = {node.key: node.name for node in nodes}
    for node in nodes:
        y = rows[node.level] * (HEIGHT + GAP_Y)
        rows[node.level] += 1
        states = Counter(job.state for job in node.jobs)
        alone = len(node.jobs) == 1
        text = (
            next(iter(states))
            if alone
            else ", ".join(f"{number:,} {state}" for state, number in states.most_common())
        )
        state = next((one for one in _ORDER if states[one]), "succeeded")
        boxes[node.key] = Box(
            node.key, node.level * (WIDTH + GAP_X), y, _cut(node.name), _cut(text), state
        )
        needs = Counter(named[one] for one in node.needs)
        words = [name if number == 1 else f"{number} × {name}" for name, number in needs.items()]
        entries.append(Entry(node.name, text, ", ".join(words), node.jobs[0].id if alone else ""))
    lines = [
        _line(boxes[need], boxes[node.key], is_broken=is_broken)
        for node in nodes
        for need, is_broken in node.needs.items()
    ]
    columns = max(rows, default=-1) + 1
    number = sum(len(node.jobs) for node in nodes)
    label = f"{count_of(number, 'job')} in {count_of(columns, 'column')}, {count_of(len(lines), 'edge')}"
    return GraphView(
        width=max(columns * (WIDTH + GAP_X) - GAP_X, 0),
        height=max(max(rows.values(), default=0) * (HEIGHT + GAP_Y) - GAP_Y, 0),
        boxes=list(boxes.values()),
        lines=lines,
        entries=entries,
        label=f"{label}; the same as text below",
        grouped=grouped,
        complete=complete,
    )


def _line(needed: Box, job: Box, *, is_broken: bool) -> Line:
    x, y = needed.x + WIDTH, needed.y + HEIGHT // 2
    to_x, to_y = job.x, job.y + HEIGHT // 2
    middle = (x + to_x) // 2
    return Line(f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}", is_broken)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARS else f"{text[: MOST_CHARS - 1]}…"
