"""How large a batch is and how long rows are gathered for it, as the sink's answers make it. Synchronous.

Both start at what the options say, which is the best they can be: trouble makes batches smaller and the
gathering longer, and every success brings them back a little.
"""

from __future__ import annotations

from .batching import BatchingOptions

MAX_LINGER_S = 10.0


class Pace:
    """One sink's."""

    def __init__(self, options: BatchingOptions) -> None:
        self.max_rows = options.max_rows
        self.linger_s = options.linger_s
        self._options = options

    def quicken(self) -> None:
        """A batch was committed."""
        self.max_rows = min(self._options.max_rows, self.max_rows + max(1, self.max_rows // 10))
        self.linger_s = max(self._options.linger_s, self.linger_s * 0.9)

    def shorten(self, rows: int) -> None:
        """A batch of ``rows`` rows took too long."""
        self.max_rows = max(1, min(self.max_rows, rows) // 2)

    def slow_down(self) -> None:
        """The sink asked for fewer batches."""
        self.linger_s = min(MAX_LINGER_S, max(self.linger_s * 2, self._options.linger_s, 0.1))
