# Thin: each target is one command. `make reproduce PROFILE=smoke CORES=2 GPUS=0,1`
PROFILE ?= default
CORES ?=
GPUS ?=
# HOURS=2: undecided claims get only those further seeds that are trained within two hours.
HOURS ?=
PYTHON ?= python3
# ARITHMETIC=native: torch's own arithmetic on a processor that lacks what portable arithmetic needs.
ARITHMETIC ?=
# TORCH=cpu takes the CPU builds of torch and torchvision, without the gigabytes of CUDA libraries. TORCH=cu126 (or another name of
# pytorch.org's builds) takes the build for an older driver, TORCH=rocm7.2 one for AMD's GPUs.
TORCH ?=
TORCH_INDEX := https://download.pytorch.org/whl

.DEFAULT_GOAL := help
.PHONY: help reproduce smoke check types quickest test test-slow test-all test-gpu bench share clean-env
bin := .venv/bin
ENVIRONMENT := .venv/installed
# A module's tests in one process, which makes what they share once; modules in the order of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(bin)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder
QUICKEST := tests/test_architecture.py tests/config tests/papers tests/stats --ignore tests/config/test_no_setting_is_ignored.py

$(ENVIRONMENT): requirements.lock pyproject.toml
	@case "$(TORCH)" in *[!a-z0-9.]*) false;; ""|cpu|cu[1-9]*|rocm[1-9]*) ;; *) false;; esac || { echo "TORCH=$(TORCH): there are cpu, and pytorch.org's builds such as cu126 and rocm7.2; leave TORCH out for the usual build with CUDA"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "collabench needs Python 3.11, 3.12 or 3.13, this is " + sys.version.split()[0] + "; choose another: make PYTHON=python3.12 …")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python lacks its venv module; mend it with: apt-get install python3-venv"; exit 2; }
	@test ! -L .venv || { echo ".venv: is a link to $$(readlink .venv), an environment that would be emptied and made again; remove the link, or call make where that environment belongs"; exit 2; }
	@echo "creating the environment in .venv (once; a few minutes)"
	@$(PYTHON) -m venv --clear .venv
	@case "$(TORCH)" in "") ;; *) $(bin)/pip install -q --disable-pip-version-check $$(grep -E '^torch(vision)?==' requirements.lock) --index-url $(TORCH_INDEX)/$(TORCH) || { echo "TORCH=$(TORCH): $(TORCH_INDEX)/$(TORCH) has no $$(grep ^torch== requirements.lock) for this Python, or cannot be reached; pytorch.org names the builds"; exit 2; };; esac
	@$(bin)/pip install -q --disable-pip-version-check -r requirements.lock
	@$(bin)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

help:
	@echo "make TARGET [PROFILE=default] [CORES=2] [GPUS=0,1] [HOURS=2] [ARITHMETIC=native] [TORCH=cpu] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1 /p' $(MAKEFILE_LIST) | awk '{name = $$1; $$1 = ""; printf "  %-10s %s\n", name, $$0}'

reproduce: $(ENVIRONMENT) ## run the profile (data, training, report) and print its tables; trains only what is missing
	@$(bin)/collabench $(if $(ARITHMETIC),--arithmetic "$(ARITHMETIC)") reproduce --profile "$(PROFILE)" --cores "$(CORES)" --gpus "$(GPUS)" $(if $(HOURS),--hours "$(HOURS)")

smoke: ## the same with PROFILE=smoke, as continuous integration runs it
	@$(MAKE) --no-print-directory reproduce PROFILE=smoke

check: $(ENVIRONMENT) ## formatting, lint, types and the quickest tests: before every commit
	@$(bin)/ruff format --check --quiet
	@$(bin)/ruff check --quiet
	@$(MAKE) --no-print-directory -j 2 types quickest

types: $(ENVIRONMENT)
	@$(bin)/mypy

quickest: $(ENVIRONMENT)
	@$(PYTEST) -m "not slow" $(QUICKEST)

test: $(ENVIRONMENT) ## the fast tests
	@$(PYTEST) -m "not slow"

test-slow: $(ENVIRONMENT) ## the other tests
	@$(PYTEST) -m slow --durations=25 --durations-min=5

test-all: $(ENVIRONMENT) ## all tests
	@$(PYTEST)

test-gpu: $(ENVIRONMENT) ## on a machine with a GPU: does it compute what the CPU computes, and how fast?
	@$(bin)/collabench doctor --gpu

bench: $(ENVIRONMENT) ## the measurements of docs/performance.md, printed
	@OMP_NUM_THREADS=1 $(bin)/python -m benchmarks

share: $(ENVIRONMENT) ## push the profile's results to the DVC remote
	@$(bin)/collabench share --profile "$(PROFILE)"

clean-env: ## remove the environment; the next target makes it again
	@rm -rf .venv
