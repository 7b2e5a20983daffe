# The image of the service. Targets: `cpu` (the last one, so the default), `gpu`, and `light`, a CPU
# without PyTorch, for the bundled model and for exported ones.
#   docker build -t openvocab:cpu .
#   docker build -t openvocab:gpu --target gpu .
#   docker build -t openvocab:light --target light .
# docker/README.md says what the build arguments do and how to run the result.

ARG PYTHON=3.11

# ---- installed: what the lock names, in one folder

FROM python:${PYTHON}-slim-bookworm AS installed

# a lock of one's own, and one more index for it: the way to PyTorch's smaller CPU wheels
ARG LOCK=requirements.lock
ARG TORCH_INDEX=""

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH} PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

WORKDIR /src

# the large layer: made anew only when the lock changes. Wheels alone: nothing is compiled, and no
# package runs code while it is installed
COPY ${LOCK} requirements.lock
RUN pip install --require-hashes --only-binary :all: \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.lock

# ---- dependencies: the same without what no server loads. A layer of its own: a new release of the
# service leaves it as it is

FROM installed AS dependencies

# Triton compiles kernels for `torch.compile`, which nothing here uses. PyTorch goes without, as it
# does on Windows
RUN pip uninstall --quiet --yes triton pip

COPY docker/trim.sh trim.sh
RUN sh trim.sh /opt/venv/lib/python*/site-packages

# ---- build: the service, in a folder that is laid over the other

FROM installed AS build

COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY models models
COPY prompts prompts
RUN pip install --no-deps --no-build-isolation --prefix /opt/service . \
    && cp -r /opt/service/. /opt/venv \
    && pip check && pip uninstall --quiet --yes triton pip

# what is in both, for scanners; the tool stays here, outside of them
COPY requirements-build.lock requirements-build.lock
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --require-hashes --only-binary :all: -r requirements-build.lock \
    && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
    -o /opt/sbom.cdx.json /opt/venv/bin/python

# ---- the same without PyTorch

FROM python:${PYTHON}-slim-bookworm AS build-light

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH} PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

WORKDIR /src

# without dependencies: the lock leaves out on purpose what PyTorch brings
COPY requirements-light.lock requirements-light.lock
RUN pip install --require-hashes --only-binary :all: --no-deps -r requirements-light.lock

COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY models models
COPY prompts prompts
RUN pip install --no-deps --no-build-isolation . && pip uninstall --quiet --yes setuptools pip

COPY docker/trim.sh trim.sh
RUN sh trim.sh /opt/venv/lib/python*/site-packages

COPY requirements-build.lock requirements-build.lock
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --require-hashes --only-binary :all: -r requirements-build.lock \
    && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
    -o /opt/sbom.cdx.json /opt/venv/bin/python

# ---- runtime: the service, a user, and no compiler

FROM python:${PYTHON}-slim-bookworm AS runtime

# fixed numbers, so that volumes keep their owner from one image to the next
RUN groupadd --gid 10001 openvocab \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data \
    --shell /usr/sbin/nologin openvocab \
    && install -d -o openvocab -g openvocab /data

COPY --from=dependencies /opt/venv /opt/venv
COPY --from=build /opt/service /opt/venv
COPY --from=build /opt/sbom.cdx.json /opt/openvocab/sbom.cdx.json
COPY docker/healthcheck.py /opt/openvocab/healthcheck.py

# MODEL names a model whose weights become part of the image; without it nothing is downloaded here
ARG MODEL=""
# baked weights lie in the read-only part and need no network; others are kept in the volume
ARG BAKED=${MODEL:+/opt/openvocab/weights}
ARG OFFLINE=${MODEL:+1}

# open_clip and its hub client keep downloads under HOME and HF_HOME
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=${BAKED:-/data} \
    HF_HOME=${BAKED:-/data}/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    OPENVOCAB_DATA_DIR=/data \
    OPENVOCAB_MODEL=${MODEL:-ViT-B-32-256/datacomp_s34b_b86k}

# without MODEL this loads the bundled model: proof that the image can. The downloader's own cache
# is of no use any more; the weights are for all to read, the volume is the user's
RUN openvocab models pull "${MODEL:-everyday}" \
    && rm -rf "${HF_HOME}/xet" \
    && mkdir -p "${HF_HOME}" \
    && chmod -R a+rX "${HOME}" \
    && chown -R openvocab:openvocab /data

# only from here on: the line above had to reach the hub
ENV HF_HUB_OFFLINE=${OFFLINE:-0}

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="openvocab" \
    org.opencontainers.image.description="Open-vocabulary image classification as a service." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000

# long, because the first start may download the weights; the first success ends it
HEALTHCHECK --start-period=10m --interval=10s --timeout=6s --retries=3 \
    CMD ["python", "/opt/openvocab/healthcheck.py"]

ENTRYPOINT ["openvocab"]
CMD ["serve", "--host", "0.0.0.0"]

# ---- the targets

FROM python:${PYTHON}-slim-bookworm AS light

RUN groupadd --gid 10001 openvocab \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data \
    --shell /usr/sbin/nologin openvocab \
    && install -d -o openvocab -g openvocab /data

COPY --from=build-light /opt/venv /opt/venv
COPY --from=build-light /opt/sbom.cdx.json /opt/openvocab/sbom.cdx.json
COPY docker/healthcheck.py /opt/openvocab/healthcheck.py

ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    OPENVOCAB_DATA_DIR=/data \
    OPENVOCAB_MODEL=pictogram \
    OPENVOCAB_DEVICE=cpu

# the bundled model's export is made without PyTorch: proof that the image can
RUN openvocab models export pictogram --to /tmp/proof && rm -r /tmp/proof

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="openvocab" \
    org.opencontainers.image.description="Open-vocabulary image classification as a service." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000

HEALTHCHECK --start-period=1m --interval=10s --timeout=6s --retries=3 \
    CMD ["python", "/opt/openvocab/healthcheck.py"]

ENTRYPOINT ["openvocab"]
CMD ["serve", "--host", "0.0.0.0"]

FROM runtime AS gpu
# PyTorch's wheel brings CUDA along; the driver and these two variables come from outside.
# `cuda` instead of `auto`: started without a GPU it says so, instead of being slow
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    OPENVOCAB_DEVICE=cuda

FROM runtime AS cpu
ENV OPENVOCAB_DEVICE=cpu
