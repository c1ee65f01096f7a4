"""Answers the polls of an open page without a query while nothing has changed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from weakref import WeakKeyDictionary

from starlette.responses import Response

from jobrunner.core.clock import now_s
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.store.protocol import Store

FRESH_S: Final = 5.0
"""Seconds for which a page stands: what it says about time, such as the verdict, changes without a commit."""
MOST_KEPT: Final = 256
"""The most pages that are remembered, each by its hash alone."""

_Key = tuple[str, bool, bool, str, str | None]


@dataclass(frozen=True, slots=True)
class _Rendered:
    etag: str
    counter: int
    """The store's change counter before the page was read."""
    at: float


class Polls:
    """The hashes of the pages of one dashboard that were rendered last."""

    def __init__(self) -> None:
        # A test may open the same dashboard on another store, whose counter means something else.
        self._stores: WeakKeyDictionary[Store, dict[_Key, _Rendered]] = WeakKeyDictionary()

    async def answer(self, visit: Visit, show: Callable[[Visit], Awaitable[Response]]) -> Response:
        """Answer 304 if the viewer's page is current, else with the page."""
        store, at = visit.parts.store, now_s()
        # Read before the page: a commit in between makes the next poll read again.
        counter = await store.change_counter()
        kept, key = self._stores.setdefault(store, {}), _key_of(visit)
        last = kept.get(key)
        if (
            last is not None
            and last.etag == visit.request.headers.get("if-none-match")
            and last.counter == counter
            and at - last.at < FRESH_S
        ):
            return Response(
                status_code=HTTPStatus.NOT_MODIFIED, headers=visit.live_headers(last.etag)
            )
        answer = await show(visit)
        etag = answer.headers.get("etag")
        if etag is not None:
            kept.pop(key, None)
            kept[key] = _Rendered(etag, counter, at)
            if len(kept) > MOST_KEPT:
                del kept[next(iter(kept))]
        return answer


def _key_of(visit: Visit) -> _Key:
    """Return all that a page depends on besides the store and the time."""
    return (
        str(visit.request.url),
        visit.may_act,
        visit.may_see,
        str(visit.clock.zone),
        visit.actor,
    )
