"""Any calls in any order: they do what they would do to a plain dict, and never anything outside."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from families import open_descriptors
from hypothesis import given
from hypothesis import strategies as st

from edge.appliance.runtime import RuntimeFault
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.search import find, replace, search
from edge.appliance.runtime.watch import look

sys.path.insert(0, str(Path(__file__).parents[2] / "core"))

from wires import examples

NAMES = st.sampled_from(["a", "b", "c"])
PLAIN = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ODD = st.tuples(
    st.sampled_from(["./", "/workspace/", "//workspace/./"]),
    st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), max_size=6).map("/".join),
).map("".join)
"""Paths by which nothing but the lexical rules can be meant, where there are no links."""

Model = dict[tuple[str, ...], bytes | None]
"""Content by path; None is a directory. The root is (), and always there."""


class Refused(Exception):
    """The model cannot do it."""


@contextmanager
def _tree() -> Iterator[WorkTree]:
    """A tree of its own for each example."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "workspace").mkdir()
        yield WorkTree(folder / "workspace")
    finally:
        shutil.rmtree(folder)


def _resolve(model: Model, path: str, *, create: bool = False) -> tuple[str, ...]:
    """The names that lead there; each directory on the way has to be one."""
    at: tuple[str, ...] = ()
    names = [name for name in path.split("/") if name not in ("", ".", "workspace")]
    for position, name in enumerate(names):
        if at not in model and create:
            model[at] = None
        if model.get(at, b"") is not None:
            raise Refused
        if name == "..":
            if not at:
                raise Refused
            at = at[:-1]
        else:
            at = (*at, name)
            if position < len(names) - 1 and at not in model and not create:
                raise Refused
    return at


