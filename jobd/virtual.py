"""Time that passes only when nothing else is left to do: a day of ticks takes as long as computing them.

May import: clock. `VirtualLoop` is an ordinary asyncio loop whose selector does not wait: asked to wait for a second,
it moves the loop's clock on by a second. So the order of events is the real one, and nothing waits or races. What
another thread or process does takes no time here.
"""

import asyncio
import math
import selectors

from jobd import clock


class Still(Exception):
    """Nothing is ready, and nothing is scheduled before the time is up; ends `run_forever`."""


class _Clock(selectors.SelectSelector):
    """The selector and the clock of a virtual loop."""

    now = 0.0
    until = math.inf
    alone = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = [] if self.alone else super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        wake = math.inf if timeout is None else self.now + timeout
        if wake > self.until + 1e-9 or wake == math.inf:
            raise Still
        self.now = wake
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own, which starts at 0."""

    def __init__(self, *, alone: bool = False) -> None:
        """`alone`: nobody but this thread ever calls, so nothing has to wake the loop, which is then faster."""
        self._clock = _Clock()
        self._clock.alone = alone
        super().__init__(self._clock)
        if alone:
            self.call_soon_threadsafe = self.call_soon  # type: ignore[method-assign]

    def time(self) -> float:
        """Seconds since the loop was made, as it counts them."""
        return self._clock.now

    def still_after(self, instant: float) -> None:
        """Let `run_forever` raise `Still` where it would have to wait beyond `instant`."""
        self._clock.until = instant

    def run_until(self, instant: float) -> None:
        """Run everything that is due by `instant`, which then is now, unless somebody stops the loop before."""
        self.still_after(instant)
        try:
            self.run_forever()
        except Still:
            self._clock.now = max(self._clock.now, instant)

    def pass_time(self, seconds: float) -> None:
        """Run everything that is due within the next `seconds`."""
        self.run_until(self.time() + seconds)

    def settle(self) -> None:
        """Run what can run now, without any time passing."""
        self.pass_time(0)

    def run_out(self) -> None:
        """Run until nothing is scheduled any more, at whatever time that is."""
        self._clock.until = math.inf
        try:
            self.run_forever()
        except Still:
            pass

    @property
    def pending(self) -> list[asyncio.Handle]:
        """What is still to be called, now or later."""
        handles: list[asyncio.Handle] = [*self._ready, *self._scheduled]  # type: ignore[attr-defined]
        return [handle for handle in handles if not handle.cancelled()]

    def stall(self, seconds: float) -> None:
        """Let time pass in which the loop does not turn: a process that was stopped, or a loop that was held."""
        self._clock.now += seconds


class Wall(clock.Clock):
    """A wall clock that showed an instant of its own when virtual time began."""

    def __init__(self, start_ns: int = 0) -> None:
        self.offset_ns = self._exact_ns = start_ns
        #: By how much it is set before the next look at it.
        self.stepped_ns = 0

    def watch(self) -> int:
        """Follow what has been set."""
        step_ns, self.stepped_ns = self.stepped_ns, 0
        self.offset_ns += step_ns
        self._exact_ns += step_ns
        return step_ns
