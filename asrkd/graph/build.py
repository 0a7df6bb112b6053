"""HCLG: from pdf labels to words (Mohri, Pereira and Riley 2008).

kaldifst composes L o G, determinises and minimises it. `asrkd.graph.hmm_states` expands its phones to HMM states.
"""

from __future__ import annotations

import logging
from pathlib import Path

import kaldifst
import numpy as np

from asrkd.errors import InputError, name_some
from asrkd.files import fingerprint
from asrkd.graph.arrays import FstArrays, from_kaldifst, to_kaldifst
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.hmm_states import PdfCosts, expand
from asrkd.graph.options import GraphOptions
from asrkd.graph.pronunciations import backoff_label, pronunciation_fst, word_labels
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import NgramModel, read_arpa

log = logging.getLogger(__name__)

# States of the deterministic LG, at most, by those of L o G: it mostly has fewer. Determinisation of an FST that is not
# determinisable never ends (Mohri 1997, section 3.4); disambiguation symbols should rule that out.
STATES_FACTOR = 10
MIN_STATES = 10_000


def build_hclg(
    lexicon: Lexicon,
    language_model: Path | str | NgramModel,
    tree: SenoneTree,
    transitions: TransitionModel,
    options: GraphOptions = GraphOptions(),  # noqa: B008 - frozen
) -> DecodingGraph:
    """The decoding graph of a lexicon, an n-gram model (or its ARPA file), a senone tree and its transitions.

    Words of the model without a pronunciation are not in the graph; its `excluded` lists them. InputError where the
    parts do not belong together.
    """
    if lexicon.phones != tree.phones:
        differing = sorted(set(lexicon.phones) ^ set(tree.phones))
        raise InputError(
            f"graph: expected the phones of the tree in the lexicon, found a difference in {name_some(differing)}"
        )
    if transitions.num_pdfs != tree.num_pdfs:
        raise InputError(f"graph: expected transitions of {tree.num_pdfs} pdfs, found {transitions.num_pdfs}")
    model = language_model if isinstance(language_model, NgramModel) else read_arpa(language_model)
    grammar = grammar_fst(model, word_labels(lexicon), backoff_label(lexicon))
    del model  # dictionaries, which take as much memory as the graph, unless the caller has them
    lg = lexicon_and_grammar(pronunciation_fst(lexicon, options.silence_prob), grammar.fst)
    log.info("LG: %d states, %d arcs", lg.num_states, lg.num_arcs)
    expanded = expand(lg, tree, pdf_costs(transitions, options), len(lexicon.words))
    sources = {
        "lexicon": lexicon.fingerprint,
        "grammar": grammar.fst.digest(),
        "tree": tree.fingerprint,
        "transitions": [tensor.tolist() for tensor in transitions.to_tensors().values()],
        "options": options,
    }
    return DecodingGraph.of(
        expanded,
        words=lexicon.words,
        num_pdfs=tree.num_pdfs,
        excluded=grammar.excluded,
        fingerprint=fingerprint(sources),
    )


def lexicon_and_grammar(lexicon: FstArrays, grammar: FstArrays) -> FstArrays:
    """LG, deterministic and minimal: from phones and disambiguation symbols to words."""
    left, right = to_kaldifst(lexicon), to_kaldifst(grammar)
    kaldifst.arcsort(left, "olabel")
    kaldifst.arcsort(right, "ilabel")
    lg = kaldifst.compose(left, right)
    del left, right
    most = MIN_STATES + STATES_FACTOR * lg.num_states
    try:
        # The log semiring, as in Kaldi: the weights out of a state then sum to one, and the search prunes better.
        kaldifst.determinize_star(lg, max_states=most, use_log=True)
    except RuntimeError as error:
        message = f"graph: expected a lexicon and language model that are deterministic within {most:,} states"
        raise InputError(f"{message}, found more ({str(error).splitlines()[-1]})") from None
    kaldifst.minimize_encoded(lg)
    return from_kaldifst(lg)


def pdf_costs(transitions: TransitionModel, options: GraphOptions) -> PdfCosts:
    """The cost of a visit to each pdf, as in Kaldi (`AddSelfLoops`).

    A visit of d frames scores self_loop_scale * ((d-1) * log stay + log leave) + transition_scale * (log_forward -
    log leave), with leave = 1 - stay. The cost of leaving is charged on entry: every visit has one of each.
    """
    stay = transitions.log_self_loop.double().numpy()
    leave = np.log1p(-np.exp(stay))
    forward = transitions.log_forward.double().numpy()
    entry = -(options.self_loop_scale * leave + options.transition_scale * (forward - leave))
    return PdfCosts(entry, -options.self_loop_scale * stay)
