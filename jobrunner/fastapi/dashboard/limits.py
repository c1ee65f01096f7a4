"""The page of limits, with forms that set and reset them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast, get_args

from starlette.responses import Response

from jobrunner.core.errors import InvalidOptions
from jobrunner.core.limits import LimitScope
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.limits import LimitInfo, Meant, made_rate, meant

ROWS: Final = 50

_SCOPES: Final[Mapping[str, str]] = {
    "queue": "queue",
    "task": "task",
    "lanes": "each lane of the task",
    "lane": "this lane",
}


@dataclass(frozen=True, slots=True)
class LimitsView:
    """The page."""

    limits: Sequence[LimitInfo]
    scopes: Mapping[str, str]
    """Each scope in words."""
    scope: str
    """The scope that the form names."""
    name: str
    cursor: str
    next_cursor: str | None


def add_limits(pages: Pages) -> None:
    """Add the page of limits and its forms."""

    @pages.show("/limits")
    async def list_limits(visit: Visit) -> Response:
        cursor = visit.asked("cursor")
        page = await visit.queue.limits.list(limit=ROWS, cursor=cursor or None)
        scope = visit.asked("scope")
        view = LimitsView(
            limits=page.items,
            scopes=_SCOPES,
            scope=scope if scope in _SCOPES else "task",
            name=visit.asked("name"),
            cursor=cursor,
            next_cursor=page.next_cursor,
        )
        return await visit.page("limits.html", view, title="Limits", section="queues")

    @pages.do("/limits/set")
    async def set_limit(visit: Visit, form: Form) -> Response:
        async with visit.act("limits.set", target=_target(form), reason=form.get("reason")):
            starts = _number(form, "starts")
            burst = _number(form, "burst")
            await visit.queue.limits.set(
                **_meant(form),
                concurrency=_number(form, "concurrency"),
                rate_limit=None
                if starts is None
                else made_rate(starts, _seconds(form), burst=1 if burst is None else burst),
                max_waiting=_number(form, "max_waiting"),
            )
        return visit.go("limits", "limit-set")

    @pages.do("/limits/reset")
    async def reset_limit(visit: Visit, form: Form) -> Response:
        async with visit.act("limits.reset", target=_target(form)) as act:
            act.count = int(await visit.queue.limits.reset(**_meant(form)))
        return visit.go("limits", "limit-reset")


def _target(form: Form) -> str:
    return f"{form.get('scope')} {form.get('name').strip()}"


def _meant(form: Form) -> Meant:
    scope = form.get("scope")
    if scope not in get_args(LimitScope):
        raise InvalidOptions(f"scope={scope!r} of the form is none: open the page again")
    return meant(cast("LimitScope", scope), form.get("name").strip())


def _number(form: Form, field: str) -> int | None:
    text = form.get(field).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004 - see MAX_LIMIT
        raise InvalidOptions(f"{text!r} is no whole number: write 4")
    return int(text)


def _seconds(form: Form) -> float:
    text = form.get("per").strip() or "1"
    try:
        return float(text)
    except ValueError:
        raise InvalidOptions(f"{text!r} is no number of seconds: write 60") from None
