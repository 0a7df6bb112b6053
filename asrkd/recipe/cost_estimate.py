"""What a corpus and its networks cost, before anything runs: bytes, arithmetic, time and memory.

Counts are exact: frames, parameters, floating-point operations, bytes. A time is a count divided by a rate. The rate is
given, or measured on this device by a few training steps of the same networks.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from asrkd.distil.compression import StoreOptions, bytes_of_row, combined_logits, compress
from asrkd.errors import InputError
from asrkd.files import canonical, read_object
from asrkd.nnet import ArrayInputs, HardTargets, TrainOptions, train
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.evaluate import CHUNK, inference
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.precision import resolve_precision
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.options import NoEffect, require_set_by_run, set_by_run
from asrkd.recipe.label_networks import label_model
from asrkd.recipe.memory_estimate import alignment_bytes, posterior_bytes, training_bytes, tree_bytes
from asrkd.recipe.network_cost import FLOAT_BYTES, Network
from asrkd.recipe.trained import training_dir
from asrkd.workflow.steps import STAMP_FILE, Record, first_difference

if TYPE_CHECKING:
    from asrkd.recipe.options import SpeechOptions

SECONDS_PER_HOUR = 3600.0
MS_PER_SEC = 1000.0
STATES_PER_PHONE = 3
PROBE_STEPS = 12
PROBE_SECONDS = 5.0


# A finished run has these.
OF_RUN = (
    *("hours", "copies", "utterance-sec", "frame-shift-ms", "features", "context", "senones", "phones", "teachers"),
    "teacher.",
    *("student.", "student-epochs", "online-teachers", "mono-rounds", "tree-rounds", "label-epochs", "posteriors."),
    *("train.", "devices"),
)


@dataclass(frozen=True)
class CostOptions:
    """A corpus, an ensemble, a student, and the devices that train them."""

    NO_EFFECT: ClassVar[tuple[NoEffect, ...]] = (
        NoEffect(
            tuple(f"--{name}" for name in OF_RUN),
            lambda options: options.run is not None,
            "with --run, which estimates that run as it is: give one of the two",
        ),
    )

    hours: float = 100.0
    """Hours of speech to train on."""
    copies: int = 1
    """Speeds at which all of it is trained on; 1: the original alone."""
    utterance_sec: float = 12.0
    """Mean length of an utterance, seconds: names and words of all utterances are in memory."""
    frame_shift_ms: float = 10.0
    """Time from one frame to the next, ms."""
    features: int = 40
    """Features per frame."""
    context: int = 26
    """Frames spliced into one input."""
    senones: int = 2000
    """Senones of the tree: the classes of teachers and student."""
    teachers: int = 10
    """Number of teachers."""
    teacher: ModelOptions = field(default_factory=lambda: ModelOptions(1024, 5, dropout=0.1))
    student: ModelOptions = field(default_factory=lambda: ModelOptions(512, 4, dropout=0.0))
    student_epochs: int | None = None
    """Passes of the student over the frames; default: as many as a teacher's."""
    online_teachers: int = 0
    """Teachers that score each frame in the student's steps (online targets): all of them, or 1 with
    `--distil.online-teachers one`; 0: targets are stored."""
    phones: int = 40
    """Phones, silence included: three states of each are the classes of a monophone network."""
    mono_rounds: int = 2
    """Monophone networks of a teacher's shape that make the labels."""
    tree_rounds: int = 2
    """Senone networks of a teacher's shape that make the labels."""
    label_epochs: int = 4
    """Passes over the frames for each network that makes the labels."""
    posteriors: StoreOptions = field(default_factory=StoreOptions)
    train: TrainOptions = field(default_factory=lambda: TrainOptions(epochs=10), metadata=set_by_run("device"))
    device: str = "auto"
    """Where networks train and rates are measured: cpu, cuda, or auto."""
    devices: int = 1
    """Devices that work at the same time."""
    flops: float | None = None
    """Floating-point operations per second of one device in training and scoring; none: measured here."""
    run: Path | None = None
    """Folder of a finished run: estimate that run, and print its measured costs next to the estimate."""

    def __post_init__(self) -> None:
        require_set_by_run(self)
        numbers = ("hours", "copies", "utterance_sec", "frame_shift_ms", "features", "context", "senones", "teachers")
        for name in (*numbers, "devices"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"--{name.replace('_', '-')}: expected a positive number, found {value:g}")
        if not 0 <= self.online_teachers <= self.teachers:
            raise InputError(f"--online-teachers: expected 0 to {self.teachers}, found {self.online_teachers}")
        if self.student_epochs is not None and self.student_epochs < 1:
            raise InputError(f"--student-epochs: expected 1 or more, found {self.student_epochs}")
        if self.flops is not None and not 0 < self.flops < math.inf:
            raise InputError(f"--flops: expected a positive rate, found {self.flops}")

    @property
    def frames(self) -> int:
        """Frames of all copies."""
        return round(self.hours * SECONDS_PER_HOUR * MS_PER_SEC / self.frame_shift_ms) * self.copies

    @property
    def utterances(self) -> int:
        """Utterances of all copies."""
        return math.ceil(self.hours * SECONDS_PER_HOUR / self.utterance_sec) * self.copies

    @property
    def input_dim(self) -> int:
        return self.context * self.features

    def network(self, model: ModelOptions) -> Network:
        """A senone network of this architecture."""
        return Network(self.input_dim, self.senones, model, self.features)


