"""The trace of a run that a webhook starts."""

import orjson
import pytest

from tests.sensors.conftest import Site

pytestmark = pytest.mark.anyio

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(("sent", "kept"), [(HEADER, HEADER), ("nonsense", None), (None, None)])
async def test_a_delivery_goes_on_with_its_senders_trace(
    site: Site, sent: str | None, kept: str | None
) -> None:
    headers = {} if sent is None else {"traceparent": sent}
    await site.deliver(await site.publish(), headers=orjson.dumps(headers).decode())
    assert await site.dispatcher().dispatch() == 1
    assert (await site.row("SELECT traceparent FROM graphwright.runs"))["traceparent"] == kept
