"""Where nanolab keeps its files, and how it writes one without ever leaving half of it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from nanolab.errors import ConfigError

SCRATCH = "scratch-"
"""How the tags of throw-away runs begin."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def home() -> Path:
    """The folder for runs and data: `$NANOLAB_HOME`, or `~/.cache/nanolab`."""
    return Path(os.environ.get("NANOLAB_HOME") or Path.home() / ".cache" / "nanolab").expanduser()


def run_dir(tag: str) -> Path:
    """The folder of the run called `tag`. Raises ConfigError for a tag that could leave `runs/`."""
    if not _TAG.fullmatch(tag):
        raise ConfigError(
            f"{tag!r} cannot name a run.\n"
            "Use letters, digits, '.', '_' and '-', beginning with a letter or a digit."
        )
    return home() / "runs" / tag


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part of it."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
