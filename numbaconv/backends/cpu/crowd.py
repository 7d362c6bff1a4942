"""How many threads small problems use, on a machine where other programs compute, too.

A parallel loop ends when its last thread is through. Where there are more busy threads than cores, the system lets one
of them wait for milliseconds, while a small problem takes microseconds. Half of the threads would take twice as long
for the work; what a loop waited beyond that is time lost. Where it is more than a share of all time, small problems get
half of the threads for a while, in the end one; then twice as many are tried again. Each trial that fails doubles the
while.

Results do not depend on the number of threads.
"""

import time

__all__ = ["Crowd"]

#: The share of all time that may be lost, and seconds that may be lost at once, usually and in a trial. With idle cores
#: less than 0.01 of the time was lost, beside a second program of two threads 0.14 to 0.28 (Zen 5, 8 and 32 channels).
_SHARE, _AT_ONCE, _IN_A_TRIAL = 0.07, 0.006, 0.001
#: Seconds until more threads are tried, at first and at most; a trial that is as long has not failed.
_SHORTEST, _LONGEST = 0.02, 0.5


class Crowd:
    """What was found out about the other programs on the machine. Threads share it; a lost update does no harm.

    Attributes
    ----------
    most : int or None
        The threads that small problems may use; None: all.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        self._lost, self._seen = 0.0, 0.0
        self._pause, self._until, self._tried = _SHORTEST, 0.0, -_LONGEST

    def threads(self, wanted: int) -> int:
        """How many of these threads a small problem is to use now."""
        most = self.most
        if most is None:
            return wanted
        now = time.perf_counter()
        if now >= self._until:
            most *= 2
            self.most = most if most < wanted else None
            self._lost, self._seen, self._tried, self._until = 0.0, now, now, now + self._pause
        return min(most, wanted)

    def waited(self, threads: int, seconds: float, multiple: float) -> None:
        """Take note of a small problem that took so long, waiting for its last thread by a multiple of the rest."""
        if multiple <= 1:
            return
        now = time.perf_counter()
        lost = max(self._lost - _SHARE * (now - self._seen), 0.0) + seconds * (multiple - 1) / (multiple + 1)
        self._lost, self._seen = lost, now
        failed = now < self._tried + _SHORTEST
        if lost > (_IN_A_TRIAL if failed else _AT_ONCE):
            self._pause = min(2 * self._pause, _LONGEST) if now < self._tried + _LONGEST else _SHORTEST
            self._lost, self.most, self._until = 0.0, max(threads // 2, 1), now + self._pause
