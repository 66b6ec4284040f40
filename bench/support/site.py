"""What a question gets to work with: services, our stack, and the peers that were asked for."""

import itertools
import random
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from bench.engines import graphwright, peers
from bench.engines.base import Engine
from bench.engines.graphwright import Graphwright
from bench.engines.peers import Setting
from bench.engines.roles import Roles
from bench.support.installing import NotInstalled
from bench.support.processes import Processes
from bench.support.services import Services

SEED = 4
"""Of what is random in a benchmark, which is only when a run starts."""


class Site:
    """One benchmark run. Engines start when they are first asked for, and stay."""

    def __init__(
        self, folder: Path, services: Services, processes: Processes, wanted: Sequence[str]
    ) -> None:
        random.seed(SEED)
        self.folder = folder
        self.services = services
        self.processes = processes
        self._wanted = wanted
        self._ours: Graphwright | None = None
        self._started: dict[str, list[Engine] | str] = {}
        self._numbers = itertools.count(1)

    @property
    def ours(self) -> Graphwright:
        """The stack that most questions share."""
        if self._ours is None:
            say("starting our stack")
            self._ours = graphwright.start(
                self.processes, self.folder / "ours", self.environment("bench_ours")
            )[0]
        return self._ours

    @property
    def how(self) -> dict[str, str]:
        """How each engine that was started was set up."""
        return {engine.name: engine.how for engine in self._engines()}

    @contextmanager
    def stack(self, **settings: str) -> Generator[Graphwright]:
        """Another stack of ours, with settings of its own, while the shared one is stopped."""
        number = next(self._numbers)
        environment = {**self.environment(f"bench_ours_{number}"), **_variables(settings)}
        with self._alone():
            say("starting a stack of ours")
            found, child = graphwright.start(
                self.processes, self.folder / f"ours-{number}", environment, f"ours-{number}"
            )
            try:
                yield found
            finally:
                self.processes.end(child)

    @contextmanager
    def api(self) -> Generator[Graphwright]:
        """An API of ours over a new database, with no worker."""
        with self.roles() as roles:
            yield roles.client

    @contextmanager
    def roles(self, **settings: str) -> Generator[Roles]:
        """An API of ours over a new database, to which other roles can be added."""
        number = next(self._numbers)
        name = f"api-{number}"
        environment = {**self.environment(f"bench_api_{number}"), **_variables(settings)}
        with closing(Roles(self.processes, self.folder / name, environment, name)) as roles:
            yield roles

    @contextmanager
    def quiet(self) -> Generator[None]:
        """No engine runs."""
        with self._alone():
            yield

    def peers(self, names: Sequence[str]) -> tuple[list[Engine], dict[str, str]]:
        """Those of the named peers that run, and why the others do not."""
        running: list[Engine] = []
        absent: dict[str, str] = {}
        for name in names:
            if name not in self._wanted:
                continue
            if name not in self._started:
                self._started[name] = self._start(name)
            found = self._started[name]
            if isinstance(found, str):
                absent[name] = found
            else:
                running += found
        return running, absent

    @contextmanager
    def only(self, engine: Engine) -> Generator[None]:
        """Every other engine is stopped."""
        with ExitStack() as stopped:
            for other in self._engines():
                if other.program != engine.program:
                    stopped.enter_context(other.stopped())
            yield

    def environment(self, database: str) -> dict[str, str]:
        """Where a process of ours finds its databases; makes a new one of this name."""
        return {
            "GRAPHWRIGHT_DATABASE_URL": self.services.database(database),
            "GRAPHWRIGHT_REDIS_URL": self.services.valkey(0),
        }

    def setting(self, name: str) -> Setting:
        folder = self.folder / name
        folder.mkdir()
        return Setting(name, folder, self.services, self.processes)

    def _start(self, name: str) -> list[Engine] | str:
        say(f"starting {name}")
        try:
            return peers.start(name, self.setting(name))
        except NotInstalled as reason:
            return str(reason)
        except Exception as error:
            return f"did not start: {one_line(error)}"

    def _engines(self) -> list[Engine]:
        found = [each for each in self._started.values() if isinstance(each, list)]
        ours: list[Engine] = [self._ours] if self._ours else []
        return ours + [engine for engines in found for engine in engines]

    @contextmanager
    def _alone(self) -> Generator[None]:
        with ExitStack() as stopped:
            for engine in self._engines():
                stopped.enter_context(engine.stopped())
            yield


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"GRAPHWRIGHT_{name.upper()}": value for name, value in settings.items()}


def one_line(error: BaseException) -> str:
    """What went wrong, short enough for a row of a table."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)
