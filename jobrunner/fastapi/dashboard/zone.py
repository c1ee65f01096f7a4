"""Shows times in UTC or in the viewer's time zone, which a cookie names."""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Final
from zoneinfo import available_timezones

from markupsafe import Markup
from starlette.requests import HTTPConnection
from starlette.responses import Response

from jobrunner.core.errors import InvalidSchedule
from jobrunner.fastapi.dashboard import words
from jobrunner.tasks.recurrence import zone_of

COOKIE: Final = "jobrunner_zone"
_YEAR_S: Final = 365 * 24 * 3600
_TIME: Final = Markup('<time datetime="{iso}" title="{full}">{text}</time>')


def zones() -> list[str]:
    """Return the time zones that a viewer can choose, in order."""
    return sorted(
        name
        for name in available_timezones()
        if "/" in name and not name.startswith(("Etc/", "SystemV/", "posix/", "right/"))
    )


def known_zone(name: str) -> tzinfo | None:
    """Return a time zone by its name; None if there is none."""
    try:
        return zone_of(name)
    except InvalidSchedule:
        return None


def remember(response: Response, name: str) -> None:
    """Set the cookie with the viewer's zone.

    It has no path of ours: the browser binds it to the folder of the form's address, which is the dashboard.
    """
    response.headers.append(
        "set-cookie", f"{COOKIE}={name}; Max-Age={_YEAR_S}; HttpOnly; SameSite=Strict"
    )


@dataclass(frozen=True)
class Clock:
    """The time of a page, and the zone in which it shows times."""

    now: datetime
    name: str = "UTC"
    zone: tzinfo = UTC

    @classmethod
    def of(cls, connection: HTTPConnection, now: datetime) -> "Clock":
        """Return the clock of a request."""
        name = connection.cookies.get(COOKIE, "UTC")
        zone = known_zone(name)
        return cls(now) if zone is None else cls(now, name, zone)

    @cached_property
    def city(self) -> str:
        """The last part of the zone's name, such as ``Berlin``."""
        return self.name.rpartition("/")[2].replace("_", " ")

    def clock(self, moment: datetime | None, *, exact: bool = False) -> Markup | str:
        """Return a time of day, with its date if that is not today's."""
        if moment is None:
            return "–"
        local, today = moment.astimezone(self.zone), self.now.astimezone(self.zone)
        time = f"{local:%H:%M:%S}" + (f".{local.microsecond // 1000:03d}" if exact else "")
        if local.date() == today.date():
            return self._html(moment, time)
        day = f"{local.day} {local:%b}" + ("" if local.year == today.year else f" {local.year}")
        return self._html(moment, f"{day} {time if exact else f'{local:%H:%M}'}")

    def time_of_day(self, moment: datetime) -> str:
        """Return hours and minutes, for axes."""
        return f"{moment.astimezone(self.zone):%H:%M}"

    def ago(self, moment: datetime | None) -> Markup | str:
        """Return a time relative to now, such as ``3 min ago``."""
        if moment is None:
            return "–"
        past = self.now - moment
        if past.total_seconds() < 0:
            return self._html(moment, f"in {words.rough(-past)}")
        return self._html(moment, f"{words.rough(past)} ago")

    def since(self, moment: datetime | None) -> str:
        """Return the time that has passed since a moment, such as ``12 min``."""
        return "–" if moment is None else words.duration(self.now - moment)

    def _html(self, moment: datetime, text: str) -> Markup:
        local = moment.astimezone(self.zone)
        iso = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        full = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local.tzname()}"
        return _TIME.format(iso=iso, full=full, text=text)
