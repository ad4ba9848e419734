# make setup   a virtual environment in .venv with the locked dependencies
# make run     the whole default study, from the code on this machine to a report
# make test    formatter, linter, type checker and tests
# make evidence        the names of the long proofs
# make evidence NAME   one of them (benchmarks/evidence/NAME.py); most write benchmarks/results/NAME.json
# make lock    resolve the dependencies again and write requirements.lock and requirements-test.lock
PYTHON ?= python3
PIP_ARGS ?=
RUN_ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
TESTED := .venv/tested
# Tests start hundreds of processes, and each would compile every module again where Python may not keep them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run test types tests-alone evidence lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Kringle needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m kringle.serve.editor tests/accessibility.yaml || \
	  echo "The playground will have a plain text field; $(BIN)/python -m kringle.serve.editor tries again." >&2
	@touch $(READY)

# Beside site-packages and not in it: what is installed there is the default study's corpus, and tests must not change it.
$(TESTED): requirements-test.lock $(READY)
	@rm -rf $(TESTED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --target $(TESTED) -r requirements-test.lock
	@touch $(TESTED)

run: setup
	$(BIN)/kringle run $(RUN_ARGS)

test: setup $(TESTED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory --jobs 2 types tests-alone

types: setup
	$(BIN)/mypy

tests-alone: setup
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# The other files there are what the proofs share.
PROOFS = $(basename $(notdir $(shell grep -l __main__ benchmarks/evidence/*.py)))
PROOF = $(word 2,$(MAKECMDGOALS))

ifneq (,$(filter $(PROOF),$(PROOFS)))
evidence: setup
	$(BIN)/python benchmarks/evidence/$(PROOF).py $(EVIDENCE_ARGS)
else
evidence:
	@echo "make evidence NAME, where NAME is one of"; printf '  %s\n' $(PROOFS); [ -z "$(PROOF)" ]
endif

ifeq (evidence,$(firstword $(MAKECMDGOALS)))
$(wordlist 2,9,$(MAKECMDGOALS)):
	@:
endif

lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) torch==2.13.0 'setuptools>=77'
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	{ echo "# Written by 'make lock'. PyTorch's own CUDA packages are left to it: its CPU build needs none."; \
	  .venv-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip \
	  | sed -e 's/+cpu$$//' -e "s/^hyperscan==.*/&; platform_system == 'Linux'/" | grep -viE '^(nvidia|cuda|triton)'; } > requirements.lock
	.venv-lock/bin/python -m pip freeze --all --exclude-editable > .venv-lock/before
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[tested]'
	{ echo "# Written by 'make lock'. What only tests use: a Ray cluster, an S3 server, the detectors that redaction is held against."; \
	  .venv-lock/bin/python -m pip freeze --all --exclude-editable | grep -vxFf .venv-lock/before; } > requirements-test.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock build *.egg-info
