"""What challenge 4 needs: small models that read one kind of text first and conversations afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanolab.checkpoint import find_checkpoint, load_checkpoint
from nanolab.corpus import text_source
from nanolab.errors import CheckpointError, ConfigError, DataError
from nanolab.paths import atomic_write, run_dir
from nanolab.profiles import Profile, get_profile, override
from nanolab.stages import SupervisedStage, conversations
from nanolab.tokenizer import Tokenizer
from nanolab.train import StepRecord
from nanolab.viz.live import LivePlot

if TYPE_CHECKING:
    from nanolab.course import Course

STARTS = {"world": "TinyWorld first", "code": "code first", "scratch": "from scratch"}
"""The three ways to begin midtraining, and how a picture calls them."""

STATEMENTS = {
    "A": "The first conversations surprise the model more after code than after TinyWorld.",
    "B": "After code they surprise it less than they surprise a model with random weights: from the first "
    "step "
    "on, any text is better than none.",
    "C": "After code the model comes down to where the from-scratch start ends in fewer steps than that "
    "start "
    "takes itself.",
    "D": "By the end of midtraining code has caught up: its loss is at most 0.05 nats above that after "
    "TinyWorld.",
    "E": "In bits per byte, the code body predicts code better than the TinyWorld body predicts TinyWorld.",
    "F": "The lower the spike, the better the start: in order of their spikes, the three are also in order "
    "of "
    "their losses at the end.",
}
"""What may be true of a learner's own runs, or not. `nanolab.checks.frankenstein` looks."""


def plan(course: Course, tokenizer: Tokenizer) -> Profile:
    """The runs of this challenge: a model of depth 2, short stages, base text from TinyWorld.

    At the profiles laptop and above the stages are of laptop's kind: those of a GPU would take days here.
    """
    profile = override(
        get_profile(course.pick(laptop="laptop", smoke="smoke")), depth=2, data="tinyworld",
        vocab_size=tokenizer.get_vocab_size(), device=course.profile.device, dtype=course.profile.dtype,
    )  # fmt: skip
    rare = {"eval_every": -1, "save_every": 1_000_000}
    profile = override(profile, "base", num_iterations=course.pick(laptop=250, smoke=16), **rare)
    return override(profile, "mid", num_iterations=course.pick(laptop=100, smoke=14), **rare)


def tag(start: str) -> str:
    """The scratch run of one of `STARTS`. Raises ConfigError for any other name."""
    if start not in STARTS:
        raise ConfigError(f"there is no start {start!r}.\nThe starts are {', '.join(STARTS)}.")
    return f"scratch-frankenstein-{start}"


def open_base(course: Course, profile: Profile, tokenizer: Tokenizer, start: str) -> SupervisedStage:
    """The base stage of a start, ready to train in its scratch run.

    A run of this very profile and tokenizer goes on where it stopped, and a finished one stays finished:
    running the notebook again costs no training. Any other is emptied first. Raises ConfigError for what is
    no profile.
    """
    if not isinstance(profile, Profile):
        raise ConfigError(
            f"a profile is needed to train a body, and this is {profile!r}.\n"
            "The check of task 1 says what is missing."
        )
    run = run_dir(tag(start))
    if not _belongs(run, profile, tokenizer):
        course.scratch(f"frankenstein-{start}")
        tokenizer.save(run / "tokenizer.json")
        atomic_write(run / "profile.json", profile.to_json())
    return SupervisedStage(profile, "base", run.name)


def open_scratch(course: Course, profile: Profile, tokenizer: Tokenizer) -> SupervisedStage:
    """The start that has read nothing: the random weights of the base stage, measured and saved at step 0."""
    stage = open_base(course, profile, tokenizer, "scratch")
    if find_checkpoint(stage.run, "base", missing_ok=True) is None:
        stage.save(0)
    # A stage that opens at step 0 forgets what was logged at it, so this is measured each time.
    stage.log.add(stage="base", step=0, validation=asdict(stage.validation()))
    return stage


def _belongs(run: Path, profile: Profile, tokenizer: Tokenizer) -> bool:
    """Whether a run was begun with this profile and tokenizer."""
    try:
        same = (run / "profile.json").read_text(encoding="utf-8") == profile.to_json()
        return same and Tokenizer.load(run / "tokenizer.json").hash() == tokenizer.hash()
    except (OSError, DataError):
        return False


def open_mid(start: str) -> SupervisedStage:
    """The mid stage of a start, from its base. Raises CheckpointError while that base is not finished."""
    run = run_dir(tag(start))
    checkpoint = find_checkpoint(run, "base", missing_ok=True)
    if checkpoint is None:
        raise CheckpointError(f"{STARTS[start]}: there is no body yet.\nRun the cell that trains it.")
    profile = Profile.from_json((run / "profile.json").read_text(encoding="utf-8"))
    meta, _ = load_checkpoint(checkpoint)
    wanted = profile.base.num_iterations if start != "scratch" else 0
    if meta["step"] < wanted:
        raise CheckpointError(
            f"{STARTS[start]}: the body has taken {meta['step']} of {wanted} steps.\n"
            "Run the cell that trains it again: it goes on where it stopped."
        )
    return SupervisedStage(profile, "mid", run.name)


def watch_mids(stages: Mapping[str, SupervisedStage]) -> Iterator[tuple[str, StepRecord]]:
    """Train the mid stages one after the other under one live plot; yields (start, record of the step).

    What a log already has is drawn without training. The Stop button ends it: run the cell again to go on.
    """
    plot = LivePlot(
        title="Midtraining from different starts", ylabel="loss (nats)", smooth=dict.fromkeys(STARTS, 0.0),
        series=tuple(STARTS[start] for start in stages),
        total=max((stage.schedule.steps for stage in stages.values()), default=None),
        alt="Training loss of midtraining, a line for each start",
    )  # fmt: skip
    with plot:
        for start, stage in stages.items():
            for step, loss in enumerate(losses(stage.log.rows(), "mid")):
                plot.add(STARTS[start], step, loss)
            with closing(stage.steps()) as records:  # type: ignore[type-var]
                for record in records:
                    plot.caption = f"{STARTS[start]}: step {record.index + 1} of {stage.schedule.steps}"
                    plot.add(STARTS[start], record.index, record.loss)
                    yield start, record
            if stage.stopped:
                plot.caption = "stopped: run the cell again, and it goes on"
                return
        plot.caption = "finished"


def losses(rows: Sequence[Mapping[str, Any]], stage: str) -> list[float]:
    """The training losses of a stage in a log, in nats, from its first step on."""
    return [float(row["loss"]) for row in rows if row.get("stage") == stage and "loss" in row]


def smoothed(values: Sequence[float], width: int = 5) -> tuple[list[int], list[float]]:
    """Steps and means of up to `width` losses that end there: a line for a picture."""
    windows = [values[max(0, i + 1 - width) : i + 1] for i in range(len(values))]
    return list(range(len(values))), [sum(window) / len(window) for window in windows]


def samples(profile: Profile, count: int = 30) -> dict[str, list[str]]:
    """Validation texts of three kinds, `{"TinyWorld": ..., "Python source": ..., "conversations": ...}`."""
    task = conversations(profile, "mid", "val")
    messages = [message["content"] for i in range(min(count, len(task))) for message in task[i]["messages"]]
    return {
        "TinyWorld": list(islice(text_source("tinyworld", "val").documents(), count)),
        "Python source": list(islice(text_source("python", "val").documents(), count)),
        "conversations": [text for text in messages if isinstance(text, str)],
    }
