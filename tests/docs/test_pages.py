"""All pages: what they link to and name is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edge.appliance import problems
from edge.cli import cli
from edge.core.errors import PROBLEMS, Problem
from edge.core.settings import Settings
from edge.ops.configuration import setting_names, variable_of

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
CONTROL_PLANES = {p.code for p in vars(problems).values() if isinstance(p, Problem)}
SETTINGS = {name for name, _ in setting_names(Settings)}
ROOMS = "edge|tests|docs|config|bench|requirements|examples|\\.ci"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", _without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code(text: str) -> Iterator[str]:
    """Everything set as code: spans, and lines of fenced blocks, continued ones joined."""
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", _without_blocks(text))


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file of the repository, and an anchor a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_blocks(page.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists() and file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file.read_text()), target


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    """``edge/traffic/flow.py`` in code marks is a file; so is a folder that ends in a slash."""
    for text in code(page.read_text()):
        for name in re.findall(rf"(?:^|(?<=[\s(]))((?:{ROOMS})/[\w./-]*)", text):
            if name.rstrip("/") != "bench/out":  # made by `make bench`
                assert (ROOT / name).exists(), name


@every_page
def test_commands_that_are_named_exist(page: Path) -> None:
    """Targets of make; subcommands and options of ``preview-edge``."""
    makefile = (ROOT / "Makefile").read_text()
    for text in code(page.read_text()):
        for target in re.findall(r"(?:^|\s)make ([a-z]+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), text
        for name, rest in re.findall(r"preview-edge ([a-z][a-z-]*)(?![\w.:/-])([^|&;]*)", text):
            command = cli.commands[name]
            if isinstance(command, click.Group) and rest.split():
                command = command.commands[rest.split()[0]]
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known | {"--help"}, text


def test_options_that_are_listed_exist() -> None:
    """The README's list of options of ``dev`` has every option, and no other."""
    (listed,) = re.findall(
        r"`preview-edge dev --help` lists the options:(.*?)\. ",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    visible = [p for p in cli.commands["dev"].params if isinstance(p, click.Option)]
    known = {option for p in visible for option in (*p.opts, *p.secondary_opts)}
    named = set(re.findall(r"--[a-z-]+", listed))
    assert named <= known
    assert known - named == {"--host", "--demo"}


@every_page
def test_settings_and_errors_that_are_named_exist(page: Path) -> None:
    """``wake.window`` is a setting, ``PREVIEW_EDGE_...`` one of its variables, a 503's code a code."""
    groups = {name.partition(".")[0] for name in SETTINGS if "." in name}
    variables = {variable_of(name) for name in SETTINGS} | {"PREVIEW_EDGE_CONFIG"}
    text = page.read_text()
    for span in code(text):
        if re.fullmatch(r"[a-z_]+\.[a-z_0-9]+", span) and span.partition(".")[0] in groups:
            assert span in SETTINGS, span
        for variable in re.findall(r"\bPREVIEW_EDGE_[A-Z_]*[A-Z]\b", span):
            assert variable in variables, variable
    if page.name != "compatibility.md":  # which has the control plane's own codes
        for named in re.findall(r"\b[45]\d\d `([a-z_]+)`", text):
            known = CONTROL_PLANES if page.name == "console.md" else PROBLEMS
            assert named in known or named == "not_implemented", named


def test_the_checks_see_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check fails on a page that names what does not exist."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "Makefile").write_text("run:\n")
    page = tmp_path / "page.md"
    for text, check in (
        ("[a](missing.md)", test_links_lead_somewhere),
        ("# Here\n[a](#there)", test_links_lead_somewhere),
        ("`edge/missing.py`", test_files_that_are_named_exist),
        ("`make walk`", test_commands_that_are_named_exist),
        ("```\nbin/preview-edge dev --walk\n```", test_commands_that_are_named_exist),
        ("`preview-edge serve --window 3`", test_commands_that_are_named_exist),
        ("`preview-edge keys polish`", test_commands_that_are_named_exist),
        ("`preview-edge keys tidy --grace 1`", test_commands_that_are_named_exist),
        ("`wake.up`", test_settings_and_errors_that_are_named_exist),
        ("`PREVIEW_EDGE_WAKE__UP=1`", test_settings_and_errors_that_are_named_exist),
        ("503 `tired`", test_settings_and_errors_that_are_named_exist),
    ):
        page.write_text(f"{text}\n")
        with pytest.raises((AssertionError, KeyError)):
            check(page)
