# Two commands matter: `make demo` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.PHONY: help setup demo serve test test-clients test-docs test-faults test-browser soak check docs fuzz bench bench-api bench-embed
.PHONY: bench-gpu clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(VENV)/.dev  ## a virtual environment with everything, tests and checks included

demo: $(VENV)/.demo  ## serve on a free port, pretrain and fine-tune over HTTP, print the table (about 6 minutes)
	$(BIN)/python -m examples.demo

serve: $(VENV)/.demo  ## the whole platform on embedded defaults, data in ./data
	$(BIN)/groundwork serve

test: $(VENV)/.dev  ## every test; real PostgreSQL, Redis, HTTP and subprocesses
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not faults and not browser and not pages and not patient"

test-clients: $(VENV)/.clients  ## the official openai client, LangChain and LlamaIndex against real servers
	GROUNDWORK_TEST_CLIENTS=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/clients

test-faults: $(VENV)/.dev  ## every fault of docs/faults.md, on SQLite and on PostgreSQL + Redis
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/faults $$($(BIN)/python -m tests.faults.table)

soak: $(VENV)/.dev  ## random faults under load: MINUTES=30 SEED=1; the same seed draws the same faults
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1)

test-docs: $(VENV)/.dev  ## every code block of the documentation, page by page against servers (about 10 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/docs tests/groundwork/test_client_readme.py tests/groundwork/test_search.py tests/clients/test_how_to.py -m pages

test-browser: $(VENV)/.dev  ## walks through the dashboard in a Chromium from PATH or $$CHROMIUM (SCREENSHOTS=1: renew docs/images)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/web -m browser -rs

check: $(VENV)/.dev  ## lint, types and the house rules
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_boundaries.py

docs: $(VENV)/.docs  ## the documentation site in ./site: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

fuzz: $(VENV)/.dev  ## requests made from the API's own document, every phase (about 3 minutes)
	FUZZ_EXAMPLES=15 $(BIN)/python -m pytest tests/app/test_schema_fuzz.py

bench: $(VENV)/.dev  ## measurements on this machine, written to benchmarks/results (PEERS and PEERS_PYTHON: peers too)
	$(BIN)/python -m benchmarks.run $(if $(PEERS_PYTHON),--peers $(or $(PEERS),../shared/peers) --python $(PEERS_PYTHON))

bench-api: $(VENV)/.dev  ## the API under load, PostgreSQL with 100,000 jobs (ROWS, SCALE, DATABASE, MINUTES; about 30 minutes)
	$(BIN)/python -m benchmarks.api $(if $(ROWS),--rows $(ROWS)) $(if $(SCALE),--scale $(SCALE)) $(if $(DATABASE),--database $(DATABASE)) $(if $(MINUTES),--minutes $(MINUTES))

bench-embed: $(VENV)/.dev  ## embeddings over HTTP beside sentence-transformers and infinity (PEERS, PEERS_PYTHON, INFINITY; 4 minutes)
	$(BIN)/python -m benchmarks.embed --peers $(or $(PEERS),../shared/peers) --python $(PEERS_PYTHON) $(if $(INFINITY),--infinity $(INFINITY))

bench-gpu: $(VENV)/.dev  ## the engine on a GPU: throughput, utilisation, memory (PEERS and PEERS_PYTHON: peers too)
	$(BIN)/python -m benchmarks.engine
	$(if $(PEERS_PYTHON),$(BIN)/python -m benchmarks.peers --gpu --peers $(or $(PEERS),../shared/peers) --python $(PEERS_PYTHON))

clean:  ## remove the virtual environment
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Groundwork needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.dev $(VENV)/.demo $(VENV)/.docs

$(VENV)/.clients: pyproject.toml constraints.txt | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,clients]'
	@touch $(VENV)/.clients

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $(VENV)/.demo

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $(VENV)/.docs
