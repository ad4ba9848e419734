"""Counters, gauges and histograms in Prometheus' text format (version 0.0.4), for `/metrics`."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """How many observations were at most as large as each bound."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value


class Metrics:
    """What one server has counted. Any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._counters: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        for name, text in (
            ("kringle_requests_total", "Requests by route and status."),
            ("kringle_prompt_tokens_total", "Tokens of prompts."),
            ("kringle_prompt_tokens_reused_total", "Tokens of prompts whose keys and values were there already."),
            ("kringle_completion_tokens_total", "Tokens drawn."),
            ("kringle_disconnects_total", "Requests whose client went away before the end."),
        ):
            self._help[name], self._counters[name] = ("counter", text), {}
        for name, text in (
            ("kringle_request_seconds", "From a request's head to its answer's end."),
            ("kringle_first_token_seconds", "From a request's prompt to its first token, waiting included."),
        ):
            self._help[name], self._histograms[name] = ("histogram", text), {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._counters[name][key] = self._counters[name].get(key, 0) + amount

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._histograms[name].setdefault(key, Histogram()).observe(seconds)

    def text(self, gauges: Sequence[tuple[str, str, Sequence[tuple[dict[str, str], float]]]] = ()) -> str:
        """Everything; `gauges` are (name, help, [(labels, value)]) as of now."""
        lines = []
        with self._lock:
            for name, (kind, said) in self._help.items():
                lines += [f"# HELP {name} {said}", f"# TYPE {name} {kind}"]
                for labels, value in self._counters.get(name, {}).items():
                    lines.append(
                        f"{name}{_labels(labels)} {value:g}" if value < 1e6 else f"{name}{_labels(labels)} {value:.0f}"
                    )
                for labels, histogram in self._histograms.get(name, {}).items():
                    total = 0
                    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
                        total += count
                        lines.append(f"{name}_bucket{_labels((*labels, ('le', bound)))} {total}")
                    lines.append(f"{name}_sum{_labels(labels)} {histogram.sum:.6f}")
                    lines.append(f"{name}_count{_labels(labels)} {total}")
        for name, said, values in gauges:
            lines += [f"# HELP {name} {said}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_labels(tuple(labels.items()))} {value:g}" for labels, value in values]
        return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
