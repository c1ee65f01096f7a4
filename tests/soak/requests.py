"""Requests that Hypothesis makes up from the router's OpenAPI page: every answer is one that the page promises."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tests.fastapi.conftest import NOBODY, Site
from tests.soak.budget import Figures, rounds

REQUESTS = 200
"""Requests per run of Hypothesis; between two runs the time limit is checked."""

METHODS = ("get", "put", "post", "delete")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TELLING = st.sampled_from(
    [
        *("default", "mail", "greet", "write_letter", "queued", "dead", "0", "-1", "1e9", "null"),
        *("2026-02-30", "2026-03-29T02:30:00+01:00", "9999-12-31T23:59:59Z", "* * * * *"),
        "é" * 300,
    ]
)
KNOWN = st.sampled_from(
    ["default", "mail", "greet", "write_letter", "k", "t", "name", "email", "ada"]
)
SCHEDULE = {"task": "greet", "cron": "0 8 * * *", "args": ["ada"]}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    TELLING,
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)

OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "number": st.floats(-1, 1e6),
    "boolean": st.booleans(),
    "null": st.none(),
    "date-time": st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
    "string": KNOWN,
    "array": st.lists(SCALARS, max_size=3),
    "object": st.dictionaries(KNOWN, SCALARS, max_size=3),
}


class Page:
    """The router's operations, and how to draw a request to one of them."""

    def __init__(self, site: Site) -> None:
        page = site.app.openapi()
        self._schemas: dict[str, Any] = page["components"]["schemas"]
        self._operations = {
            (method, path): item[method]
            for path, item in page["paths"].items()
            for method in METHODS
            if method in item
        }
        self._ids = [NOBODY, site.finished().id, site.waiting(key="k", tag="t").id, site.dead()]
        self._ids += [job.id for job in site.chain()]

    def draw(self, data: st.DataObject) -> tuple[str, str, dict[str, Any]]:
        """Return a method, a path and the options of a request."""
        method, path = data.draw(st.sampled_from(list(self._operations)))
        operation = self._operations[method, path]
        query: dict[str, str] = {}
        for parameter in operation.get("parameters", ()):
            name, place = parameter["name"], parameter["in"]
            if place == "path":
                word = data.draw(
                    st.sampled_from([*self._ids, "nightly"]) | KNOWN | TEXT.filter(bool)
                )
                path = path.replace(f"{{{name}}}", quote(word, safe=""))
            elif place == "query" and data.draw(st.integers(0, 3)) == 0:
                query[name] = str(data.draw(self._fitting(parameter["schema"]) | TELLING | TEXT))
        options: dict[str, Any] = {"params": query}
        if body := operation.get("requestBody"):
            options |= data.draw(self._body(body["content"]["application/json"]["schema"]))
        return method.upper(), path, options

    def _body(self, schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        """Draw a body with the page's own names and values of any kind, any JSON, or what is none."""
        properties = self._properties(schema)
        some = st.fixed_dictionaries(
            {}, optional={name: self._fitting(inner) for name, inner in properties.items()}
        )
        wild = st.fixed_dictionaries({}, optional=dict.fromkeys(properties, JSON | TELLING))
        json = st.one_of(some, some.map(lambda body: SCHEDULE | body), wild, JSON)
        none = st.binary(max_size=40).map(lambda body: {"content": body})
        return st.one_of(json.map(lambda body: {"json": body}), none)

    def _one_of(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the schemas that a schema allows, with references resolved."""
        if reference := schema.get("$ref"):
            schema = self._schemas[reference.rpartition("/")[2]]
        inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        return [leaf for one in inner for leaf in self._one_of(one)] or [schema]

    def _properties(self, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        leaves = self._one_of(schema)
        return {name: inner for one in leaves for name, inner in one.get("properties", {}).items()}

    def _fitting(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        """Draw a value of the type that the page names; whether it makes sense is for the router to say."""
        return st.one_of([_of_type(leaf) for leaf in self._one_of(schema)])


def _of_type(leaf: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in leaf:
        return st.sampled_from(leaf["enum"])
    if leaf.get("type") == "integer":
        return st.integers(leaf.get("minimum", -3), leaf.get("maximum", 300))
    return OF_TYPE[leaf.get("format") or leaf.get("type", "object")]


def ask_anything(directory: Path, *, seed: int, seconds: float) -> Figures:
    """Send requests; the site's own client holds every answer against the page."""
    site = Site(directory / "jobs.db")
    answers: Counter[int] = Counter()
    with site.client as client:
        page = Page(site)
        for number in rounds(seconds, least=1):

            @seeded(seed + number)
            @settings(
                max_examples=REQUESTS,
                deadline=None,
                database=None,
                phases=[Phase.generate],  # the seed repeats it; to make it small takes minutes
                suppress_health_check=list(HealthCheck),
            )
            @given(data=st.data())
            def ask(data: st.DataObject) -> None:
                method, path, options = page.draw(data)
                answer = client.request(method, path, **options)
                assert answer.status_code < 500, (method, path, options, answer.text)
                answers[answer.status_code] += 1

            ask()
        assert client.get("/jobs/health").json()["status"] == "ok"
    assert answers[200] > 0
    assert answers[422] > 0
    figures: Figures = {"requests": answers.total()}
    return figures | {f"answered {status}": times for status, times in sorted(answers.items())}


async def run(seed: int, seconds: float) -> Figures:
    """Send requests until the time is over, in a thread, since the client runs another loop."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        return await asyncio.to_thread(ask_anything, Path(directory), seed=seed, seconds=seconds)
