"""What the calls do not send of statements about runs."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from dynamic_jobs.controlling import cancelling, graphs, pausing, rerunning, telling
from dynamic_jobs.creating.idempotency import FORGET, LOOK_UP, LOOK_UP_MANY
from dynamic_jobs.creating.statements import CREATE
from dynamic_jobs.executing.outputs import ADOPT
from dynamic_jobs.placing import statements as placing
from dynamic_jobs.queueing import (
    admission,
    claiming,
    handing_back,
    holding,
    leases,
    promotion,
    taking_over,
)
from dynamic_jobs.queueing.waking import WAKE
from foundation.ids import RunId, new_id
from graph_defs.statements import VERSION_BY_ID
from tests.live_api.query_plans.recording import Sent
from tests.live_api.query_plans.volume import TENANT


def _sent_by_placing(run_id: RunId) -> Iterator[Sent]:
    given = {"tenant": TENANT, "run_id": run_id, "epoch": 1, "attempt": 1}
    yield Sent(placing.BEFORE, given)
    yield Sent(placing.BEGIN, {**given, "location": "x"})
    yield Sent(placing.HAND_OVER, {**given, "state": "placed", "delay": 0, "waited": False})
    yield Sent(placing.FAILED, {**given, "reason": "x", "unexplained": 1})
    yield Sent(placing.REASON, given)
    yield Sent(placing.BEING_PLACED, (run_id,))
    yield Sent(placing.WATCHED, {"look_at": datetime.now(UTC), "run_id": run_id, "limit": 500})
    yield Sent(placing.PUT_OFF, {**given, "seconds": 1, "away": True})
    yield Sent(placing.TAKE_BACK, {**given, "reason": "x"})
    yield Sent(placing.REMOVED, given)
    yield Sent(placing.FORGET, given)


def sent_for_runs(run_id: RunId) -> list[Sent]:
    """What goes over connections that note nothing, and what makes a run, with fitting values."""
    new = new_id()
    version = {"tenant": TENANT, "graph_version_id": new}
    row: dict[str, Any] = {
        **version,
        **dict.fromkeys(("run_id", "sort_id", "graph_id"), new),
        **dict.fromkeys(("trigger", "params", "run_body", "event"), "{}"),
        **dict.fromkeys(("author", "job_name", "graph"), "x"),
        **{"tags": {}, "created_at": datetime.now(UTC), "priority": 0, "published": 1},
        "isolation": "warm",
    }
    return [
        Sent(VERSION_BY_ID, version),
        Sent(LOOK_UP, (TENANT, "k"), TENANT),
        Sent(LOOK_UP_MANY, {"tenant": TENANT, "keys": ["k/0", "k/1"]}, TENANT),
        Sent(FORGET, (TENANT, "k"), TENANT),
        Sent(CREATE, {"runs": orjson.dumps([row]).decode(), "key_hours": 1}),
        Sent(claiming.CLAIM, {"worker": new, "limit": 32, "after": "tenant-3", "left": 1}),
        Sent(claiming.CLAIM_UNPLACED, {"worker": new, "limit": 32, "after": "tenant-3", "left": 1}),
        Sent(claiming.CLAIM_SOLO, {"worker": new, "run_id": run_id}),
        Sent(
            handing_back.SET_ASIDE,
            {
                **{"tenants": [TENANT], "runs": [run_id], "epochs": [1], "waited": [False]},
                "queued": [datetime.now(UTC)],
            },
        ),
        Sent(
            handing_back.HAND_BACK,
            {
                **{"tenant": TENANT, "run_id": run_id, "epoch": 1, "status": "queued"},
                **{"delay": 0.0, "waited": False, "solo": 3, "most": 6},
            },
        ),
        Sent(promotion.PROMOTE, {"limit": 10, "solo": 3, "most": 6}),
        Sent(
            promotion.NEXT_SOLO,
            {"after": "tenant-3", "take_struck": True, "struck": 3, "seconds": 60},
        ),
        *_sent_by_placing(run_id),
        Sent(admission.TENANTS, {"after": "", "limit": 10}),
        Sent(admission.FREE, {"tenants": [TENANT]}),
        Sent(admission.ADMIT_TO_SLOTS, {"tenants": [TENANT]}),
        Sent(admission.ADMIT_TO_TENANTS, {"tenants": [TENANT]}),
        Sent(leases.SUSPECTS, {"lease": 10.0}),
        Sent(
            taking_over.TAKE_OVER,
            {"lease": 10.0, "workers": [new], "unseen": [new], "solo": 3, "most": 6},
        ),
        Sent(taking_over.STRAYS, {"worker": new, "held": [run_id]}),
        Sent(
            taking_over.GIVE_UP,
            {"worker": new, "runs": [run_id], "epochs": [1], "solo": 3, "most": 6},
        ),
        Sent(leases.STILL_HELD, ([TENANT], [run_id], [1])),
        Sent(telling.WISHES, ([TENANT], [run_id])),
        Sent(holding.HELD, {"after": new, "limit": 100}),
        *(replace(each, tenant=TENANT) for each in _sent_by_control(run_id)),
    ]


def _sent_by_control(run_id: RunId) -> list[Sent]:
    run = {"tenant": TENANT, "run_id": run_id}
    graph = {"tenant": TENANT, "graph_id": new_id(), "tenants": [TENANT], "paused": True}
    return [
        Sent(telling.STATUS, run),
        Sent(telling.NOTIFY, ("cancel",)),
        Sent(cancelling.POSTPONE, run),
        Sent(cancelling.CANCELLING, run),
        Sent(cancelling.DEQUEUE, (run_id,)),
        Sent(pausing.DEQUEUE, run),
        Sent(pausing.PAUSE, {**run, "dequeued": True, "waited": False}),
        Sent(pausing.LEAVE, run),
        Sent(pausing.LOCK_QUEUED, run),
        Sent(pausing.RESUME, {**run, "solo": 3, "most": 6}),
        Sent(WAKE, None),
        Sent(rerunning.PARENT, run),
        Sent(rerunning.SUCCEEDED, run),
        Sent(rerunning.UNBEGUN, run),
        Sent(ADOPT, {**run, "parent": new_id(), "nodes": ["a"]}),
        Sent(graphs.SET_PAUSED, graph),
        Sent(admission.LOCK, graph),
        Sent(holding.HOLD, graph),
        Sent(holding.RELEASE, graph),
        Sent(admission.FREE, graph),
        Sent(admission.ADMIT_TO_SLOTS, graph),
        Sent(admission.ADMIT_TO_TENANTS, graph),
    ]
