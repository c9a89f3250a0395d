"""Pages that are made from the code when the site is built, and links that leave the site.

`mkdocs.yml` names this file. `reference/cli.md` comes from the tree of commands,
`reference/config.md` from the models and the commented files, the tables of `results.md` from the
README, so that none of them can say something else than the code.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

from calibration.wizard.config import CalibrateConfig
from decoders.config import TrainConfig
from export.manifest import Manifest
from service.cli import GROUPS, SUBGROUPS, main
from service.config import ServeConfig

ROOT = Path(__file__).parents[1]
_FROM_README = re.compile(r"^<!-- README: (.+) -->$", flags=re.M)
_FILE = re.compile(r"^<!-- file: \S+ = (\S+) -->$", flags=re.M)
_MANIFEST = "<!-- manifest -->"
CLIENTS = ("python", "node", "cpp", "csharp", "matlab", "bonsai")
_LINK = re.compile(r"\[([^\]\n]+)\]\((\.\./[^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that the navigation does not name into its appendix, so that none is lost."""
    nav = config.nav or []
    named = set(_named(nav)) | MADE.keys()
    docs = ROOT / "docs"
    pages = sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    appendix = next(part["Appendix"] for part in nav if "Appendix" in part)
    appendix += [page for page in pages if page not in named]
    return config


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(part)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for name, make in MADE.items():
        files.append(File.generated(config, name, content=make()))
    for path in published():
        name = str(path.relative_to(ROOT))
        files.append(File.generated(config, name, content=path.read_text()))
    return files


def published() -> list[Path]:
    """Programs beside the docs that a reader saves: whoever installed the wheel has no checkout."""
    clients = [path for folder in CLIENTS for path in (ROOT / "clients" / folder).iterdir()]
    named = [path for path in clients if path.is_file() and path.stem != "conformance"]
    return sorted([*named, ROOT / "examples" / "sender.py"])


def clients_page() -> str:
    """The clients' own page, its links as seen from the site's root."""
    text = (ROOT / "clients" / "README.md").read_text().replace("](../docs/", "](")
    return re.sub(r"\]\((?=(?:" + "|".join(CLIENTS) + r")/)", "](clients/", text)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in tables of the README, and show links to files beside the docs as their names."""
    markdown = _FROM_README.sub(lambda found: readme_section(found[1]), markdown)
    markdown = _FILE.sub(lambda found: _fenced(ROOT / found[1]), markdown)
    markdown = markdown.replace(_MANIFEST, "\n".join(_model(Manifest, {}, "manifest.json")))
    here = (ROOT / "docs" / page.file.src_uri).parent
    return _LINK.sub(lambda found: _kept_or_named(found, here), markdown)


def _kept_or_named(found: re.Match[str], here: Path) -> str:
    target = (here / found[2].partition("#")[0]).resolve()
    if target == ROOT / "clients" / "README.md":
        return f"[{found[1]}]({os.path.relpath(ROOT / 'docs' / 'clients.md', here)})"
    if target in published():
        there = ROOT / "docs" / target.relative_to(ROOT)
        return f"[{found[1]}]({os.path.relpath(there, here)})"
    if target.is_relative_to(ROOT / "docs"):
        return found[0]
    if not target.exists():
        raise FileNotFoundError(f"{here}: {found[2]} leads nowhere")
    return f"`{target.relative_to(ROOT)}`"


def _fenced(path: Path) -> str:
    return f"```python\n{path.read_text()}```"


def readme_section(heading: str) -> str:
    """Return a section of the README, its links as seen from `docs/`."""
    text = (ROOT / "README.md").read_text()
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    if section is None:
        raise LookupError(f"README.md has no section {heading!r}")
    return section[1].replace("](docs/", "](")


def cli_page() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Command line", "",
        "Every command answers `--help` with what stands here. Exit codes: 0 done, 1 ended by its "
        "own guard, 2 usage or config, 3 stream absent, ambiguous or unfit, 4 bundle refused, 5 "
        "backend unavailable, 6 address in use or refused, 7 daemon not reachable, 8 result below "
        "its threshold.", "",
        "`SPIKELOOP_DECODE`, `SPIKELOOP_CONTROL` and `SPIKELOOP_KEYS` in the environment stand for "
        "`--decode`, `--control` and `--keys` of the commands that talk to a daemon.", "",
    ]  # fmt: skip
    names = [(name,) for group in GROUPS for name in group.COMMANDS]
    names += [(group, name) for group, module in SUBGROUPS.items() for name in module.COMMANDS]
    for words in sorted(names):
        lines += [f"## spikeloop {' '.join(words)}", "", f"```\n{help_of(words)}\n```", ""]
    return "\n".join(lines) + "\n"


def help_of(words: Sequence[str]) -> str:
    """Return what `--help` prints for a command."""
    said, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(said):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


def config_page() -> str:
    """Every key of every config: type, default, bounds, and the comment in the file."""
    parts = [
        "# Configs", "",
        "A key that is left out keeps its default. An unknown key, a wrong type or a value out of "
        "its bounds is refused, naming the key.", "",
    ]  # fmt: skip
    for command, model, name in (
        ("serve", ServeConfig, "serve.toml"),
        ("calibrate", CalibrateConfig, "calibrate.toml"),
        ("train", TrainConfig, "train-demo.toml"),
    ):
        text = (ROOT / "configs" / name).read_text()
        parts += [f"## spikeloop {command}", ""]
        parts += _model(model, comments_of(text))
        parts += [f"The file `configs/{name}`:", "", f"```toml\n{text}```", ""]
    return "\n".join(parts) + "\n"


def comments_of(text: str) -> dict[tuple[str, str], str]:
    """Return each key's comment, by section and key; it may go on in the next lines."""
    found: dict[tuple[str, str], str] = {}
    section, last = "", None
    for line in text.splitlines():
        if head := re.match(r"\[+([\w.]+)\]", line):
            section, last = head[1], None
        elif key := re.match(r"(?:# )?(\w+) = .*?\s#\s(.*)", line):
            last = (section, key[1])
            found[last] = key[2].partition("; default: ")[0]
        elif last is not None and (more := re.match(r"\s+# (.*)", line)):
            found[last] += f" {more[1]}"
    return found


