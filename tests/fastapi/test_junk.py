"""Every route answers junk as a problem, and every answer carries the headers."""

import pytest

from tests.fastapi.conftest import NOBODY, Site
from tests.fastapi.routes import ACTS, ALL


def test_T24_every_answer_is_not_to_be_kept_sniffed_or_framed(site: Site) -> None:
    answers = [site.client.request(method, path) for method, path in ALL]
    answers += [site.client.put("/jobs"), site.client.get("/jobs", headers={"Authorization": ""})]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


JUNK = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"0",
    b"\xff\xfe",
    b'{"args": ' + b"[" * 100_000,
    b'{"args": {"email": ' + b"9" * 5_000 + b"}}",
    b'{"task": "\\ud800"}',
    b'{"\\u0000": NaN}',
    b'{"all": false, "all": {}}',
    b'{"since": "9999-12-31T23:59:59-23:59"}',
    b'{"since": "0001-01-01T00:00:00+23:59", "dry_run": true}',
]


@pytest.mark.parametrize("body", JUNK, ids=[str(number) for number in range(len(JUNK))])
def test_I3_junk_in_a_body_is_never_a_server_error(shared: Site, letter: str, body: bytes) -> None:
    for method, path in [*ACTS, ("POST", f"/jobs/dead-letters/{letter}/replay")]:
        for media_type in (
            "application/json",
            "text/plain",
            "",
            "application/x-www-form-urlencoded",
        ):
            answer = shared.client.request(
                method, path, content=body, headers={"content-type": media_type}
            )
            assert answer.status_code < 500, (method, path, answer.text)


@pytest.mark.parametrize(
    "word", ["%00", "%ff", "..%2f..", "🙂", "9" * 5000, "0", "null", "%0d%0aX: y"]
)
def test_I3_junk_in_a_path_or_query_is_never_a_server_error(shared: Site, word: str) -> None:
    for method, path in ALL:
        junked = path.replace(NOBODY, word).replace("mail", word)
        for query in (
            "",
            *(f"?{name}={word}" for name in ("task", "key", "since", "limit", "cursor")),
        ):
            answer = shared.client.request(method, junked + query)
            assert answer.status_code < 500, (method, junked, query, answer.text)
