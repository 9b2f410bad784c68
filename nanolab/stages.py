"""The stages: which data, which schedule, which parent. Base, mid and sft share one class; rl has its own."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nanolab import ranks, worksheet
from nanolab.checkpoint import find_checkpoint, format_of, load_checkpoint, save_checkpoint
from nanolab.compute import FORMATS, Compute, choose_compute, prepare_process
from nanolab.corpus import text_source
from nanolab.data import ConversationBatches, PackedBatches
from nanolab.engine import Engine
from nanolab.errors import ConfigError
from nanolab.evals import Score, TextLoss, accuracy, text_loss
from nanolab.grpo import RLRecord, grpo
from nanolab.interrupt import StopFlag
from nanolab.model import GPT, GPTConfig
from nanolab.optim import LearningRates, Schedule, build_optimizers
from nanolab.paths import atomic_write, run_dir
from nanolab.profiles import STAGES, Profile
from nanolab.runlog import Log
from nanolab.shared_engine import engine_for
from nanolab.tasks import Task, TaskMixture
from nanolab.tasks.spelling import SimpleSpelling, SpellingBee
from nanolab.tasks.tiny import Identity, TinyARC, TinyGSM, TinyMMLU, TinyTalk
from nanolab.tokenizer import Tokenizer
from nanolab.train import StepRecord, fit

TOKENIZER_CHARACTERS = 3_000_000


def model_config(profile: Profile) -> GPTConfig:
    """The model of a profile: its settings of the same names, as many layers as its depth, and no GQA."""
    same: dict[str, Any] = {
        f.name: getattr(profile, f.name) for f in fields(GPTConfig) if hasattr(profile, f.name)
    }
    return GPTConfig(**same, n_layer=profile.depth, n_kv_head=profile.n_head)


def learning_rates(profile: Profile) -> LearningRates:
    """The rates of a profile, and how its Muon steps."""
    return LearningRates(
        profile.matrix_lr, profile.embedding_lr, profile.unembedding_lr,
        polar_express=profile.polar_express, muon_beta2=profile.muon_beta2,
    )  # fmt: skip


def conversations(profile: Profile, stage: str, split: str = "train") -> Task:
    """The mixture of conversations that `stage` ("mid" or "sft") trains on."""
    sizes = profile.mid_sizes if stage == "mid" else profile.sft_sizes
    if profile.source == "hub":
        return worksheet.conversations(stage, split, sizes, profile.seed)
    kinds: dict[str, Any] = {
        "talk": TinyTalk, "mmlu": TinyMMLU, "arc": TinyARC, "gsm": TinyGSM,
        "gsm_in_head": partial(TinyGSM, in_head=True, seed=1), "identity": Identity,
        "spelling": SimpleSpelling, "bee": SpellingBee,
    }  # fmt: skip
    share = 1 if split == "train" else 20
    tasks = [kinds[kind](split=split, size=max(8, size // share)) for kind, size in sizes.items() if size]
    return TaskMixture(tasks, seed=profile.seed)


def reinforcement_task(profile: Profile, split: str = "train") -> Task:
    """The problems of the rl stage; "val" ones are not in training, nor are TinyGSM's pairs of numbers."""
    if profile.source == "hub":
        return worksheet.problems(split)
    return TinyGSM(split=split, size=20_000 if split == "train" else 500)


def train_tokenizer(profile: Profile, run: Path) -> Tokenizer:
    """The run's tokenizer: loaded if there is one, else trained on base text and some conversations.

    A run on the hub's data has the published tokenizer of nanochat d32 instead, whose size is its own.
    """
    path = run / "tokenizer.json"
    if path.exists():
        return Tokenizer.load(path)
    if profile.source == "hub":
        from nanolab.nanochat import import_tokenizer

        published = import_tokenizer(worksheet.tokenizer_file())
        published.save(path)
        return published

    def texts() -> Iterator[str]:
        seen = 0
        for document in text_source(profile.data or profile.source, "train").documents():
            yield document
            seen += len(document)
            if seen > TOKENIZER_CHARACTERS:
                break
        task = conversations(profile, "sft")
        for index in range(min(4_000, len(task))):
            for message in task[index]["messages"]:
                content = message["content"]
                yield content if isinstance(content, str) else "".join(part["text"] for part in content)

    tokenizer = Tokenizer.train(texts(), profile.vocab_size, profile.digits)
    tokenizer.save(path)
    return tokenizer


PARENTS = {"mid": "base", "sft": "mid", "rl": "sft"}


def compute_for(profile: Profile, stage: str, run: Path, parent: str | None = None) -> Compute:
    """Device and number format of a stage: as the profile asks, else as its checkpoint or its parent's.

    Only a run that tells none has it measured: measured anew, it might differ from stage to stage, and a
    resumed run from an unbroken one. Under torchrun all processes ask together, and get the same format.
    """
    names = [None, *FORMATS]
    begun: str | None = None
    if ranks.is_main():
        before = parent or PARENTS.get(stage)
        begun = format_of(run, stage) or (format_of(run, before) if before else None)
    # What rank 0 finds counts for all: the others may come here before its last checkpoint is written.
    begun = names[int(ranks.total(names.index(begun) if begun in names else 0))]
    compute = choose_compute(profile.device, profile.dtype, begun)
    # Where it was measured, the processes may differ: bf16 must have won in all of them.
    if ranks.anyone(compute.dtype == torch.float32):
        compute = replace(compute, dtype=torch.float32)
    return compute


