# Two commands set everything up on a fresh machine with Python >= 3.11 (boards need 3.10): `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
BUILDER := .venv/.builder
DEV := .venv/.dev
# To compile every module takes as long as the rest of the installation. `demo` compiles what it imports; the tests treat
# a compiler's warning as an error, so for them all is compiled before.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-crash test-board test-arm test-cuts wheels test-vllm coverage check docs fix protos schemas pins clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BUILDER) ## build a model, push it to an agent on this machine, use it, measure it
	scripts/demo

test: $(DEV) ## the fast tests
	$(BIN)/python -m pytest -m "not slow and not vllm and not crash and not board"

test-slow: $(DEV) ## the real SmolLM2 and everything that takes minutes
	$(BIN)/python -m pytest -m slow --timeout 1800

test-crash: $(DEV) ## builds and agents killed at random points
	$(BIN)/python -m pytest -m crash --timeout 3600

test-board: $(DEV) ## an emulated ARM board from Debian's packages: install, push, serve, break, reboot; docs/virtual-board.md
	scripts/virtual-board trial $(ARTIFACTS)

test-arm: $(DEV) ## the golden prompt on emulated ARM processors, in minutes and without a board
	$(BIN)/python -m pytest -m board tests/virtual_board/test_golden_on_arm.py

test-cuts: $(DEV) ## as root: what power cuts leave of a store on ext4 and btrfs
	scripts/virtual-board cuts

wheels: $(DEV) ## check that every package of a board has an aarch64 wheel, Python by Python
	scripts/virtual-board wheels

test-vllm: $(DEV) ## both engines on the real vLLM that EDGEWRIGHT_VLLM names; docs/boards.md says how to install one
	@test -n "$$EDGEWRIGHT_VLLM" || { echo "EDGEWRIGHT_VLLM is not set: name the vllm command of an environment of its own (docs/boards.md, vLLM)" >&2; exit 2; }
	$(BIN)/python -m pytest -m vllm --timeout 3600

check: $(DEV) ## format, lint, types, wire contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint
	scripts/gen-protos && git diff --exit-code -- protos sdk/edgewright/v1

docs: $(DEV) ## the documentation as a site in site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

coverage: $(DEV) ## the fast tests, and how many lines of the product they run
	$(BIN)/python -m pytest -m "not slow and not vllm and not crash and not board" --cov --cov-report term --cov-report html

fix: $(DEV) ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: ## the stubs anew, from the .proto files
	scripts/gen-protos

schemas: $(DEV) ## the JSON Schemas of what commands print with --json, from the results' types
	$(BIN)/python scripts/docs/json_schemas.py

pins: ## constraints.txt anew, with the newest releases that pyproject.toml allows
	scripts/pin

clean: ## remove what the other targets made
	rm -rf .venv .venv-protos demo-run site htmlcov .coverage

$(BUILDER): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11, and the exporter has no wheel for it: make PYTHON=python3.11 …" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(INSTALL) -e ".[builder]"
	$(BIN)/python -W ignore -c "import gptqmodel, peft, optuna, onnxruntime_genai" >/dev/null 2>&1 || true
	touch $@

$(DEV): $(BUILDER)
	$(INSTALL) -e ".[builder,dev]"
	$(BIN)/python -W ignore -m compileall -qq -j 0 .venv/lib || true # a package may hold a file for another Python
	touch $@
