"""What every notebook begins with: whose model it is, at which size, and where we are on the way."""

from __future__ import annotations

import base64
import html
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from nanolab.checkpoint import find_checkpoint, load_model
from nanolab.errors import ConfigError
from nanolab.expect import banner
from nanolab.model import GPT
from nanolab.paths import SCRATCH, atomic_write, run_dir
from nanolab.profiles import STAGES, Profile, get_profile, override
from nanolab.reference import unpack
from nanolab.stages import ReinforcementStage, SupervisedStage, open_stage
from nanolab.tokenizer import Tokenizer
from nanolab.viz.output import publish

PLACES = {
    "start": "start", "tokenizer": "tokens", "model": "model", "base": "base", "mid": "mid", "sft": "sft",
    "rl": "rl", "evaluate": "measure", "scale": "scale", "reference": "reference",
}  # fmt: skip
"""The stops of the course, with the word that the map has for each."""


class Course:
    """A learner's run at one profile: `mine`, or `mine-smoke` and so on for other profiles than laptop."""

    def __init__(self, profile: str | None = None) -> None:
        self.profile: Profile = get_profile(profile)
        self.tag = "mine" if self.profile.name == "laptop" else f"mine-{self.profile.name}"

    def map(self, here: str, minutes: int = 0, waiting: int = 0) -> None:
        """Show where on the way this notebook is, and how long it takes. Raises ConfigError for no stop."""
        if here not in PLACES:
            raise ConfigError(f"the course has no stop {here!r}.\nIts stops are {', '.join(PLACES)}.")
        text = f"You are here: {PLACES[here]}, on the way {' → '.join(PLACES.values())}."
        if minutes:
            text += f" About {minutes} minutes, {waiting} of them waiting."
        # As an image: a notebook that is not trusted yet, and most web pages, leave out bare SVG.
        picture = base64.b64encode(road_map(here, text).encode("utf-8")).decode("ascii")
        tag = f'<img alt="{html.escape(text)}" width="100%" src="data:image/svg+xml;base64,{picture}">'
        publish({"text/html": tag, "text/plain": text})

    def pick(self, *, laptop: Any, smoke: Any) -> Any:
        """One of two values: `smoke` for the smoke profile, `laptop` for all others."""
        return smoke if self.profile.name == "smoke" else laptop

    def scratch(self, name: str) -> str:
        """The tag of a throw-away run, emptied: for experiments that must not touch the learner's model."""
        tag = SCRATCH + name
        shutil.rmtree(run_dir(tag), ignore_errors=True)
        if run_dir(tag).exists():
            raise ConfigError(
                f"{run_dir(tag)} could not be emptied.\nRestart the kernel, then run the cell again."
            )
        return tag

    def load(self, stage: str) -> tuple[GPT, Tokenizer, dict[str, Any]]:
        """(model, tokenizer, meta) of a stage: the learner's own, else a stand-in under a banner."""
        return load_model(stage, model_tag=self._tag_with(stage))

    def tokenizer(self) -> Tokenizer:
        """The learner's tokenizer, else that of the base model that stands in, under a banner."""
        tag = self.tag
        if not (run_dir(tag) / "tokenizer.json").exists():
            tag, whose = self._stand_in("base")
            banner(f"You have no tokenizer of your own yet: that of {whose} stands in.")
        return Tokenizer.load(run_dir(tag) / "tokenizer.json")

    def open(self, stage: str, **changes: Any) -> SupervisedStage | ReinforcementStage:
        """A stage of the learner's run, ready to train; `changes` are fields of its plan, or of the profile.

        Where the stage before it is missing, it starts from a stand-in's, under a banner, in a run of its
        own and at the stand-in's size. Raises ConfigError for a stage or a field that there is not.
        """
        if stage not in STAGES:
            raise ConfigError(f"there is no stage {stage!r}.\nThe stages are {', '.join(STAGES)}.")
        earlier = STAGES[STAGES.index(stage) - 1] if stage != "base" else None
        if earlier is None or _has(self.tag, earlier):
            return open_stage(override(self.profile, stage, **changes), stage, self.tag)
        source = self._tag_with(earlier)
        tag = source if source.startswith(f"{self.tag}-on-") else f"{self.tag}-on-{source}"
        if tag != source:
            _copy_stage(run_dir(source), run_dir(tag), earlier)
        profile = _profile_of(source)
        # The hub's profiles have longer rows, and far more steps, than TinyWorld's models are made for.
        if profile.source == self.profile.source:
            plans = {name: getattr(self.profile, name) for name in STAGES}
            profile = replace(profile, name=self.profile.name, data="", **plans)
        # A model copied here for the stage after it cannot be trained further: this stage starts anew.
        if _has(tag, stage) and load_model(stage, model_tag=tag)[2].get("reference"):
            shutil.rmtree(run_dir(tag) / stage)
        return open_stage(override(profile, stage, **changes), stage, tag)

    def _tag_with(self, stage: str) -> str:
        """The run whose model of a stage to use, with a banner unless it is the learner's own."""
        if _has(self.tag, stage):
            return self.tag
        tag, whose = self._stand_in(stage)
        banner(f"You have no {stage} model of your own yet: {whose} stands in.")
        return tag

    def _stand_in(self, stage: str) -> tuple[str, str]:
        """The run whose model of a stage stands in for the learner's, and how to call that model."""
        theirs = {
            "course": "the model that `nanolab run --tag course` trained",
            "reference": "the reference model (laptop profile, it came with the course)",
        }
        for source, whose in theirs.items():
            tag = f"{self.tag}-on-{source}"
            if _has(tag, stage):
                return tag, f"the one in your run {tag}, which began with {whose},"
        if _has("course", stage) and _profile_of("course").name == self.profile.name:
            return "course", theirs["course"]
        return unpack(), theirs["reference"]


