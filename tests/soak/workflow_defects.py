"""Puts one defect after another into the workflows of SQLite, and lets the stories find each."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from jobrunner.store import workflow_rules
from jobrunner.store.sqlite.sql import (
    batch_retention,
    batches,
    edges,
    ends,
    followups,
    replays,
    steps,
)
from tests.conformance.rigs import maker
from tests.conformance.test_stateful_workflows import WorkflowMachine
from tests.soak.budget import Figures

STORIES: Final = 5
STEPS: Final = 50
TRIES: Final = 60
"""Runs of so many stories after which a defect counts as missed."""
SOUND: Final = 5
WANTED: Final = 14


@dataclass(frozen=True)
class Defect:
    """A change of one function or statement."""

    where: ModuleType
    name: str
    what: str
    change: Callable[[Any], Any]

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Put it in inside the block."""
        right = getattr(self.where, self.name)
        wrong = self.change(right)
        assert wrong != right, f"{self.what}: nothing changes"
        with patch.object(self.where, self.name, wrong):
            yield


def _without(part: str, instead: str = "") -> Callable[[str], str]:
    """Return a change of a statement."""

    def change(statement: str) -> str:
        assert part in statement, f"{part!r} is not in {statement}"
        return statement.replace(part, instead)

    return change


def _nothing(result: Any = None) -> Callable[[Any], Any]:
    """Return a change of a function to one that does nothing."""
    return lambda _: lambda *args, **words: result


def _ends_without(*left_out: str) -> Callable[[Any], Any]:
    """Return a change of ``follow``: ends of some kinds are not followed."""

    def change(follow: Any) -> Any:
        def some(conn: Any, now: int, found: Any, effects: Any) -> None:
            follow(conn, now, [one for one in found if one.how not in left_out], effects)

        return some

    return change


def _kept(keep: Any) -> Any:
    """Store memos as if each were a cursor, which moves."""
    moving = copy(keep)
    moving._texts = {
        size: text.replace(" WHERE kind = 'cursor'", "") for size, text in keep._texts.items()
    }
    return moving


def _edge_of_dead_met(rule: Any) -> Any:
    return lambda need, end: 0 if end == "failed" else rule(need, end)


def _any_end_calls_back(rule: Any) -> Any:
    return lambda need, state, **words: 0 if state == "failed" else rule(need, state, **words)


_LEFT: Final = (
    "AND NOT EXISTS (SELECT 1 FROM jobrunner_followups WHERE batch = b.seq AND batch IS NOT NULL)"
)
_OTHER_BROKEN: Final = """AND NOT EXISTS (
        SELECT 1 FROM jobrunner_edges INDEXED BY jobrunner_edges_unmet
        WHERE job = jobrunner_jobs.id AND state > 0 AND state = 2
    )"""
_CANCELLED_BATCH: Final = """AND NOT EXISTS (
        SELECT 1 FROM jobrunner_batches WHERE seq = jobrunner_jobs.batch AND cancelled_at IS NOT NULL
    )"""

DEFECTS: Final = (
    Defect(edges, "_OVER", "a batch ends while slices are left", _without(_LEFT)),
    Defect(edges, "_REVIVABLE", "one of two broken edges revives a job", _without(_OTHER_BROKEN)),
    Defect(
        edges,
        "_REVIVABLE",
        "a replay revives members of a cancelled batch",
        _without(_CANCELLED_BATCH),
    ),
    Defect(edges, "void", "a replay revives what a person has cancelled", _nothing()),
    Defect(workflow_rules, "edge_to_job", "a job starts behind a dead one", _edge_of_dead_met),
    Defect(workflow_rules, "edge_to_batch", "then starts after a failure", _any_end_calls_back),
    Defect(
        edges,
        "_RELEASE",
        "a job starts once one of its needs is met",
        _without(f"AND NOT EXISTS ({edges._UNMET})"),
    ),
    Defect(
        edges,
        "_MAY_SUCCEED",
        "then waits for ever once a member was cancelled",
        lambda _: "SELECT 1 FROM jobrunner_batches b WHERE seq = ?",
    ),
    Defect(followups, "leave", "what a slice leaves over is forgotten", _nothing(True)),
    Defect(
        edges,
        "_BREAK",
        "a job behind a dead one is not cancelled",
        _without("state = 'blocked'", "false"),
    ),
    Defect(
        replays,
        "_REOPEN",
        "a replay does not run its batch again",
        _without("state = 'failed'", "false"),
    ),
    Defect(
        replays,
        "_MOVE_OWN",
        "an edited replay loses its own edges",
        _without("WHERE job = ?", "WHERE job = ? AND false"),
    ),
    Defect(
        replays,
        "_MOVE_RESULTS",
        "results are taken from the replaced job",
        _without("handed IS NOT NULL", "false"),
    ),
    Defect(replays, "deleted", "a deleted dead letter is forgotten", _nothing()),
    Defect(steps, "_is_met", "a signal between look and park is lost", _nothing(False)),
    Defect(
        steps, "_FORGET_UNMET", "the edge of an earlier wait stays", _without("state > 0", "false")
    ),
    Defect(steps, "_KEEP", "a later memo replaces the first one", _kept),
    Defect(
        steps,
        "_SIGNAL",
        "a second signal replaces the first one",
        _without("DO NOTHING", "DO UPDATE SET value = excluded.value"),
    ),
    Defect(
        steps,
        "_WAKE",
        "a signal ends other waits too",
        _without("WHERE job = :id AND state > 0", "WHERE false"),
    ),
    Defect(
        batches,
        "_TAKES_MEMBERS",
        "an ended batch takes members",
        _without("ended_at IS NULL AND ", ""),
    ),
    Defect(batches, "added", "a cancelled batch keeps what its members add", _nothing()),
    Defect(batches, "cancel_children", "a cancelled parent leaves its children", _nothing()),
    Defect(ends, "follow", "cancel and expiry end no batch", _ends_without("stopped")),
    Defect(ends, "follow", "death ends no batch", _ends_without("dead")),
    Defect(
        batch_retention,
        "_IS_USED",
        "a batch is deleted while a callback needs it",
        lambda _: "SELECT 0 WHERE :seq AND :id AND :died_before",
    ),
)


def is_found(defect: Defect, seed: int, tries: int = TRIES) -> int | None:
    """Run stories with a defect; return the number of runs until one of them fails."""
    with defect.seeded():
        for number in range(tries):
            if not goes_well(seed + number):
                return number + 1
    return None


def goes_well(seed: int) -> bool:
    """Run some stories; return whether none of them fails."""
    make_rig = staticmethod(maker("sqlite", _no_server))
    machine = type("Machine", (WorkflowMachine,), {"make_rig": make_rig})
    try:
        run_state_machine_as_test(
            seeded(seed)(machine),
            settings=settings(
                max_examples=STORIES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception:  # noqa: BLE001 - whatever fails has found it
        return False
    return True


def _no_server() -> Any:
    raise AssertionError("these are defects of SQLite")


async def run(seed: int) -> Figures:
    """Search for every defect; without one, the same stories go well."""
    for number in range(SOUND):
        assert await asyncio.to_thread(goes_well, seed + number), "a sound store fails"
    found: Mapping[str, int | None] = {
        defect.what: await asyncio.to_thread(is_found, defect, seed) for defect in DEFECTS
    }
    caught = [what for what, runs in found.items() if runs is not None]
    missed = [what for what, runs in found.items() if runs is None]
    assert len(caught) >= WANTED, f"missed: {missed}"
    return {"defects": len(DEFECTS), "found": len(caught), "missed": "; ".join(missed) or 0}
