# Everything is made in .venv, and again only when what it is made from has changed.

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-apart test-rest check bench clean

help:
	@echo 'make demo   install into .venv and run five issues through the factory'
	@echo 'make test   install what the tests need and run them all, measuring what they reach'
	@echo 'make check  the gates and the fast tests, in under a minute'
	@echo 'make bench  install what one would use instead, measure factoryd beside it, write the report'
	@echo 'make clean  remove what was made here'

demo: $(VENV)/installed
	@command -v git >/dev/null || .ci/need git
	@$(PYTHON) examples/demo/run

# Two halves side by side: what takes long by itself, and the rest, whose reach is measured.
# Without these programs the tests that need one are skipped, except in CI.
APART := tests/vm tests/systemd tests/system/test_chaos.py tests/system/test_kill_points.py \
	tests/system/test_soak.py tests/unit/test_model_machine.py tests/test_architecture.py

test: $(VENV)/ready
	@.ci/need mmdebstrap qemu-system-x86 cpio systemd-container mandoc zsh fish bash-completion || [ "$$CI" != true ]
	@$(PYTHON) -m coverage erase
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-apart test-rest
	@$(PYTHON) -m coverage combine --quiet
	@$(PYTHON) -m coverage report

test-apart: $(VENV)/ready
	@$(PYTHON) -m pytest $(APART)

test-rest: $(VENV)/ready
	@$(PYTHON) -m coverage run -m pytest $(addprefix --ignore=,$(APART))

# The gates and a few of the fast tests, so that both sides end at about the same time.
BESIDE := tests/test_architecture.py tests/unit/test_rules_kill.py

check: $(VENV)/ready
	@$(PYTHON) -m pytest $(BESIDE) -m 'not slow' & gates=$$!; \
		$(PYTHON) -m pytest tests/unit -m 'not slow' $(addprefix --ignore=,$(BESIDE)); tests=$$?; \
		wait $$gates && exit $$tests

bench: $(VENV)/measuring
	@$(PYTHON) -m bench run

clean:
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each of these is a note that a step is done; a step that was cut short is done again.

$(VENV)/made:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or later is needed as python3' >&2; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null || .ci/need python3-venv
	@python3 -m venv --clear $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	@echo 'Installing factoryd into $(VENV)'
	@$(PIP) install --editable .
	@touch $@

$(VENV)/ready: $(VENV)/installed
	@command -v git >/dev/null || .ci/need git
	@echo 'Installing what the tests need into $(VENV)'
	@$(PIP) install 'pip >= 25.1'
	@$(PIP) install --editable . --group dev
	@touch $@

$(VENV)/measuring: $(VENV)/ready
	@echo 'Installing what the measurements need into $(VENV)'
	@$(PIP) install --group bench
	@touch $@
