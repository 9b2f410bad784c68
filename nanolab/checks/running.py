"""Calling a learner's function so that nothing it does hangs the notebook or shows a stack trace of ours."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import io
import linecache
import math
import os
import reprlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from nanolab.checks.verdicts import NotAttempted, Wrong

MOST_PRINTED = 100_000
"""Characters kept of what a function prints: a loop that never ends must not fill the memory."""


@dataclass(frozen=True)
class Printed:
    """What a call returned, and what it printed."""

    value: Any
    text: str


def call(fn: object, *args: Any, seconds: float = 10.0, **kwargs: Any) -> Any:
    """What the learner's `fn` returns. What it prints is kept back.

    Raises NotAttempted for None, `...` or a NotImplementedError, and `Wrong` for anything that cannot be
    called, any other exception, and a function that is not back after `seconds`.
    """
    result = call_printed(fn, *args, seconds=seconds, **kwargs)
    if result.value is None or result.value is ...:
        raise NotAttempted(
            f"{_name(fn)} returned nothing. Fill in its TODO; if you have, does it end with `return`?"
        )
    return result.value


def call_printed(fn: object, *args: Any, seconds: float = 10.0, **kwargs: Any) -> Printed:
    """Like `call`, with what was printed; None is a result here, for functions that only print."""
    if not callable(fn):
        raise Wrong(
            f"this check needs a function, and it got {shown(fn)}.", cause="Give its name, no brackets."
        )
    work = _Work(fn, args, kwargs)
    with contextlib.redirect_stdout(work.printed):
        work.run(seconds)
    if work.late:
        raise Wrong(
            f"{_name(fn)} did not come back within {seconds:g} seconds: is there a loop that never ends?",
            printed=_said(work.printed),
        )
    if isinstance(work.error, NotImplementedError):
        raise NotAttempted(f"{_name(fn)} is still to be written. Fill in its TODO, and run it first.")
    if work.error is not None:
        said = f"{type(work.error).__name__}: {work.error}".rstrip(": ")
        raise Wrong(f"{_name(fn)} raised {said[:400]}{_place(fn, work.error)}", printed=_said(work.printed))
    return Printed(work.value, work.printed.getvalue())


class _Stop(BaseException):
    """Thrown into a learner's function that takes too long."""


class _Paper(io.StringIO):
    """Takes everything, keeps the first `MOST_PRINTED` characters."""

    def write(self, text: str) -> int:
        room = MOST_PRINTED - self.tell()
        super().write(text[: max(0, room)])
        return len(text)


@dataclass
class _Work:
    """One call, in a thread of its own: only so can it be left behind."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Any = None
    error: BaseException | None = None
    late: bool = False
    printed: _Paper = field(default_factory=_Paper)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float) -> None:
        # With the caller's context, displays end up below the caller's cell.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._body,), daemon=True)
        thread.start()
        end = time.monotonic() + seconds
        try:
            # In slices: on Windows a wait cannot be interrupted by the Stop button.
            while not self.done.wait(0.1):
                if time.monotonic() > end:
                    self.late = True
                    break
        finally:
            if not self.done.is_set():
                self._stop(thread)

    def _body(self) -> None:
        try:
            self.value = self.fn(*self.args, **self.kwargs)
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()

    def _stop(self, thread: threading.Thread) -> None:
        """Ask the thread to end, a few times: a bare `except:` of the learner may swallow the first."""
        for _ in range(5):
            if self.done.is_set() or thread.ident is None:
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Stop))
            self.done.wait(0.1)


def _name(fn: object) -> str:
    name = getattr(fn, "__name__", "")
    return f"`{name}`" if name.isidentifier() else "your function"


def _place(fn: object, error: BaseException) -> str:
    """The learner's own line that an exception passed last: `, in line 3: "return x / 0"`."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return "."
    folder, line, text = os.path.dirname(code.co_filename), 0, ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        # Each cell of a notebook is a file of its own, all in one folder.
        if os.path.dirname(file) == folder:
            line, text = step.tb_lineno, linecache.getline(file, step.tb_lineno).strip()
        step = step.tb_next
    if not line:
        return "."
    return f", in line {line}: `{text}`" if text else f", in line {line}."


def _said(printed: io.StringIO) -> str:
    """The last lines that were printed before it went wrong: a learner may search by printing."""
    lines = printed.getvalue().rstrip().splitlines()[-5:]
    return "\n".join(line[:200] for line in lines)


class _Short(reprlib.Repr):
    """`[0.1, 0.333333]`: floats with six digits, long things cut."""

    def repr_float(self, x: float, level: int) -> str:
        return f"{x:.6g}"


def shown(value: object, length: int = 300) -> str:
    """A value as Python writes it, on one line, cut to about `length` characters."""
    if hasattr(value, "parameters") and not isinstance(value, type):
        return "the model"
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        if math.prod(value.shape) > 12:
            return f"{type(value).__name__.lower()} of shape {tuple(value.shape)}"
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.6g}"
    short = _Short()
    short.maxstring = short.maxother = short.maxlong = length
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 12
    try:
        text = " ".join(short.repr(value).split())
        return text if len(text) <= length + 20 else f"{text[: length + 17]}..."
    except Exception:
        return f"something of type {type(value).__name__}"
