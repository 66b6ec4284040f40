"""Group reads: who is read together, and what a fault or a caller that leaves costs others."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from foundation.group_reads import GroupReads

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Table:
    """Rows that are read while ``gate`` is open; ``batches`` notes what was asked for at once."""

    def __init__(self) -> None:
        self.rows = {("a", key): f"a{key}" for key in range(100)} | {("b", 1): "b1"}
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = asyncio.Event()
        self.fault: Exception | None = None

    async def read(self, group: str, keys: Sequence[int]) -> Mapping[int, str]:
        self.batches.append((group, list(keys)))
        await self.gate.wait()
        if self.fault:
            raise self.fault
        return {key: self.rows[group, key] for key in keys if (group, key) in self.rows}


async def asked(reads: GroupReads[str, int, str], *wanted: int) -> list[asyncio.Task[str | None]]:
    """One caller for each, which have all asked."""
    callers = [asyncio.create_task(reads.get("a", key)) for key in wanted]
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # what they start has begun
    return callers


async def test_nobody_waits_for_others_to_come() -> None:
    table = Table()
    table.gate.set()
    reads = GroupReads(table.read)
    assert await reads.get("a", 5) == "a5"
    assert await reads.get("a", 200) is None
    assert table.batches == [("a", [5]), ("a", [200])]


async def test_who_comes_while_others_are_read_is_read_together() -> None:
    table = Table()
    reads = GroupReads(table.read)
    callers = [caller for key in range(4) for caller in await asked(reads, key)]
    callers += await asked(reads, *range(10, 30), 10)
    assert table.batches == [("a", [key]) for key in range(4)]
    table.gate.set()
    assert await asyncio.gather(*callers) == [f"a{key}" for key in (*range(4), *range(10, 30), 10)]
    later = [keys for _, keys in table.batches[4:]]
    assert sorted(len(keys) for keys in later) == [5, 8, 8]
    # Nobody gets what was read before it asked.
    table.rows["a", 10] = "new"
    assert await reads.get("a", 10) == "new"


async def test_a_row_that_several_want_is_read_once() -> None:
    table = Table()
    reads = GroupReads(table.read)
    callers = await asked(reads, 7, 7, 7)
    assert table.batches == [("a", [7])]
    table.gate.set()
    assert await asyncio.gather(*callers) == ["a7"] * 3


async def test_groups_are_read_apart() -> None:
    table = Table()
    reads = GroupReads(table.read)
    mine = await asked(reads, 1)
    theirs = asyncio.create_task(reads.get("b", 1))
    table.gate.set()
    assert (await mine[0], await theirs) == ("a1", "b1")
    assert table.batches == [("a", [1]), ("b", [1])]


async def test_a_fault_is_raised_to_those_of_its_batch_alone() -> None:
    table = Table()
    reads = GroupReads(table.read)
    callers = await asked(reads, 1, 2)
    table.fault = ConnectionError("away")
    table.gate.set()
    for caller in callers:
        with pytest.raises(ConnectionError):
            await caller
    table.fault = None
    assert await reads.get("a", 1) == "a1"


async def test_a_caller_that_leaves_takes_nobody_along() -> None:
    table = Table()
    reads = GroupReads(table.read)
    first, second = await asked(reads, 1, 2)
    first.cancel()
    table.gate.set()
    assert await second == "a2"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_who_is_read_for_does_not_outlive_the_reader() -> None:
    """Those whose batch it reads, and those whom nobody else would read for."""
    table = Table()
    reads = GroupReads(table.read)
    before = asyncio.all_tasks()
    callers = [caller for key in range(4) for caller in await asked(reads, key)]
    readers = asyncio.all_tasks() - before - set(callers)
    assert len(readers) == 4
    waiting = await asked(reads, 5)
    last = readers.pop()
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    assert sum(caller.done() for caller in callers) == 3
    assert not waiting[0].done()  # the last one still reads
    last.cancel()
    await asyncio.wait([*callers, *waiting])
    assert all(caller.cancelled() for caller in (*callers, *waiting))
    table.gate.set()
    assert await reads.get("a", 1) == "a1"


async def test_a_reader_that_ends_before_it_begins_leaves_nobody_waiting() -> None:
    table = Table()
    reads = GroupReads(table.read)
    before = asyncio.all_tasks()
    caller = asyncio.create_task(reads.get("a", 1))
    await asyncio.sleep(0)
    (reader,) = asyncio.all_tasks() - before - {caller}
    reader.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert table.batches == []
    table.gate.set()
    assert await reads.get("a", 1) == "a1"


async def test_who_comes_as_the_reader_ends_is_read_too() -> None:
    table = Table()
    table.gate.set()
    reads = GroupReads(table.read)

    async def again_and_again(key: int) -> list[str | None]:
        return [await reads.get("a", key) for _ in range(5)]

    for count in range(1, 40):
        callers = (again_and_again(key) for key in range(count))
        assert await asyncio.gather(*callers) == [[f"a{key}"] * 5 for key in range(count)]
