"""Profiles: one dial for the size of everything. A profile is all of a run that is not code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from nanolab.errors import ConfigError

STAGES = ("base", "mid", "sft", "rl")


@dataclass(frozen=True)
class StagePlan:
    """How one of the supervised stages (base, mid, sft) trains."""

    num_iterations: int
    """optimizer steps"""
    total_batch_size: int
    """tokens per optimizer step, over all micro-batches"""
    device_batch_size: int
    """rows per micro-batch: lower it when memory runs out, the result stays the same"""
    max_seq_len: int
    """tokens per row"""
    init_lr_frac: float = 1.0
    """all learning rates times this"""
    warmup_ratio: float = 0.0
    """share of the steps in which the rate rises from 0"""
    warmdown_ratio: float = 0.4
    """share of the steps, at the end, in which the rate falls to 0"""
    eval_every: int = 100
    """steps between validation losses; -1 for only the first and the last"""
    eval_tokens: int = 16_384
    """tokens of validation text per validation loss"""
    sample_every: int = -1
    """steps between printed samples; -1 for none"""
    save_every: int = 200
    """steps between checkpoints; the last step is always saved"""

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one optimizer step. Raises ConfigError when the sizes do not divide."""
        tokens = self.device_batch_size * self.max_seq_len
        if tokens <= 0 or self.total_batch_size % tokens:
            raise ConfigError(
                f"total_batch_size={self.total_batch_size} is not a multiple of device_batch_size * "
                f"max_seq_len = {self.device_batch_size} * {self.max_seq_len} = {tokens} tokens.\n"
                "Change one of the three."
            )
        return self.total_batch_size // tokens

    def check_dealt(self, processes: int) -> None:
        """Raises ConfigError unless each of several processes gets equally many micro-batches of a step."""
        rows, context, total = self.device_batch_size, self.max_seq_len, self.total_batch_size
        if processes == 1 or total % (processes * rows * context) == 0:
            return
        fitting = [r for r in range(1, rows) if total % (processes * r * context) == 0]
        raise ConfigError(
            f"total_batch_size={total} tokens cannot be dealt to {processes} processes: with "
            f"device_batch_size={rows} and max_seq_len={context} it must be a multiple of "
            f"{processes} * {rows} * {context} = {processes * rows * context}.\n"
            + (f"Use --device-batch-size {fitting[-1]}." if fitting else "Use another number of processes.")
        )


@dataclass(frozen=True)
class RLPlan:
    """How the reinforcement learning stage (GRPO) trains."""

    num_iterations: int
    """optimizer steps"""
    examples_per_step: int
    """different problems per step"""
    num_samples: int
    """answers sampled for each problem: the group of GRPO"""
    device_batch_size: int = 64
    """answers per micro-batch: lower it when memory runs out, the result stays the same"""
    max_new_tokens: int = 64
    """longest answer, in tokens"""
    temperature: float = 1.0
    """of sampling"""
    top_k: int = 0
    """sample among the k likeliest tokens only; 0 for all, which is what GRPO's mathematics assumes"""
    init_lr_frac: float = 0.05
    """all learning rates times this"""
    eval_every: int = 10
    """steps between held-out accuracies; -1 for only the first and the last"""
    eval_examples: int = 100
    """held-out problems per accuracy"""
    save_every: int = 20
    """steps between checkpoints; the last step is always saved"""
    normalise_std: bool = False
    """divide advantages by their group's standard deviation (DeepSeekMath) or not (Dr. GRPO)"""
    updates_per_step: int = 1
    """optimizer steps on each batch of samples; from the second on the samples are off-policy"""
    clip: float = 0.0
    """PPO's clip of the probability ratio, for updates_per_step above 1; 0 for none"""
    kl_weight: float = 0.0
    """weight of the k3 estimate of the KL divergence to the parent model; 0 for none"""
    shuffle_rewards: bool = False
    """a control: give each step's rewards to answers at random, so that there is nothing to learn"""