def _model(
    model: type[BaseModel], comments: dict[tuple[str, str], str], path: str = ""
) -> list[str]:
    sections, rows = [], []
    for name, field in model.model_fields.items():
        inner = _section_of(field.annotation)
        if inner is not None:
            sections.append((f"{path}.{name}".strip("."), inner))
            continue
        default = "required" if field.is_required() else f"`{_shown(field.get_default())}`"
        told = comments.get((path, name), "") or _bounds(field.metadata)
        rows.append(f"| `{name}` | {_typed(field.annotation)} | {default} | {_cell(told)} |")
    lines = []
    if rows:
        about = " ".join((model.__doc__ or "").split()) if path else ""
        lines += [f"### `[{path}]`", "", _plain(about), ""] if path else []
        lines += ["| key | type | default | |", "|---|---|---|---|", *rows, ""]
    for where, inner in sections:
        lines += _model(inner, comments, where)
    return lines


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_of, getattr(annotation, "__args__", ()))), None)


def _bounds(metadata: list[Any]) -> str:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(
        f"{text} {getattr(one, name)}"
        for one in metadata
        for name, text in signs.items()
        if getattr(one, name, None) is not None
    )


_WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}


def _typed(annotation: Any) -> str:
    """Say a type in a reader's words."""
    if annotation in (None, type(None)):
        return "none"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _typed(inner[0])
    if origin is Literal:
        return " or ".join(f"`{_shown(one)}`" for one in inner)
    if origin in (Union, UnionType):
        return " or ".join(map(_typed, inner))
    if origin is dict:
        return f"table of {_typed(inner[1])}"
    if origin in (tuple, list):
        return "list of " + " and ".join(_typed(one) for one in inner if one is not Ellipsis)
    return _WORDS.get(getattr(annotation, "__name__", ""), f"`{annotation}`")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[]" if not value else str(list(value))
    return '"' + value + '"' if isinstance(value, str) else "none" if value is None else str(value)


def _plain(text: str) -> str:
    told = re.sub(r"^`\[[^\]]*\]`: ", "", text)
    return told[:1].upper() + told[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


MADE: dict[str, Callable[[], str]] = {
    "clients.md": clients_page,
    "reference/cli.md": cli_page,
    "reference/config.md": config_page,
}
