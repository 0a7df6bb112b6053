# asrkd from the shell. `make demo` and `make test` make the environment they need when it is missing or out of date.

# `ASRKD_PYTHON=PATH make test`: any interpreter that has torch and k2. Without it .venv, made where it is missing.
PYTHON := $(or $(ASRKD_PYTHON),.venv/bin/python)
SETUP := $(if $(ASRKD_PYTHON),,setup)
TRAIN_PYTHON := .venv-train/bin/python

# Without these, tests of recipes would be skipped: there must be none such here.
REQUIRE := --require k2 --require lhotse

# `make test WORKERS=N`: that many tests at once, each on one thread. A file's tests stay together: they share a run.
WORKERS ?= 2
TESTS := OMP_NUM_THREADS=1 $(PYTHON) -m pytest
TRAIN_TESTS := OMP_NUM_THREADS=1 $(TRAIN_PYTHON) -m pytest
PARALLEL := $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --dist loadfile --no-loadscope-reorder)

# TIMIT's free sample, hand-marked phones, is measured where it is.
TIMIT_SAMPLE := $(wildcard $(ASRKD_DATA)/timit_sample)
BOUNDARIES := $(and $(ASRKD_DATA),$(TIMIT_SAMPLE),boundaries)

# In the order of BENCHMARKS.md: a file of local/bench, and its options where they are not its own.
BENCHMARKS := training side_by_side stacks stacks_mnist posteriors fidelity graphs decoding peers runtime $(BOUNDARIES) alignment \
	features students targets memory growth_text growth_manifests growth_graph serving_delay serving_abuse
BENCH_boundaries := boundaries.py --corpus-dir $(TIMIT_SAMPLE)
BENCH_stacks_mnist := stacks.py --layers 2 --width 800 --inputs 784 --outputs 10 --batch-size 256
BENCH_growth_text := growth.py --part text
BENCH_growth_manifests := growth.py --part manifests
BENCH_growth_graph := growth.py --part graph
BENCH_serving_delay := serving.py --part delay
BENCH_serving_abuse := serving.py --part abuse

# Two benchmarks at once would time each other.
.NOTPARALLEL:

.PHONY: help demo test test-fast test-train lint docs bench lock setup setup-train setup-peers corpus mnist

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(SETUP) corpus  ## train and compare baseline, teachers, ensemble and student on the prompts corpus (15 minutes)
	recipes/prompts/run.sh --corpus-dir data/prompts $(ARGS)
	@$(if $(findstring --exp-dir,$(ARGS)),:,local/try_student.sh exp/prompts)

test: $(SETUP)  ## the tests; ARGS='-k name' for some of them
	@[ -n "$(ASRKD_PYTHON)" ] || local/setup_kenlm.sh
	$(TESTS) $(PARALLEL) $(REQUIRE) $(ARGS)

test-fast: $(SETUP)  ## the tests that take less than 20 seconds each
	$(TESTS) $(PARALLEL) $(REQUIRE) -m "not slow" $(ARGS)

test-train: setup-train  ## the tests that need no k2, on torch 2
	$(TRAIN_TESTS) $(PARALLEL) $(ARGS)

lint: $(SETUP)  ## ruff, mypy and hadolint
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check --quiet .
	$(PYTHON) -m mypy
	$(dir $(PYTHON))hadolint Dockerfile

docs:  ## the site of docs/ into site/, with broken links as errors
	@local/setup_tools.sh docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

bench: $(SETUP) $(BENCHMARKS:%=exp/bench/%.json)  ## all benchmarks and BENCHMARKS.md; needs a finished run (exp/an4, else exp/prompts: `make demo`) and pocketsphinx-en-us
	$(PYTHON) local/bench/page.py $(BENCHMARKS:%=exp/bench/%.json) local/bench/gpu.jsonl >BENCHMARKS.md

exp/bench/%.json: $(SETUP)
	@mkdir -p exp/bench
	@echo "== $*"
	@$(PYTHON) local/bench/$(or $(BENCH_$*),$*.py) --json >$@.partial 2>exp/bench/$*.log || { cat exp/bench/$*.log >&2; exit 1; }
	@mv $@.partial $@

exp/bench/peers.json: setup-peers

lock:  ## rewrite the locked requirements; UPGRADE=--upgrade moves their versions
	UPGRADE=$(UPGRADE) local/lock.sh

setup:  ## make .venv (Python 3.10, torch 1.13.1, k2); for torch 2: local/setup.sh --torch 2.x.y
	@local/setup.sh

setup-train:  ## make .venv-train (Python 3.11, torch 2, no k2)
	@local/setup_train.sh

setup-peers:
	@local/setup_tools.sh peers

corpus:  ## fetch the prompts corpus into data/prompts
	@local/fetch_prompts.sh data/prompts

mnist:  ## fetch MNIST into data/mnist
	@local/fetch_mnist.sh data/mnist