@dataclass(frozen=True)
class Profile:
    """The size of a whole run. Width is 64 * depth, as in nanochat, unless `width` says otherwise."""

    name: str
    depth: int
    vocab_size: int
    sequence_len: int
    digits: int
    """longest group of digits in one token"""
    source: str
    """where text and tasks come from: "tinyworld" (embedded) or "hub" (downloaded)"""
    base: StagePlan
    mid: StagePlan
    sft: StagePlan
    rl: RLPlan
    matrix_lr: float = 0.02
    embedding_lr: float = 0.2
    unembedding_lr: float = 0.004
    polar_express: bool = False
    """orthogonalise Muon's updates with three polynomials in place of five"""
    muon_beta2: float = 0.0
    """even out the rows of Muon's updates, as NorMuon; nanochat has 0.9, 0 is off"""
    grad_clip: float = 1.0
    width: int = 0
    """channels of the residual stream; 0 for 64 * depth"""
    head_dim: int = 128
    """channels of an attention head, at most; nanochat has 128"""
    value_embeddings: bool = False
    """this part of the model of 2026 (see GPTConfig), and so the seven below"""
    residual_scalars: bool = False
    smear: bool = False
    backout: bool = False
    qk_gain: float = 1.0
    rotary_base: float = 10_000.0
    window_pattern: str = "L"
    short_window: int = 0
    seed: int = 42
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    dtype: str = "auto"
    """auto, float32 or bfloat16"""
    data: str = ""
    """text for base training instead of the profile's: a folder, "docstrings" or "python" """
    shards: int = 2
    """files of FineWeb-EDU to download, about 90 MB each; the last one is for validation"""
    mid_sizes: dict[str, int] = field(default_factory=dict)
    """conversations of each kind in midtraining; -1 for all that the hub has"""
    sft_sizes: dict[str, int] = field(default_factory=dict)
    """conversations of each kind in supervised fine-tuning; -1 for all that the hub has"""

    @property
    def n_embd(self) -> int:
        return self.width or 64 * self.depth

    @property
    def n_head(self) -> int:
        return -(-self.n_embd // self.head_dim)

    def plan(self, stage: str) -> StagePlan:
        """The plan of a supervised stage."""
        return {"base": self.base, "mid": self.mid, "sft": self.sft}[stage]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Profile:
        """The reverse of `to_json`. Raises ConfigError naming what does not fit."""
        try:
            values: dict[str, Any] = json.loads(text)
            for stage in ("base", "mid", "sft"):
                values[stage] = StagePlan(**values[stage])
            values["rl"] = RLPlan(**values["rl"])
            return Profile(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"this is not a profile of this version of nanolab: {error}.\n"
                "Start the run under a new --tag."
            ) from None


_TINY_SIZES = {
    "talk": 32_000, "mmlu": 1_200, "arc": 400, "gsm": 2_000, "gsm_in_head": 3_000, "spelling": 12_000,
    "bee": 500,
}  # fmt: skip
"""Conversations of each kind in midtraining and fine-tuning: what is asked most has the largest share."""

_PARTS_OF_2026: dict[str, Any] = {
    "value_embeddings": True, "residual_scalars": True, "polar_express": True, "muon_beta2": 0.9,
    "window_pattern": "SLL", "short_window": 2,
}  # fmt: skip
"""Of what nanochat added until mid-2026, what helps a small model in a few minutes (docs/experiments.md)."""


# nanochat's mixtures: about 850,000 conversations in mid, with the identity ones twice, and 23,000 in sft.
_HUB_MID = {"talk": -1, "mmlu": -1, "gsm": -1, "identity": -1, "spelling": 200_000, "bee": 80_000}
_HUB_SFT = {"arc": -1, "gsm": -1, "talk": 10_000, "identity": -1, "spelling": 300, "bee": 300}


def _smoke() -> Profile:
    plan = StagePlan(60, 1024, 8, 128, eval_every=30, eval_tokens=4096, save_every=50)
    return Profile(
        "smoke", depth=2, vocab_size=1024, sequence_len=256, digits=1, source="tinyworld",
        base=replace(plan, num_iterations=120), mid=plan, sft=replace(plan, num_iterations=40),
        rl=RLPlan(
            3, examples_per_step=4, num_samples=4, max_new_tokens=96, eval_every=-1, eval_examples=16,
            kl_weight=0.08,
        ),
        head_dim=64, mid_sizes=dict(_TINY_SIZES), sft_sizes=dict(_TINY_SIZES), **_PARTS_OF_2026,
    )  # fmt: skip


def _laptop() -> Profile:
    plan = StagePlan(750, 2048, 8, 256, warmdown_ratio=0.5)
    return Profile(
        "laptop", depth=3, width=128, vocab_size=2048, sequence_len=256, digits=1, source="tinyworld",
        base=plan,
        mid=replace(plan, num_iterations=150, warmdown_ratio=0.2),
        sft=replace(plan, num_iterations=1_600, init_lr_frac=0.7, warmdown_ratio=1.0),
        rl=RLPlan(
            30, examples_per_step=16, num_samples=8, max_new_tokens=96, init_lr_frac=0.1, eval_every=15,
            eval_examples=200, kl_weight=0.08,
        ),
        matrix_lr=0.06, embedding_lr=0.3, head_dim=64,
        mid_sizes=dict(_TINY_SIZES), sft_sizes=dict(_TINY_SIZES), **_PARTS_OF_2026,
    )  # fmt: skip


def _workshop() -> Profile:
    """The worksheet: nanochat on an M3, half an hour, with the hub's data."""
    plan = StagePlan(1_000, 1024, 1, 1024, warmdown_ratio=0.2, eval_every=-1, save_every=1_000)
    base = replace(plan, num_iterations=30_000, total_batch_size=512, max_seq_len=512, save_every=5_000)
    return Profile(
        "workshop", depth=4, vocab_size=65_536, sequence_len=1024, digits=2, source="hub",
        base=base, mid=plan, sft=replace(plan, num_iterations=200, init_lr_frac=0.02, warmdown_ratio=1.0),
        rl=RLPlan(30, examples_per_step=2, num_samples=4, device_batch_size=4, max_new_tokens=128, top_k=50),
        mid_sizes=dict(_HUB_MID), sft_sizes=dict(_HUB_SFT),
    )  # fmt: skip


def _gpu() -> Profile:
    """nanochat's speedrun: d20 on one node, under torchrun."""
    plan = StagePlan(800, 524_288, 32, 2048, warmdown_ratio=0.2, eval_every=150, save_every=1_000)
    return Profile(
        "gpu", depth=20, vocab_size=65_536, sequence_len=2048, digits=2, source="hub",
        base=replace(plan, num_iterations=21_400), mid=plan,
        sft=replace(plan, num_iterations=700, init_lr_frac=0.02, warmdown_ratio=1.0),
        rl=RLPlan(467, 16, num_samples=16, device_batch_size=8, max_new_tokens=256, top_k=50),
        shards=240, mid_sizes=dict(_HUB_MID), sft_sizes=dict(_HUB_SFT),
    )  # fmt: skip


PROFILES = {"smoke": _smoke, "laptop": _laptop, "workshop": _workshop, "gpu": _gpu}


def get_profile(name: str | None = None) -> Profile:
    """The profile called `name`; without a name `$NANOLAB_PROFILE`, or laptop."""
    name = name or os.environ.get("NANOLAB_PROFILE") or "laptop"
    if name not in PROFILES:
        raise ConfigError(f"there is no profile {name!r}.\nChoose one of: {', '.join(PROFILES)}.")
    return PROFILES[name]()


def override(profile: Profile, stage: str | None = None, **changes: Any) -> Profile:
    """A copy with some fields changed: those of the stage's plan first, else the profile's own.

    None means unchanged. Raises ConfigError for a field that neither has, and for what is no stage.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigError(
            f"{stage!r} is no stage: those are {', '.join(STAGES)}.\n"
            f"Settings are given by name, such as override(profile, data={stage!r})."
        )
    given = {key: value for key, value in changes.items() if value is not None}
    own = {f.name for f in fields(profile)}
    in_plan: dict[str, Any] = {}
    if stage is not None:
        names = {f.name for f in fields(getattr(profile, stage))}
        in_plan = {key: given.pop(key) for key in list(given) if key in names}
    if unknown := sorted(set(given) - own):
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting of {stage or 'a profile'}.\n"
            f"The settings of a profile are {', '.join(sorted(own - set(STAGES)))}."
        )
    if stage is not None and in_plan:
        given[stage] = replace(getattr(profile, stage), **in_plan)
    return replace(profile, **given)
