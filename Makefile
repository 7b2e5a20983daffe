# make run    set everything up and serve on port 8000 with the bundled model (MODEL= for another)
# make test   set everything up and run all checks and tests
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

MODEL ?= everyday
HOST ?= 127.0.0.1
PORT ?= 8000
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# packages wait for the network and the disk: two things are installed at a time
MAKEFLAGS += --jobs=2
# what Python compiles is kept: each start takes half a second less
unexport PYTHONDONTWRITEBYTECODE

# the first Python that will do; PYTHON= names another
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: gpu-bundle gpu-rehearsal help setup run test check collect audit sbom image image-steps bench bench-processor docs lock clean redis sqlite3 prometheus nginx wrk node chromium

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/ready  ## create .venv and install the service

# the bundled model on a machine without a GPU needs no PyTorch
GPU := $(wildcard /dev/nvidiactl /dev/dxg /dev/kfd)
run: $(if $(or $(GPU),$(filter-out everyday pictogram,$(MODEL))),.venv/ready,.venv/light)  ## serve on HOST:PORT with MODEL
	@printf '%s\n' '' 'Once it serves, try:' \
	"  curl -F image=@tests/samples/photographs/cat.jpg -F labels=cat,dog,pizza,rocket $(HOST):$(PORT)/classify" \
	"  curl -F image=@tests/samples/rocket.png -F labels=cat,dog,pizza,rocket -H 'Accept: text/plain' $(HOST):$(PORT)/classify" \
	"  curl --data-binary @tests/samples/doughnut.png '$(HOST):$(PORT)/classify?labels=cat,doughnut,rocket&top_k=1'" ''
	@exec $(BIN)/openvocab serve --host $(HOST) --port $(PORT) --model $(MODEL)

# most modules are never imported by the tests, and the others are compiled then
test: COMPILE := --no-compile
test: check collect audit redis sqlite3 prometheus nginx node chromium  ## all checks and tests
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

gpu-bundle: .venv/dev  ## fill .gpu-bundle with everything a bare GPU machine needs (Python 3.12), for benchmarks/gpu/run.sh
	$(BIN)/python -m benchmarks.gpu.bundle

gpu-rehearsal: gpu-bundle  ## the same on a CPU, in a clean Python 3.12 without an index (10 minutes, 5 GB)
	@command -v $(PYTHON312) >/dev/null || { echo 'gpu-rehearsal needs Python 3.12 (PYTHON312= names it)' >&2; exit 1; }
	test -x .venv/gpu/bin/python || $(PYTHON312) -m venv .venv/gpu
	.venv/gpu/bin/python -m pip --disable-pip-version-check --quiet install \
	  torch torchvision timm numpy pillow tokenizers transformers pytest uvloop
	OPENVOCAB_GPU=cpu PYTHON=.venv/gpu/bin/python OUT=build/gpu benchmarks/gpu/run.sh
PYTHON312 ?= python3.12

bench: .venv/dev wrk redis  ## all measurements (about 40 minutes), then docs/performance.md
	$(BIN)/python -m benchmarks.run $(BENCH)

bench-processor: .venv/dev wrk  ## what depends on the processor (20 minutes): make bench-processor NAME=amx
	@test -n "$(NAME)" || { echo 'bench-processor needs NAME=, a short name of this processor, such as amx' >&2; exit 1; }
	$(BIN)/python -m benchmarks.run --processor $(NAME) $(BENCH)

