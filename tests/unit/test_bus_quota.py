"""GCRA as `dualcast.bus.quota` does it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.bus import quota
from dualcast.bus.quota import Quotas, admit
from dualcast.model.publication import Quota
from dualcast.publishing.quotas import TenantQuotas
from dualcast.tenancy.model import Tenant, TenantSettings


def test_a_burst_then_the_rate() -> None:
    limit, tat, now = Quota(rate_per_s=2.0, burst=3), 0.0, 1_700_000_000.0
    for _ in range(3):
        tat, wait = admit(tat, now, limit)
        assert wait == 0
    assert admit(tat, now, limit) == (tat, pytest.approx(0.5))
    tat, wait = admit(tat, now + 0.5, limit)
    assert wait == 0
    assert admit(tat, now + 0.5, limit)[1] == pytest.approx(0.5)
    assert admit(tat, now + 100, limit)[1] == 0


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 20),
    steps=st.lists(st.floats(0, 1), min_size=1, max_size=200),
)
def test_never_more_than_burst_plus_rate_and_the_wait_is_enough(
    rate: float, burst: int, steps: list[float]
) -> None:
    limit, tat, now, passed = Quota(rate, burst), 0.0, 1_700_000_000.0, 0
    begun = now
    for step in steps:
        now += step
        tat, wait = admit(tat, now, limit)
        passed += not wait
        assert passed <= burst + (now - begun) * rate + 0.01
        if wait:
            assert admit(tat, now + wait, limit)[1] == 0


def test_a_quota_that_was_raised_holds_at_once() -> None:
    now = 1_700_000_000.0
    quotas, small, large = Quotas(lambda: now), Quota(rate_per_s=0.1, burst=100), Quota(100.0, 400)
    assert [quotas.take("t", small) is None for _ in range(101)] == [True] * 100 + [False]
    refused = quotas.take("t", large)  # empty, but not of another rate
    assert refused is not None and refused.retry_after_s == pytest.approx(0.01, rel=0.01)
    now += 0.011
    assert quotas.take("t", large) is None and quotas.take("t", large) is not None


def tenants_with(**settings: Any) -> Any:
    tenant = Tenant(id="t", settings=TenantSettings(**settings))
    return SimpleNamespace(current=lambda name: tenant if name == "t" else None)


def test_a_tenants_own_burst_counts_without_a_rate_of_its_own() -> None:
    assert TenantQuotas(tenants_with(publish_burst=7), 50).quota("t") == Quota(50, 7)
    assert TenantQuotas(tenants_with(publish_rate_per_s=5.0), 50).quota("t") == Quota(5.0, 20)
    assert TenantQuotas(tenants_with(), 50).quota("t") == Quota(50, 200)
    assert TenantQuotas(tenants_with(publish_burst=7)).quota("t") is None  # there is no rate at all


def test_a_rate_of_nothing_lets_the_burst_through_and_then_no_more() -> None:
    tat, wait = admit(0.0, 1000.0, Quota(rate_per_s=0.0, burst=1))
    assert wait == 0
    assert admit(tat, 1000.0, Quota(rate_per_s=0.0, burst=1))[1] > 1000


def test_idle_tenants_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(quota, "FORGET_ABOVE", 10)
    quotas = Quotas(lambda: now)
    limit = Quota(rate_per_s=0.1, burst=1)
    for n in range(10):
        assert quotas.take(f"old-{n}", limit) is None
    now += 60
    for n in range(5):
        assert quotas.take(f"new-{n}", limit) is None
    assert len(quotas._tats) <= 10
    error = quotas.take("new-0", limit)
    assert error is not None and error.retry_after_s == pytest.approx(10)
    assert quotas.take("new-0", None) is None
