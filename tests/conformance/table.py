"""docs/conformance.md: rendered from the cases and the peers' outcomes, and read back to see whether it is current."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

from tests.conformance.answered import answering
from tests.conformance.cases import Case
from tests.conformance.observed import comparable, expected, sent, words

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
DIFFERS = "≠ "
_CELL = re.compile(r"(?<!\\)\|")

_INTRO = """\
# Conformance: what passes, what is refused, and what others do

Every row is a case of `tests/conformance/*.yaml`: the bytes of a request, or of an app's answer, and what
the edge does with them. `make test` feeds each case to the edge whole, byte by byte, with more bytes behind it and
(where both connections go on) twice, on real sockets, with an app that is played by the test. What reaches the other
side is compared byte for byte. Each run ends with a canary, an ordinary request on the same client and the same
upstream connection where they survive it; where a connection has to end, the test sees it end, and nothing
of what followed is taken for a message.

Reading a cell:

| | |
|---|---|
| `→ 5 by length` | reached the app, as a request with a body of 5 bytes by Content-Length |
| `→ 5 chunked`, `→ no body`, `→ upgrade` | reached the app in that framing |
| `target /x`, `keeps x`, `drops x` | with another target, or with fields more or fewer, than behind the edge |
| `400` | answered with this status by the proxy itself; no whole request reached the app |
| `closed` | the connection ended without an answer |
| `waits` | neither refused nor passed on within a second, although a whole request followed; of an answer: not complete at the client, whose connection is still open |
| `ignored` | the bytes were passed over, and the request behind them was answered |
| `passes`, `passes, upstream closed` | the answer reached the client; the connection to the app was not used again |
| `502`, `cut` | the client got an error instead of the answer; it saw the answer begin and its connection end |
| `next answer wrong` | an ordinary request after this one got no right answer: bytes were left over |
| `≠` | not what the edge does; one status of refusal counts as another, and so does the same body framed anew |
| `own` | the edge's own rule (hosts, credentials), or a dialogue of several turns: not put to the others |

The peers are plain reverse proxies with default settings. `≠` does not mean that somebody is wrong: RFC 9112
leaves room, and some of these proxies can be told to be stricter. It means that two proxies in a row would read
these bytes differently, which is what request smuggling lives on.

The columns of the peers are written by `python -m tests.conformance.compare`; the edge's column is compared with
the cases by a test.
"""


class Column(Protocol):
    """What the page needs of a peer."""

    label: str
    outcomes: dict[tuple[str, str], str]
    missing: str


def edge_cell(case: Case) -> str:
    """What the edge does with a case."""
    if case.side == "client":
        statuses = [case.refused[0]] if case.refused is not None else []
        wanted = expected(case)
        begun = any((step.who, step.act) == ("app", "sends") for step in case.steps)
        early = "answered before it is whole, closed" if begun else "closed"
        return words(wanted, statuses, wanted, sent(case)) or early
    if case.refused is not None:
        return str(case.refused[0])
    if case.broken is not None:
        return "502 or cut"
    left = any((step.who, step.act) == ("app", "closes") for step in case.steps)
    return "passes, upstream closed" if "upstream" in case.closes and not left else "passes"


def page(cases: Sequence[Case], columns: Sequence[Column]) -> str:
    """The whole page."""
    parts = [_INTRO, _summary(cases, columns)]
    for theme, group in groupby(cases, key=lambda case: case.theme):
        of_theme = list(group)
        parts.append(_section(theme, of_theme, columns))
    return "\n".join(parts)


def _summary(cases: Sequence[Case], columns: Sequence[Column]) -> str:
    asked = [case for case in cases if comparable(case) or answering(case)]
    lines = [
        f"{len(cases)} cases; {len(asked)} of them were put to the peers:\n",
        "| peer | as the edge | refuses what the edge passes | passes what the edge refuses | passes it differently | other |",
        "|---|---|---|---|---|---|",
    ]
    for column in columns:
        if column.missing:
            lines.append(f"| {column.label} | not asked: {_escaped(column.missing)} | | | | |")
            continue
        kinds = Counter(
            kind(edge_cell(case), column.outcomes[case.theme, case.name]) for case in asked
        )
        order = ("same", "stricter", "laxer", "differently", "other")
        lines.append(f"| {column.label} | {' | '.join(str(kinds[name]) for name in order)} |")
    return "\n".join(lines) + "\n"


def kind(edge: str, peer: str) -> str:
    """How a peer's outcome compares with the edge's."""
    if _plain(edge) == _plain(peer) or (
        edge == "502 or cut" and peer in {"502", "503", "cut", "closed"}
    ):
        return "same"
    passed, passes = _passes(edge), _passes(peer)
    if passed and passes:
        return "differently"
    if passed:
        return "stricter"
    return "laxer" if passes else "other"


def _passes(cell: str) -> bool:
    """Whether all of it passed: nothing was refused at the end, cut or kept waiting."""
    return cell.startswith(("→", "passes")) and not re.search(r" [45][0-9]{2}$", cell)


def _plain(cell: str) -> str:
    """What says the same in other words: refused is refused, and the same bytes may be framed anew."""
    cell = re.sub(r"\b(4[0-9]{2}|501|505)$", "refused", cell)
    cell = re.sub(r"^(50[23]|closed)$", "failed", cell)
    return re.sub(r"\b([0-9]+) (chunked|by length)", r"\1", cell).replace("→ 0", "→ no body")


def _section(theme: str, cases: Sequence[Case], columns: Sequence[Column]) -> str:
    names = ["case", "see", "edge", *(column.label for column in columns)]
    rows = [names, ["---"] * len(names)]
    for case in cases:
        edge = edge_cell(case)
        rows.append(
            [case.name, case.see, edge, *(_peer_cell(case, edge, c.outcomes) for c in columns)]
        )
    title = theme.replace("_", ": ").capitalize()
    return f"## {title}\n\n" + "".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in rows)


def _peer_cell(case: Case, edge: str, outcomes: Mapping[tuple[str, str], str]) -> str:
    if not (comparable(case) or answering(case)):
        return "own"
    told = outcomes.get((case.theme, case.name))
    if told is None:
        return "not asked"
    return told if kind(edge, told) == "same" else DIFFERS + told


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def edge_column(text: str) -> list[tuple[str, str, str]]:
    """Theme, case and edge cell of every row of a page, as they stand there (escaped)."""
    found, theme = [], ""
    for line in text.splitlines():
        if line.startswith("## "):
            theme = line[3:]
        elif theme and line.startswith("| ") and not line.startswith(("| case |", "| --- |")):
            cells = [cell.strip() for cell in _CELL.split(line)[1:-1]]
            found.append((theme, cells[0], cells[2]))
    return found
