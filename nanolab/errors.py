"""What nanolab raises when a learner needs to know something.

The message says what happened, where (the learner's own file and line), and what to do about it.
The command line prints it as one paragraph, and a notebook below the learner's own line: neither shows a
stack trace.
"""

from __future__ import annotations

import linecache
import traceback


class NanolabError(Exception):
    """Base class of every error that nanolab raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a stack trace: the message, and the last line of the notebook."""
        own = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(self.__traceback__)
            if frame.f_globals.get("__name__") == "__main__"
        ]
        lines = [f"{type(self).__name__}: {self}"]
        if own and (text := linecache.getline(*own[-1]).strip()):
            lines.append(f"(line {own[-1][1]} of the cell: {text})")
        return lines


class ConfigError(NanolabError):
    """A setting that cannot work: an unknown profile, a bad tag, a device that is not there."""


class DataError(NanolabError):
    """Text, conversations or a tokenizer file that cannot be used as they are."""


class CheckpointError(NanolabError):
    """A checkpoint that is missing, damaged, or belongs to something else."""


class DownloadError(NanolabError):
    """Something that should have come over the network and did not, or came damaged."""
