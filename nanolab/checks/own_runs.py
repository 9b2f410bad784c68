"""What challenge 4 checks in the learner's own runs: a fair comparison, and a conclusion from three logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from nanolab.checks.choosing import letters
from nanolab.checks.core import NotAttempted, Wrong, check, shown

LAST = 10
"""The level at which a training ends is the mean of so many losses: a single one is noisy."""

Rows = Sequence[Mapping[str, Any]]


# ---- measuring a log


def train_losses(rows: Rows, stage: str) -> list[float]:
    return [float(row["loss"]) for row in rows if row.get("stage") == stage and "loss" in row]


def validations(rows: Rows, stage: str, unit: str = "nats") -> list[float]:
    return [
        float(row["validation"][unit]) for row in rows if row.get("stage") == stage and "validation" in row
    ]


def spike_of(rows: Rows) -> float:
    """First loss of mid minus last validation loss of base, in nats per token."""
    return train_losses(rows, "mid")[0] - validations(rows, "base")[-1]


def recovery_of(losses: Sequence[float], level: float) -> float:
    """Steps taken until a loss is below a level; infinite where none is."""
    return next((float(step) for step, loss in enumerate(losses) if loss < level), math.inf)


def end_level(losses: Sequence[float]) -> float:
    """Where a training ends: the mean of its last losses."""
    last = losses[-LAST:]
    return sum(last) / len(last)


def saved_of(with_base: Sequence[float], from_scratch: Sequence[float]) -> float:
    """How many steps fewer a base takes to the level where the from-scratch start ends."""
    level = end_level(from_scratch)
    return recovery_of(from_scratch, level) - recovery_of(with_base, level)


# ---- a fair comparison


@check
def fair(world: object, code: object) -> str:
    """Whether two profiles differ in the text of base training, and in nothing else."""
    from nanolab.profiles import Profile

    for profile in (world, code):
        if not isinstance(profile, Profile):
            raise Wrong(
                f"a profile is needed here, and it got {shown(profile, 60)}.",
                cause="override(world, ...) gives a copy of the profile with some fields changed.",
            )
    changed = differences(world, code)
    if not changed:
        raise Wrong(
            "the two profiles are the same.",
            cause="Both bodies would read TinyWorld. A profile cannot be changed, only copied: keep what "
            "override returns. (None leaves a field as it is.)",
        )
    if "data" not in changed:
        causes = {
            "source": "`source` is where a profile takes its text from when `data` says nothing, but here "
            "`data` says TinyWorld. Change `data`.",
            "name": "`name` is only what the profile is called. Change `data`.",
        }
        raise Wrong(
            f"the text that the body reads is still the same; changed is {', '.join(changed)}.",
            cause=next(
                (causes[name] for name in changed if name in causes), "The field `data` names the text."
            ),
        )
    if getattr(code, "data", "") != "python":
        raise Wrong(
            "the code body would read another text than code.", got=shown(getattr(code, "data", "")),
            expected="'python'", cause=_text_cause(str(getattr(code, "data", ""))),
        )  # fmt: skip
    others = [name for name in changed if name != "data"]
    if others:
        raise Wrong(
            f"two things changed at once: data, and {', '.join(others)}.",
            cause=_also(others[0]) + " Change the text only, or you cannot tell what made the difference.",
        )
    return "One thing differs, the text. Whatever the two bodies do differently comes from it."


def _text_cause(data: str) -> str:
    if data == "docstrings":
        return "Docstrings are English sentences about code. The code itself is called python."
    if data in ("tinyworld", "world"):
        return "That is the text of the other body."
    return "nanolab knows three texts by name: tinyworld, docstrings and python, in small letters."


def _also(name: str) -> str:
    if name in ("vocab_size", "digits"):
        return "Losses per token of two different vocabularies cannot be compared."
    if name in ("depth", "head_dim", "sequence_len"):
        return "A model of another size has other losses anyway."
    return "More or fewer steps, or another rate, change the loss too." if "." in name or "lr" in name else (
        "Any change can move the loss."
    )  # fmt: skip


def differences(one: Any, other: Any, prefix: str = "") -> list[str]:
    """The names of the fields in which two profiles differ, `base.num_iterations` for those of a plan."""
    found = []
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(a) and is_dataclass(b):
            found += differences(a, b, f"{prefix}{field.name}.")
        elif a != b:
            found.append(prefix + field.name)
    return found


# ---- the conclusion


@dataclass(frozen=True)
class Finding:
    """Whether a statement holds in some runs: yes, no, or too close to say (None), and the numbers behind."""

    holds: bool | None
    why: str


@check
def conclusion(answer: object) -> str:
    """Whether exactly the statements were chosen that hold in the learner's own three runs."""
    found = findings(own_logs())
    chosen = letters(answer, found)
    wrong = [
        letter
        for letter, finding in found.items()
        if finding.holds is not None and finding.holds != (letter in chosen)
    ]
    if wrong:
        letter = wrong[0]
        more = f" ({len(wrong)} of the {len(found)} are misjudged; this is the first.)" if wrong[1:] else ""
        what = "does not hold in your runs" if letter in chosen else "holds in your runs, and you left it out"
        raise Wrong(f"statement {letter} {what}.{more}", cause=found[letter].why)
    close = [letter for letter, finding in found.items() if finding.holds is None]
    near = f" Too close to say in your runs, so either is fine: {', '.join(close)}." if close else ""
    return f"Every statement stands or falls with your own numbers.{near}"


