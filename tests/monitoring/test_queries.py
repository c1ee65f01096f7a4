"""The Grafana dashboard and the alerts of the documentation against the real output: names, labels and values."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tenacity import wait_none

from jobrunner import JobContext, JobDead, JobRunner
from jobrunner.prometheus import JobCollector
from tests.support.engine import next_round, producer_of, soon
from tests.support.processes import CHECKOUT

ASSETS: Final = CHECKOUT / "docs" / "assets"
OF_PROMETHEUS: Final = {"job", "instance"}
"""The labels that Prometheus adds to each target."""
NAME: Final = re.compile(r"\bjobrunner_\w+")
SELECTOR: Final = re.compile(r"\b(jobrunner_\w+)\{([^}]*)\}")
MATCHER: Final = re.compile(r'(\w+)(=~|=|!=)"([^"]*)"')
GROUPED: Final = re.compile(r"\bby \(([^)]*)\)")
LEGEND: Final = re.compile(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}")

Output = Mapping[str, Mapping[str, set[str]]]
"""The values of each label, by sample name."""


def panels() -> Iterator[tuple[str, str, str]]:
    """Yield title, query and legend of everything that the dashboard asks."""
    dashboard = json.loads((ASSETS / "grafana.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"], ""


def alerts() -> Iterator[tuple[str, str, str]]:
    text = (ASSETS / "alerts.yml").read_text(encoding="utf-8")
    rules = re.findall(r"- alert: (\w+)\n\s+expr: (.*)\n(?:.*\n)*?\s+summary: \"(.*)\"", text)
    assert len(rules) == text.count("- alert:")
    yield from rules


@pytest.fixture
async def output(jobs: JobRunner) -> Output:
    """Let a task succeed, wait, fail and die, and a schedule tick; return what is scraped."""

    @jobs.every(1)
    @jobs.task(max_attempts=2, wait=wait_none())
    async def tick() -> None:
        raise ValueError

    @jobs.task
    async def work() -> None: ...

    @jobs.task
    async def waits(job: JobContext) -> None:
        await job.sleep(timedelta(milliseconds=1))

    async with jobs.running():
        await (await waits.enqueue()).result(timeout=30)
        await (await work.enqueue()).result(timeout=30)
        with pytest.raises(JobDead):
            await (await tick.enqueue()).result(timeout=30)
        while not [one for one in (await jobs.schedules.list()).items if one.last_at]:
            await soon(next_round(jobs))
        producer_of(jobs)._statistics._period.end()
        await next_round(jobs)
        registry = CollectorRegistry()
        registry.register(JobCollector(jobs))
        text = generate_latest(registry).decode()
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)
            found[sample.name]["job"].add("shop")
    return found


def problems(query: str, shown: str, output: Output) -> list[str]:
    """Return what a query names and the output does not have."""
    names = set(NAME.findall(query))
    found = [f"no metric {name}" for name in names - output.keys()]
    known = OF_PROMETHEUS.union(*(output[name].keys() for name in names & output.keys()))
    for name, matchers in SELECTOR.findall(query):
        for label, operator, value in MATCHER.findall(matchers):
            if label in OF_PROMETHEUS:
                continue
            values = output.get(name, {}).get(label)
            if values is None:
                found.append(f"{name} has no label {label}")
            elif operator == "=" and not value.startswith("$") and value not in values:
                found.append(f"{name} has no {label}={value}")
    grouped = {label.strip() for labels in GROUPED.findall(query) for label in labels.split(",")}
    found += [f"no label {label}" for label in grouped - known]
    # What is shown must be left after the outermost grouping.
    found += [f"the text names {label}" for label in set(LEGEND.findall(shown)) - grouped]
    return found


async def test_queries_name_metrics_labels_and_values_of_the_real_output(output: Output) -> None:
    asked = [*panels(), *alerts()]
    wrong = {
        title: found for title, query, text in asked if (found := problems(query, text, output))
    }
    assert wrong == {}
    queried = {name for _, query, _ in asked for name in NAME.findall(query)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in output}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in queried} == families


async def test_queries_take_each_process_on_a_file_once(output: Output) -> None:
    """All processes show the same numbers, so a sum over instances would count them twice."""
    for title, query, _ in [*panels(), *alerts()]:
        if "label_values" in query:
            continue
        for name in NAME.findall(query):
            before = query[: query.index(name)]
            assert re.search(r"max by \([^)]*\bjob\b[^)]*\) \((?:rate|increase)?\(?$", before), (
                title,
                before,
            )


@pytest.mark.parametrize(
    ("query", "shown", "found"),
    [
        ("rate(jobrunner_nothing_total[5m])", "", ["no metric jobrunner_nothing_total"]),
        ("sum by (where) (jobrunner_workers)", "", ["no label where"]),
        ('jobrunner_jobs_total{state="x"}', "", ["jobrunner_jobs_total has no label state"]),
        ('jobrunner_jobs_total{outcome="lost"}', "", ["jobrunner_jobs_total has no outcome=lost"]),
        ("max by (job) (jobrunner_workers)", "{{task}}", ["the text names task"]),
        ("max by (job) (jobrunner_workers)", "{{job}}", []),
    ],
)
async def test_problems_are_found(query: str, shown: str, found: list[str], output: Output) -> None:
    assert problems(query, shown, output) == found
