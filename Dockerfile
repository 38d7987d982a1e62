# drd as an image: the daemon, a CronJob or a sidecar; no compiler, no shell script of its own, no root.
#
#   docker build -t drd .
#   docker build -t drd --build-arg POSTGRES_MAJORS="15 16 17 18" .     # more client tools, from the PostgreSQL project
#   docker build -t drd --build-arg BASE=debian:bookworm-slim@sha256:… .  # pinned
#
# Works with BuildKit and with the classic builder. Extra certificates, mirrors and pip settings come with BASE.

ARG BASE=debian:bookworm-slim

# ---- the Python side: a virtual environment, compiled, without pip ----------------------------------------------
FROM ${BASE} AS python
ARG PIP_INDEX_URL
ENV DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends python3 python3-venv ca-certificates >/dev/null
COPY requirements.lock /src/
RUN python3 -m venv /opt/drd \
 && /opt/drd/bin/pip install --quiet --require-hashes --only-binary :all: -r /src/requirements.lock
COPY pyproject.toml README.md LICENSE /src/
COPY devstack /src/devstack
COPY drd /src/drd
# botocore describes 400 services in 20 MB; drd asks for the ones that it talks to or that give it credentials.
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --quiet hatchling \
 && /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist /src \
 && /opt/drd/bin/pip install --quiet --no-deps /dist/*.whl \
 && /opt/drd/bin/pip uninstall --quiet --yes pip setuptools \
 && cd /opt/drd/lib/python3*/site-packages \
 && find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name sso ! -name sso-oidc \
      -exec rm -rf {} + \
 && rm -rf devstack \
 && find . -depth -type d '(' -name tests -o -name test ')' -exec rm -rf {} + \
 && /opt/drd/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .

# ---- PostgreSQL's client programs alone: their packages would bring all of Perl -----------------------------------
FROM ${BASE} AS tools
ARG POSTGRES_MAJORS=""
ENV DEBIAN_FRONTEND=noninteractive
COPY image/postgresql-clients /usr/local/bin/
RUN postgresql-clients /out "${POSTGRES_MAJORS}"

# ---- what runs ---------------------------------------------------------------------------------------------------
FROM ${BASE}
# libpq5 and libreadline8: the client programs'; redis-server: the holder that restores and drills use; age and zstd:
# `drd runbook` prints commands for them, and the night is not the time to look for packages.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
      python3 ca-certificates tini redis-server libpq5 libreadline8 age zstd >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc/* /usr/share/man/* /etc/redis \
 && mkdir -p /etc/drd /var/lib/drd /var/spool/drd \
 && chown 10001:0 /var/lib/drd /var/spool/drd \
 && chmod 2770 /var/lib/drd /var/spool/drd
COPY --from=tools /out/ /
COPY --from=python /opt/drd /opt/drd
COPY restore_drills /etc/drd/restore_drills
# Any user id works (OpenShift picks one): it only must be of group 0, which is what such platforms give it.
ENV PATH=/opt/drd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    HOME=/var/lib/drd \
    DRD_CONFIG=/etc/drd/drd.yaml \
    TMPDIR=/var/spool/drd \
    STATE_DIRECTORY=/var/lib/drd
USER 10001:0
WORKDIR /var/lib/drd
VOLUME ["/var/lib/drd", "/var/spool/drd"]
EXPOSE 8088
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD python -m drd.cli.health "${DRD_DAEMON__LISTEN:-127.0.0.1:8088}"
ENTRYPOINT ["tini", "--", "drd"]
CMD ["daemon"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="drd" \
      org.opencontainers.image.description="Disaster recovery for PostgreSQL, Redis and ClickHouse: back up, ship, prove by restoring" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
