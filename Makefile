# asrkd from the shell. `make demo` and `make test` make the environment they need when it is missing or out of date.

PYTHON := .venv/bin/python
TRAIN_PYTHON := .venv-train/bin/python

# What `make test-train` runs: every test that needs neither k2 nor lhotse (tests/test_imports.py checks the list).
TRAIN_TESTS := align/test_align align/test_doubtful align/test_search commands/test_cli commands/test_doctor \
	data/corpora/test_mnist data/test_hold_out data/test_rejects data/test_transcripts distil/test_bias \
	distil/test_distil distil/test_ensemble distil/test_external_teacher distil/test_label_agreement distil/test_loss \
	distil/test_online distil/test_posterior_kinds distil/test_store features/test_frame_store hmm/test_topology \
	hmm/test_tree lang/test_interpolation lang/test_kneser_ney lang/test_lexicon lang/test_ngram lang/test_pruning \
	lang/test_sphinx_lm lang/test_text_file lang/test_texts mnist/test_bias_repair mnist/test_claim_tests \
	mnist/test_mnist_images mnist/test_mnist_options mnist/test_mnist_recipe mnist/test_mnist_results \
	mnist/test_mnist_variants mnist/test_verdicts nnet/test_augment nnet/test_checkpoint nnet/test_data_parallel \
	nnet/test_devices nnet/test_dnn nnet/test_losses nnet/test_precision nnet/test_resume nnet/test_sharded_data \
	nnet/test_stacked nnet/test_train recipe/test_cost_estimate recipe/test_language recipe/test_memory_estimate \
	recipe/test_no_effect recipe/test_shared recipe/test_sizes recipe/test_training_python \
	report/test_decoding_sections report/test_missing_parts report/test_output report/test_page report/test_plots \
	report/test_results_md report/test_score_tables report/test_verdict scoring/test_bootstrap scoring/test_boundaries \
	scoring/test_frame_metrics test_artefacts test_config test_errors test_examples test_files test_full_disk \
	test_imports test_same_run test_terminal test_unicode workflow/test_append_store workflow/test_cache \
	workflow/test_executor workflow/test_interpreter workflow/test_local_pool workflow/test_memory workflow/test_stages

# In the order of BENCHMARKS.md: a file of local/bench, and its options where they are not its own.
BENCHMARKS := training stacks stacks_mnist posteriors fidelity graphs decoding peers alignment features students targets \
	memory
BENCH_stacks_mnist := stacks.py --layers 2 --width 800 --inputs 784 --outputs 10 --batch-size 256

# Two benchmarks at once would time each other.
.NOTPARALLEL:

.PHONY: help demo test test-fast test-train lint docs bench lock setup setup-train setup-peers corpus mnist

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: setup corpus  ## train and compare baseline, teachers, ensemble and student on the prompts corpus (15 minutes)
	recipes/prompts/run.sh --corpus-dir data/prompts $(ARGS)

test: setup  ## the tests; ARGS='-k name' for some of them
	@local/setup_kenlm.sh
	$(PYTHON) -m pytest $(ARGS)

test-fast: setup  ## the tests that take less than 20 seconds each
	$(PYTHON) -m pytest -m "not slow" $(ARGS)

test-train: setup-train  ## the tests that need no k2, on torch 2
	$(TRAIN_PYTHON) -m pytest -m "not k2" $(TRAIN_TESTS:%=tests/%.py) $(ARGS)

lint: setup  ## ruff and mypy
	.venv/bin/ruff check . && .venv/bin/ruff format --check --quiet .
	.venv/bin/mypy

docs:  ## the site of docs/ into site/, with broken links as errors
	@local/setup_docs.sh
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

bench: setup $(BENCHMARKS:%=exp/bench/%.json)  ## all benchmarks and BENCHMARKS.md; needs a finished run (exp/an4, else exp/prompts: `make demo`) and pocketsphinx-en-us
	$(PYTHON) local/bench/page.py $(BENCHMARKS:%=exp/bench/%.json) local/bench/gpu.jsonl >BENCHMARKS.md

exp/bench/%.json: setup
	@mkdir -p exp/bench
	@echo "== $*"
	@$(PYTHON) local/bench/$(or $(BENCH_$*),$*.py) --json >$@.partial 2>exp/bench/$*.log || { cat exp/bench/$*.log >&2; exit 1; }
	@mv $@.partial $@

exp/bench/peers.json: setup-peers

lock:  ## rewrite the locked requirements; UPGRADE=--upgrade moves their versions
	UPGRADE=$(UPGRADE) local/lock.sh

setup:  ## make .venv (Python 3.10, torch 1.13.1, k2)
	@local/setup.sh

setup-train:  ## make .venv-train (Python 3.11, torch 2, no k2)
	@local/setup_train.sh

setup-peers:
	@local/setup_peers.sh

corpus:  ## fetch the prompts corpus into data/prompts
	@local/fetch_prompts.sh data/prompts

mnist:  ## fetch MNIST into data/mnist
	@local/fetch_mnist.sh data/mnist
