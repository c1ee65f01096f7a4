"""Audit entries: what they hold, and the JSON-lines file."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, Field

from app.clock import utcnow
from app.files import append_line_once


class AuditEntry(BaseModel):
    """Who did what to which thing; ``at`` is the moment of the deed, not that of the writing."""

    user_id: int
    action: str
    resource: str
    at: AwareDatetime = Field(default_factory=utcnow)


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The audit entries in a JSON-lines file."""

    path: Path

    def append(self, entry: AuditEntry, *, job_id: str) -> bool:
        """Write the entry, on disk when this returns, unless the same job wrote it before.

        Returns:
            Whether it was written by this call.
        """
        # The job's id comes last: it is the mark by which a second attempt knows the line of the first.
        fields = entry.model_dump(mode="json") | {"job_id": job_id}
        mark = f'"job_id": {json.dumps(job_id)}}}'
        return append_line_once(self.path, json.dumps(fields).encode(), mark=mark.encode())
