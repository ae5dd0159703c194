# driftgate's image: the steps of the tested install (see the Makefile), in two stages, run by a user without rights.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/driftgate \
 && /opt/driftgate/bin/python -m pip install --no-cache-dir --constraint constraints.txt setuptools grpcio-tools
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY gateway gateway
COPY runtime runtime
RUN /opt/driftgate/bin/python -m pip install --no-cache-dir --constraint constraints.txt --no-build-isolation . \
 && /opt/driftgate/bin/python -m pip uninstall --yes grpcio-tools setuptools

FROM python:${PYTHON}-slim
# Text models normalize in the locale they name; ONNX Runtime refuses them where it is not installed.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends locales-all \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/driftgate --create-home driftgate \
 && install --directory --owner 10001 /var/cache/driftgate
COPY --from=build /opt/driftgate /opt/driftgate
# "generic": the kernels that are compiled here are fit for the CPU of any machine that the image runs on.
ENV PATH=/opt/driftgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/driftgate \
    NUMBA_CPU_NAME=generic \
    DRIFTGATE_MODELS=/models \
    DRIFTGATE_STATE_DIR=/var/lib/driftgate/state
USER 10001
# Compiles the kernels as the user who runs them, so that the first start is quick.
RUN python -c "import gateway.worker.main, gateway.control.main, gateway.shadow.main"
VOLUME ["/var/lib/driftgate"]
# gRPC for clients, HTTP for health and metrics; the admin API stays on loopback inside the container
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/livez', timeout=2)"]
ENTRYPOINT ["driftgate"]
CMD ["serve"]
