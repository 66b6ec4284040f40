"""Rates by the minute, in bounded memory."""

import time

import pytest

from live_api.edge.addresses import client_of
from live_api.rates import Rate


def test_so_many_a_minute_for_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now)
    rate = Rate(3)
    assert not rate.is_used_up("a")
    assert [rate.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert rate.is_used_up("a")
    assert rate.take("b")
    now += 45
    assert rate.seconds_left("a") == 15
    now += 15
    assert not rate.is_used_up("a")
    assert rate.seconds_left("a") == 1
    assert rate.take("a")


def test_what_was_counted_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live_api.rates.KEPT", 2)
    rate = Rate(1)
    for key in ("a", "b", "c"):
        assert rate.take(key)
    assert not rate.take("c")
    assert rate.take("a")


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("no:address", "no:address"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(host: str, client: str) -> None:
    assert client_of({"type": "http", "client": (host, 1)}) == client
