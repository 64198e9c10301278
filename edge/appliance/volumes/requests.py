"""What the public API takes about volumes: bodies, and the rules that need no state."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_DEPTH = 32
"""Directories in a path."""

_WORKSPACE = ("workspace",)


def _name(text: str) -> str:
    if text.startswith("vol_"):
        raise ValueError("must not begin with vol_, as ids do")
    return text


def _mount_path(text: str) -> str:
    names = _names(text)
    if not text.startswith("/") or names[:1] != _WORKSPACE or len(names) < 2:
        raise ValueError("must be below /workspace")
    return text


def _subpath(text: str) -> str:
    if text.startswith("/"):
        raise ValueError("must be relative")
    _names(text)
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split("/") if name)
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("must not contain NUL or lone surrogates")
    if any(name in (".", "..") or len(name.encode()) > 255 for name in names):
        raise ValueError("must not contain '.' or '..', or names of more than 255 bytes")
    if len(names) > MAX_DEPTH:
        raise ValueError(f"must have at most {MAX_DEPTH} names")
    return names


class VolumeCreate(BaseModel):
    """``POST /v1/volumes``."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    # What fits into the path of a URL as it is, because the published client puts it there so.
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
        AfterValidator(_name),
    ]


class VolumeMount(BaseModel):
    """``POST S/volumes``, and each of ``volumes`` of a create. ``ref`` is an id or a name."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    ref: Annotated[str, Field(min_length=1, max_length=255)]
    mount_path: Annotated[str, Field(max_length=4096), AfterValidator(_mount_path)]
    read_only: bool = False
    subpath: Annotated[str, Field(max_length=4096), AfterValidator(_subpath)] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """From the root of the work tree to the volume's place."""
        return _names(self.mount_path)[1:]

    @property
    def below(self) -> tuple[str, ...]:
        """From the volume's root to what is seen there."""
        return _names(self.subpath or "")