class Stage:
    """A stage about to train: model, optimizers and tokenizer, from its parent or where it left off.

    Iterating over `steps()` trains. After each step `model` can be sampled, evaluated or saved; leaving
    the loop, Ctrl-C and the last step all leave a checkpoint. `stopped` tells whether Ctrl-C ended it.
    """

    def __init__(
        self,
        profile: Profile,
        stage: str,
        tag: str,
        *,
        parent: str | None = None,
        compute: Compute | None = None,
    ) -> None:
        prepare_process()
        self.profile, self.name, self.run = profile, stage, run_dir(tag)
        self.parent = parent or PARENTS.get(stage)
        self.compute = compute or compute_for(profile, stage, self.run, self.parent)
        self.note = self.compute.note
        self.tokenizer = train_tokenizer(profile, self.run)
        if profile.source == "hub" and profile.vocab_size != self.tokenizer.get_vocab_size():
            self.profile = profile = replace(profile, vocab_size=self.tokenizer.get_vocab_size())
        self.plan = profile.rl if stage == "rl" else profile.plan(stage)
        self.log = Log(self.run)
        self.stop = StopFlag()
        self.start = 0
        self.parent_meta: dict[str, Any] = {}
        torch.manual_seed(profile.seed + STAGES.index(stage))
        self.model = GPT(model_config(profile)).to(self.compute.device)
        self.optimizers = build_optimizers(
            self.model, learning_rates(profile), fraction=self.plan.init_lr_frac, ns_dtype=self.compute.dtype
        )
        self.schedule = self.make_schedule()
        self.prepare_data()
        self.restore()

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end: the same answer in all processes, and all of them must ask."""
        return self.stop.agreed()

    @property
    def finished(self) -> bool:
        """Whether the last step has been taken and saved."""
        return self.start >= self.schedule.steps

    def make_schedule(self) -> Schedule:
        raise NotImplementedError

    def prepare_data(self) -> None:
        raise NotImplementedError

    def data_state(self) -> dict[str, Any]:
        """What, besides weights and optimizers, a resumed run needs to go on as if it had not stopped."""
        return {}

    def restore(self) -> None:
        """Continue this stage's newest checkpoint; without one, start from the parent stage's weights."""
        own = find_checkpoint(self.run, self.name, missing_ok=True)
        if own is not None:
            meta, state = load_checkpoint(
                own, model=self.model, optimizers=self.optimizers, tokenizer=self.tokenizer
            )
            self.start, self.parent_meta = meta["step"], meta.get("parent") or {}
            self.load_data_state(state)
            before, now = meta.get("dtype"), self.compute.format
            if before not in (None, now):
                self.note = (
                    f"Changed: {self.name} was in {before} up to step {self.start} and goes on in {now}, "
                    "as asked; it will not equal an unbroken run."
                )
        elif self.parent is not None:
            meta, _ = load_checkpoint(
                find_checkpoint(self.run, self.parent), model=self.model, tokenizer=self.tokenizer
            )
            self.parent_meta = {"stage": self.parent, "step": meta["step"]}
        self.log.rewind(self.name, self.start)

    def load_data_state(self, state: dict[str, Any]) -> None:
        pass

    def save(self, step: int, state: dict[str, Any] | None = None) -> None:
        """A checkpoint after `step` optimizer steps; `state` is the data's (default: as it is now)."""
        if not ranks.is_main():
            return
        meta = {
            "model_config": asdict(self.model.config), "tokenizer": self.tokenizer.hash(),
            "parent": self.parent_meta or None, "profile": self.profile.name, "seed": self.profile.seed,
            "dtype": self.compute.format,
        }  # fmt: skip
        save_checkpoint(
            self.run, self.name, step, model=self.model, optimizers=self.optimizers,
            meta=meta, state=state or self.data_state(),
        )  # fmt: skip

    def steps(self) -> Iterator[Any]:
        """Train from where the stage stands; yields each step's record, logged and saved as planned."""
        if ranks.is_main():
            atomic_write(self.run / "profile.json", self.profile.to_json())
            if self.note and not self.finished:
                print(self.note, flush=True)
        saved = done = self.start
        state = self.data_state()
        self.stop.set = False  # called again after a stop, it continues
        with self.stop.listen():
            records = self.records()
            try:
                while not self.stop.agreed():
                    record = next(records, None)
                    if record is None:
                        break
                    # Kept: a step that fails halfway has moved the data on, and must not count.
                    done, state = record.index + 1, self.data_state()
                    self.log.add(stage=self.name, step=record.index, time=time.time(), **self.logged(record))
                    # Saved before the caller evaluates or samples: whatever happens there, the step is kept.
                    if done % self.plan.save_every == 0 or done == self.schedule.steps:
                        self.save(done)
                        saved = self.start = done
                    yield record
            finally:
                records.close()
                if done > saved:
                    self.save(done, state)
                    self.start = done

    def records(self) -> Any:
        raise NotImplementedError

    @staticmethod
    def logged(record: StepRecord | RLRecord) -> dict[str, Any]:
        return {key: value for key, value in asdict(record).items() if key != "index"}


