"""The other end of ``bench.engines.driver``: questions on stdin, answers on stdout, JSON lines.

Standard library only: it runs in the environments of the peers.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any


def one_by_one(run: Callable[[], object], count: int, seconds: float, pause: float) -> list[float]:
    """Seconds of each of at most ``count`` calls, at least one, none begun after ``seconds``."""
    until = time.perf_counter() + seconds
    found: list[float] = []
    while not found or (len(found) < count and time.perf_counter() < until):
        time.sleep(pause * random.uniform(0.5, 1.5))
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return found


def serve(
    run: Callable[[dict[str, Any]], object], at_once: Callable[[dict[str, Any], int], object]
) -> None:
    """Answer until stdin ends. ``run`` does the work once, ``at_once`` that many times together."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the engine prints goes into the log
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _answer(question, run, at_once)
        except Exception as error:
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        else:
            answers.write(json.dumps({"answer": answer}) + "\n")
        answers.flush()


def _answer(
    question: dict[str, Any],
    run: Callable[[dict[str, Any]], object],
    at_once: Callable[[dict[str, Any], int], object],
) -> Any:
    work: dict[str, Any] = question.get("work", {})
    if question["ask"] == "one_by_one":
        return one_by_one(
            lambda: run(work), question["count"], question["seconds"], question["pause"]
        )
    if question["ask"] == "at_once":
        began = time.perf_counter()
        at_once(work, question["count"])
        return time.perf_counter() - began
    return "ready"
