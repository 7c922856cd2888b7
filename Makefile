# make demo   draw the demonstration pictures with the shipped model, on a CPU
# make test   the tests        make lint   ruff and mypy        make doctor   is the installation whole?
# All use .venv, made on first use from requirements.lock. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
BIN := .venv/bin
# Named after the content that it installed, so that only a change of it installs again.
STAMP := .venv/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: demo test lint doctor weights-sums clean

demo: $(STAMP)
	$(BIN)/deepgen demo --output outputs/demo

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

doctor: $(STAMP)
	$(BIN)/deepgen doctor

# After the files under src/deepgen/weights change.
weights-sums: $(STAMP)
	$(BIN)/python -c "from deepgen.pipeline.shipped import write_sums; write_sums()"

# torch first and with its own dependencies: unpinned, other packages would bring its several GB of GPU libraries.
# The rest is the complete pinned set, so nothing needs resolving.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("deepgen needs Python 3.11 or newer; make PYTHON=python3.12 ...")'
	@echo "installing into .venv (about a minute)"
	@rm -f .venv/.installed-*
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf .venv outputs
