"""What the watcher does, as Prometheus metrics."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fracture_watch.outcomes import Outcome

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

        self._delivered = Counter(
            "fracture_watch_outbox_delivered",
            "Deliveries that a destination took.",
            ["destination"],
            registry=self.registry,
        )
        self._not_delivered = Counter(
            "fracture_watch_outbox_failed",
            "Attempts to deliver that were in vain.",
            ["destination"],
            registry=self.registry,
        )

        self._received = Counter(
            "fracture_watch_dicom_received", "Objects that were received by DICOM.", registry=self.registry
        )
        self._received_bytes = Counter(
            "fracture_watch_dicom_received_bytes", "Bytes of these objects.", registry=self.registry
        )
        self._refused = Counter(
            "fracture_watch_dicom_refused",
            "Connections, associations and objects that were refused.",
            ["reason"],
            registry=self.registry,
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

    def deliver_to(self, destination: str) -> None:
        """Count from nought: what was never counted is not there to be compared with."""
        self._delivered.labels(destination)
        self._not_delivered.labels(destination)

    def delivered(self, destination: str) -> None:
        """A destination has what it was sent."""
        self._delivered.labels(destination).inc()

    def not_delivered(self, destination: str) -> None:
        """An attempt to deliver was in vain."""
        self._not_delivered.labels(destination).inc()

    def received(self, size: int) -> None:
        """An object of so many bytes came by DICOM."""
        self._received.inc()
        self._received_bytes.inc(size)

    def refuse_for(self, reason: str) -> None:
        """Count from nought, too."""
        self._refused.labels(reason)

    def refused(self, reason: str) -> None:
        """Something that came by DICOM was not let in."""
        self._refused.labels(reason).inc()

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A value that is read whenever somebody asks."""
        Gauge(f"fracture_watch_{name}", text, registry=self.registry).set_function(read)

    def watch_reasons(self, name: str, text: str, codes: Iterable[str], read: Callable[[], str | None]) -> None:
        """One 0 or 1 a code: whether what ``read`` says begins with it."""
        gauge = Gauge(f"fracture_watch_{name}", text, ["reason"], registry=self.registry)
        for code in codes:
            gauge.labels(code).set_function(partial(_begins, read, code))

    def watch_by(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Values that are read whenever somebody asks, one a label."""
        self.registry.register(_Readings(f"fracture_watch_{name}", text, label, read))

    def text(self) -> bytes:
        """The text exposition format."""
        return bytes(generate_latest(self.registry))


@dataclass(frozen=True, slots=True)
class _Readings(Collector):
    name: str
    text: str
    label: str
    read: Callable[[], Mapping[str, float]]

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self.name, self.text, labels=[self.label])]  # without a look at the values

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self.name, self.text, labels=[self.label])
        for value, reading in self.read().items():
            family.add_metric([value], reading)
        return [family]


def _begins(read: Callable[[], str | None], code: str) -> bool:
    return (read() or "").startswith(code)
