"""What happened in a run, in a file that notebooks and report cards read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from nanolab import ranks
from nanolab.paths import atomic_write


class Log:
    """`log.jsonl` of a run: one JSON object a line, appended as things happen, by rank 0 alone."""

    def __init__(self, run: Path) -> None:
        self.path = run / "log.jsonl"

    def rows(self) -> list[dict[str, Any]]:
        """All rows; a last line cut short by a crash is left out."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def add(self, **row: Any) -> None:
        if not ranks.is_main():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row) + "\n")

    def rewind(self, stage: str, step: int) -> None:
        """Forget what `stage` logged after its checkpoint at `step`: a resumed run will log it again.

        What was measured at that very step stays, since nobody measures it again.
        """
        if not ranks.is_main():
            return
        rows = self.rows()
        kept = [
            row
            for row in rows
            if row.get("stage") != stage
            or row["step"] < step
            or (row["step"] == step > 0 and "seconds" not in row)
        ]
        if len(kept) != len(rows):
            atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in kept))
