"""Says on the next page what an action has done; the address names the sentence, never its words."""

from collections.abc import Mapping
from typing import Final

from starlette.datastructures import QueryParams

from jobrunner.fastapi.dashboard.words import count_of

_SENTENCES: Final[Mapping[str, str]] = {
    "cancelled": "Cancelled: the job will not run.",
    "requested": "The job is running and was asked to stop.",
    "ended": "The job had ended already; nothing was changed.",
    "replayed": "Replayed: the job is due now.",
    "replayed-edited": "Replayed with other arguments: this is the new job.",
    "deleted": "The dead letter was deleted.",
    "paused": "Paused: no new job of the queue starts, running ones finish.",
    "resumed": "Resumed: the queue starts jobs again.",
    "batch-cancelled": "Cancelled: waiting members will not run, running ones were asked to stop.",
    "batch-ended": "The batch had ended or was cancelled before; nothing was changed.",
    "limit-set": "Set: the limit holds in all processes from their next claim on.",
    "limit-reset": "Reset: the numbers in the code count again.",
    "schedule-paused": "Paused: the schedule makes no jobs until it is resumed.",
    "schedule-resumed": "Resumed: the schedule makes jobs again.",
    "ran": "The schedule has made this job, due now.",
    "ran-kept": "The schedule has made no job: this one has its key and is not finished.",
    "due": "The job is due now.",
    "does-not-fit": "Not replayed: its arguments no longer fit the task. Correct them with “Edit and replay”.",
    "nothing-to-test": "No dead letter of the group can be replayed: unfinished jobs have their keys.",
    "none-fits": "Not tested: the arguments no longer fit the task. Open a letter, and correct them with"
    " “Edit and replay”.",
    "none-matches": "No job that can be cancelled matches.",
    "acted-already": "This form was sent before and acts once: its act is in this list.",
    "none-waits": "No waiting job matches.",
    "none-selected": "No job was selected.",
}
_COUNTED: Final[Mapping[str, tuple[str, str]]] = {
    "many": ("job", "{} cancelled or asked to stop."),
    "many-due": ("job", "{} due now."),
    "many-replayed": (
        "dead letter",
        "{} replayed. Those whose key is held or whose arguments do not fit stay here.",
    ),
    "many-deleted": ("dead letter", "{} deleted."),
}


def notice_of(query: QueryParams) -> str:
    """Return the sentence that an address names; empty if it names none."""
    said = query.get("said", "")
    number = query.get("n", "")
    if said in _COUNTED and number.isascii() and number.isdigit():
        noun, sentence = _COUNTED[said]
        return sentence.format(count_of(int(number[:9]), noun))
    return _SENTENCES.get(said, "")
