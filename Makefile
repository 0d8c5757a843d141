# `make` alone lists what there is.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/sealgate/v1/*.proto)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

# --- setting up -----------------------------------------------------------------------------

.PHONY: install
install: $(VENV)/.installed ## the virtual environment, with everything pinned

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip==26.3' 
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --group dev --editable '.[appliance]'
	@touch $@

.PHONY: protos
protos: install ## sealgate/v1 anew from protos/
	@$(call generate,.)

# $(1): the folder that gets sealgate/v1/*. Messages without a service need no stubs.
define generate
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=$(1) --grpc_python_out=$(1) \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:$(1) \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(1) \
	  $(PROTOS) && rm -f $(1)/sealgate/v1/common_pb2_grpc.py*
endef
