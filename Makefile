# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

SOAK_HOURS ?= 8
EXAMPLES ?= 100000

.PHONY: demo test check audit fuzz faults docs release-check sbom demo-bundle nds soak clean

demo: $(VENV)/.cpu
	$(BIN)/spikeloop demo

test: $(VENV)/.test check
	$(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit -q -c pyproject.toml -r streams decoders export calibration service

# Holds what is installed against the known vulnerabilities; it asks a service on the network.
audit: $(VENV)/.test
	$(BIN)/pip-audit --skip-editable --desc off

# 100,000 inputs on every surface that reads what others wrote; an hour. CI draws 50 each.
fuzz: $(VENV)/.test
	SPIKELOOP_EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/fuzz -q -s

# The whole table of docs/faults.md, and what was seen; as root also what needs namespaces, mounts and priorities.
faults: $(VENV)/.test
	SPIKELOOP_FULL=1 $(BIN)/pytest tests/faults

# The site, into site/: warnings and dead links are errors.
docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Builds wheel and sdist into dist/, and tries the wheel in an environment of its own.
release-check: $(VENV)/.release
	$(BIN)/python packaging/release_check.py

# The bill of materials (CycloneDX) of what `spikeloop[cpu]` installs, into dist/sbom.json.
sbom: $(VENV)/.release
	rm -rf dist/sbom-environment && $(PYTHON) -m venv dist/sbom-environment
	dist/sbom-environment/bin/python -m pip --disable-pip-version-check --quiet install '.[cpu]'
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  -o dist/sbom.json dist/sbom-environment
	rm -rf dist/sbom-environment

$(VENV)/.release: pyproject.toml | $(VENV)/bin/python
	$(PIP) install build cyclonedx-bom
	@touch $@

demo-bundle: $(VENV)/.test
	$(BIN)/spikeloop train configs/train-demo.toml
	rm -rf configs/bundles/demo
	$(BIN)/spikeloop export runs/train-demo -o configs/bundles/demo

# Neural Data Simulator as the live source; the first time it is installed from PyPI (300 MB).
nds: $(VENV)/.test
	SPIKELOOP_FULL=1 $(BIN)/pytest tests/system/test_nds.py

# Ends with code 8 if a spike was dropped, beats were missed that a bare timer was not late for, or
# the daemon's memory grew by over 1 % after the first minute.
soak: $(VENV)/.cpu
	$(BIN)/spikeloop bench loop --units 1000 --rate 20 --hop-ms 10 \
	  --seconds $$($(BIN)/python -c 'print($(SOAK_HOURS) * 3600)') --json

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("spikeloop needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: pyproject.toml | $(VENV)/bin/python
	@echo "installing spikeloop[cpu] into $(VENV) ..."
	$(PIP) install -e '.[cpu]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing spikeloop[test] into $(VENV) ..."
	$(PIP) install 'torch==2.13.0'
	$(PIP) install -c constraints.txt -e '.[cpu,test]'
	@touch $@ $(VENV)/.cpu

clean:
	rm -rf $(VENV) runs dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
