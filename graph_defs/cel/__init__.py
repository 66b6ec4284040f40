"""CEL, bounded: what stands between `graph_defs.expressions` and the CEL library.

`scan` finds expressions in strings, `template` in values; `ast`, `inputs`, `folds` and `cost` read
and rewrite the checked tree; `runtime` and `values` evaluate it, `sandbox` in another process.
"""