@dataclass(frozen=True)
class Cost:
    """What one part of the work costs."""

    part: str
    flop: float = 0.0
    """Floating-point operations."""
    seconds: float = 0.0
    """On one device, one job after the other."""
    parallel_jobs: int = 1
    """Equal jobs that can run at the same time, a device each."""
    disk_bytes: int = 0
    memory_bytes: int = 0
    """Peak of the largest process, without mapped files."""

    def wall_seconds(self, devices: int) -> float:
        """Wall-clock time on this many devices: each runs one whole job at a time."""
        rounds = -(-self.parallel_jobs // devices)
        return self.seconds / self.parallel_jobs * rounds


@dataclass(frozen=True)
class Rates:
    """Floating-point operations per second."""

    teacher: float
    """In training a teacher."""
    student: float
    """In training the student."""
    scoring: float
    """In the ensemble's forward pass, with the selection of the top classes."""
    measured: bool
    """Whether they were measured on this device; else they are --flops."""


def cost_estimate(options: CostOptions, rates: Rates) -> list[Cost]:
    """Costs of features, the networks of stages 4 and 5, teachers, posteriors and the student, in this order."""
    teacher, student = options.network(options.teacher), options.network(options.student)
    labels = options.network(label_model(options.teacher))
    top_k = min(options.posteriors.top_k, options.senones)
    row_bytes = bytes_of_row(top_k, len(options.posteriors.temperatures))
    feature_bytes = FLOAT_BYTES * options.frames * options.features
    monophone = replace(labels, outputs=STATES_PER_PHONE * options.phones)

    def labelling(part: str, network: Network, rounds: int, memory: Callable[..., int]) -> Cost:
        """One process trains the networks of a stage in turn: each learns the alignment of the network before it."""
        flop = float(rounds * network.training_flop) * options.frames * options.label_epochs
        sizes = options.train, options.frames, options.features, options.utterances
        return Cost(part, flop, flop / rates.teacher, memory_bytes=memory(network, *sizes))

    def training(network: Network, number: int, rate: float, part: str, targets: int, epochs: int) -> Cost:
        flop = float(network.training_flop) * options.frames * epochs * number
        memory = training_bytes(network, options.train, options.frames, options.features, options.utterances, targets)
        return Cost(part, flop, flop / rate, number, FLOAT_BYTES * network.parameters * number, memory)

    is_stored = options.online_teachers == 0
    epochs = options.student_epochs or options.train.epochs
    learning = training(student, 1, rates.student, "student", row_bytes if is_stored else 0, epochs)
    return [
        Cost("features", disk_bytes=feature_bytes),
        labelling("align", monophone, options.mono_rounds, alignment_bytes),
        labelling("tree", labels, options.tree_rounds, tree_bytes),
        training(teacher, options.teachers, rates.teacher, "teachers", 0, options.train.epochs),
        _posteriors(options, rates, row_bytes) if is_stored else Cost("posteriors"),
        learning if is_stored else _with_teachers(learning, epochs, options, rates),
    ]


def _posteriors(options: CostOptions, rates: Rates, row_bytes: int) -> Cost:
    """Of storing the posteriors of all teachers, once."""
    teacher = options.network(options.teacher)
    flop = float(teacher.forward_flop) * options.frames * options.teachers
    # Machines of a cluster share the frames; several GPUs do not.
    jobs = 1 if options.device.startswith("cuda") else options.devices
    memory = posterior_bytes(teacher, options.teachers, options.utterances)
    return Cost("posteriors", flop, flop / rates.scoring, jobs, row_bytes * options.frames, memory)


def _with_teachers(student: Cost, epochs: int, options: CostOptions, rates: Rates) -> Cost:
    """Of a training in whose steps teachers score the frames."""
    teacher = options.network(options.teacher)
    flop = float(teacher.forward_flop) * options.frames * epochs * options.online_teachers
    # All of them are in memory, also where each scores a part of the frames.
    memory = student.memory_bytes + FLOAT_BYTES * teacher.parameters * options.teachers
    return replace(
        student, flop=student.flop + flop, seconds=student.seconds + flop / rates.scoring, memory_bytes=memory
    )


def measure_rates(options: CostOptions) -> Rates:
    """Rates on this device: each network trains, or scores, random frames for a few seconds."""
    if options.flops is not None:
        return Rates(options.flops, options.flops, options.flops, measured=False)
    device = resolve_device(options.device)
    generator = torch.Generator().manual_seed(0)
    batch = options.train.batch_size
    inputs = ArrayInputs(torch.randn(batch, options.input_dim, generator=generator).to(device))
    labels = torch.randint(options.senones, (batch,), generator=generator).to(device)

    def training_rate(model_options: ModelOptions) -> float:
        network = options.network(model_options)
        model = network.build()
        epochs = replace(options.train, epochs=PROBE_STEPS, device=str(device), show_progress=False, patience=None)
        with tempfile.TemporaryDirectory() as folder:
            history = train(model, inputs, HardTargets(labels), epochs, Path(folder)).history
        seconds = sorted(epoch["seconds"] for epoch in history[1:])
        return network.training_flop * batch / seconds[len(seconds) // 2]

    return Rates(
        training_rate(options.teacher), training_rate(options.student), _scoring_rate(options, device), measured=True
    )


def _scoring_rate(options: CostOptions, device: torch.device) -> float:
    network = options.network(options.teacher)
    members = [network.build(seed) for seed in range(2)]
    ensemble = StackedEnsemble(members).to(device).eval()
    x = torch.randn(CHUNK, options.input_dim).to(device)
    precision = resolve_precision(options.train.precision, device)
    fastest, until = float("inf"), time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        with inference(device, precision):
            logits = ensemble(x)
        rows = compress(combined_logits(logits.float(), options.posteriors), options.posteriors)
        rows.logits[0, 0].item()  # waits for the device
        fastest = min(fastest, time.perf_counter() - start)
    return network.forward_flop * len(members) * CHUNK / fastest


def options_of_run(exp_dir: Path, device: str, flops: float | None) -> CostOptions:
    """Options of the estimate of a run: from its configuration, its senones and the frames of its training set."""
    if not (exp_dir / "config.json").is_file():
        raise InputError(f"{exp_dir}: expected a finished run, found no config.json")
    # Imported here: these need Lhotse, and an estimate without a run does not.
    from asrkd.features.store import FrameStore
    from asrkd.recipe.folders import RunFolders
    from asrkd.recipe.labels import load_hmm
    from asrkd.recipe.options import options_of_run as speech_options

    chosen = speech_options(exp_dir)
    if len(set(chosen.ensemble.kinds)) > 1:
        raise InputError(f"{exp_dir}: expected teachers of one kind to estimate, found {chosen.ensemble.kinds}")
    if chosen.labels_from is not None:
        raise InputError(f"{exp_dir}: expected a run that aligns its own frames to estimate, found --labels-from")
    train = replace(chosen.train.without_runtime_options(), seed=0)
    _require_options(exp_dir, "teachers/0", {"teacher": chosen.teacher, "train": train})
    _require_options(exp_dir, "posteriors", {"posteriors": chosen.posteriors})
    _require_options(exp_dir, "students/baseline", {"student": chosen.student})
    store = FrameStore.open(RunFolders(exp_dir).features("train"))
    tree, _, _ = load_hmm(exp_dir / "tree")
    hours = len(store) * store.frame_shift_ms / MS_PER_SEC / SECONDS_PER_HOUR
    return CostOptions(
        hours=hours,
        utterance_sec=hours * SECONDS_PER_HOUR / len(store.utt_ids),
        frame_shift_ms=store.frame_shift_ms,
        features=store.num_features,
        context=chosen.context.left + 1 + chosen.context.right,
        senones=tree.num_pdfs,
        teachers=chosen.ensemble.size,
        teacher=chosen.teacher,
        student=chosen.student,
        student_epochs=chosen.students.epochs,
        online_teachers=_online_teachers(chosen),
        phones=len(tree.phones),
        mono_rounds=chosen.labels.mono_rounds,
        tree_rounds=chosen.labels.tree_rounds,
        label_epochs=chosen.labels.epochs,
        posteriors=chosen.posteriors,
        train=chosen.train,
        device=device,
        flops=flops,
    )


def _online_teachers(chosen: SpeechOptions) -> int:
    """Teachers that score each frame in the distilled student's steps."""
    if chosen.distil.targets != "online":
        return 0
    return 1 if chosen.distil.online_teachers == "one" else chosen.ensemble.size


def _require_options(exp_dir: Path, step: str, options: Mapping[str, Any]) -> None:
    """InputError if a finished step has other options than config.json: a later run can have failed before the step."""
    record = Record.read(exp_dir / step)
    for name, value in options.items():
        made_with = record.options.get(name) if record is not None else None
        if made_with is not None and made_with != canonical(value):
            raise InputError(
                f"{exp_dir}: expected config.json to have the options of {step}, found others "
                f"({name}: {first_difference(made_with, canonical(value))}): finish the run"
            )


def _seconds(folder: Path) -> float:
    """How long a finished step took."""
    return float(read_object(folder / STAMP_FILE, seconds=float)["seconds"])


def measured_costs(exp_dir: Path, num_teachers: int) -> dict[str, Cost]:
    """Seconds and bytes of a run's parts, under the names of `cost_estimate`."""
    folders = {
        "features": [exp_dir / "features" / "train"],
        "align": [exp_dir / "align"],
        "tree": [exp_dir / "tree"],
        "teachers": [exp_dir / "teachers" / str(member) for member in range(num_teachers)],
        "posteriors": [exp_dir / "posteriors"],
        "student": [training_dir(exp_dir / "students" / "distilled")],
    }
    # The estimate counts neither alignments and trees on the disk, nor the time of reading audio.
    patterns = {
        "features": "store/*.safetensors",
        **dict.fromkeys(("align", "tree"), "no file"),
        "posteriors": "store/*.safetensors",
    }
    costs = {}
    for part, outputs in folders.items():
        finished = [folder for folder in outputs if (folder / STAMP_FILE).is_file()]
        if not finished:
            raise InputError(f"{exp_dir}: expected finished {part}, found none")
        files = [file for folder in finished for file in folder.glob(patterns.get(part, "*.safetensors"))]
        seconds = 0.0 if part == "features" else sum(map(_seconds, finished))
        costs[part] = Cost(part, seconds=seconds, disk_bytes=sum(file.stat().st_size for file in files))
    return costs
