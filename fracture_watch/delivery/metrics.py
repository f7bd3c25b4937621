"""What the watcher does, as Prometheus metrics."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fracture_watch.records import Outcome

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters and durations of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._files = Counter(
            "fracture_watch_files",
            "Files by what came of them.",
            ["status", "code"],
            registry=self.registry,
        )
        self._put_off = Counter(
            "fracture_watch_put_off", "Files that could not be read and are tried again.", registry=self.registry
        )
        self._stages = Histogram(
            "fracture_watch_stage_seconds",
            "Seconds that a batch spent in a stage.",
            ["stage"],
            registry=self.registry,
            buckets=_BUCKETS,
        )

    def count(self, outcome: Outcome) -> None:
        """A file's outcome was recorded."""
        self._files.labels(str(outcome.status), getattr(outcome, "code", "")).inc()

    def put_off(self) -> None:
        """A file is tried again later."""
        self._put_off.inc()

    def spent(self, seconds: Mapping[str, float]) -> None:
        """A batch is through."""
        for stage, value in seconds.items():
            self._stages.labels(stage).observe(value)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A value that is read whenever somebody asks."""
        Gauge(f"fracture_watch_{name}", text, registry=self.registry).set_function(read)

    def watch_reasons(self, name: str, text: str, codes: Iterable[str], read: Callable[[], str | None]) -> None:
        """One 0 or 1 a code: whether what ``read`` says begins with it."""
        gauge = Gauge(f"fracture_watch_{name}", text, ["reason"], registry=self.registry)
        for code in codes:
            gauge.labels(code).set_function(partial(_begins, read, code))

    def text(self) -> bytes:
        """The text exposition format."""
        return bytes(generate_latest(self.registry))


def _begins(read: Callable[[], str | None], code: str) -> bool:
    return (read() or "").startswith(code)
