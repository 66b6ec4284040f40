"""Runs that are executed elsewhere: in a process, a container or a pod of their own."""
