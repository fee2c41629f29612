"""How many requests an endpoint can take at once: found by trying, as TCP finds its window."""

from __future__ import annotations


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, with a doubling start; no clock and no event loop.

    A request remembers `era` when it is sent and gives it back with its outcome. Each halving begins a
    new era, and outcomes of earlier ones are not counted: however many requests of one round-trip meet
    an overloaded server, the limit is halved once.

    Args:
        most: never above it.
        start: where it begins. One round-trip of successes doubles it until the first overload; from
            then on a round-trip adds a sixteenth of `most`, or a quarter of itself if that is less.
    """

    def __init__(self, most: int, start: int = 32) -> None:
        self.most = most
        self.era = 0
        self._size = float(min(most, start))
        self._step = max(1.0, most / 16)

    @property
    def slots(self) -> int:
        """Requests at once, from 1 to `most`."""
        return int(self._size)

    def success(self, era: int) -> None:
        """A request sent in `era` was answered."""
        if era == self.era and self._size < self.most:
            gain = min(self._step / self._size, 0.25) if self.era else 1.0
            self._size = min(self._size + gain, float(self.most))

    def overload(self, era: int) -> bool:
        """A request sent in `era` met an overloaded server; true if that halved the limit."""
        if era != self.era:
            return False
        self.era += 1
        self._size = max(self._size / 2, 1.0)
        return True
