# `make` alone lists what there is. Every target runs on a bare machine with python3.11 and pip.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
PROTOS := $(wildcard protos/sealgate/v1/*.proto)
PACKAGES := meshkit gateway compliance cache inference audit appliance sealgate

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

# --- using it -------------------------------------------------------------------------------

.PHONY: demo up
demo: $(VENV)/.appliance chat-models ## from nothing to a governed, recorded, verified chat
	@$(BIN)/python -m appliance.demo

up: $(VENV)/.appliance chat-models ## the appliance in the foreground, under var/appliance; Ctrl-C drains
	@$(BIN)/python -m appliance.main

.PHONY: mesh
mesh: $(VENV)/.appliance chat-models ## the five services as processes of their own, under var/mesh
	@deploy/system-packages.sh redis-server
	@APPLIANCE_REDIS=true $(BIN)/python -m appliance.mesh

# --- setting up -----------------------------------------------------------------------------

.PHONY: install models chat-models text triton tensorrt system-packages client-packages
install: $(VENV)/.dev ## the virtual environment, pinned

$(VENV)/.venv:
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check 'pip==26.3'
	@touch $@

$(VENV)/.appliance: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "Installing the appliance (PyTorch among it: this takes minutes the first time)"
	@$(PIP) --editable '.[appliance]'
	@touch $@

$(VENV)/.dev: $(VENV)/.appliance
	@echo "Installing what tests and checks need"
	@$(PIP) --group dev
	@touch $@

node_modules/.installed: package.json package-lock.json
	@npm ci --silent --no-audit --no-fund
	@touch $@

tests/node/node_modules/.installed: tests/node/package.json tests/node/package-lock.json
	@cd tests/node && npm ci --silent --no-audit --no-fund
	@touch $@

models: $(VENV)/.venv ## the small models, by pinned digest
	@$(BIN)/python deploy/fetch_models.py --into var/models

chat-models: $(VENV)/.venv # those that a chat needs
	@$(BIN)/python deploy/fetch_models.py --into var/models smollm2 lac rampart

text: # plain English to train variants of models on and to measure them with: 11 MB, public domain
	@deploy/fetch_text.sh var/text/sotu

triton: $(VENV)/.venv # NVIDIA Triton on a CPU, for tests: 97 MB, in an environment of its own
	@$(BIN)/python deploy/triton_server.py --into var/triton

tensorrt: $(VENV)/.venv # NVIDIA TensorRT-RTX, to build plans on a CPU: 96 MB, under NVIDIA's own licence
	@$(BIN)/python deploy/tensorrt.py --into var/tensorrt

system-packages: # third-party verifiers: Go's x/mod, OpenSSL; Redis; strace; Chromium; promtool
	@deploy/system-packages.sh golang-go golang-golang-x-mod-dev openssl redis-server strace \
	  chromium iproute2
	@deploy/promtool.sh var/tools

client-packages: node_modules/.installed tests/node/node_modules/.installed # other languages
	@deploy/system-packages.sh protobuf-compiler golang-go protoc-gen-go protoc-gen-go-grpc \
	  golang-google-protobuf-dev golang-google-grpc-dev openjdk-17-jdk-headless libprotobuf-java \
	  protobuf-compiler-grpc-java-plugin libgrpc-java libgeronimo-annotation-1.3-spec-java

# --- checking -------------------------------------------------------------------------------

.PHONY: test lint types imports protos protos-check check bench chaos clean
test: install models triton tensorrt system-packages client-packages ## the whole test suite, the servers it needs included
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadscope || $(BIN)/python -m tests.again $$?

lint: install
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: install
	@$(BIN)/mypy

imports: install
	@$(BIN)/lint-imports --no-cache

protos: install ## sealgate/v1 anew from protos/
	@$(call generate,.)

protos-check: install node_modules/.installed # lint, breaking changes, drift
	@npx --no-install buf lint protos
	@npx --no-install buf breaking protos --against protos/baseline.binpb
	@rm -rf var/protos && mkdir -p var/protos
	@$(call generate,var/protos)
	@diff -r --exclude=__pycache__ --exclude=__init__.py var/protos/sealgate/v1 sealgate/v1

check: lint types imports protos-check test ## what CI runs

.PHONY: presidio
presidio: ## Presidio in an environment of its own: the baseline of docs/compliance.md
	@$(PYTHON) deploy/presidio_baseline.py --into var/presidio

.PHONY: llamacpp
llamacpp: ## llama.cpp in an environment of its own: the baseline of docs/bench.md; builds for minutes
	@$(PYTHON) deploy/llamacpp_baseline.py --into var/llamacpp

bench: install models ## every figure we publish, into bench/results/latest.json
	@$(BIN)/python -m bench

CHAOS ?= --seconds 300
SOAK ?= --seconds 300
chaos: install models system-packages ## random faults under load, then the log's long tests; CHAOS='--seconds 3600 --seed 7'
	@$(BIN)/python -m tests.chaos $(CHAOS)
	@$(BIN)/python -m tests.soak $(SOAK)

clean: ## forget everything that was made here, data included
	@rm -rf var $(VENV) node_modules tests/node/node_modules build *.egg-info

# $(1): the folder that gets sealgate/v1/*. Messages without a service need no stubs.
define generate
$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=$(1) --grpc_python_out=$(1) \
  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:$(1) \
  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(1) \
  $(PROTOS) && rm -f $(1)/sealgate/v1/common_pb2_grpc.py*
endef