def own_logs() -> dict[str, Rows]:
    """The logs of the three runs on disk. Raises NotAttempted while one is missing or not finished."""
    from nanolab.lessons.frankenstein import STARTS, tag
    from nanolab.paths import run_dir
    from nanolab.profiles import Profile
    from nanolab.runlog import Log

    logs: dict[str, Rows] = {}
    profiles: dict[str, Profile] = {}
    for start, name in STARTS.items():
        run = run_dir(tag(start))
        logs[start] = Log(run).rows()
        if not (run / "profile.json").exists() or not validations(logs[start], "base"):
            raise NotAttempted(f"the start {name!r} has no body yet. Run the cells that train first.")
        profiles[start] = Profile.from_json((run / "profile.json").read_text(encoding="utf-8"))
        done, steps = len(train_losses(logs[start], "mid")), profiles[start].mid.num_iterations
        if done < steps:
            raise NotAttempted(
                f"the start {name!r} has taken {done} of {steps} steps of mid. Train it first."
            )
    for start in ("code", "scratch"):
        others = [name for name in differences(profiles["world"], profiles[start]) if name != "data"]
        if others:
            named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
            raise Wrong(
                f"the runs {STARTS['world']!r} and {STARTS[start]!r} differ in {named}.",
                cause="They come from different tries. Run all the cells that train, from the first on.",
            )
    return logs


def findings(logs: Mapping[str, Rows]) -> dict[str, Finding]:
    """Each of `lessons.frankenstein.STATEMENTS` held against three logs: "world", "code" and "scratch"."""
    mids = {start: train_losses(rows, "mid") for start, rows in logs.items()}
    first = {start: losses[0] for start, losses in mids.items()}
    end = {start: end_level(losses) for start, losses in mids.items()}
    steps = {start: recovery_of(losses, end["scratch"]) for start, losses in mids.items()}
    spike = {start: spike_of(rows) for start, rows in logs.items()}
    per_byte = {start: validations(logs[start], "base", "bits_per_byte")[-1] for start in ("world", "code")}
    by_spike, by_end = sorted(spike, key=spike.__getitem__), sorted(end, key=end.__getitem__)

    def sign(value: float, doubt: float) -> bool | None:
        return None if abs(value) < doubt else value > 0

    begins = "the first loss is {:.2f} nats after code, {:.2f} {}"
    return {
        "A": Finding(sign(first["code"] - first["world"], 0.05),
                     begins.format(first["code"], first["world"], "after TinyWorld")),
        "B": Finding(sign(first["scratch"] - first["code"], 0.05),
                     begins.format(first["code"], first["scratch"], "with random weights")),
        "C": Finding(sign(steps["scratch"] - steps["code"], 2),
                     f"to {end['scratch']:.2f} nats, where the from-scratch start ends, it is "
                     f"{steps['code']:g} steps after code and {steps['scratch']:g} from scratch"),
        "D": Finding(sign(0.05 + end["world"] - end["code"], 0.01),
                     f"the last ten losses have a mean of {end['code']:.2f} nats after code and "
                     f"{end['world']:.2f} after TinyWorld"),
        "E": Finding(sign(per_byte["world"] - per_byte["code"], 0.02),
                     f"the code body has {per_byte['code']:.2f} bits per byte on code, the TinyWorld body "
                     f"{per_byte['world']:.2f} on TinyWorld"),
        "F": Finding(by_spike == by_end,
                     f"from the lowest spike to the highest it is {', '.join(by_spike)}; from the lowest "
                     "loss "
                     f"at the end to the highest, {', '.join(by_end)}"),
    }  # fmt: skip
