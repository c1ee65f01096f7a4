"""Adds the running job to the log records of its task."""

import logging
from collections.abc import MutableMapping
from typing import Any, Final

LOGGER: Final = logging.getLogger("jobrunner.task")


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that adds the job to each record, beside the caller's ``extra``."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the job to a record's ``extra``."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