def _below(model: Model, at: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [path for path in model if path[: len(at)] == at]


def _played(model: Model, call: tuple[str, ...]) -> Model:
    """What the call makes of the model. Raises `Refused`."""
    model = dict(model)
    match call:
        case ("write", path, text):
            at = _resolve(model, path, create=True)
            if model.get(at, b"") is None:
                raise Refused
            model[at] = text.encode()
        case ("mkdir", path):
            at = _resolve(model, path, create=True)
            if model.setdefault(at, None) is not None:
                raise Refused
        case ("remove", path):
            at = _resolve(model, path)
            if at not in model or not at:
                raise Refused
            for gone in _below(model, at):
                del model[gone]
        case ("rename", old, new):
            one, other = _resolve(model, old), _resolve(model, new)
            if one not in model or not one or not other:
                raise Refused
            if one == other:
                return model
            if model[one] is None and other[: len(one)] == one:
                raise Refused
            if other in model:
                empty = _below(model, other) == [other]
                if (model[one] is None) != (model[other] is None) or not empty:
                    raise Refused
            moved = {(*other, *path[len(one) :]): model.pop(path) for path in _below(model, one)}
            model |= moved
        case ("replace", path, old, new):
            at = _resolve(model, path)
            content = model.get(at)
            if content is None:
                raise Refused
            model[at] = content.replace(old.encode(), new.encode())
    return model


def _real(tree: WorkTree, call: tuple[str, ...]) -> None:
    match call:
        case ("write", path, text):
            tree.write(path, text.encode())
        case ("mkdir", path):
            tree.make_directory(path)
        case ("remove", path):
            tree.remove(path)
        case ("rename", old, new):
            tree.rename(old, new)
        case ("replace", path, old, new):
            replace(tree, [path], old, new)


def _picture(root: Path) -> Model:
    return {
        path.relative_to(root).parts: path.read_bytes() if path.is_file() else None
        for path in [root, *root.rglob("*")]
    }


TEXTS = st.sampled_from(["", "x", "xyx"])
ANY = PLAIN | PLAIN | ODD
STEPS = st.one_of(
    st.tuples(st.just("write"), ANY, TEXTS),
    st.tuples(st.just("write"), PLAIN, TEXTS),
    st.tuples(st.just("mkdir"), ANY),
    st.tuples(st.just("remove"), ANY),
    st.tuples(st.just("rename"), ANY, ANY),
    st.tuples(st.just("replace"), ANY, st.just("x"), TEXTS),
)


@examples(60)
@given(st.lists(STEPS, max_size=25))
def test_calls_do_what_they_would_do_to_a_dict(steps: list[tuple[str, ...]]) -> None:
    """Done or refused alike, and the same tree afterwards; reading, listing and searching agree with it."""
    model: Model = {(): None}
    with _tree() as tree:
        for step in steps:
            try:
                after = _played(model, step)
            except Refused:
                after = None
            try:
                _real(tree, step)
                assert after is not None, step
            except RuntimeFault:
                assert after is None, step
            # A refused call may have made directories on its way; nothing else.
            seen = _picture(tree.root)
            if after is None:
                assert all(seen[path] is None for path in seen.keys() - model.keys()), step
                assert model.items() <= seen.items(), step
            model = seen if after is None else after
            assert seen == model, step
        shown = sorted("/".join(("/workspace", *path)) for path in model if path)
        assert sorted(entry.path for entry in tree.entries("", 9)) == shown
        assert sorted(search(tree, "", "*")) == sorted(look(tree, "", recursive=True)) == shown
        found = {match.file for match in find(tree, "", "y")}
        assert found == {
            "/".join(("/workspace", *path)) for path, data in model.items() if b"y" in (data or b"")
        }


HOSTILE = st.lists(
    st.sampled_from(["a", "b", "link", "..", "..", ".", "", "outside", "secret", "workspace", "/"]),
    max_size=7,
).map("/".join) | st.sampled_from(
    ["/", "..", "/etc/passwd", "/workspace/../x", "a\0b", "\ud800", "x" * 300, "a\nb", "~", "-rf"]
)
HOSTILE_STEPS = st.one_of(
    st.tuples(st.just("link"), HOSTILE, HOSTILE),
    st.tuples(st.just("raw link"), NAMES, HOSTILE),
    st.tuples(st.just("mkdir"), PLAIN),
    st.tuples(
        st.sampled_from(
            "write mkdir remove read info exists chmod list find search watch open".split()
        ),
        HOSTILE,
    ),
    st.tuples(st.sampled_from(["rename", "replace"]), HOSTILE, HOSTILE),
)


def _attack(tree: WorkTree, step: tuple[str, ...]) -> object:
    match step:
        case ("link", path, target):
            return tree.link(path, target)
        case ("raw link", name, target):
            try:
                (tree.root / name).symlink_to(target)
            except (OSError, ValueError):
                pass
            return None
        case ("rename", old, new):
            return tree.rename(old, new)
        case ("replace", one, other):
            return replace(tree, [one, other], "o", "0")
        case ("write", path):
            return tree.write(path, b"written", 0o777)
        case ("chmod", path):
            return tree.set_permissions(path, 0o777)
        case ("read", path):
            return tree.read(path, 100)
        case ("open", path):
            return os.close(tree.open_file(path)[0])
        case ("list", path):
            return tree.entries(path, 9)
        case ("find", path):
            return find(tree, path, "outside")
        case ("search", path):
            return search(tree, path, "*")
        case ("watch", path):
            return look(tree, path, recursive=True)
        case (name, path):
            call = {"mkdir": tree.make_directory}.get(name) or getattr(tree, name)
            return call(path)


@examples(100)
@given(st.lists(HOSTILE_STEPS, max_size=25))
def test_nothing_outside_is_read_or_changed(steps: list[tuple[str, ...]]) -> None:
    """Whatever paths and links say: our own faults only, canaries untouched, no descriptor left open."""
    with _tree() as tree:
        outside = tree.root.parent / "outside"
        (outside / "a").mkdir(parents=True)
        for name in ("secret", "a/secret"):
            (outside / name).write_bytes(b"outside")
            (outside / name).chmod(0o640)
        (tree.root / "link").symlink_to("../outside")
        before, descriptors = _facts(outside), open_descriptors()
        for step in steps:
            answer: object = None
            try:
                answer = _attack(tree, step)
            except RuntimeFault:
                pass
            assert b"outside" not in (answer if isinstance(answer, bytes) else b""), step
            assert step[0] != "find" or not answer
            assert tree.root.is_dir()
        assert _facts(outside) == before
        assert {path.name for path in tree.root.parent.iterdir()} <= {
            "workspace",
            "outside",
            "aside",
        }
        assert open_descriptors() == descriptors


def _facts(folder: Path) -> list[tuple[object, ...]]:
    return sorted(
        (str(path), status.st_mode, status.st_ino, status.st_mtime_ns, status.st_size)
        for path in [folder, *folder.rglob("*")]
        for status in [path.lstat()]
    )
