"""How far an upload is, told to whoever asked."""

from collections.abc import Callable, Sequence

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far, and with all there are."""


class Shares:
    """One progress of many files that are sent side by side."""

    def __init__(self, sizes: Sequence[int], progress: Progress | None) -> None:
        self._sizes, self._progress = sizes, progress
        self._sent = [0] * len(sizes)

    def of(self, index: int) -> Progress:
        """The progress of one of them."""

        def report(sent: int, _: int) -> None:
            self._sent[index] = sent
            if self._progress:
                self._progress(sum(self._sent), sum(self._sizes))

        return report

    def end(self, index: int) -> None:
        """One is over, whether all of it was sent or not."""
        self.of(index)(self._sizes[index], 0)
