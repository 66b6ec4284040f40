"""Strikes: how often in a row a run was lost with its worker before another node had completed."""

from typing import Final

SOLO_STRIKES: Final = 3
"""From so many on, a run is executed alone, by a process of its own."""
MOST_STRIKES: Final = 6
"""With so many it is given up."""
