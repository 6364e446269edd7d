# Needs make and a Python of 3.12 or newer, nothing else. `make help` lists the targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check lint format types layers pages docs bench fuzz clean

VENV   ?= .venv
PY     := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
INPUTS := pyproject.toml constraints.txt
WORKERS ?= 2
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export NO_MKDOCS_2_WARNING = 1

help:  ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z]*\):.*##/\1/p' $(MAKEFILE_LIST) | while read -r name text; do printf '  %-8s%s\n' "$$name" "$$text"; done
	@echo "Set-up is done on the way, in $(VENV). PYTHON=/path/to/python chooses the interpreter."

demo: $(STAMPS)/demo  ## build a cube of 36 monthly files, verify it, draw it
	$(PY) examples/demo.py

test: $(STAMPS)/test  ## run the whole test suite
	$(PY) -m pytest -n $(WORKERS)

check: lint format types layers pages docs  ## lint, format, types, import layers, generated pages, docs

lint: $(STAMPS)/check
	$(PY) -m ruff check

format: $(STAMPS)/check
	$(PY) -m ruff format --check

types: $(STAMPS)/check
	$(PY) -m mypy
	$(PY) -m mypy --explicit-package-bases --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls examples

layers: $(STAMPS)/check
	$(VENV)/bin/lint-imports

pages: $(STAMPS)/check
	@if [ -f docs/generate.py ]; then echo "$(PY) docs/generate.py --check"; $(PY) docs/generate.py --check; fi

docs: $(STAMPS)/docs  ## build the documentation in site/, with warnings as errors
	$(PY) -m mkdocs build --strict --quiet

bench: $(STAMPS)/bench  ## run the benchmarks beside the peers
	$(PY) benchmarks/run.py

fuzz: $(STAMPS)/test  ## combine 10,000 archives drawn at random; then run the property tests for long
	$(PY) -m pytest -n $(WORKERS) -m archives --hypothesis-profile=archives --timeout=3600
	$(PY) -m pytest -n $(WORKERS) -m hypothesis --hypothesis-profile=fuzz --timeout=3600

clean:  ## remove what was built and cached, but not the environment
	rm -rf site dist build demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# One stamp per set of extras: the second run of any target installs nothing.
$(STAMPS)/venv: .ci/python .ci/venv
	@.ci/venv $(VENV) $(MAKECMDGOALS)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/check: EXTRAS = test,check
$(STAMPS)/docs: EXTRAS = all,docs
$(STAMPS)/demo $(STAMPS)/test $(STAMPS)/bench: EXTRAS = $(@F)

$(STAMPS)/demo $(STAMPS)/test $(STAMPS)/check $(STAMPS)/docs $(STAMPS)/bench: $(STAMPS)/venv $(INPUTS)
	@echo "installing virtualchunks[$(EXTRAS)] in $(VENV) (a minute or two the first time)"
	@$(PY) -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@
