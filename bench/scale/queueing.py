"""Queues: jobs through stations in a row, event by event; and what theory says of the simplest."""

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Discipline = Literal["fifo", "fair"]


@dataclass(frozen=True, slots=True)
class Job:
    """``services`` are the seconds that it takes at each station; ``at`` is when it comes."""

    at: float
    tenant: int
    services: tuple[float, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """``waited`` is for servers, at all stations together."""

    job: Job
    at: float
    waited: float


class Station:
    """``servers`` that each serve one job at a time. ``fair`` takes the waiting tenants in turn, as
    the queue of runs does with equal weights; ``fifo`` takes whoever came first."""

    def __init__(self, servers: int, discipline: Discipline = "fifo") -> None:
        if servers < 1:
            raise ValueError("a station has a server at least")
        self._free = servers
        self._fair = discipline == "fair"
        self._waiting: dict[int, deque[tuple[float, Job]]] = {}

    def come(self, now: float, job: Job) -> None:
        self._waiting.setdefault(job.tenant if self._fair else 0, deque()).append((now, job))

    def take(self) -> tuple[float, Job] | None:
        """The next job and since when it waited, if a server is free for it."""
        if not self._free or not self._waiting:
            return None
        tenant = next(iter(self._waiting))
        mine = self._waiting.pop(tenant)
        taken = mine.popleft()
        if mine:
            self._waiting[tenant] = mine  # behind all others
        self._free -= 1
        return taken

    def leave(self) -> None:
        self._free += 1


def simulate(jobs: Iterable[Job], stations: Sequence[Station]) -> Iterator[Done]:
    """Each job as it ends, having been at every station in turn. ``jobs`` come in order of ``at``.

    Nothing is random here: whoever makes the jobs has drawn all of it.
    """
    coming = iter(jobs)
    following = next(coming, None)
    serving: list[tuple[float, int, int, float, Job]] = []
    waited_before: dict[int, float] = {}
    number = 0
    while following is not None or serving:
        if following is not None and (not serving or following.at <= serving[0][0]):
            now, place, waited, job = following.at, 0, 0.0, following
            following = next(coming, None)
            changed = [place]
        else:
            now, _, ended, waited, job = heapq.heappop(serving)
            stations[ended].leave()
            place = ended + 1
            changed = [ended, place]
        if place < len(stations):
            waited_before[id(job)] = waited
            stations[place].come(now, job)
        else:
            changed.pop()
            yield Done(job, now, waited)
        for each in changed:
            while (taken := stations[each].take()) is not None:
                since, begun = taken
                number += 1
                waits = waited_before.pop(id(begun)) + now - since
                heapq.heappush(serving, (now + begun.services[each], number, each, waits, begun))


def erlang_c(servers: int, load: float) -> float:
    """The probability that a job waits in M/M/c, ``load`` = arrival rate times mean service.

    A. K. Erlang, 1917; by the recursion of Erlang B, which does not overflow.
    """
    if not 0 < load < servers:
        raise ValueError("the load is above 0 and below the number of servers")
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - (load / servers) * (1 - blocked))


def mean_wait(servers: int, rate: float, service: float) -> float:
    """Mean seconds of waiting in M/M/c."""
    load = rate * service
    return erlang_c(servers, load) * service / (servers - load)


def touched(pages: float, writes: float) -> float:
    """How many of so many pages are written to, by so many writes at random."""
    return pages * -math.expm1(-writes / pages) if pages else 0.0
