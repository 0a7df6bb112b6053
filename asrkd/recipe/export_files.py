"""The text files and the decoding graph of an exported model, in the formats of `asrkd.runtime`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from asrkd.decode.options import DecodeOptions
from asrkd.files import utf8
from asrkd.graph.arrays import NO_FINAL, sorted_by_source, write_const_fst
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.hmm_states import FINAL_LABEL
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import LEAF, SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.runtime.graph import EPSILON, WORD_JOINER
from asrkd.runtime.package import LEXICON, PHONES, SENONES, TREE, WORDS


def write_graph(graph: DecodingGraph, search: DecodeOptions, path: Path) -> None:
    """HCLG with costs of the scaled scores: weights of the language model and of words do not change afterwards.

    The arcs into k2's final state become costs of ending.
    """
    source, target, label = (column.numpy() for column in graph.arcs.T)
    words = graph.words_on_arc.numpy()
    cost = -(search.lm_scale * graph.scores + search.insertion_score * graph.num_words[words]).numpy()
    ends = label == FINAL_LABEL
    if words[ends].any():
        raise ValueError("expected no words on arcs into the final state")
    final = np.full(graph.num_states - 1, NO_FINAL, dtype=np.float32)
    final[source[ends]] = cost[ends]
    columns = (column[~ends] for column in (source, target, label, words, cost))
    write_const_fst(sorted_by_source(list(columns), final), path)


def write_tables(
    graph: DecodingGraph,
    lexicon: Lexicon,
    tree: SenoneTree,
    transitions: TransitionModel,
    log_prior: Tensor,
    out_dir: Path,
) -> None:
    """Words, phones, senones, lexicon and tree."""
    names = (WORD_JOINER.join(graph.words[word] for word in row) for row in graph.word_sequences[1:])
    _write_symbols(names, out_dir / WORDS)
    _write_symbols(tree.phones, out_dir / PHONES)
    rows = zip(pdf_owners(tree), transitions.log_self_loop.tolist(), log_prior.tolist(), strict=True)
    senones = (
        f"{pdf_id} {phone} {state} {stay:.7g} {prior:.7g}" for pdf_id, ((phone, state), stay, prior) in enumerate(rows)
    )
    _write_lines(senones, out_dir / SENONES)
    entries = ((word, pron) for word in lexicon.words for pron in lexicon.prons[word])
    _write_lines((f"{word} {' '.join(pron)}" for word, pron in entries), out_dir / LEXICON)
    tree.save(out_dir / TREE)


def pdf_owners(tree: SenoneTree) -> list[tuple[str, int]]:
    """The phone and HMM state of each senone: the tree of a state shares no leaf with another."""
    owners: dict[int, tuple[str, int]] = {}
    for root in range(NUM_STATES * len(tree.phones)):
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if tree.context[node] == LEAF:
                owners[int(tree.question[node])] = tree.phones[root // NUM_STATES], root % NUM_STATES
            else:
                waiting += [int(tree.yes[node]), int(tree.no[node])]
    return [owners[pdf_id] for pdf_id in range(tree.num_pdfs)]


def _write_symbols(names: Iterable[str], path: Path) -> None:
    """An OpenFst symbol table: epsilon is 0."""
    _write_lines((f"{name} {number}" for number, name in enumerate([EPSILON, *names])), path)


def _write_lines(lines: Iterable[str], path: Path) -> None:
    path.write_bytes(utf8("".join(f"{line}\n" for line in lines)))
