"""Writes metrics as Prometheus reads them, as text or as OpenMetrics.

The encoders of prometheus-client give the same for them, which a test checks.  For each sample they check and escape
its names anew, which took half of the time of a scrape.  These metrics have names of letters, neither timestamps nor
exemplars, and no units.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol


class Sample(Protocol):
    """A sample of prometheus-client."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def value(self) -> float: ...


class Metric(Protocol):
    """A family of prometheus-client."""

    name: str
    documentation: str
    type: str

    @property
    def samples(self) -> Sequence[Sample]: ...


def encode(
    metrics: Iterable[Metric], *, open_metrics: bool, number: Callable[[float], str]
) -> bytes:
    """Return the metrics in one of the two formats.

    Args:
        metrics: families of counters, gauges and histograms.
        open_metrics: write OpenMetrics, in which a counter's family is named without ``_total``.
        number: writes a value.
    """
    lines: list[str] = []
    escaped, numbers = _Escaped(), _Numbers(number)
    forms: dict[tuple[str, ...], tuple[list[str], str]] = {}
    for metric in metrics:
        name = metric.name
        if metric.type == "counter" and not open_metrics:
            name += "_total"
        lines.append(f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n")
        for sample in metric.samples:
            labels = sample.labels
            given = tuple(labels)
            if given not in forms:
                forms[given] = _form_of(given)
            keys, form = forms[given]
            written = form % tuple([escaped[labels[key]] for key in keys])
            lines.append(f"{sample.name}{written} {numbers[sample.value]}\n")
    if open_metrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()


def _form_of(labels: Sequence[str]) -> tuple[list[str], str]:
    """Return labels in their order and a form for their values.

    The order is that of their names, as prometheus-client has it.
    """
    keys = sorted(labels)
    return keys, "{" + ",".join([f'{key}="%s"' for key in keys]) + "}" if keys else ""


class _Numbers(dict[float, str]):
    """Values as they are written; a few, such as 0, are most of them."""

    def __init__(self, number: Callable[[float], str]) -> None:
        self._number = number

    def __missing__(self, value: float) -> str:
        found = self[value] = self._number(value)
        return found


class _Escaped(dict[str, str]):
    """The values of labels as they are written; most are used many times."""

    def __missing__(self, value: str) -> str:
        found = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        self[value] = found
        return found