class SupervisedStage(Stage):
    """Base pretraining, midtraining and supervised fine-tuning: `fit` over different batches."""

    def make_schedule(self) -> Schedule:
        plan = self.profile.plan(self.name)
        return Schedule(plan.num_iterations, plan.warmup_ratio, plan.warmdown_ratio)

    def prepare_data(self) -> None:
        plan = self.profile.plan(self.name)
        plan.check_dealt(ranks.world_size())
        self.batches = self.batches_of("train")

    def batches_of(self, split: str) -> PackedBatches | ConversationBatches:
        """Endless batches of the stage's training or validation data."""
        plan, device = self.profile.plan(self.name), self.compute.device
        rows, context = plan.device_batch_size, plan.max_seq_len
        if self.name == "base":
            source = text_source(self.profile.data or self.profile.source, split, shards=self.profile.shards)
            return PackedBatches(source, self.tokenizer, rows, context, device=device)
        task = conversations(self.profile, self.name, split)
        supervise = "all" if self.name == "mid" else "assistant"
        return ConversationBatches(
            task, self.tokenizer, rows, context, supervise=supervise, seed=self.profile.seed, device=device
        )

    def data_state(self) -> dict[str, Any]:
        return {"batches": self.batches.state_dict()}

    def load_data_state(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state["batches"])

    def records(self) -> Iterator[StepRecord]:
        return fit(
            self.model, self.optimizers, self.batches, self.schedule, start=self.start,
            micro_batches=self.profile.plan(self.name).micro_batches,
            grad_clip=self.profile.grad_clip, compute=self.compute,
        )  # fmt: skip

    def validation(self) -> TextLoss:
        """Loss and bits per byte on the stage's validation data, the same batches each time."""
        plan = self.profile.plan(self.name)
        batches = self.batches_of("val")
        count = max(1, plan.eval_tokens // (plan.device_batch_size * plan.max_seq_len))
        with self.compute.autocast():
            result = text_loss(
                self.model, (next(batches) for _ in range(count)), self.tokenizer.token_bytes()
            )
        self.model.train()
        return result


class ReinforcementStage(Stage):
    """GRPO on problems whose answers can be checked."""

    def make_schedule(self) -> Schedule:
        return Schedule(self.profile.rl.num_iterations, warmdown_ratio=1.0, final_fraction=0.1)

    def prepare_data(self) -> None:
        self.task = reinforcement_task(self.profile)
        self.engine = Engine(self.model, self.tokenizer)

    def reference(self) -> GPT | None:
        """The model that this stage started from, towards which the KL penalty pulls; None without one."""
        if self.profile.rl.kl_weight == 0 or not self.parent_meta:
            return None
        model = copy.deepcopy(self.model).eval()  # a new one would draw from the random state
        start = find_checkpoint(self.run, self.parent_meta["stage"], self.parent_meta["step"])
        load_checkpoint(start, model=model, tokenizer=self.tokenizer)
        return model

    def records(self) -> Iterator[RLRecord]:
        return grpo(
            self.model, engine_for(self.engine), self.optimizers, self.task, self.profile.rl, self.schedule,
            start=self.start, seed=self.profile.seed, grad_clip=self.profile.grad_clip,
            reference=self.reference(), compute=self.compute,
        )  # fmt: skip

    def validation(self) -> Score:
        """Sampled accuracy on held-out problems, at the temperature of training; the same ones each time."""
        plan = self.profile.rl
        task = reinforcement_task(self.profile, "val")
        self.model.eval()
        return accuracy(
            self.engine, task, plan.eval_examples, max_tokens=plan.max_new_tokens,
            temperature=plan.temperature, top_k=plan.top_k or None, seed=self.profile.seed,
        )  # fmt: skip


def sum_of_weights(model: GPT) -> float:
    """Of their absolute values, on the CPU: MPS has no float64."""
    return sum(p.detach().cpu().double().abs().sum().item() for p in model.parameters())


def open_stage(
    profile: Profile, stage: str, tag: str, **options: Any
) -> SupervisedStage | ReinforcementStage:
    """The stage, ready to train or to continue. Raises CheckpointError when its parent is missing."""
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}.\nThe stages are {', '.join(STAGES)}.")
    kind = ReinforcementStage if stage == "rl" else SupervisedStage
    if ranks.world_size() == 1:
        return kind(profile, stage, tag, **options)
    if options.get("compute") is None:
        options["compute"] = compute_for(profile, stage, run_dir(tag), options.get("parent"))
    with ranks.main_first():
        work = kind(profile, stage, tag, **options)
    ranks.check_alike(
        step=work.start, settings=profile, tokenizer=work.tokenizer.hash(), data=work.data_state(),
        weights=f"{sum_of_weights(work.model):.6g}",
    )  # fmt: skip
    return work