def _has(tag: str, stage: str) -> bool:
    return find_checkpoint(run_dir(tag), stage, missing_ok=True) is not None


def _profile_of(tag: str) -> Profile:
    return Profile.from_json((run_dir(tag) / "profile.json").read_text(encoding="utf-8"))


def _copy_stage(source: Path, target: Path, stage: str) -> None:
    """One checkpoint of another run, whole or not at all, with that run's tokenizer and sizes."""
    checkpoint = find_checkpoint(source, stage)
    for name in ("tokenizer.json", "profile.json"):
        atomic_write(target / name, (source / name).read_bytes())
    final = target / stage / checkpoint.name
    half = final.with_name(f".tmp-{final.name}-copy")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(checkpoint, half)
    half.rename(final)


def road_map(here: str, text: str) -> str:
    """The stops of the course as a row of boxes on white, the present one filled, as SVG.

    `text` says the same in words; what follows its first sentence stands below the boxes.
    """
    width, step, words = 84, 96, html.escape(text)
    total = 16 + len(PLACES) * step
    caption = html.escape(text.partition(". ")[2])
    boxes = [f'<rect width="{total}" height="96" rx="12" fill="#FFFFFF"/>']
    for number, (place, name) in enumerate(PLACES.items()):
        x, now = 14 + number * step, place == here
        fill, ink, weight = ("#0072B2", "#FFFFFF", "bold") if now else ("#FFFFFF", "#222222", "normal")
        if number:
            boxes.append(f'<path d="M{x - 12},38 h12" stroke="#767676" stroke-width="2"/>')
        boxes.append(
            f'<rect x="{x}" y="20" width="{width}" height="36" rx="8" fill="{fill}" stroke="#0072B2"/>'
            f'<text x="{x + width / 2}" y="43" text-anchor="middle" fill="{ink}" font-weight="{weight}">'
            f"{name}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} 96" width="{total}" height="96" '
        f'role="img" aria-label="{words}" font-family="system-ui, sans-serif" font-size="15">'
        f"<title>{words}</title>{''.join(boxes)}"
        f'<text x="14" y="81" fill="#595959" font-size="14">{caption}</text></svg>'
    )
