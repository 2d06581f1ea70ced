"""What the relay counts about itself, for Prometheus. No label ever comes from a client: what is not in a fixed set is `other`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tradeskill_plugins.relay.server.refusals import KINDS
from tradeskill_plugins.relay.wire import CODES, JOB_STATES

__all__ = ["Market", "Metrics"]

OTHER: Final = "other"
METHODS: Final = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
NONE: Final = "none"  # the state of a job before its first
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Market:
    """How much is in the market now. States that are none are counted as `other`."""

    jobs: Mapping[str, int] = field(default_factory=dict)  # by state
    offers: int = 0  # active ones


class Metrics:
    """All of a relay's metrics in a registry of their own; also the door's `DoorObserver`.

    `endpoints`: the names under which requests are counted, none of them taken from a request. Nothing in here raises because of a label.
    """

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, endpoints: Iterable[str]) -> None:
        self.registry = registry = CollectorRegistry()
        self._endpoints = frozenset(endpoints) | {OTHER}
        self._requests = Counter("tradeskill_relay_requests", "Requests answered", ["endpoint", "method", "status"], registry=registry)
        self._request_counts: dict[tuple[str, str, int], Counter] = {}
        seconds = Histogram("tradeskill_relay_request_seconds", "From the whole request to its answer", ["endpoint"], buckets=SECONDS, registry=registry)
        self._request_seconds = {name: seconds.labels(name) for name in self._endpoints}
        refused = Counter("tradeskill_relay_refusals", "Requests that the application refused", ["code"], registry=registry)
        self._refusals = {code: refused.labels(code) for code in (*CODES, OTHER)}
        shown_out = Counter("tradeskill_relay_door_refusals", "Requests and connections that did not reach the application", ["kind"], registry=registry)
        self._door_refusals = {kind: shown_out.labels(kind) for kind in (*KINDS, OTHER)}
        self._transitions = Counter("tradeskill_relay_job_transitions", "Changes of a job's state", ["from", "to"], registry=registry)
        self._transition_counts: dict[tuple[str, str], Counter] = {}
        self._connections = Gauge("tradeskill_relay_connections", "Open connections", registry=registry)
        self._streams = Gauge("tradeskill_relay_streams", "Open event streams", registry=registry)
        self._commit_size = Histogram("tradeskill_relay_commit_batch", "Steps in one commit", buckets=BATCHES, registry=registry)
        self._commit_seconds = Histogram("tradeskill_relay_commit_seconds", "From the first statement to durable", buckets=SECONDS, registry=registry)

    # --- while requests are answered

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        count = self._request_counts.get((endpoint, method, status)) or self._request_count(endpoint, method, status)
        count.inc()
        (self._request_seconds.get(endpoint) or self._request_seconds[OTHER]).observe(seconds)

    def rejected(self, code: str) -> None:
        """The application refused a request with this code of the protocol."""
        (self._refusals.get(code) or self._refusals[OTHER]).inc()

    def transition(self, before: str | None, after: str) -> None:
        """A job's state changed; `before` is None for a new job."""
        (self._transition_counts.get((before or NONE, after)) or self._transition_count(before or NONE, after)).inc()

    def commit(self, steps: int, seconds: float) -> None:
        """A batch of so many steps was committed."""
        self._commit_size.observe(steps)
        self._commit_seconds.observe(seconds)

    def streams(self, count: int) -> None:
        """So many event streams are open now."""
        self._streams.set(count)

    def connections(self, count: int) -> None:
        """See `DoorObserver`."""
        self._connections.set(count)

    def refused(self, kind: str) -> None:
        """See `DoorObserver`."""
        (self._door_refusals.get(kind) or self._door_refusals[OTHER]).inc()

    # --- when somebody looks

    def watch(self, market: Callable[[], Market | None]) -> None:
        """Asked at each `render` what is in the market; None leaves these gauges out. Once for each Metrics."""
        self.registry.register(_Watched(market))

    def render(self) -> bytes:
        """The whole page, of `content_type`."""
        return generate_latest(self.registry)

    # --- labels, resolved once for each combination: these are as many as the sets allow

    def _request_count(self, endpoint: str, method: str, status: int) -> Counter:
        known = (_of(endpoint, self._endpoints), _of(method, METHODS), CLASSES[status // 100 - 1] if 100 <= status <= 599 else OTHER)
        count = self._requests.labels(*known)
        if (endpoint, method) == known[:2] and known[2] != OTHER:
            self._request_counts[endpoint, method, status] = count
        return count

    def _transition_count(self, before: str, after: str) -> Counter:
        known = (_of(before, (*JOB_STATES, NONE)), _of(after, JOB_STATES))
        count = self._transitions.labels(*known)
        if (before, after) == known:
            self._transition_counts[known] = count
        return count


def _of(name: str, known: Iterable[str]) -> str:
    return name if name in known else OTHER


class _Watched(Collector):
    def __init__(self, market: Callable[[], Market | None]) -> None:
        self._market = market

    def describe(self) -> Iterable[Metric]:
        """Names only: registering does not ask."""
        return [GaugeMetricFamily("tradeskill_relay_jobs", "Jobs"), GaugeMetricFamily("tradeskill_relay_offers", "Active offers")]

    def collect(self) -> Iterator[Metric]:
        market = self._market()
        if market is None:
            return
        counted = dict.fromkeys(JOB_STATES, 0)
        for state, count in market.jobs.items():
            known = _of(state, JOB_STATES)
            counted[known] = counted.get(known, 0) + count
        jobs = GaugeMetricFamily("tradeskill_relay_jobs", "Jobs by state", labels=["state"])
        for state, count in counted.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("tradeskill_relay_offers", "Active offers", value=market.offers)
