# Thin: each target is one command. `make reproduce PROFILE=smoke CORES=2 GPUS=0,1`
PROFILE ?= default
CORES ?=
GPUS ?=
PYTHON ?= python3
# TORCH=cpu takes the CPU build of torch, without the gigabytes of CUDA libraries.
TORCH ?=
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: reproduce smoke test test-all bench share clean-env
bin := .venv/bin
ENVIRONMENT := .venv/installed

$(ENVIRONMENT): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "collabench needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; make PYTHON=python3.12")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python lacks its venv module; mend it with: apt-get install python3-venv"; exit 2; }
	@echo "creating the environment in .venv (once; a few minutes)"
	@$(PYTHON) -m venv --clear .venv
	@if [ "$(TORCH)" = cpu ]; then $(bin)/pip install -q --disable-pip-version-check "$$(grep ^torch== requirements.lock)" --index-url $(CPU_INDEX); fi
	@$(bin)/pip install -q --disable-pip-version-check -r requirements.lock
	@$(bin)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

reproduce: $(ENVIRONMENT)
	@$(bin)/collabench reproduce --profile "$(PROFILE)" --cores "$(CORES)" --gpus "$(GPUS)"

smoke:
	@$(MAKE) --no-print-directory reproduce PROFILE=smoke

test: $(ENVIRONMENT)
	@OMP_NUM_THREADS=1 $(bin)/python -m pytest -q -n auto -m "not slow"

test-all: $(ENVIRONMENT)
	@OMP_NUM_THREADS=1 $(bin)/python -m pytest -q -n auto

bench: $(ENVIRONMENT)
	@OMP_NUM_THREADS=1 $(bin)/python -m benchmarks

share: $(ENVIRONMENT)
	@$(bin)/collabench share --profile "$(PROFILE)"

clean-env:
	@rm -rf .venv
