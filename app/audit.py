"""Audit entries and the JSON-lines file that stores them."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, Field

from app.clock import utcnow
from app.files import append_line_once


class AuditEntry(BaseModel):
    """An action of a user on a resource; ``at`` is the time of the action, not of the entry."""

    user_id: int
    action: str
    resource: str
    at: AwareDatetime = Field(default_factory=utcnow)


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Appends audit entries to a JSON-lines file."""

    path: Path

    def append(self, entry: AuditEntry, *, job_id: str) -> bool:
        """Append the entry, unless the same job did before; it is on disk when this returns.

        Returns:
            True if this call wrote it.
        """
        # The job's id comes last: by this mark a second attempt recognizes the line of the first.
        fields = entry.model_dump(mode="json") | {"job_id": job_id}
        mark = f'"job_id": {json.dumps(job_id)}}}'
        return append_line_once(self.path, json.dumps(fields).encode(), mark=mark.encode())
