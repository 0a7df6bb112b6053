"""Every reader of files: a small valid input for each, and the function that reads it. A reader more is a line more."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from toy_posteriors import write as write_posteriors

from asrkd import config
from asrkd.commands.results import ResultsOptions
from asrkd.commands.results import run as run_results
from asrkd.data.audio import AudioError, probe, read_samples
from asrkd.data.corpora.mnist import _content as gzip_content
from asrkd.data.corpora.mnist import parse_idx
from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus
from asrkd.data.manifests import load_split, save_split
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.decode.compact import UtteranceLattice
from asrkd.decode.lattice import Lattices
from asrkd.decode.search import Hypotheses
from asrkd.distil.posterior_files import open_posteriors
from asrkd.distil.store import PosteriorStore
from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.files import load_tensors, read_lines, safetensors_fingerprint, save_tensors, write_json
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.lang.phones import SILENCE
from asrkd.lang.sphinx_lm import MAGIC, read_sphinx_lm
from asrkd.lang.subword import subword_lexicon, train_pieces
from asrkd.nnet.checkpoint import Progress, load_checkpoint, save_checkpoint, start_precision
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.precision import resolve_precision
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.recipe.evaluate import tuned, tuning_results
from asrkd.recipe.excluded import excluded_utterances
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.labels import load_hmm, save_hmm
from asrkd.recipe.losses import rejected_before
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.trained import trained_precision
from asrkd.workflow.append_store import AppendStore, is_finished
from asrkd.workflow.cache import Codec, ResultCache
from asrkd.workflow.stages import StageRange, list_steps, run_steps
from asrkd.workflow.steps import Step
from fuzz.examine import Target

ROOT = Path(__file__).resolve().parents[2]
PHONES = (SILENCE, "A", "B")
TEXTS = ("GO ON", "STOP", "GO STOP ON ON")
FINGERPRINT = "f00df00df00df00d"
ARPA = """\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-1.0\t</s>
-99\t<s>\t-0.3
-0.5\tGO\t-0.2
-0.7\tON

\\2-grams:
-0.4\t<s> GO
-0.3\tGO ON
-0.6\tON </s>

