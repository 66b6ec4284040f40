"""Whether a tenant may run an image, and how large."""

from typing import TypeVar

from dynamic_jobs.platforms.base import StepNotAllowed
from foundation.quantity import parse_quantity
from graph_defs.step_policy import ImageSteps
from node_types.support.steps import ImageStep

S = TypeVar("S", bound=ImageStep)


def bounded(given: S, policy: ImageSteps) -> S:
    """The step; of what it does not ask for itself, it gets no more than the policy allows.

    Raises StepNotAllowed.
    """
    if not policy.allows(given.image):
        raise StepNotAllowed(
            f"the operator does not allow the image {given.image} to this tenant",
            hint=f"Allowed are: {', '.join(policy.images) or 'none'}.",
        )
    less: dict[str, str] = {}
    for what, amount, most in (
        ("cpu", given.cpu, policy.max_cpu),
        ("memory", given.memory, policy.max_memory),
    ):
        if parse_quantity(amount) <= parse_quantity(most):
            continue
        if what in given.model_fields_set:
            raise StepNotAllowed(
                f"a step of this tenant may have {most} of {what}, and this asks for {amount}"
            )
        less[what] = most
    return given.model_copy(update=less) if less else given
