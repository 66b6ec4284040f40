"""What 1 million users and 1 billion graphs need: measured costs, a simulation, and docs/scale.md.

``python -m bench.scale`` simulates with the costs of ``bench/results/scale.json``;
``python -m bench.scale measure`` measures those on this machine first.
"""
