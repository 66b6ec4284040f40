"""From the text that a user sends to a document that can be stored and run, in one step."""

from dataclasses import dataclass

from foundation.garbage import collector_paused
from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.document import GraphDocument
from graph_defs.expressions import Evaluator
from graph_defs.fingerprint import Canonical
from graph_defs.parsing import read
from graph_defs.validation import find_faults, invalid


@dataclass(frozen=True, slots=True)
class Admission:
    """A document without faults."""

    given: Canonical
    """No defaults are filled in."""
    graph: GraphDocument


def admit(
    source: bytes | str,
    catalogue: Catalogue,
    limits: Limits,
    evaluator: Evaluator | None = None,
) -> Admission:
    """Read, validate and fingerprint a document; faults of reading and of meaning in one answer.

    Raises:
        TooLarge: more bytes than ``limits.max_document_bytes``.
        Invalid: with every fault that was found.
    """
    with collector_paused():
        return _admit(source, catalogue, limits, evaluator)


def _admit(
    source: bytes | str, catalogue: Catalogue, limits: Limits, evaluator: Evaluator | None
) -> Admission:
    reading = read(source, limits)
    faults = list(reading.faults)
    if reading.document is None:
        raise invalid(faults)
    unread = {fault.pointer for fault in faults}  # what stands there is not what was meant
    found = find_faults(reading.document, catalogue, limits, evaluator)
    faults += [fault for fault in found if fault.pointer not in unread]
    if faults:
        raise invalid(faults)
    graph = GraphDocument.model_validate(reading.document)
    return Admission(Canonical.of(reading.document), graph)