check: .venv/dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=models/pictogram $(BIN)/mypy --explicit-package-bases models/pictogram/*.py
	MYPYPATH=models/everyday:models/pictogram $(BIN)/mypy --explicit-package-bases models/everyday/*.py
	$(BIN)/lint-imports --no-cache

# beside the checks: what cannot be imported is told at once, and the processes that test find
# all of it compiled
collect: .venv/dev
	@mkdir -p build
	@$(BIN)/pytest --collect-only -qq >build/collected.txt 2>&1 || { cat build/collected.txt >&2; exit 1; }

audit: .venv/tools/ready  ## check locked packages for known vulnerabilities (if advisory data is reachable)
	@.venv/tools/bin/python docker/audit.py requirements.lock requirements-ray.lock requirements-dev.lock requirements-build.lock

sbom: .venv/tools/ready  ## list locked packages as CycloneDX: build/sbom.cdx.json (the image has its own)
	@mkdir -p build
	.venv/tools/bin/python -W ignore::UserWarning -m cyclonedx_py requirements --pyproject pyproject.toml \
	  --output-reproducible -o build/sbom.cdx.json requirements.lock

image:  ## build an image with buildah and test it (TARGET=light, cpu or gpu); without a registry on a debootstrap base
	docker/build_image.sh $(TARGET)
TARGET ?= light

image-steps: .venv/bin/python  ## run the Dockerfile's install steps without a container engine (5 minutes, 3 GB)
	$(PYTHON) docker/image_steps.py

docs: .venv/ready  ## regenerate docs/settings.md
	$(BIN)/python -c 'from pathlib import Path; from app.server.settings import write_settings_page as w; w(Path("docs/settings.md"))'

lock: .venv/dev  ## pin every version again, with hashes
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml $(LOCK) --extra openvino --extra eval --extra otel --extra svg -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml $(LOCK) --extra openvino --extra otel --extra svg --extra ray -c requirements.lock -o requirements-ray.lock
	$(BIN)/uv pip compile pyproject.toml $(LOCK) --extra dev -c requirements.lock -o requirements-dev.lock
	printf '%s\n' $(TOOLS) | $(BIN)/uv pip compile - $(LOCK) -o requirements-build.lock
	$(BIN)/uv pip compile pyproject.toml - <<<'setuptools>=77' $(LOCK) --extra openvino --extra otel --extra svg -c requirements.lock \
	  --override <(printf '%s; python_version < "3"\n' $(HEAVY)) -o requirements-light.lock
# what a CPU that serves exported models does without
HEAVY := torch torchvision timm
# apart from the service: they look at what is installed or served and are no part of it
TOOLS := cyclonedx-bom openapi-python-client pip-audit
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

clean:  ## remove the environments and build files
	rm -rf .venv build *.egg-info

# installs a Debian package where it is missing, or says in one line that it is
define debian
	$(call apt,$(1)); $$get install -y $(2) $(1)
endef

# the same, but only its files, in build
define unpack
	$(call apt,$(1)); mkdir -p build/$(1) && cd build/$(1) && flock ../apt.lock apt-get download -qq $(1) && \
	dpkg-deb -x $(1)_*.deb . && rm $(1)_*.deb
endef

# one at a time, and the lock is not handed on to services that a package starts
define apt
	root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	command -v apt-get >/dev/null && { [ -z "$$root" ] || command -v sudo >/dev/null; } || \
	{ echo 'openvocab needs $(1) (on Debian: apt-get install $(1))' >&2; exit 1; }; \
	mkdir -p build; get="flock --close build/apt.lock $$root apt-get -qq"; $$get update
endef

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'openvocab needs Python 3.11, 3.12 or 3.13 (on Debian: apt-get install python3)' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call debian,python3-venv); }
	$(PYTHON) -m venv .venv

redis:
	@command -v redis-server >/dev/null || { $(call debian,redis-server); }
	@command -v curl >/dev/null || { $(call debian,curl); }

sqlite3:
	@command -v sqlite3 >/dev/null || { $(call debian,sqlite3); }

# without what it recommends: an exporter of its own, with a service that starts at once
prometheus:
	@command -v promtool >/dev/null || { $(call debian,prometheus,--no-install-recommends); }

# unpacked and not installed: its package starts a server on port 80
nginx:
	@command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || [ -x build/nginx/usr/sbin/nginx ] || { \
	$(call unpack,nginx); }

# the JavaScript clients that the tests drive
node: tests/system/clients/js/node_modules/.package-lock.json
tests/system/clients/js/node_modules/.package-lock.json: tests/system/clients/js/package-lock.json
	@command -v npm >/dev/null || { $(call debian,nodejs npm); }
	cd tests/system/clients/js && npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

chromium:
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || { \
	$(call debian,chromium-headless-shell); }

wrk:
	@command -v wrk >/dev/null || { $(call debian,wrk); }

.venv/ready: .venv/light .venv/torch
	@touch $@

# without what PyTorch brings, so pip would find dependencies missing
.venv/light: requirements-light.lock pyproject.toml | .venv/bin/python
	$(PIP) install $(COMPILE) --require-hashes --no-deps -r requirements-light.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# the rest of the lock by a pip of its own, which takes one package after the other
.venv/torch: requirements.lock requirements-light.lock | .venv/bin/python
	@echo 'installing (PyTorch is large: about 5 GB on Linux)'
	$(call without,requirements.lock,requirements-light.lock) | $(PIP) install $(COMPILE) --require-hashes --no-deps -r /dev/stdin
	@touch $@

# --no-compile: only checks, tests and measurements import these
.venv/others: requirements-dev.lock requirements.lock | .venv/bin/python
	$(call without,requirements-dev.lock,requirements.lock) | $(PIP) install --no-compile --require-hashes --no-deps -r /dev/stdin
	@touch $@

.venv/dev: .venv/torch .venv/others .venv/light
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

# the packages of one lock that are not in another
without = awk -F'==' 'NR == FNR {other[$$1]; next} /^[^ ]/ {listed = $$1 in other} !listed' $(2) $(1)

.venv/tools/ready: requirements-build.lock | .venv/bin/python
	@$(BIN)/python -m venv .venv/tools
	@.venv/tools/bin/python -m pip --disable-pip-version-check --quiet install --no-compile --require-hashes -r requirements-build.lock
	@touch $@
