# Behind README's two commands. A virtual environment in .venv holds everything; delete it to start afresh.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
OUT ?= quick-start
RECORD ?= build/behaviour
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint types pyright units coverage wheel dist docs docs-live runtime newcomers mutants fuzz behaviour host-suites flows integrations clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/quick_start.py --out $(OUT)

test: $(VENV)/dev.stamp lint types units wheel

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

# on two cores, which take each other's tests at the end; one thread for each
units: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

# the same, and which lines no test runs; takes half as long again
coverage: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term

# swap_1x1 on flows of public code bases: SOURCES is the folder of their checkouts, OWNER+NAME each
flows: $(VENV)/dev.stamp
	SOURCES=$(SOURCES) $(BIN)/python integrations/flows/table.py

# each integration's change on the code base it is for: SOURCES is the folder of their checkouts, OWNER+NAME each
integrations: $(VENV)/dev.stamp
	SOURCES=$(SOURCES) $(BIN)/python -m integrations.table

# the built wheel, in an environment of its own and away from the checkout
wheel: $(VENV)/dev.stamp
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel . > build/wheel.log
	$(BIN)/python tests/check_wheel.py build/wheel --torch "$(TORCH)"

# what is uploaded, wheel and sdist, each extra in an environment of its own; takes some minutes. torchvision, which
# the extra spandrel brings, has to be built as torch was: for that of another index name it in PIP_EXTRA_INDEX_URL
dist: $(VENV)/dev.stamp
	rm -rf build/dist && mkdir -p build/dist
	$(BIN)/python -m build --outdir build/dist . > build/dist.log
	$(BIN)/pip install -q 'twine>=6' && $(BIN)/twine check --strict build/dist/*
	for kind in whl tar.gz; do \
	  mkdir -p build/dist/$$kind && cp build/dist/*.$$kind build/dist/$$kind/ && \
	  $(BIN)/python tests/check_wheel.py build/dist/$$kind --torch "$(TORCH)" --extras || exit 1; \
	done

# the types that a user's editor shows, by pyright, which needs an environment of its own
pyright: $(VENV)/dev.stamp
	$(PYTHON) -m venv build/pyright && build/pyright/bin/pip install -q 'pyright[nodejs]>=1.1.400'
	build/pyright/bin/pyright --pythonpath $(BIN)/python

# the site: warnings are errors, notebooks are run (SITE_NOTEBOOKS=off leaves that out), links and spelling are checked
SITE ?= build/docs
docs: $(VENV)/docs.stamp
	-test -d examples/web/vendor || $(MAKE) runtime
	OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive $(BIN)/python -m sphinx -W --keep-going -q -b html docs $(SITE)
	-SITE_NOTEBOOKS=off $(BIN)/python -m sphinx -q -b linkcheck docs build/links
	$(BIN)/python docs/check_links.py $(SITE) --external build/links
	$(BIN)/codespell --skip '*.csv,*.jsonl,*.svg' docs/*.md docs/*/*.md README.md CHANGELOG.md integrations benchmarks/README.md
	@echo "See $(SITE)/index.html; to serve it: python3 -m http.server -d $(SITE)"

# the page of the site that runs in the browser, in a real Chromium
docs-live: $(VENV)/docs.stamp
	$(BIN)/python docs/check_live.py $(SITE)

# what the browser page runs on, from npm; without it the page takes it from a network of copies
runtime:
	mkdir -p build/runtime examples/web/vendor
	cd build/runtime && npm pack --silent onnxruntime-web@1.30.0 && tar -xzf onnxruntime-web-1.30.0.tgz
	cp build/runtime/package/dist/ort.wasm.min.js build/runtime/package/dist/ort-wasm-simd-threaded.mjs \
		build/runtime/package/dist/ort-wasm-simd-threaded.wasm examples/web/vendor/

# the site's three first pages, typed in empty environments
newcomers:
	$(PYTHON) docs/newcomers.py

# the code broken in one place at a time, on copies: the tests named for each place must notice
mutants: $(VENV)/dev.stamp
	$(BIN)/python tests/mutants.py

# strangers' files: all attacks and FILES drawn ones for each door, each within memory and time (SECURITY.md)
FILES ?= 2000
fuzz: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --files $(FILES)

# what users see against RECORD, which `tests/behaviour.py record` made with the code before
behaviour: $(VENV)/dev.stamp
	$(BIN)/python tests/behaviour.py compare $(RECORD)

# FrEIA's and normflows' own tests with our modules in place of theirs: SOURCES is the folder of their checkouts
host-suites: $(VENV)/dev.stamp
	$(BIN)/python tests/host_suites.py $(SOURCES)

# torch first and alone: the demo and the tests run on a CPU, and its version decides what else is brought
$(VENV)/torch.stamp:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH)
	touch $@

$(VENV)/demo.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/pip install -q -e '.[cli]' 'scikit-image>=0.24'
	touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

$(VENV)/docs.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/pip install -q -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build quick-start .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
