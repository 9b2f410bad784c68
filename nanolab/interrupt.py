"""Ctrl-C between steps, so that nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from nanolab import ranks


class StopFlag:
    """Set by Ctrl-C or the notebook's Stop button, and looked at between steps: nothing is half done.

    A second press interrupts at once, as usual. Outside the main thread it is never set. Under torchrun
    SIGTERM sets it too, and the processes agree on the step to stop at.
    """

    def __init__(self) -> None:
        self.set = False
        self.pressed = False

    def agreed(self) -> bool:
        """Whether to stop here: the same answer in all processes, and all of them must ask."""
        # Not `self.set` at the end: a signal may have come since the others were told that there was none.
        if stop := ranks.anyone(self.set):
            self.set = True
        return stop

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_interrupt(number: int, frame: object) -> None:
            # Not `set`: another process may have asked to stop before the signal came here.
            if self.pressed:
                raise KeyboardInterrupt
            self.pressed = self.set = True

        self.pressed = False
        signals = [signal.SIGINT, signal.SIGTERM] if ranks.world_size() > 1 else [signal.SIGINT]
        previous = [signal.signal(number, on_interrupt) for number in signals]
        try:
            yield
        finally:
            # A process that stops with the others may get its own signal only now, and must still report.
            leaves = self.set and ranks.world_size() > 1
            for number, handler in zip(signals, previous, strict=True):
                signal.signal(number, signal.SIG_IGN if leaves else handler)
