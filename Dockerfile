# syntax=docker/dockerfile:1
# Two images from one source (docs/container.md):
#   docker build --target runtime -t faprompt:runtime .   exported models: onnxruntime, no torch
#   docker build --target full -t faprompt:full .         every model and command, torch for CPUs
# To pin the base, replace the tag by the digest that `docker pull` prints.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=passive \
    HF_HUB_OFFLINE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp \
    PATH=/opt/venv/bin:$PATH
RUN groupadd --gid 10001 faprompt \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin faprompt

FROM base AS source
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY configs configs
COPY examples/good examples/good
COPY examples/lot examples/lot
COPY src src

FROM source AS build-runtime
COPY deploy/runtime-packages.txt deploy/
RUN python -m pip --python /opt/venv/bin/python install -c constraints.txt \
        -r deploy/runtime-packages.txt \
    && python -m pip --python /opt/venv/bin/python install --no-deps .

FROM source AS build-full
# PyTorch's package index for CPUs; without it torch comes with CUDA, about 6 GB
ARG TORCH_INDEX=
RUN python -m pip --python /opt/venv/bin/python install -c constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision \
    && python -m pip --python /opt/venv/bin/python install -c constraints.txt \
        '.[serve,onnx,tiff]'

FROM base AS service
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["faprompt"]
CMD ["serve", "/model", "--host", "0.0.0.0", "--port", "8080", "--token-file", "/run/secrets/token"]

FROM service AS full
COPY --from=build-full /opt/venv /opt/venv

FROM service AS runtime
COPY --from=build-runtime /opt/venv /opt/venv
