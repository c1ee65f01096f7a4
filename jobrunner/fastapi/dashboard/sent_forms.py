"""Answers a form that was sent twice with its first answer."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from markupsafe import Markup
from starlette.responses import Response

from jobrunner.fastapi.dashboard.forms import Form

TOKEN: Final = "once"  # noqa: S105 - the name of a field
"""The field whose value differs for each page that was rendered."""
PLACEHOLDER: Final = "\ue000once\ue001"
"""Stands for the value while a page is rendered, so that it does not change the hash of the live parts."""
FIELD: Final = Markup('<input type="hidden" name="{}" value="{}">').format(TOKEN, PLACEHOLDER)
MOST_KEPT: Final = 256
"""The most answers that are remembered."""


def name_of(path: str, form: Form) -> str | None:
    """Return the name of a form as it was sent to a path; None if it comes from no page."""
    if TOKEN not in form:
        return None
    # A digest, since a form may have megabytes.
    return hashlib.sha256(repr((path, form.fields)).encode()).hexdigest()


@dataclass(slots=True)
class SentForm:
    """One form that was sent."""

    name: str
    """The same for a form that is sent twice, in all processes."""
    has_acted: bool = False
    """True if an act of it has ended."""


class SentForms:
    """The latest forms of one dashboard that were sent to this process.

    Other processes know a form by the audit log; see ``AuditStore.record``.
    """

    def __init__(self) -> None:
        self._answers: dict[str, asyncio.Task[Response]] = {}

    async def answer(
        self, name: str | None, act: Callable[[], Coroutine[Any, Any, Response]]
    ) -> Response:
        """Act once on a form with this name; later calls get the first answer, or its error.

        After an error the same form acts again. The act goes on if its request is cancelled.
        """
        if name is None:
            return await act()
        first = self._answers.get(name)
        if first is None:
            first = self._answers[name] = asyncio.create_task(act())
            first.add_done_callback(lambda done: self._forget(name, done))
        return await asyncio.shield(first)

    def _forget(self, key: str, done: asyncio.Task[Response]) -> None:
        if (
            done.cancelled()
            or done.exception() is not None
            or done.result().status_code >= HTTPStatus.BAD_REQUEST
        ):
            # Another form's end may have removed it already, as one of the oldest.
            self._answers.pop(key, None)
        ended = [one for one, answer in self._answers.items() if answer.done()]
        for one in ended[:-MOST_KEPT]:
            del self._answers[one]
