"""What the site has beyond the pages of docs/: pages of other files, the options and the API (a hook of mkdocs.yml).

Options and API are read from the source by griffe. Nothing of asrkd is imported, so neither torch nor k2 is needed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "asrkd"

# Files outside of docs/ that are pages of the site too: file -> page.
MORE_PAGES = {
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LOG.md": "log.md",
    **{f"recipes/{name}/RESULTS.md": f"results/{name}.md" for name in ("an4", "prompts", "librispeech", "mnist")},
}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
PATH = re.compile(r"""^Path\(['"](.*)['"]\)$""")
FIELD = re.compile(r"^field\(default=(.*?)(?:, .*)?\)$")
SET_BY_RUN = re.compile(r"set_by_run\((.*?)\)")
SHORT_NAME = re.compile(r"short_name\('(\w+)'\)")
CODE = re.compile(r"(^ {4}.*$|```[\s\S]*?```|`[^`\n]*`)", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The API ends the reference, the records of decisions end the background."""
    nav = {title: pages for group in config.nav or [] for title, pages in group.items()}
    nav["Reference"].append({"API": [{name: page} for name, page, _ in api_pages()]})
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    nav["Background"].append({"Records of decisions": [f"adr/{file.name}" for file in records]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    for source, page in MORE_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "options.md", content=options_page()))
    for _, page, content in api_pages():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository become links between pages of the site."""
    source = {page_uri: name for name, page_uri in MORE_PAGES.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )
    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(lambda link: _link(link, source, page.file.src_uri), part) for part in parts[::2]]
    return "".join(parts)


def _link(link: re.Match[str], source: str, page_uri: str) -> str:
    """A link as the site has it. The text alone where a file of the repository is no page."""
    text, target = link.groups()
    path, hash_sign, anchor = target.partition("#")
    if "://" in target or not path:
        return link[0]
    name = normpath((PurePosixPath(source).parent / path).as_posix())
    if name in MORE_PAGES:
        found = MORE_PAGES[name]
    elif name.startswith("docs/"):
        found = name.removeprefix("docs/")
    else:
        return text if (ROOT / name).exists() else link[0]
    return f"[{text}]({relpath(found, PurePosixPath(page_uri).parent)}{hash_sign}{anchor})"


def api_pages() -> Iterator[tuple[str, str, str]]:
    """(title, page, Markdown) of each package, every public module of it a section; single modules come first."""
    singles = sorted(file for file in PACKAGE.glob("[!_]*.py"))
    yield "asrkd", "api/asrkd.md", _api_page("asrkd", singles)
    for package in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        modules = [package / "__init__.py", *sorted(package.rglob("[!_]*.py"))]
        yield f"asrkd.{package.name}", f"api/{package.name}.md", _api_page(f"asrkd.{package.name}", modules)


def _api_page(title: str, files: list[Path]) -> str:
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return f"# {title}\n\n" + "".join(f"::: {name}\n    options:\n      heading_level: 2\n\n" for name in names)


def options_page() -> str:
    """Markdown of every option of the recipes, by section: default, values, meaning."""
    sources = griffe.load("asrkd", search_paths=[ROOT])
    digits = griffe.load("recipes", search_paths=[ROOT], modules_collection=sources.modules_collection)
    speech = sources["recipe.options"]
    lines = [
        "# Options",
        "",
        "Every option of the recipes with the default of its dataclass. A recipe has values of its own for some of "
        "them: `recipes/NAME/recipe.py` has them, and `recipes/NAME/run.sh --help-all` prints them. Options are "
        "written `--section.option VALUE` or `--section.option=VALUE`; `-` and `_` are alike. A switch is "
        "`--section.option` or `--section.no-option`. A tuple takes several values, or none: "
        "`--students.sweep-temperatures 1 2 5`.",
        "",
        "## Speech recipes",
        "",
        *_section(speech["SpeechOptions"], "--"),
        "## Speech recipes: the corpus",
        "",
    ]
    for recipe, name in (("recipes/librispeech", "LibrispeechSpeechOptions"), ("`asrkd init`", "UserSpeechOptions")):
        lines += [f"### Of {recipe}", "", *_section(speech[name], "--")]
    return "\n".join([*lines, "## MNIST", "", *_section(digits["mnist.options.DigitsOptions"], "--")])


def _section(options: griffe.Class, prefix: str, set_by_run: str = "") -> list[str]:
    """A table of a dataclass's options, without those that the run sets, then one of each dataclass in it."""
    rows: list[str] = []
    nested: list[str] = []
    for field in options.members.values():
        if not isinstance(field, griffe.Attribute) or field.annotation is None or "property" in field.labels:
            continue
        if "instance-attribute" not in field.labels or f"'{field.name}'" in set_by_run:
            continue
        name = prefix + field.name.replace("_", "-")
        inner = _dataclass_of(field)
        if inner is None:
            meaning = " ".join(field.docstring.value.split()) if field.docstring else ""
            short = SHORT_NAME.search(str(field.value))
            names = f"`{name}`, `--{short[1]}`" if short else f"`{name}`"
            rows.append(f"| {names} | {_default(field)} | {_values(field)} | {meaning} |")
        else:
            about = inner.docstring.value.split("\n\n")[0] if inner.docstring else ""
            by_run = SET_BY_RUN.search(str(field.value))
            rows_of_inner = _section(inner, f"{name}.", by_run[1] if by_run else "")
            nested += [f"### `{name}.*`", "", " ".join(about.split()), *_made_by(field), "", *rows_of_inner]
    table = ["| option | default | values | |", "|---|---|---|---|", *rows, ""] if rows else []
    return table + nested


def _made_by(field: griffe.Attribute) -> list[str]:
    """The defaults of a section where they are not those of its dataclass."""
    made = re.search(r"lambda: (\w+\(.*?\))[,)]", str(field.value))
    return [f"Here the default is `{made[1]}`."] if made and "Path()" not in made[1] else []


def _dataclass_of(field: griffe.Attribute) -> griffe.Class | None:
    """The dataclass that a field holds; None for a plain value."""
    found = _named_by(field)
    return found if isinstance(found, griffe.Class) and "dataclass" in found.labels else None


def _unaliased(field: griffe.Attribute) -> object:
    """A field's annotation; what it stands for where it is a name of our own."""
    found = _named_by(field)
    return found.value if isinstance(found, griffe.Attribute) else field.annotation


def _named_by(field: griffe.Attribute) -> griffe.Object | None:
    """What a field's annotation names, in the sources; None where that is elsewhere."""
    if not isinstance(field.annotation, griffe.ExprName):
        return None
    try:
        found = field.modules_collection[field.annotation.canonical_path]
    except KeyError:
        return None
    return found.final_target if isinstance(found, griffe.Alias) else found


def _default(field: griffe.Attribute) -> str:
    if field.value is None:
        return "required"
    text = FIELD.sub(lambda default: default[1], PATH.sub(lambda path: repr(path[1]), str(_constant(field))))
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return f"`{text}`"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return f"`{' '.join(map(str, value))}`" if value else "none"
    return "none" if value is None else f"`{value}`"


def _constant(field: griffe.Attribute) -> object:
    """A field's default; where it is the name of a constant of ours, what that is: `len(STAGE_NAMES) - 1`."""
    if not isinstance(field.value, griffe.ExprName) or field.value.canonical_path == field.value.name:
        return field.value
    constant = field.modules_collection[field.value.canonical_path]
    constant = constant.final_target if isinstance(constant, griffe.Alias) else constant
    others = {name: one.value for name, one in constant.parent.members.items() if isinstance(one, griffe.Attribute)}
    literals = {name: ast.literal_eval(str(value)) for name, value in others.items() if _is_literal(value)}
    return eval(str(constant.value), {"__builtins__": {"len": len}}, literals)


def _is_literal(value: object) -> bool:
    try:
        ast.literal_eval(str(value))
    except (ValueError, SyntaxError):
        return False
    return True


def _values(field: griffe.Attribute) -> str:
    text = re.sub(r"^Annotated\[(.*?), .*\]$", r"\1", str(_unaliased(field)))
    text = re.sub(r"Literal\[(.*?)\]", lambda choices: choices[1].replace("'", "").replace(",", " or"), text)
    text = re.sub(r"tuple\[(\w+), \.\.\.\]", r"several \1", text)
    return text.replace(" | ", " or ").replace("None", "none")
