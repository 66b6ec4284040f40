"""What a client's inbox still gives once it has ended."""

import pytest

from dynamic_jobs.reading.stream_inbox import Inbox, Shared, SlowClient

pytestmark = pytest.mark.anyio


class _Expired(Exception):
    pass


def _inbox(*batches: list[int], limit: int = 10) -> Inbox[int]:
    inbox = Inbox[int](limit)
    for batch in batches:
        inbox.put(Shared(batch))
    return inbox


async def test_an_end_gives_what_waits_and_takes_no_more() -> None:
    inbox = _inbox([1], [2, 3])
    inbox.end()
    inbox.put(Shared([4]))
    assert [batch async for batch in inbox] == [[1], [2, 3]]


@pytest.mark.parametrize("waiting", [[[1], [2, 3]], [[1], [2] * 20]])
async def test_a_cut_gives_nothing_more(waiting: list[list[int]]) -> None:
    inbox = _inbox(*waiting)
    inbox.cut(_Expired())
    inbox.put(Shared([4]))
    with pytest.raises(_Expired):
        await anext(inbox)


async def test_the_first_end_counts() -> None:
    inbox = _inbox([1])
    inbox.end()
    inbox.cut(_Expired())
    assert [batch async for batch in inbox] == [[1]]
    with pytest.raises(SlowClient):
        await anext(_inbox([1], [2] * 20))
