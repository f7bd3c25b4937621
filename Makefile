# fracture_watch: `make run` starts everything, `make test` runs the tests. Nothing here uses sudo.
#
# TORCH_INDEX=URL   PyTorch's own wheel index for the small CPU build of torch (see README.md)
# PYTHON=python3.12 another interpreter (3.11 or newer)
# JOBS=1            so many processes for `make test`; one more than there are cores by default, since tests wait a lot

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
INPUTS := pyproject.toml constraints.txt
PACKAGES := chromium curl dcmtk dicom3tools libatomic1 libopenjp2-tools orthanc orthanc-dicomweb postgresql

.PHONY: run demo test crash slow check bench format clean
.DEFAULT_GOAL := run

run: $(VENV)/.run
	$(BIN)/fracture-watch run

demo: $(VENV)/.run
	$(BIN)/python -m demo.run

test: packages $(VENV)/.test
	$(BIN)/pytest -n $(JOBS) --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

crash: $(VENV)/.test
	$(BIN)/pytest tests/crash -m "crash or not crash" $(PYTEST_ARGS)

slow: $(VENV)/.test
	$(BIN)/pytest -m slow $(PYTEST_ARGS)

# Other programs that the tests compare this one with. Only root on Debian installs them; elsewhere those tests skip.
.PHONY: packages
packages:
	@[ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ] || exit 0; \
	dpkg-query --show $(PACKAGES) >/dev/null 2>&1 && exit 0; \
	echo "Installing what the whole test suite needs of the system: $(PACKAGES)"; \
	apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install $(PACKAGES) || \
	  echo "They could not be installed: the tests that need them skip."

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.decode $(DECODE_ARGS)
	$(BIN)/python -m benchmarks.inference $(INFERENCE_ARGS)
	$(BIN)/python -m benchmarks.bench $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.growth $(GROWTH_ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info

# Each stamp is newer than what it was installed from, so a second `make run` asks no network.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made $(INPUTS)
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.made $(INPUTS)
	$(PIP) -e '.[test,train]'
	@touch $@ $(VENV)/.run

$(VENV)/.bench: $(VENV)/.test
	$(PIP) -e '.[bench]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(INPUTS)
	$(PIP) -e '.[test,train,dev]'
	@touch $@ $(VENV)/.run $(VENV)/.test
