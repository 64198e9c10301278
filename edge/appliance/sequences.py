"""Which numbers have been counted, of those that only grow: exactly, and in bounded room.

Batches of usage may overtake each other: those that waited in Redis come after newer ones that went straight to the
control plane. So it takes more than the highest number: the gaps below it that are still open. An edge leaves one
for good with each restart, for its numbers go on far above; a batch that fills a part of one leaves two.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_GAPS = 64
"""Gaps remembered; what is in older ones is taken for counted. So a batch may get lost, and never counts twice."""

Gap = tuple[int, int]
"""Its first number and its last."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Everything up to ``highest`` but what is in the ``gaps``, which are in order."""

    highest: int = -1
    gaps: tuple[Gap, ...] = ()

    @staticmethod
    def parse(text: str) -> Sequences:
        """What `text` has written. Raises `ValueError`."""
        highest, *gaps = text.split()
        pairs = (gap.split("-") for gap in gaps)
        return Sequences(int(highest), tuple((int(first), int(last)) for first, last in pairs))

    def text(self) -> str:
        """``41 3-3 12-39``: up to 41, without 3 and 12 to 39."""
        return " ".join([str(self.highest), *(f"{first}-{last}" for first, last in self.gaps)])

    def take(self, number: int) -> Sequences | None:
        """With this one counted, too; None where it was before."""
        if number > self.highest:
            gap = (self.highest + 1, number - 1)
            gaps = self.gaps + ((gap,) if gap[0] <= gap[1] else ())
            return Sequences(number, gaps[-MAX_GAPS:])
        for at, (first, last) in enumerate(self.gaps):
            if first <= number <= last:
                parts = ((first, number - 1), (number + 1, last))
                left = tuple(part for part in parts if part[0] <= part[1])
                gaps = self.gaps[:at] + left + self.gaps[at + 1 :]
                return Sequences(self.highest, gaps[-MAX_GAPS:])
        return None
