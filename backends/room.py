"""How much may be in memory at a time: a bound in rows and one in bytes, and all that counts against them.

Takes places and rows as they come and go; says whether there is room for more. A place counts as one row of
the largest size until its row is there. No I/O, no clock, no await.
"""

from __future__ import annotations

from .record import MAX_ROW_BYTES


class Room:
    """The bounds hold for queue, flights and places together."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.places = 0
        self.rows = 0
        """Rows and places."""
        self.bytes = 0
        self._max_rows = max_rows
        self._max_bytes = max_bytes

    # --- coming and going

    def admit(self) -> bool:
        """Give a place for one row, if there is room for it."""
        if self.rows >= self._max_rows or self.bytes + MAX_ROW_BYTES > self._max_bytes:
            return False
        self._give_place()
        return True

    def admit_beyond(self, more: int) -> bool:
        """Give a place over the bounds, at most ``more`` such places at a time: the spool has room for it."""
        if self.overflow >= more:
            return False
        self._give_place()
        return True

    def release(self) -> None:
        """Take back a place that was not used."""
        self.places -= 1
        self.rows -= 1
        self.bytes -= MAX_ROW_BYTES

    def fill(self, size: int) -> None:
        """A place has its row, of ``size`` bytes."""
        self.places -= 1
        self.bytes += size - MAX_ROW_BYTES

    def add(self, rows: int, size: int) -> None:
        """So many rows have come without places: from a disk, or in a batch made of those that left."""
        self.rows += rows
        self.bytes += size

    def remove(self, rows: int, size: int) -> None:
        """So many rows have left."""
        self.rows -= rows
        self.bytes -= size

    def _give_place(self) -> None:
        self.places += 1
        self.rows += 1
        self.bytes += MAX_ROW_BYTES

    # --- looking

    @property
    def left(self) -> int:
        """How many more places there are."""
        return max(0, min(self._max_rows - self.rows, (self._max_bytes - self.bytes) // MAX_ROW_BYTES))

    @property
    def overflow(self) -> int:
        """How many rows and places are beyond the bounds, by the spool's leave; bytes count as places."""
        return max(0, self.rows - self._max_rows, -((self._max_bytes - self.bytes) // MAX_ROW_BYTES))

    @property
    def is_pressed(self) -> bool:
        """Whether less than a fifth is left."""
        return 5 * self.rows > 4 * self._max_rows or 5 * self.bytes > 4 * self._max_bytes

    @property
    def is_crowded(self) -> bool:
        """Whether memory is short and it is rows that fill it, a tenth at least: running calls alone do not,
        for to put rows on a disk would not help them."""
        return self.is_pressed and self._rows_fill(1 / 10)

    @property
    def is_relaxed(self) -> bool:
        """Whether more of a disk's rows may come: rows fill less than half."""
        return not self._rows_fill(1 / 2) and not self.is_crowded

    def _rows_fill(self, part: float) -> bool:
        rows, size = self.rows - self.places, self.bytes - self.places * MAX_ROW_BYTES
        return rows >= part * self._max_rows or size >= part * self._max_bytes
