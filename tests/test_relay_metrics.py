"""What the relay counts: bounded labels, one page in Prometheus' format."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from tradeskill_plugins.relay.server.metrics import Market, Metrics
from tradeskill_plugins.relay.wire import JOB_STATES


def page(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample of the page by its name and label values. The page is read by Prometheus' own parser."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_requests_are_counted_by_endpoint_method_and_class() -> None:
    metrics = Metrics(["jobs.lock", "offers.list"])
    for status in (200, 201, 409):
        metrics.request("jobs.lock", "POST", status, 0.003)
    metrics.request("offers.list", "GET", 200, 20.0)
    found = page(metrics)
    assert found["tradeskill_relay_requests_total", "jobs.lock", "POST", "2xx"] == 2
    assert found["tradeskill_relay_requests_total", "jobs.lock", "POST", "4xx"] == 1
    assert found["tradeskill_relay_request_seconds_count", "jobs.lock"] == 3
    assert found["tradeskill_relay_request_seconds_bucket", "jobs.lock", "0.0025"] == 0
    assert found["tradeskill_relay_request_seconds_bucket", "jobs.lock", "0.005"] == 3
    assert found["tradeskill_relay_request_seconds_bucket", "offers.list", "+Inf"] == 1


def test_labels_come_from_fixed_sets_whatever_a_client_sends() -> None:
    metrics = Metrics(["jobs.lock"])
    size = 0
    for n in range(2000):
        metrics.request(f"/v1/{n}", f"M{n}", 100 + n % 500, 0.1)
        metrics.request("jobs.lock", "POST", n, 0.1)
        metrics.rejected(f"code {n}")
        metrics.refused(f"kind {n}")
        metrics.transition(f"state {n}", f"state {n + 1}")
        metrics.transition(None, f'"\n{n}')
        if n == 600:
            size = len(page(metrics))
    found = page(metrics)
    assert len(found) == size
    assert sum(value for name, value in found.items() if name[:3] == ("tradeskill_relay_requests_total", "other", "other")) == 2000
    assert found["tradeskill_relay_requests_total", "jobs.lock", "POST", "other"] == 1500
    assert found["tradeskill_relay_refusals_total", "other"] == 2000
    assert found["tradeskill_relay_job_transitions_total", "none", "other"] == 2000
    assert re.search(rb"code \d|kind \d|state \d|/v1/", metrics.render()) is None


def test_each_thing_that_happens_is_counted_where_it_belongs() -> None:
    metrics = Metrics([])
    metrics.rejected("rate_limited")
    metrics.refused("late")
    metrics.transition(None, "requested")
    metrics.transition("requested", "quoted")
    metrics.connections(7)
    metrics.streams(3)
    metrics.commit(5, 0.002)
    found = page(metrics)
    assert found["tradeskill_relay_refusals_total", "rate_limited"] == 1
    assert found["tradeskill_relay_door_refusals_total", "late"] == 1
    assert found["tradeskill_relay_job_transitions_total", "none", "requested"] == 1
    assert found["tradeskill_relay_job_transitions_total", "requested", "quoted"] == 1
    assert found["tradeskill_relay_connections",] == 7
    assert found["tradeskill_relay_streams",] == 3
    assert found["tradeskill_relay_commit_batch_sum",] == 5
    assert found["tradeskill_relay_commit_seconds_count",] == 1


def test_what_could_be_refused_is_on_the_page_before_it_ever_was() -> None:
    found = page(Metrics([]))
    assert found["tradeskill_relay_refusals_total", "auth.nonce_replay"] == 0
    assert found["tradeskill_relay_door_refusals_total", "head_too_large"] == 0


def test_the_market_is_asked_when_somebody_looks_and_not_before() -> None:
    metrics, asked = Metrics([]), list[int]()

    def market() -> Market | None:
        asked.append(1)
        return None if len(asked) == 1 else Market({"requested": 4, "invented": 1, "lost": 1}, 9)

    metrics.watch(market)
    assert asked == []
    assert ("tradeskill_relay_offers",) not in page(metrics)
    found = page(metrics)
    assert len(asked) == 2
    assert found["tradeskill_relay_offers",] == 9
    jobs = {name[1]: value for name, value in found.items() if name[0] == "tradeskill_relay_jobs"}
    assert jobs == dict.fromkeys(JOB_STATES, 0.0) | {"requested": 4.0, "other": 2.0}


def test_two_relays_in_one_process_count_for_themselves() -> None:
    first, second = Metrics(["a"]), Metrics(["a"])
    first.request("a", "GET", 200, 0.1)
    assert ("tradeskill_relay_requests_total", "a", "GET", "2xx") not in page(second)
    assert first.content_type.startswith("text/plain")
