# syntax=docker/dockerfile:1
FROM python:3.12-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/rollbackd
ENV PATH=/opt/rollbackd/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/base.txt requirements/build.txt requirements/
RUN python -m pip install --require-hashes -r requirements/base.txt
RUN python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml LICENSE README.md ./
COPY schemas schemas
COPY detectors detectors
COPY service service
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && python -m pip install --no-deps /dist/rollbackd-*.whl

FROM python:3.12-slim-bookworm
RUN groupadd --gid 10001 rollbackd \
 && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin rollbackd \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/rollbackd
COPY --from=build /opt/rollbackd /opt/rollbackd
ENV PATH=/opt/rollbackd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ROLLBACKD_CONFIG=/etc/rollbackd/rollbackd.yaml
USER 10001:10001
WORKDIR /var/lib/rollbackd
VOLUME /var/lib/rollbackd
EXPOSE 8420
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8420/healthz', timeout=3)"]
ENTRYPOINT ["rollbackd"]
CMD ["run", "--listen", "0.0.0.0:8420"]
