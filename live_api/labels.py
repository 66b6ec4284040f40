"""The filter ``label=name:value`` of lists."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from pydantic import StringConstraints

Labels = Annotated[
    Sequence[
        Annotated[
            str,
            StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*:[^\x00]*$", max_length=320),
        ]
    ],
    Query(max_length=16, description="`name:value` of a label. Repeat it: all of them must hold."),
]


def label_pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """The name and the value of each."""
    return [(name, value) for name, _, value in (label.partition(":") for label in labels)]
