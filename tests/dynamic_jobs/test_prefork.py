"""The pool of forked processes: children that end, leave, or cannot be started."""

from tests.dynamic_jobs.pools import pool

PREFORK = """
import logging, os, threading
from dynamic_jobs.workers.prefork import Prefork
from foundation.ids import new_id
logging.basicConfig(level=logging.INFO)
def main(link):
    {main}
{before}
Prefork(main, {size}).run()
"""


def prefork(main: str, size: int | str = 1, before: str = "") -> tuple[str, str]:
    return "-c", PREFORK.format(main=main, size=size, before=before)


def test_one_that_breaks_at_once_is_started_again_ever_later() -> None:
    with pool(*prefork("os._exit(7)")) as running:
        assert running.until(r"ended with code 7; another starts in .*", 3) == [
            f"ended with code 7; another starts in {delay} s" for delay in ("0.5", "1", "2")
        ]
        running.process.terminate()
        assert running.ended() == 0, running.lines


LEAVING = """
    gone = threading.Event()
    link.follow(gone.set, gone.set, 60)
    link.leave()
    logging.info("leaving")
    gone.wait()
"""


def test_those_that_leave_are_bounded_too() -> None:
    with pool(*prefork(LEAVING, size=2)) as running:
        running.until("leaving", 4)
        running.children[0].terminate()
        running.until("has ended")
        running.until("leaving")
        running.process.terminate()
        assert running.ended() == 0
    assert sum("started" in line for line in running.lines) == 5


ASKING = """
    gone = threading.Event()
    link.follow(gone.set, gone.set, 60)
    link.start_aside(b"run")
    while not (ended := link.ended_aside()):
        gone.wait(0.01)
    logging.info("told that %s has ended", ended)
    gone.wait()
"""

NO_PROCESS = """
import errno
from multiprocessing.context import ForkProcess
fork, forks = ForkProcess.start, []
def start(process):
    forks.append(process)
    if len(forks) == 2:
        raise OSError(errno.EAGAIN, "no more processes")
    fork(process)
ForkProcess.start = start
"""


def test_a_pool_goes_on_where_no_process_can_be_started_aside() -> None:
    aside = "size=1, method='fork', aside=lambda work, link: None"
    with pool(*prefork(ASKING, size=aside, before=NO_PROCESS)) as running:
        running.until("no process can be started aside: .*no more processes")
        running.until("told that .b'run'. has ended")
        running.process.terminate()
        assert running.ended() == 0, running.lines


NO_FORK = """
import errno
fork, descriptors = os.fork, []
def fails_twice():
    descriptors.append(len(os.listdir("/proc/self/fd")))
    if len(descriptors) < 3:
        raise OSError(errno.EAGAIN, "no more processes")
    return fork()
os.fork = fails_twice
"""


def test_a_pool_tries_again_where_no_worker_can_be_started() -> None:
    """However often: each time it has as many descriptors as before."""
    show = "logging.info('descriptors: %s', sorted({*descriptors})); threading.Event().wait()"
    with pool(*prefork(show, size="1, 'fork'", before=NO_FORK)) as running:
        said = running.until("no worker process can be started: .*no more processes; .*", 2)
        assert [each.rsplit(";", 1)[1] for each in said] == [
            f" tried again in {delay} s" for delay in ("0.5", "1")
        ]
        running.until(r"descriptors: \[\d+\]$")


ASKING_LATE = """
    gone = threading.Event()
    link.follow(gone.set, gone.set, 60)
    logging.info("waiting")
    gone.wait()
    link.start_aside(b"run")
    os._exit(0)
"""
HANDING_BACK = """
def aside(work, link):
    gone = threading.Event()
    link.follow(gone.set, gone.set, 60)
    gone.wait()
    logging.info("%s is handed back", work)
    os._exit(0)
"""


def test_what_is_asked_for_while_the_pool_stops_is_started_and_told_to_stop() -> None:
    size = "1, 'fork', aside"
    with pool(*prefork(ASKING_LATE, size=size, before=HANDING_BACK)) as running:
        running.until("waiting")
        running.process.terminate()
        running.until("b'run' is handed back")
        assert running.ended() == 0, running.lines


def test_forked_children_do_not_draw_the_same_ids() -> None:
    """Which would follow from random numbers whose generator they inherit as it stands."""
    draw = "logging.info('drew %s', new_id()[-12:]); threading.Event().wait()"
    with pool(*prefork(draw, size=3, before="new_id()")) as running:
        assert len(set(running.until("drew .*", 3))) == 3


def test_a_parent_with_threads_does_not_fork() -> None:
    sneaky = "threading.Thread(target=threading.Event().wait, name='sneaky', daemon=True).start()"
    with pool(*prefork("pass", before=sneaky)) as running:
        running.until("a process with 2 threads cannot be forked: .*sneaky")
        assert running.ended() == 1
