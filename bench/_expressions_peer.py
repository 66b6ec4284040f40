"""Runs in the virtual environment of one CEL library, without our packages: ``LIBRARY < cases``.

Reads ``{"cases": [[expression, data], …], "timed": [[expression, data], …]}`` and prints
``{"results": [text, …], "microseconds": [number or null, …]}``. A result is the value in CEL's words
(``int 1``), or ``error``.
"""

import datetime
import gc
import json
import sys
import time


def prepare_cel_expr_python(expression, data):
    from cel_expr_python import cel

    extensions = "".join(f"  - name: {name}\n" for name in ("strings", "math", "lists"))
    config = cel.NewEnvConfigFromYaml(f"name: bench\nextensions:\n{extensions}")
    env = cel.NewEnv(config=config, variables=dict.fromkeys(data, cel.Type.DYN))
    program = env.compile(expression)

    def run():
        value = program.eval(data=data)
        if value.type() == cel.Type.ERROR:
            raise ValueError(value.plain_value())
        return value.plain_value()

    return run
