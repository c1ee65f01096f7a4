"""Shows groups of dead letters that failed in the same way."""

from dataclasses import dataclass
from datetime import datetime

from jobrunner.fastapi.dashboard.charts import Spark, spark_bars
from jobrunner.core.groups import DeadLetterGroup


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
    newest_id: str | None
    hours: Spark

    @property
    def title(self) -> str:
        """The error in one line."""
        return ": ".join(part for part in (self.error_type, self.message) if part) or "no error"


def group_view(group: DeadLetterGroup) -> GroupView:
    """Return a group for a list."""
    is_new = group.recent_deaths > 0
    return GroupView(
        fingerprint=group.fingerprint,
        task=group.task,
        error_type=(group.error_type or "").rpartition(".")[2],
        message=(group.error or "").partition("\n")[0],
        dead=group.count,
        retrying=group.retrying,
        since=group.since,
        first_died_at=group.first_died_at,
        last_died_at=group.last_died_at,
        newest_id=group.newest_id,
        hours=spark_bars(
            group.deaths_per_hour,
            f"Deaths in each of the last 24 hours of {group.task}",
            bad=is_new,
        ),
    )
