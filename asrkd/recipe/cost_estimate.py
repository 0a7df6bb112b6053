"""What a corpus and its networks will cost before anything runs: bytes, arithmetic, time and memory.

Counts are exact: frames, parameters, floating-point operations, bytes. Time is counts divided by a rate, which is
measured on this device by a few real training steps of the very networks, or given.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from tabulate import tabulate

from asrkd.distil.store import StoreOptions, bytes_of_row, combined_logits, compress
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.nnet import ArrayInputs, HardTargets, TrainOptions, train
from asrkd.nnet.devices import resolve_device, resolve_precision
from asrkd.nnet.evaluate import CHUNK, inference
from asrkd.nnet.models import AcousticDnn, ModelOptions, StackedEnsemble
from asrkd.workflow import provenance

SECONDS_AN_HOUR = 3600.0
MS_PER_SEC = 1000.0
FLOAT_BYTES = 4
STATES_A_PHONE = 3
# Weights, gradients and AdamW's two moments, in float32.
BYTES_A_TRAINED_PARAMETER = 4 * FLOAT_BYTES
PROBE_STEPS = 12
PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class PlanOptions:
    """A corpus, an ensemble, a student, and where they are trained."""

    hours: float = 100.0
    """Hours of speech to train on."""
    copies: int = 1
    """Copies of it at other speeds, itself among them."""
    frame_shift_ms: float = 10.0
    """From one frame to the next, ms."""
    features: int = 40
    """Features a frame."""
    context: int = 26
    """Frames spliced into an input."""
    senones: int = 2000
    """Classes."""
    teachers: int = 10
    """Size of the ensemble."""
    teacher: ModelOptions = field(default_factory=lambda: ModelOptions(1024, 5, dropout=0.1))
    student: ModelOptions = field(default_factory=lambda: ModelOptions(512, 4, dropout=0.0))
    phones: int = 40
    """Phones, silence among them: three states each are a monophone network's classes."""
    mono_rounds: int = 2
    """Monophone networks, of a teacher's shape, that are trained one after the other to align."""
    tree_rounds: int = 2
    """Senone networks that are so."""
    label_epochs: int = 4
    """Passes over the frames of each of them."""
    store: StoreOptions = field(default_factory=StoreOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    device: str = "auto"
    """Where they are trained and measured: cpu, cuda, or auto."""
    devices: int = 1
    """Devices that work side by side."""
    flops: float | None = None
    """Floating-point operations a second that a device keeps up in training and scoring; none: measured here."""

    def __post_init__(self) -> None:
        for name in ("hours", "copies", "frame_shift_ms", "features", "context", "senones", "teachers", "devices"):
            value = getattr(self, name)
            if value <= 0:
                raise InputError(f"--{name.replace('_', '-')}: expected a positive number, found {value:g}")
        if self.flops is not None and self.flops <= 0:
            raise InputError(f"--flops: expected a positive rate, found {self.flops}")

    @property
    def frames(self) -> int:
        """Frames of all copies."""
        return round(self.hours * SECONDS_AN_HOUR * MS_PER_SEC / self.frame_shift_ms) * self.copies

    @property
    def input_dim(self) -> int:
        return self.context * self.features


@dataclass(frozen=True)
class Network:
    """Arithmetic of one feed-forward network."""

    input_dim: int
    outputs: int
    model: ModelOptions

    @property
    def layer_macs(self) -> list[int]:
        """Multiply-adds of each layer for one frame."""
        dims = [self.input_dim] + [self.model.hidden_dim] * self.model.num_layers + [self.outputs]
        return [before * after for before, after in pairwise(dims)]

    @property
    def parameters(self) -> int:
        return sum(self.layer_macs) + self.model.num_layers * self.model.hidden_dim + self.outputs

    @property
    def forward_flop(self) -> int:
        """Of one frame."""
        return 2 * sum(self.layer_macs)

    @property
    def training_flop(self) -> int:
        """Of one frame: forward, and the gradients of weights and inputs; nobody wants those of the first inputs."""
        return 3 * self.forward_flop - 2 * self.layer_macs[0]

    def activations(self, batch_size: int) -> int:
        """Bytes that a training step of so many frames holds: activations, logits and their gradients."""
        hidden = self.input_dim + 2 * self.model.num_layers * self.model.hidden_dim
        return FLOAT_BYTES * batch_size * (hidden + 3 * self.outputs)


@dataclass(frozen=True)
class Cost:
    """One part of the work."""

    part: str
    flop: float = 0.0
    """Floating-point operations."""
    seconds: float = 0.0
    """On one device, one piece after the other."""
    side_by_side: int = 1
    """Pieces of it that can be done at the same time on devices of their own."""
    disk_bytes: int = 0
    memory_bytes: int = 0
    """On one device, at most."""

    def wall_seconds(self, devices: int) -> float:
        """By the clock, on so many devices: whole pieces side by side."""
        rounds = -(-self.side_by_side // devices)
        return self.seconds / self.side_by_side * rounds


@dataclass(frozen=True)
class Rates:
    """Floating-point operations a second."""

    teacher: float
    student: float
    scoring: float
    """Of the ensemble's forward pass with the top classes taken out."""
    measured: bool


def cost_estimate(options: PlanOptions, rates: Rates) -> list[Cost]:
    """Cost of features, the labels' networks, teachers, posteriors and the student."""
    teacher = Network(options.input_dim, options.senones, options.teacher)
    student = Network(options.input_dim, options.senones, options.student)
    top_k = min(options.store.top_k, options.senones)
    row_bytes = bytes_of_row(top_k, len(options.store.temperatures))
    feature_bytes = FLOAT_BYTES * options.frames * options.features
    monophone = Network(options.input_dim, STATES_A_PHONE * options.phones, options.teacher)
    rounds = options.mono_rounds * monophone.training_flop + options.tree_rounds * teacher.training_flop
    labels_flop = float(rounds) * options.frames * options.label_epochs

    def training(network: Network, number: int, rate: float, part: str, targets: int) -> Cost:
        flop = float(network.training_flop) * options.frames * options.train.epochs * number
        memory = network.parameters * BYTES_A_TRAINED_PARAMETER + network.activations(options.train.batch_size)
        disk = FLOAT_BYTES * network.parameters * number
        return Cost(part, flop, flop / rate, number, disk, memory + feature_bytes + targets * options.frames)

    teachers = training(teacher, options.teachers, rates.teacher, "teachers", 8)
    scoring_flop = float(teacher.forward_flop) * options.frames * options.teachers
    return [
        Cost("features", disk_bytes=feature_bytes),
        # One process trains them, each on the alignment of the one before.
        Cost("labels", labels_flop, labels_flop / rates.teacher, memory_bytes=teachers.memory_bytes),
        teachers,
        Cost(
            "posteriors",
            scoring_flop,
            scoring_flop / rates.scoring,
            # Machines share the frames, but several GPUs do not.
            1 if options.device.startswith("cuda") else options.devices,
            row_bytes * options.frames,
            FLOAT_BYTES * options.teachers * (teacher.parameters + CHUNK * options.senones) + feature_bytes,
        ),
        training(student, 1, rates.student, "student", 8 + row_bytes),
    ]


def measure_rates(options: PlanOptions) -> Rates:
    """Rates of the very networks on this device, each by a few seconds of real work on made-up frames."""
    if options.flops is not None:
        return Rates(options.flops, options.flops, options.flops, measured=False)
    device = resolve_device(options.device)
    generator = torch.Generator().manual_seed(0)
    batch = options.train.batch_size
    inputs = ArrayInputs(torch.randn(batch, options.input_dim, generator=generator).to(device))
    labels = torch.randint(options.senones, (batch,), generator=generator).to(device)

    def training_rate(model_options: ModelOptions) -> float:
        network = Network(options.input_dim, options.senones, model_options)
        model = AcousticDnn(options.input_dim, options.senones, model_options)
        epochs = replace(options.train, epochs=PROBE_STEPS, device=str(device), show_progress=False, patience=None)
        with tempfile.TemporaryDirectory() as folder:
            history = train(model, inputs, HardTargets(labels), None, None, epochs, Path(folder)).history
        seconds = sorted(epoch["seconds"] for epoch in history[1:])
        return network.training_flop * batch / seconds[len(seconds) // 2]

    return Rates(
        training_rate(options.teacher), training_rate(options.student), _scoring_rate(options, device), measured=True
    )


def _scoring_rate(options: PlanOptions, device: torch.device) -> float:
    network = Network(options.input_dim, options.senones, options.teacher)
    members = [AcousticDnn(options.input_dim, options.senones, options.teacher, seed) for seed in range(2)]
    ensemble = StackedEnsemble(members).to(device).eval()
    x = torch.randn(CHUNK, options.input_dim).to(device)
    precision = resolve_precision(options.train.precision, device)
    quickest, until = float("inf"), time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        with inference(device, precision):
            logits = ensemble(x)
        kept = compress(combined_logits(logits.float(), options.store), options.store)
        kept.logits[0, 0].item()
        quickest = min(quickest, time.perf_counter() - start)
    return network.forward_flop * len(members) * CHUNK / quickest


def rows(costs: list[Cost], devices: int) -> Iterator[tuple[str, ...]]:
    """A line a part, for people, and their sum."""
    for cost in costs:
        yield (
            cost.part,
            f"{cost.flop / 1e12:,.0f}" if cost.flop else "–",
            _duration(cost.seconds),
            _duration(cost.wall_seconds(devices)),
            _size(cost.disk_bytes),
            _size(cost.memory_bytes),
        )
    yield (
        "together",
        f"{sum(cost.flop for cost in costs) / 1e12:,.0f}",
        _duration(sum(cost.seconds for cost in costs)),
        _duration(sum(cost.wall_seconds(devices) for cost in costs)),
        _size(sum(cost.disk_bytes for cost in costs)),
        _size(max(cost.memory_bytes for cost in costs)),
    )


COLUMNS = ("part", "TFLOP", "one device", "by the clock", "on disk", "memory")


def _duration(seconds: float) -> str:
    if not seconds:
        return "–"
    if seconds < 2 * SECONDS_AN_HOUR:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / SECONDS_AN_HOUR:,.1f} h"


def _size(num_bytes: float) -> str:
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
    return f"{num_bytes / 1000:.3g} TB"


def page(options: PlanOptions) -> str:
    """The plan as a table, and the rates that it rests on."""
    rates = measure_rates(options)
    table = tabulate(
        list(rows(cost_estimate(options, rates), options.devices)),
        headers=COLUMNS,
        disable_numparse=True,
        tablefmt="github",
    )
    return f"{_described(options)}\n\n{table}\n\n{_rates_text(options, rates)}"


def page_of_run(exp_dir: Path, device: str, flops: float | None) -> str:
    """The plan of a finished run beside its own times and sizes."""
    options = options_of_run(exp_dir, device, flops)
    rates = measure_rates(options)
    happened = measured_costs(exp_dir)
    lines = [
        (
            cost.part,
            _duration(cost.seconds),
            _duration(happened[cost.part].seconds),
            _ratio(cost.seconds, happened[cost.part].seconds),
            _size(cost.disk_bytes),
            _size(happened[cost.part].disk_bytes),
            _ratio(cost.disk_bytes, happened[cost.part].disk_bytes),
        )
        for cost in cost_estimate(options, rates)
    ]
    headers = ("part", "time planned", "taken", "taken/planned", "on disk, planned", "found", "found/planned")
    table = tabulate(lines, headers=headers, disable_numparse=True, tablefmt="github")
    return f"{exp_dir}: {_described(options)}\n\n{table}\n\n{_rates_text(options, rates)}"


def options_of_run(exp_dir: Path, device: str, flops: float | None) -> PlanOptions:
    """What a run was to do, as a plan: its configuration and the frames of its training set."""
    if not (exp_dir / "config.json").is_file():
        raise InputError(f"{exp_dir}: expected a finished run, found no config.json")
    # Here, for they need Lhotse, which a plan of one's own does not.
    from asrkd.features.store import FrameStore
    from asrkd.recipe.folders import RunFolders
    from asrkd.recipe.labels import load_hmm
    from asrkd.recipe.options import options_of_run as configured

    chosen = configured(exp_dir)
    store = FrameStore.open(RunFolders(exp_dir).features("train"))
    tree, _, _ = load_hmm(exp_dir / "tree")
    return PlanOptions(
        hours=len(store) * store.frame_shift_ms / MS_PER_SEC / SECONDS_AN_HOUR,
        frame_shift_ms=store.frame_shift_ms,
        features=store.num_features,
        context=chosen.context.left + 1 + chosen.context.right,
        senones=tree.num_pdfs,
        teachers=chosen.ensemble.size,
        teacher=chosen.teacher,
        student=chosen.student,
        phones=len(tree.phones),
        mono_rounds=chosen.labels.mono_rounds,
        tree_rounds=chosen.labels.tree_rounds,
        label_epochs=chosen.labels.epochs,
        store=chosen.posteriors,
        train=replace(chosen.train, device=device),
        device=device,
        flops=flops,
    )


def measured_costs(exp_dir: Path) -> dict[str, Cost]:
    """Seconds and bytes of a run's parts, under the names of `cost_estimate`."""
    from asrkd.workflow.steps import STAMP_FILE

    folders = {
        "features": [exp_dir / "features" / "train"],
        "labels": [exp_dir / "align", exp_dir / "tree"],
        "teachers": sorted(exp_dir.glob("teachers/*")),
        "posteriors": [exp_dir / "posteriors"],
        "student": [exp_dir / "students" / "distilled"],
    }
    # What else labels leave on the disk, alignments and trees, the plan does not know.
    kept = {"features": "store/*.safetensors", "labels": "no file"}
    found = {}
    for part, parts in folders.items():
        stamped = [folder for folder in parts if (folder / STAMP_FILE).is_file()]
        if not stamped:
            raise InputError(f"{exp_dir}: expected finished {part}, found none")
        files = [file for folder in stamped for file in folder.glob(kept.get(part, "*.safetensors"))]
        # The plan knows no reading of audio.
        seconds = 0.0 if part == "features" else sum(read_json(folder / STAMP_FILE)["seconds"] for folder in stamped)
        found[part] = Cost(part, seconds=seconds, disk_bytes=sum(file.stat().st_size for file in files))
    return found


def _described(options: PlanOptions) -> str:
    teacher, student = options.teacher, options.student
    return (
        f"{options.frames:,} frames of {options.input_dim} inputs, {options.senones:,} senones; {options.teachers} "
        f"teachers {teacher.num_layers}x{teacher.hidden_dim}, a student {student.num_layers}x{student.hidden_dim}, "
        f"{options.train.epochs} epochs, {options.devices} {'device' if options.devices == 1 else 'devices'}"
    )


def _rates_text(options: PlanOptions, rates: Rates) -> str:
    if not rates.measured:
        return f"At {rates.teacher / 1e12:,.3g} TFLOP/s a device, as given."
    name = provenance.device_name(str(resolve_device(options.device)))
    told = ", ".join(
        f"{what} {rate / 1e12:,.3g}"
        for what, rate in (("teachers", rates.teacher), ("student", rates.student), ("scoring", rates.scoring))
    )
    return f"TFLOP/s measured on {name}: {told}. Validation, aligning, audio and start-up are not counted."


def _ratio(planned: float, found: float) -> str:
    return f"{found / planned:.2f}" if planned and found else "–"
