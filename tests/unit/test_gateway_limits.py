"""Token buckets: rate, burst, forgetting, exemptions."""

from __future__ import annotations

import pytest

from dualcast.gateway.limits import RateLimits, RateSettings, TokenBuckets, counted
from dualcast.model.errors import RateLimited


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_burst_then_rate() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, 0.5, 100, clock)
    assert [buckets.take("a") for _ in range(5)] == [0.0] * 5
    wait = buckets.take("a")
    assert wait == pytest.approx(0.1)
    assert buckets.take("b") == 0.0
    clock.now += wait
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0
    clock.now += 1000
    assert [buckets.take("a") for _ in range(5)] == [0.0] * 5
    assert buckets.take("a") > 0


def test_the_table_is_bounded_and_forgets_the_oldest() -> None:
    buckets = TokenBuckets(0.001, 0, 3, Clock())
    for key in "abcd":
        assert buckets.take(key) == 0.0
    assert len(buckets) == 3
    assert buckets.take("d") > 0
    assert buckets.take("a") == 0.0


def test_limits_by_address_leave_loopback_and_proxies_alone() -> None:
    limits = RateLimits(
        RateSettings(
            handshakes_per_ip_per_s=1,
            requests_per_ip_per_s=1,
            burst_s=1,
            exempt=("127.0.0.0/8", "10.0.0.0/8"),
        ),
        Clock(),
    )
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "10.1.2.3", ""):
        for _ in range(5):
            limits.handshake(address)
            limits.request(address)
    limits.handshake("192.0.2.1")
    with pytest.raises(RateLimited) as caught:
        limits.handshake("192.0.2.1")
    assert caught.value.retry_after_s == pytest.approx(1)
    limits.handshake("2001:db8::1")
    limits.request("192.0.2.1")


def test_zero_switches_off() -> None:
    limits = RateLimits(RateSettings(handshakes_per_ip_per_s=0), Clock())
    for _ in range(1000):
        limits.handshake("192.0.2.1")
        limits.request("192.0.2.1")
        limits.principal("t", "a")


@pytest.mark.parametrize("address", ["unknown", "_hidden", "192.0.2.1:443", "localhost.evil.example"])
def test_what_a_proxy_forwards_instead_of_an_address_is_limited_too(address: str) -> None:
    limits = RateLimits(RateSettings(handshakes_per_ip_per_s=1, burst_s=1), Clock())
    assert not limits.is_exempt(address)
    limits.handshake(address)
    with pytest.raises(RateLimited):
        limits.handshake(address)


def test_trusted_proxies_need_not_be_addresses() -> None:
    limits = RateLimits(RateSettings(exempt=("*", "/run/proxy.sock", "10.0.0.0/8")), Clock())
    assert limits.is_exempt("/run/proxy.sock")
    assert limits.is_exempt("10.9.9.9")
    assert not limits.is_exempt("192.0.2.1")


def test_an_ipv6_subscriber_is_counted_once_whichever_of_its_addresses_it_uses() -> None:
    assert counted("2001:db8:1:2::1") == counted("2001:db8:1:2:ffff::9") != counted("2001:db8:1:3::1")
    assert counted("::ffff:192.0.2.1") == counted("192.0.2.1") == "192.0.2.1"
    assert counted("fe80::1%eth0") == counted("fe80::2")
    assert len(counted("x" * 5000)) <= 64
