"""The id of a stored trace context."""

import pytest

from jobrunner.core.tracing import trace_id_of

ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("context", "id"),
    [
        (f"00-{ID}-b7ad6b7169203331-01", ID),
        (f"00-{ID}-b7ad6b7169203331-01\nvendor=a-b", ID),
        (None, None),
        ("", None),
        ("context", None),
        ("a-b", None),
    ],
)
def test_trace_id_is_the_second_part_of_the_form_of_the_w3c(
    context: str | None, id: str | None
) -> None:
    assert trace_id_of(context) == id
