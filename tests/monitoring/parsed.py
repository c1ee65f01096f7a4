"""Reads the output of a scrape with the parser of prometheus-client."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name, and labels in the order of their names."""

GROWING = ("counter", "histogram")


def series(name: str, **labels: str) -> Series:
    return name, tuple(sorted(labels.items()))


def parsed(text: str, *, growing: bool = False) -> Mapping[Series, float]:
    """Return the samples of a scrape; with ``growing`` those alone that never shrink."""
    return {
        series(sample.name, **sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        if not growing or family.type in GROWING
        for sample in family.samples
    }


def nonzero(found: Mapping[Series, float], name: str) -> Mapping[tuple[str, ...], float]:
    """Return the samples with a name that are not 0, by the values of their labels, sorted by the labels' names."""
    return {
        tuple(value for _, value in labels): number
        for (own, labels), number in found.items()
        if own == name and number
    }
