# Everything is bootstrapped from Python 3.11+, make and git: uv is taken from PATH, else installed
# from PyPI into .uv; uv then makes .venv exactly as uv.lock says.

UV_VERSION := 0.13.8
PYTHON     ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
UV         := $(shell command -v uv || echo .uv/bin/uv)
RUN        := .venv/bin
ARGS       ?=
DETACH     ?=
ONLY       ?=
PEERS      ?=

# Where it is set, every process compiles all that it imports, for seconds.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help up down test test-cluster soak lint types audit bench format rendered

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: .venv/.stamp ## Start the local stack and run the examples; DETACH=1 returns once they succeeded
	@$(RUN)/graphwright up $(if $(filter-out 0 no false,$(DETACH)),--detach)

down: .venv/.stamp ## Stop the local stack
	@$(RUN)/graphwright down

# Four processes, on two cores too: most tests wait for others most of their time.
test: .venv/.stamp ## Run the tests; ARGS="…" goes to pytest, as in ARGS="tests/graphwright -x"
	$(RUN)/pytest -n 4 --dist loadgroup -m "not soak" $(ARGS)

# Which cluster, which image, and where its pods find the two servers: docs/kubernetes.md.
test-cluster: .venv/.stamp ## Run the tests of runs in pods on the cluster of KUBECONFIG=… with IMAGE=…
	GRAPHWRIGHT_TEST_CLUSTER=1 GRAPHWRIGHT_TEST_KUBECONFIG="$(KUBECONFIG)" GRAPHWRIGHT_TEST_IMAGE="$(IMAGE)" \
	  $(RUN)/pytest tests/cluster $(ARGS)

soak: .venv/.stamp ## Run the long fault and load tests
	$(RUN)/pytest -m soak -s $(ARGS)

lint: .venv/.stamp ## Check style, formatting and the direction of imports
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports

types: .venv/.stamp ## Check types with pyright, strict
	$(RUN)/pyright

audit: .venv/.stamp ## Look the locked dependencies up among known vulnerabilities
	$(UV) export --frozen --no-emit-project --quiet --output-file .venv/requirements.txt
	$(RUN)/pip-audit --requirement .venv/requirements.txt --require-hashes --disable-pip

bench: .venv/.stamp ## Run the benchmarks; ONLY=name,… chooses, PEERS=all|none|name,… says beside whom
	$(RUN)/python -m bench $(ONLY) $(if $(PEERS),--peers $(PEERS))

rendered: ## Render the Kubernetes manifests anew; it wants kubectl 1.27 or later
	for overlay in dev production; do \
		kubectl kustomize deploy/kubernetes/overlays/$$overlay > deploy/kubernetes/rendered/$$overlay.yaml || exit; \
	done

format: .venv/.stamp ## Format the code and apply safe fixes
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

# The stamp makes every later call instant, until the lock changes.
.venv/.stamp: pyproject.toml uv.lock $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv)
	@$(check-python)
	$(UV) sync --frozen --python "$(PYTHON)" --no-python-downloads
	@touch $@

.uv/bin/uv:
	@$(check-python)
	"$(PYTHON)" -m venv .uv || { rm -rf .uv; echo "Python's venv is missing (on Debian: apt install python3-venv)" >&2; exit 1; }
	.uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

define check-python
test -n "$(PYTHON)" || { echo "Graphwright needs Python 3.11 or later, and there is no python3" >&2; exit 1; }; \
"$(PYTHON)" -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Graphwright needs Python 3.11 or later; %s is %d.%d. Name another: make PYTHON=/path/to/python3 …" % (sys.executable, v[0], v[1]))'
endef
