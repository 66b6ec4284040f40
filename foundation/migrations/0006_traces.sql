-- Where in a trace a run was asked for, as W3C's `traceparent`; NULL: its trace is its own, and has
-- the run's id.
ALTER TABLE graphwright.runs ADD COLUMN traceparent text;
