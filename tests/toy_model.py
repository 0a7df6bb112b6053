"""A small exported model without a run: four words, a random network, audio at 8 kHz."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from asrkd.data.transcripts import SILENCE
from asrkd.decode.options import DecodeOptions
from asrkd.files import write_json
from asrkd.graph.build import build_hclg
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.lang.lexicon import Lexicon
from asrkd.nnet import AcousticDnn, ModelOptions
from asrkd.recipe.export_files import write_graph, write_tables
from asrkd.recipe.export_network import ScoresOfFrames, write_int8, write_onnx
from asrkd.runtime import package
from asrkd.runtime.package import Description, FrontEnd, Normalisation, SearchSettings

# Runs the command line where what a model must not need cannot be imported.
ISOLATED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "k2", "_k2", "lhotse", "scipy", "onnx", "tabulate", "yaml"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from asrkd.commands.main import main
sys.exit(main(sys.argv[1:]))
"""

LEXICON = Lexicon({"AB": (("A", "B"),), "BA": (("B", "A"), ("B", "A", "A")), "ABC": (("A", "B", "C"),), "C": (("C",),)})
SENTENCES = [["AB", "BA"], ["ABC", "C"], ["BA", "C", "AB"], ["C", "ABC"], ["AB", "AB"]]
TREE = SenoneTree.monophone(LEXICON.phones)
NUM_PDFS = TREE.num_pdfs
LEFT, RIGHT = 4, 2
MEL_BINS = 12
FRONT_END = FrontEnd(8000, MEL_BINS, 25.0, 10.0, 20.0, -400.0)
SEARCH = SearchSettings(1.0, 16.0, 7000, 30, 6.0, 1.0, 0.0)


def toy_scores(cmvn: str = "speaker") -> ScoresOfFrames:
    """What the toy model's network computes."""
    shape = ModelOptions(hidden_dim=16, num_layers=1, dropout=0.0, init_scale=3.0)
    network = AcousticDnn((LEFT + 1 + RIGHT) * MEL_BINS, NUM_PDFS, shape, seed=3).eval()
    return ScoresOfFrames(network, log_prior(), LEFT, RIGHT, normalises=cmvn != "none")


def log_prior() -> Tensor:
    """[C], with exponentials that sum to one."""
    return torch.linspace(0.0, 1.0, NUM_PDFS).log_softmax(0)


def describe(cmvn: str = "speaker") -> Description:
    """What its model.json says."""
    prior = Normalisation(cmvn, (-8.0,) * MEL_BINS, (70.0,) * MEL_BINS, 100.0)  # type: ignore[arg-type]
    graph = {"silence_prob": 0.5, "self_loop_scale": 0.1, "transition_scale": 1.0}
    return Description(
        "toy distilled", FRONT_END, prior, LEFT, RIGHT, NUM_PDFS, SEARCH, (SILENCE,), graph, {"recipe": "toy"}, {}
    )


def write_toy_language(folder: Path) -> None:
    """Its decoding graph and tables."""
    transitions = TransitionModel.uniform(NUM_PDFS)
    graph = build_hclg(LEXICON, estimate_kneser_ney(SENTENCES, 2, vocabulary=LEXICON.words), TREE, transitions)
    write_graph(graph, DecodeOptions(acoustic_scale=1.0), folder / package.GRAPH)
    write_tables(graph, LEXICON, TREE, transitions, log_prior(), folder)


def write_toy_model(folder: Path, cmvn: str = "speaker", int8: bool = True) -> Path:
    """A whole model; its folder."""
    folder.mkdir()
    write_onnx(toy_scores(cmvn), MEL_BINS, folder / package.NETWORK)
    if int8:
        write_int8(folder / package.NETWORK, folder / package.NETWORK_INT8)
    write_toy_language(folder)
    files = {path.name: package.describe_file(path) for path in sorted(folder.iterdir())}
    write_json(folder / package.MODEL_JSON, package.to_json(replace(describe(cmvn), files=files)))
    return folder


def path_scores(phones: list[tuple[str, int]], margin: float = 12.0) -> Tensor:
    """Scores [T, C] in which a path of phones, (name, frames) each, is better than all others by `margin` a frame."""
    pdf_ids = []
    for phone, frames in phones:
        states = [min(3 * frame // frames, 2) for frame in range(frames)]
        pdf_ids += [3 * TREE.phones.index(phone) + state for state in states]
    scores = torch.full((len(pdf_ids), NUM_PDFS), -margin)
    scores[torch.arange(len(pdf_ids)), torch.tensor(pdf_ids)] = 0.0
    return scores
