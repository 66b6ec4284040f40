"""Graphs as Dagster jobs, and their runs.

=============  ===================================================================================
creating       a trigger becomes a durable, queued run
workers        processes that claim queued runs
compiling      a graph version becomes a Dagster job
executing      a run is executed, and leaves its events
storage        the events are committed, in batches, with outputs and status, and published
reading        runs and events as their owners see them: lists, pages, live streams
controlling    what owners and operators do to runs and graphs: cancel, pause, run again
=============  ===================================================================================

Beside them are Dagster's plug-in points, whose paths ``dagster.yaml`` and stored runs name
(``coordinator``, ``launcher``, ``code_pointer``).
"""