\\end\\
"""
LEXICON = "GO G OW\nON AA N\nON(2) AO N\nSTOP S T AA P\n"


def frames(folder: Path) -> None:
    utterances = [(f"u{n}", "s", text, torch.randn(5 + n, 4)) for n, text in enumerate(TEXTS)]
    FrameStore.write(folder / "store", utterances, {"frame_shift_ms": 10.0}, FINGERPRINT)


def read_frames(folder: Path) -> None:
    store = FrameStore.open(folder / "store")
    for utt_id in store.utt_ids:
        store.utt(utt_id).sum()
    _ = len(store), store.num_features, store.frame_shift_ms


def read_posteriors(folder: Path) -> None:
    store = PosteriorStore.open(folder / "store")
    store.targets(torch.arange(len(store)), store.options.temperatures[0])
    _ = store.bytes_per_frame


def grow(folder: Path, finish: bool = False) -> None:
    store = AppendStore(folder / "store", FINGERPRINT, {"feats": "float32", "ids": "int16"})
    rows = len(store.entries) + 3
    while len(store.entries) < rows:
        store.append([np.ones((3, 4), np.float32), np.ones((3, 2), np.int16)], f"u{len(store.entries)}")
    store.commit()
    if finish:
        store.finish("index.json", {})
    store.close()


def resume(folder: Path) -> None:
    is_finished(folder / "store" / "index.json", FINGERPRINT)
    grow(folder, finish=True)


def split(folder: Path) -> None:
    from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    recordings = [Recording(f"u{n}", [AudioSource("file", [0], f"{n}.wav")], 16000, 160, 0.01) for n in range(3)]
    supervisions = [SupervisionSegment(f"u{n}", f"u{n}", 0.0, 0.01, text=TEXTS[n], speaker="s") for n in range(3)]
    sets = RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions)
    save_split(CorpusSplit(*sets, {"noise": 1}, (Rejected("u4", "empty"),), ("s1",), 0.1), folder)


def read_split(folder: Path) -> None:
    found = load_split(folder)
    for recording in found.recordings:
        _ = recording.id, recording.duration
    for supervision in found.supervisions:
        _ = supervision.text, supervision.speaker


def alignment(folder: Path) -> None:
    state = torch.tensor([0, 1, 2, 0, 1, 2], dtype=torch.int8)
    phone = torch.tensor([0, 0, 0, 1, 1, 1], dtype=torch.int16)
    likes = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    columns = (torch.tensor([0, 3, 6]), phone, state, (phone > 0).int())
    about = (PHONES, FINGERPRINT, likes, (-1.0,), {"u3": "too short"})
    Alignment(("u1", "u2"), *columns, *about).save(folder / "alignment")


def read_alignment(folder: Path) -> None:
    Alignment.load(folder / "alignment").pdf_ids(SenoneTree.monophone(PHONES))


def hmm(folder: Path) -> None:
    tree = SenoneTree.monophone(PHONES)
    save_hmm(folder, tree, torch.zeros(tree.num_pdfs), TransitionModel.uniform(tree.num_pdfs))


def graph(folder: Path) -> None:
    arcs = torch.tensor([[0, 1, 1], [1, 1, 2], [1, 2, -1]], dtype=torch.int32)
    sequences = ((), (0,), (1,))
    rows = torch.tensor([1, 0, 2], dtype=torch.int32)
    DecodingGraph(arcs, torch.zeros(3), rows, sequences, ("GO", "ON"), 9, ("NO",), FINGERPRINT).save(folder / "graph")


def read_graph(folder: Path) -> None:
    loaded = DecodingGraph.load(folder / "graph")
    _ = loaded.num_states, loaded.num_arcs, loaded.num_words


def hypotheses(folder: Path) -> None:
    arcs = np.array([[0, 1, 1], [1, 2, -1]], dtype=np.int32)
    scores = np.zeros(2, dtype=np.float32)
    graph(folder)
    lattice = UtteranceLattice(arcs, np.array([1, 0], dtype=np.int32), scores, scores)
    lattices = Lattices.of(DecodingGraph.load(folder / "graph"), {"u1": lattice, "u2": lattice})
    (folder / "graph").unlink()
    Hypotheses({"u1": ["GO"], "u2": []}, lattices, ("u2",), (), 1.0, 0.1, 0.1).save(folder)


SMALL = ModelOptions(hidden_dim=4, num_layers=2)


def model(folder: Path) -> None:
    AcousticDnn(3, 5, SMALL).save(folder / "model", {"history": "[]"})


def stack(folder: Path) -> None:
    StackedEnsemble([AcousticDnn(3, 5, SMALL, seed) for seed in range(2)]).save(folder / "model", {})


def training_state() -> Any:
    """What of a TrainingState a checkpoint has."""
    network = AcousticDnn(3, 5, SMALL)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return SimpleNamespace(model=network, average=None, optimizer=optimizer)


def checkpoint(folder: Path) -> None:
    save_checkpoint(folder, FINGERPRINT, training_state(), Progress([{"epoch": 0}], 0, {"x": torch.ones(2)}))
    start_precision(folder, FINGERPRINT, lambda: "float32")


def read_checkpoint(folder: Path) -> None:
    start_precision(folder, FINGERPRINT, lambda: "float32")
    load_checkpoint(folder, FINGERPRINT, training_state())


STEPS = (
    Step(0, "corpus", lambda out: write_json(out / "x.json", 1), options={"a": [1, 2]}),
    Step(1, "manifests", lambda out: write_json(out / "x.json", 2), inputs=("corpus",), resumable=True),
)


def experiment(folder: Path) -> None:
    run_steps(STEPS, folder / "exp")
    config.save(SpeechOptions(), folder / "exp" / "config.json")
    partial = folder / "exp" / "manifests.partial"
    partial.mkdir()
    write_json(partial / "pending.json", {"stamp": FINGERPRINT, "started": 1.0, "spent": 2.0})


def read_experiment(folder: Path) -> None:
    list_steps(STEPS, folder / "exp", StageRange())
    run_steps(STEPS, folder / "exp")
    config.load(SpeechOptions, folder / "exp" / "config.json")


def rejected(folder: Path) -> None:
    (folder / "manifests" / "train").mkdir(parents=True)
    write_json(folder / "manifests" / "train" / "rejected.json", [{"utt_id": "u1", "reason": "empty"}])


def summary(folder: Path) -> None:
    write_json(folder / "summary.json", {"precision": "float32", "device": "cpu"})
    resolve_precision("auto", torch.device("cpu"), folder / "precision.json")


def read_summary(folder: Path) -> None:
    trained_precision([folder])
    resolve_precision("auto", torch.device("cpu"), folder / "precision.json")


def results(folder: Path) -> None:
    shutil.copy(ROOT / "recipes" / "prompts" / "results.json", folder)


def losses(folder: Path) -> None:
    folders = RunFolders(folder)
    folders.losses("train").parent.mkdir(parents=True)
    write_json(folders.losses("train"), {"excluded": {"u1": "doubtful"}, "doubtful": [], "unaligned": []})
    scales = {"acoustic_scale": 0.1, "lm_scale": 1.0, "insertion_score": 0.0}
    tuning = {"scales": scales, "rows": [], "at_grid_end": [], "added": {}, "flat": False}
    write_json(folder / "tuning.json", tuning)


def read_losses(folder: Path) -> None:
    excluded_utterances(RunFolders(folder), "train")
    tuning_results(folder)
    tuned(folder, SpeechOptions())


CODEC: Codec[Any] = Codec(lambda value: {"x": value}, lambda arrays: arrays["x"])


def cache(folder: Path) -> None:
    list(ResultCache(folder / "results.sqlite", "key", CODEC).map(range(5), squares))


def squares(items: Any) -> Any:
    return ((n, np.full(3, item**2)) for n, item in enumerate(items))


def read_cache(folder: Path) -> None:
    results = dict(ResultCache(folder / "results.sqlite", "key", CODEC).map(range(7), squares))
    assert sorted(results) == list(range(7))


def pieces(folder: Path) -> None:
    train_pieces(TEXTS * 3, 9, folder / "pieces")


def tensors(folder: Path) -> None:
    save_tensors(folder / "x.safetensors", {"x": torch.ones(3, 2), "y": torch.arange(4)}, {"kind": "test"})


def read_tensors(folder: Path) -> None:
    safetensors_fingerprint(folder / "x.safetensors")
    load_tensors(folder / "x.safetensors")


def text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        data = content.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    return write


def sphinx(folder: Path) -> None:
    unigrams = np.zeros(4, dtype=[("prob", "<f4"), ("backoff", "<f4"), ("next", "<u4")])
    unigrams["prob"][:3] = [-3000, -9000, -4000]
    names = b"</s>\0<s>\0go\0"
    counts = np.array([3], dtype="<u4").tobytes()
    head = MAGIC + bytes([1]) + counts + bytes(4)
    (folder / "lm.bin").write_bytes(head + unigrams.tobytes() + struct.pack("<I", len(names)) + names)


def tone(path: Path) -> None:
    samples = (8000 * np.sin(np.arange(800) / 5)).astype("<i2")
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
        return
    import soundfile

    soundfile.write(path, samples, 16000)


def read_audio(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        try:
            read_samples(probe(folder / name, "u1"))
        except AudioError as error:  # the reason of a rejected utterance
            raise InputError(str(error)) from None

    return read


def kaldi_dir(folder: Path) -> None:
    for name in ("a", "b"):
        tone(folder / f"{name}.wav")
    contents = {
        "wav.scp": "r1 a.wav\nr2 b.wav\n",
        "text": "u1 GO ON\nu2 STOP\nu3 GO\n",
        "utt2spk": "u1 s1\nu2 s2\nu3 s3\n",
        "segments": "u1 r1 0.0 0.02\nu2 r2 0.0 0.03\nu3 r2 0.01 0.04\n",
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")


def read_kaldi(folder: Path) -> None:
    prepare_user_corpus(folder, UserCorpusOptions(folder), only_probe=True)


def manifests(folder: Path) -> None:
    for n in range(3):
        tone(folder / f"{n}.wav")
    lines: dict[str, list[dict[str, Any]]] = {"recordings": [], "supervisions": []}
    for n in range(3):
        source = {"type": "file", "channels": [0], "source": f"{n}.wav"}
        lines["recordings"].append(
            {"id": f"r{n}", "sources": [source], "sampling_rate": 16000, "num_samples": 800, "duration": 0.05}
        )
        times = {"start": 0.0, "duration": 0.05, "channel": 0}
        lines["supervisions"].append(
            {"id": f"u{n}", "recording_id": f"r{n}", **times, "text": TEXTS[n], "speaker": f"s{n}"}
        )
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_manifests(folder: Path) -> None:
    os.chdir(folder)
    options = UserCorpusOptions(folder / "recordings.jsonl", folder / "supervisions.jsonl")
    prepare_user_corpus(folder, options, only_probe=True)


def npy(folder: Path) -> None:
    (folder / "dump").mkdir()
    for n in range(2):
        np.save(folder / "dump" / f"u{n}.npy", np.zeros((4, 3), np.float32))


def npz(folder: Path) -> None:
    np.savez(folder / "dump.npz", u1=np.zeros((4, 3), np.float32), u2=np.zeros((2, 3)))


def ark(folder: Path) -> None:
    import kaldi_native_io

    with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{folder}/dump.ark,{folder}/dump.scp") as writer:
        for n in range(2):
            writer.write(f"u{n}", np.zeros((4, 3), np.float32))


def read_matrices(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        if name.endswith(".scp"):  # its paths are absolute: those of the valid files
            lines = [line.split(maxsplit=1) for line in read_lines(folder / name)]
            moved = [f"{one[0]} {folder}/{one[1].rpartition('/')[2]}" for one in lines if len(one) == 2]
            (folder / name).write_text("".join(f"{line}\n" for line in moved), encoding="utf-8")
        matrices = open_posteriors(folder / name)
        for utt_id in matrices:
            np.asarray(matrices[utt_id]).sum()

    return read


def idx(folder: Path) -> None:
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 4, 4)
    (folder / "images.gz").write_bytes(gzip.compress(header + bytes(32)))


def read_idx(folder: Path) -> None:
    parse_idx(gzip_content(folder / "images.gz"), 3, "images.gz")


OURS = (
    Target("tensors", tensors, read_tensors),
    Target("frame store", frames, read_frames),
    Target("posterior store", lambda folder: write_posteriors(folder / "store"), read_posteriors),
    Target("growing store", grow, resume),
    Target("split", split, read_split),
    Target("alignment", alignment, read_alignment),
    Target("senone tree", hmm, load_hmm),
    Target("decoding graph", graph, read_graph),
    Target("hypotheses", hypotheses, Hypotheses.load),
    Target("model", model, lambda folder: AcousticDnn.load(folder / "model")),
    Target("ensemble", stack, lambda folder: StackedEnsemble.load_stack(folder / "model")),
    Target("checkpoint", checkpoint, read_checkpoint),
    Target("experiment", experiment, read_experiment, ("**/stamp.json", "**/pending.json", "exp/config.json")),
    Target("rejected.json", rejected, lambda folder: rejected_before(RunFolders(folder), "train")),
    Target("summary", summary, read_summary, ("*.json",)),
    Target("results.json", results, lambda folder: run_results(ResultsOptions((folder,), folder / "RESULTS.md"))),
    Target("losses and scales", losses, read_losses),
    Target("result cache", cache, read_cache),
    Target("SentencePiece model", pieces, lambda folder: subword_lexicon(["GO", "ON"], folder / "pieces.model", 3)),
)
OF_USERS = (
    Target("ARPA", text("lm.arpa", ARPA), lambda folder: read_arpa(folder / "lm.arpa"), is_ours=False),
    Target("ARPA, gzip", text("lm.gz", ARPA), lambda folder: read_arpa(folder / "lm.gz"), is_ours=False),
    Target("Sphinx LM", sphinx, lambda folder: read_sphinx_lm(folder / "lm.bin"), is_ours=False),
    Target("lexicon", text("lexicon.txt", LEXICON), lambda folder: Lexicon.load(folder / "lexicon.txt"), is_ours=False),
    Target("wav", lambda folder: tone(folder / "a.wav"), read_audio("a.wav"), is_ours=False),
    Target("flac", lambda folder: tone(folder / "a.flac"), read_audio("a.flac"), is_ours=False),
    Target("Kaldi directory", kaldi_dir, read_kaldi, ("wav.scp", "text", "utt2spk", "segments"), is_ours=False),
    Target("Lhotse manifests", manifests, read_manifests, ("*.jsonl",), is_ours=False),
    Target("numpy matrices", npy, read_matrices("dump"), is_ours=False),
    Target("npz", npz, read_matrices("dump.npz"), is_ours=False),
    Target("Kaldi archive", ark, read_matrices("dump.scp"), is_ours=False),
    Target("MNIST idx", idx, read_idx, is_ours=False),
)
TARGETS = {target.name: target for target in (*OURS, *OF_USERS)}
