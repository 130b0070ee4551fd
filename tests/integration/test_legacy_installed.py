"""A contract from outside the package: the very text of docs/guides/write-a-dialect.md, installed as a
distribution of its own and found by its entry point."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualcast.dialects.legacy import LegacySettings
from dualcast.gateway.legacy.finding import ContractUnusable, contract_endpoints
from support.legacy_node import legacy_node, refusal, socket, stream

pytestmark = pytest.mark.anyio

GUIDE = Path(__file__).parents[2] / "docs/guides/write-a-dialect.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def install(folder: Path, name: str, module: str, source: str, entry_point: str) -> None:
    """What an installer would write."""
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[dualcast.dialects]\n{entry_point}\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def shop(site: Path) -> Path:
    (source,) = blocks("python")
    assert source.count("\n") < 100
    (entry_point,) = re.findall(r'^shop = "(.+)"$', blocks("toml")[0], re.MULTILINE)
    install(site, "shop-wire", "shop_wire", source, f"shop = {entry_point}")
    return site


async def test_the_contract_of_the_guide_works_on_both_transports(shop: Path) -> None:
    async with legacy_node("memory", dialects=("rooms", "shop")) as node:
        assert await refusal(node, "/shop/ws") == (4001, "who are you")
        supplier = node.token("sam", role="supplier")
        assert await refusal(node, "/shop/ws", token=supplier) == (4003, "customers only")
        async with (
            await socket(node, "/shop/ws", "alice") as client,
            await stream(node, "/shop/stream", "alice") as other,
        ):
            assert await client.text() == '{"type":"hello","customer":"alice"}'
            assert await other.block() == 'event: hello\ndata: {"customer":"alice"}\n\n'
            receipt = await node.publish("user:alice", {"id": 7}, kind="order")
            await node.publish("user:alice", {"id": 8}, kind="not-of-the-shop")
            order = json.loads(await client.text())
            assert (order["type"], order["order"]) == ("order", {"id": 7})
            assert order["at"].endswith("Z")
            ident, event, data, *_ = (await other.block()).split("\n")
            assert (ident, event) == (f"id: {receipt['cursor']}", "event: order")
            assert json.loads(data.removeprefix("data: "))["order"] == {"id": 7}
            assert await client.ask("nonsense") == '{"type":"error","message":"not an object"}'
            watch = '{"type":"watch","product":"tea"}'
            assert await client.ask(watch) == '{"type":"watching","product":"tea"}'
            await node.publish("topic:tea", {"price": 3}, kind="price")
            assert await client.text() == '{"type":"price","product":"tea","price":3}'
            assert await client.ask('{"type":"ping"}') == '{"type":"pong"}'


def test_what_cannot_be_served_stops_the_start(site: Path) -> None:
    settings = LegacySettings()
    with pytest.raises(ContractUnusable, match="there is no contract 'nowhere'; there are: conversations"):
        contract_endpoints(settings, ("nowhere",))
    install(
        site, "one", "one", "def endpoints(settings):\n    raise ValueError('x')\n", "one = one:endpoints"
    )
    with pytest.raises(ContractUnusable, match=r"cannot be made .ValueError"):
        contract_endpoints(settings, ("one",))
    install(site, "two", "two", "1 / 0\n", "two = two:endpoints")
    with pytest.raises(ContractUnusable, match=r"cannot be loaded .ZeroDivisionError"):
        contract_endpoints(settings, ("two",))
    install(site, "three", "three", "def endpoints(settings):\n    return [1]\n", "three = three:endpoints")
    with pytest.raises(ContractUnusable, match="is no Endpoint"):
        contract_endpoints(settings, ("three",))
    again = "from dualcast.dialects.rooms import endpoints\n"
    install(site, "four", "four", again, "four = four:endpoints")
    with pytest.raises(ContractUnusable, match="is taken"):
        contract_endpoints(settings, ("rooms", "four"))
    install(site, "five", "five", again, "four = five:endpoints")
    with pytest.raises(ContractUnusable, match="2 installed packages"):
        contract_endpoints(settings, ("four",))


def test_our_own_contracts_are_found_by_name() -> None:
    found = {endpoint.dialect for endpoint in contract_endpoints(LegacySettings())}
    assert found == {"notifications", "rooms", "topics", "conversations", "progress"}
