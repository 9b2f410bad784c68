"""The two ways a check can fail, and how a notebook shows them: a box, and one line, never a stack trace."""

from __future__ import annotations

import html
import re
from typing import Any

from nanolab.errors import NanolabError
from nanolab.viz.output import publish


def attempted(*values: Any) -> bool:
    """Whether every value was filled in: none is `...` or None, or a list or dictionary that has a `...`."""
    return not any(value is None or _holds_blank(value) for value in values)


def _holds_blank(value: object, depth: int = 4) -> bool:
    if value is ...:
        return True
    if type(value) not in (list, tuple, dict) or not depth:
        return False
    inside = value.values() if isinstance(value, dict) else value
    return any(_holds_blank(one, depth - 1) for one in inside)  # type: ignore[attr-defined]


def marked_up(text: str) -> str:
    """As HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(text))


class CheckFailed(NanolabError, AssertionError):
    """A check that did not say "Right". Fails a test run; in a notebook it shows no stack trace."""

    heading = "✗ Not right yet"
    line = "see the box above"
    style = "border-left:6px solid #D55E00;background:#FFF1E8"

    def rows(self) -> list[tuple[str, str]]:
        """What to show below the message, as `(name, text)`."""
        return []

    def show(self) -> None:
        """The box of a notebook; nothing where there is none, since the exception says the same."""
        from IPython.core.interactiveshell import InteractiveShell

        if not InteractiveShell.initialized():
            return
        cells = "".join(
            f'<div style="margin-top:3px"><b>{html.escape(name)}:</b> '
            f'<span style="white-space:pre-wrap">{text}</span></div>'
            for name, value in self.rows()
            # The learner's own values are shown as they are.
            for text in [marked_up(value) if name == "likely cause" else html.escape(value)]
        )
        style = f"{self.style};color:#222222;padding:6px 12px;margin:4px 0"
        message = marked_up(str(self.args[0]))
        markup = f'<div style="{style}"><b>{self.heading}:</b> {message}{cells}</div>'
        publish({"text/html": markup, "text/plain": f"{self.heading[:1]} {self}"})

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a stack trace."""
        return [f"{self.heading[2:]}: {self.line}."]


class NotAttempted(CheckFailed):
    """Nothing to check yet: the blank is still there."""

    heading = "○ Not attempted yet"
    line = "nothing is broken; this check waits for your answer"
    style = "border:2px dashed #767676;background:#FFFFFF"

    def __init__(self, message: str = "fill in the TODO above, and run it first.") -> None:
        super().__init__(message)

    def __str__(self) -> str:
        return f"Not attempted yet: {self.args[0]}"


class Wrong(CheckFailed):
    """An answer that is not right: what came, what was expected, how far apart, why that may be, and the
    last lines that the learner's function printed.

    `got`, `expected` and `difference` are shown as they are, if they are texts; else as Python writes them.
    """

    def __init__(
        self,
        message: str,
        got: object = None,
        expected: object = None,
        difference: object = None,
        cause: str = "",
        printed: str = "",
    ) -> None:
        super().__init__(message[:1].upper() + message[1:])
        self.got, self.expected, self.difference = got, expected, difference
        self.cause, self.printed = cause, printed

    def because(self, cause: str) -> Wrong:
        """The same, with a likely cause; as it was where `cause` is empty."""
        return Wrong(
            self.args[0], self.got, self.expected, self.difference, cause or self.cause, self.printed
        )

    def rows(self) -> list[tuple[str, str]]:
        named = {
            "you have": self.got, "expected": self.expected, "largest difference": self.difference,
            "likely cause": self.cause or None, "before that it printed": self.printed or None,
        }  # fmt: skip
        return [
            (name, value if isinstance(value, str) else repr(value))
            for name, value in named.items()
            if value is not None
        ]

    def __str__(self) -> str:
        lines = [f"Not right yet: {self.args[0]}", *(f"  {name}: {text}" for name, text in self.rows())]
        return "\n".join(lines)
