"""A fake Kubernetes API server, and how tests start it (:mod:`tests.kubernetes.server`).

It is a fake. Whoever talks to it does so as to a real one: over HTTP, by a kubeconfig, with the
official client. What it holds is checked strictly: against the schemas of the newest Kubernetes
that ``kubernetes-validate`` has, and against those rules of the API server that schemas do not hold
and that concern Jobs and Pods. Containers run as local processes, with the environment, the command
and the empty folders that their manifest says; ``docs/kubernetes.md`` lists what that leaves out.
"""
