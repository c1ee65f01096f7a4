"""Words the rules about batches and edges as statements that find broken ones.

Each statement returns the ids of the rows that break one rule.  A rule that a slice may break for a moment does not
count where a follow-up is left.
"""

from collections.abc import Mapping
from typing import Final

from jobrunner.store.findings import Finding
from jobrunner.store.workflow_protocol import Contradiction

MOST_NAMED: Final = 3
"""The ids that the doctor names of each broken rule."""

_LEFT_IN_BATCH: Final = (
    "EXISTS (SELECT 1 FROM {followups} f WHERE f.batch = b.seq AND f.batch IS NOT NULL)"
)
_LEFT_BY_NEEDED: Final = "EXISTS (SELECT 1 FROM {followups} f WHERE f.id = e.needs)"
_UNFINISHED_MEMBER: Final = """EXISTS (
    SELECT 1 FROM {jobs} {by_unfinished} WHERE batch = b.seq AND batch IS NOT NULL AND {unfinished}
)"""
_DEAD_OR_STOPPED: Final = """(
    deleted > 0 OR EXISTS (
        SELECT 1 FROM {dead_letters} {by_letters} WHERE batch = b.seq AND batch IS NOT NULL AND replayed_as IS NULL
    ) OR EXISTS (
        SELECT 1 FROM {jobs} {by_stopped}
        WHERE batch = b.seq AND batch IS NOT NULL AND (state = 'cancelled' OR state = 'expired')
    )
)"""
_WAITING_EDGE: Final = """
SELECT e.job FROM {edges} e {by_unmet} JOIN {jobs} j ON j.id = e.job
WHERE e.state > 0 AND e.state = 1 AND (j.state = 'blocked' OR j.state = 'scheduled')"""
_UNMET: Final = """
SELECT 1 FROM {edges} e {by_unmet} WHERE e.job = j.id AND e.state > 0 AND e.state"""

_RULES: Final[Mapping[str, str]] = {
    "a batch has ended while a member is unfinished": f"""
        SELECT id FROM {{batches}} b WHERE ended_at IS NOT NULL AND {_UNFINISHED_MEMBER}""",
    "a batch runs although none of its members is unfinished": f"""
        SELECT id FROM {{batches}} b
        WHERE ended_at IS NULL AND NOT {_UNFINISHED_MEMBER} AND NOT {_LEFT_IN_BATCH}""",
    "a batch has succeeded although a member has not": f"""
        SELECT id FROM {{batches}} b WHERE state = 'succeeded' AND {_DEAD_OR_STOPPED}""",
    "a job is blocked and waits for nothing": f"""
        SELECT id FROM {{jobs}} j {{by_blocked}}
        WHERE state = 'blocked' AND (after IS NULL OR lease > 0) AND NOT EXISTS ({_UNMET} = 1)""",
    "a job is blocked by what can never come": f"""
        SELECT id FROM {{jobs}} j {{by_blocked}} WHERE state = 'blocked' AND EXISTS ({_UNMET} = 2)""",
    "a job waits for one that has ended": f"""
        {_WAITING_EDGE} AND e.needs NOT LIKE '!%' AND NOT {_LEFT_BY_NEEDED}
        AND NOT EXISTS (SELECT 1 FROM {{batches}} WHERE id = e.needs)
        AND NOT EXISTS (SELECT 1 FROM {{followups}} f WHERE f.batch = j.batch)
        AND NOT EXISTS (SELECT 1 FROM {{jobs}} WHERE id = e.needs AND {{unfinished}})""",
    "a job waits for a batch that has ended": f"""
        {_WAITING_EDGE} AND EXISTS (
            SELECT 1 FROM {{batches}} b
            WHERE id = e.needs AND ended_at IS NOT NULL AND NOT (b.state = 'failed' AND e.need = 'success')
        )""",
    "a job goes on although what it needs has not succeeded": """
        SELECT e.job FROM {edges} e JOIN {jobs} d ON d.id = e.needs
        WHERE e.state = 0 AND e.need = 'success' AND d.state <> 'succeeded'
        UNION ALL
        SELECT e.job FROM {edges} e JOIN {dead_letters} d ON d.id = e.needs
        WHERE e.state = 0 AND e.need = 'success'
        UNION ALL
        SELECT e.job FROM {edges} e JOIN {batches} b ON b.id = e.needs
        WHERE e.state = 0 AND e.need = 'success' AND b.state <> 'succeeded'""",
    "a job is parked for a signal that is there": f"""
        {_WAITING_EDGE} AND e.needs LIKE '!%' AND EXISTS (
            SELECT 1 FROM {{steps}} WHERE job = j.seq AND kind = 'signal' AND name = substr(e.needs, 2)
        )""",
}

_TABLES: Final = ("jobs", "dead_letters", "batches", "edges", "followups", "steps")
_INDEXES: Final[Mapping[str, str]] = {
    "by_unfinished": "jobs_batch_unfinished",
    "by_stopped": "jobs_batch_stopped",
    "by_blocked": "jobs_blocked",
    "by_letters": "dead_letters_batch",
    "by_unmet": "edges_unmet",
}


def statements(table: str, unfinished: str, index: str = "") -> Mapping[str, str]:
    """Return the statement of each rule, in the words of one database.

    Args:
        table: names a table, with a place for its short name.
        unfinished: the condition of unfinished jobs.
        index: names the index to use, with a place for its short name; empty to leave that to the planner.
    """
    names = {name: table.format(name) for name in _TABLES}
    names |= {hint: index.format(name) for hint, name in _INDEXES.items()}
    return {rule: text.format(**names, unfinished=unfinished) for rule, text in _RULES.items()}


def finding(broken: Contradiction) -> Finding:
    """Return what the doctor says of a rule that is broken."""
    return Finding(
        "problem",
        "workflows",
        f"{broken.rule}: {', '.join(broken.ids)}",
        f"report this: it is a bug. jobrunner jobs show {broken.ids[0]} says more",
    )
