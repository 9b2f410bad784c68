"""Checkpoints: whole folders or none, checked by SHA-256, and nothing in them can run code.

A run is a folder with `tokenizer.json` and a folder for each stage; a stage holds `step-NNNNNN/` folders:

    model.safetensors       the weights
    optimizer.safetensors   the tensors of optimizers and random state (absent without optimizers)
    optimizer.json          the rest of the optimizers' state
    state.json              where the data stood, as the caller gave it
    meta.json               model_config, tokenizer (its hash), stage, step, parent, profile, dtype
    manifest.json           size and SHA-256 of each of the above, and of itself; written last

The folder is built under another name and renamed when complete, so a crash leaves no half of one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, overload

import safetensors
import torch
from torch import Tensor, nn

from nanolab.checkpoint_files import (
    damaged,
    pack,
    read_json,
    read_tensors,
    unpack,
    verify_checkpoint,
    write_file,
    write_manifest,
)
from nanolab.errors import CheckpointError, ConfigError, NanolabError
from nanolab.model import GPT, GPTConfig
from nanolab.paths import SCRATCH, home, run_dir
from nanolab.tokenizer import Tokenizer

STAGES = ("base", "mid", "sft", "rl")
STEP_FOLDER = re.compile(r"step-(\d{6,12})")
ABANDONED_AFTER = 600  # seconds: then an unfinished folder belongs to nobody who is still writing it


# ---- saving


def save_checkpoint(
    run: Path,
    stage: str,
    step: int,
    *,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    meta: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Write `run/stage/step-NNNNNN/` and return it; older ones than the newest `keep` are deleted.

    meta: JSON-able; at least `tokenizer` (the tokenizer's hash) and `model_config`, for `load_model`.
    `stage` and `step` are added. state: what the caller needs to resume, of dicts, lists, tuples, numbers,
    strings, None and tensors; it comes back equal. With optimizers, torch's CPU random state is kept too.
    Raises CheckpointError when it cannot be written; earlier checkpoints are then as they were.
    """
    final = run / stage / f"step-{step:06d}"
    temporary = final.with_name(f".tmp-{final.name}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        _write_files(temporary, model, optimizers, {**meta, "stage": stage, "step": step}, dict(state or {}))
        if final.exists():
            final.rename(final.with_name(f".tmp-old-{uuid.uuid4().hex[:8]}"))
        temporary.rename(final)
        _sync(final.parent)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint of {stage}, step {step}, could not be saved in {run}: {error}.\n"
            "Free some disk space (or check the folder's permissions), then run the same command again: "
            "it continues from the last checkpoint that was saved."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _clean(final, keep)
    return final


def _write_files(
    folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], meta: dict, state: dict
) -> None:
    tensors: dict[str, Tensor] = {}
    rest = {"state": pack(state, "state", tensors)}
    if optimizers:
        rest["torch_rng"] = pack(torch.get_rng_state(), "torch_rng", tensors)
        packed = [pack(optimizer.state_dict(), f"{i}", tensors) for i, optimizer in enumerate(optimizers)]
        write_file(folder / "optimizer.json", packed)
    if tensors:
        write_file(folder / "optimizer.safetensors", tensors)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_file(folder / "model.safetensors", weights)
    write_file(folder / "state.json", rest)
    write_file(folder / "meta.json", meta)
    write_manifest(folder)


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut, where a folder can be opened for that (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _clean(newest: Path, keep: int) -> None:
    """Delete checkpoints older than `newest` beyond `keep`, and what interrupted saves left behind."""
    older = [folder for folder in _step_folders(newest.parent) if _step(folder) < _step(newest)]
    for folder in older[max(0, keep - 1) :]:
        # Renamed first: a crash halfway through deleting must not leave a folder that looks like one.
        with contextlib.suppress(OSError):
            folder.rename(folder.with_name(f".tmp-old-{uuid.uuid4().hex[:8]}"))
    for folder in newest.parent.glob(".tmp-*"):
        with contextlib.suppress(OSError):
            age = time.time() - folder.stat().st_mtime
            if folder.name.startswith(".tmp-old-") or age > ABANDONED_AFTER:
                shutil.rmtree(folder, ignore_errors=True)


# ---- loading


def load_checkpoint(
    path: Path,
    *,
    model: nn.Module | None = None,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    tokenizer: Tokenizer | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Verify a checkpoint, load it into `model` and `optimizers`, and return (meta, state).

    With optimizers, torch's CPU random state is restored too: training then goes on bit for bit. Raises
    CheckpointError, before anything is changed, for a checkpoint that is damaged, has other shapes, or was
    made with another tokenizer than `tokenizer`.
    """
    return _load(path, verify_checkpoint(path), model, optimizers, tokenizer)


def _load(
    path: Path,
    files: set[str],
    model: nn.Module | None,
    optimizers: Sequence[torch.optim.Optimizer],
    tokenizer: Tokenizer | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`load_checkpoint` for a folder that was verified."""
    meta, rest = read_json(path / "meta.json", dict), read_json(path / "state.json", dict)
    if tokenizer is not None and meta.get("tokenizer") != tokenizer.hash():
        raise CheckpointError(
            f"the checkpoint {path} was made with another tokenizer than this run's tokenizer.json.\n"
            "Its numbers would stand for other words. Use the tokenizer.json it was trained with."
        )
    tensors = read_tensors(path / "optimizer.safetensors") if "optimizer.safetensors" in files else {}
    try:
        state, rng = unpack(rest["state"], tensors), unpack(rest.get("torch_rng"), tensors)
    except (LookupError, TypeError, ValueError) as error:
        raise damaged(path, f"state.json does not fit optimizer.safetensors ({error})") from error
    saved = _optimizer_states(path, files, optimizers, tensors) if optimizers else []
    if model is not None:
        weights = read_tensors(path / "model.safetensors")
        _check_weights(path, weights, model)
        model.load_state_dict(weights)
    for optimizer, optimizer_state in zip(optimizers, saved, strict=True):
        optimizer.load_state_dict(optimizer_state)
    if optimizers and isinstance(rng, Tensor):
        torch.set_rng_state(rng)
    return meta, state


def _check_weights(path: Path, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ weights.keys()):
        where = "the checkpoint lacks" if name in expected else "the checkpoint has, and the model lacks,"
        raise CheckpointError(f"{path} belongs to another model: {where} {name}.\n{_OTHER_MODEL}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path} belongs to another model: {name} is {tuple(tensor.shape)} in the checkpoint "
                f"and {tuple(expected[name].shape)} in the model.\n{_OTHER_MODEL}"
            )


_OTHER_MODEL = "Use the depth, vocabulary and profile the run was started with, or start a new run."


def _optimizer_states(
    path: Path,
    files: set[str],
    optimizers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
) -> list[dict[str, Any]]:
    """One state a given optimizer, each checked to belong to parameters of the same shapes."""
    if "optimizer.json" not in files:
        raise CheckpointError(f"{path} was saved without optimizers: it cannot be trained further.")
    packed = read_json(path / "optimizer.json", list)
    try:
        states = [unpack(item, tensors) for item in packed]
        fit = len(states) == len(optimizers) and all(map(_fits, states, optimizers))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, f"optimizer.json does not fit optimizer.safetensors ({error})") from error
    if not fit:
        raise CheckpointError(f"{path} was saved with other optimizers than these.\n{_OTHER_MODEL}")
    return states


def _fits(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> bool:
    """Groups of as many parameters; each tensor of a parameter's state is one number, of its shape, or of one
    number for each of its rows or columns."""
    groups = optimizer.param_groups
    sizes = [len(group["params"]) for group in groups]
    if [len(group["params"]) for group in state["param_groups"]] != sizes:
        return False
    params = [param for group in groups for param in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    shapes = {number: param.shape for number, param in zip(numbers, params, strict=True)}
    return all(
        item.dim() == 0
        or (
            item.dim() == len(shapes[number])
            and all(a in (1, b) for a, b in zip(item.shape, shapes[number], strict=True))
        )
        for number, slots in state["state"].items()
        for item in slots.values()
        if isinstance(item, Tensor)
    )


# ---- finding


def _step(folder: Path) -> int:
    match = STEP_FOLDER.fullmatch(folder.name)
    return int(match[1]) if match else -1


def _step_folders(stage: Path) -> list[Path]:
    """The folders that claim to be checkpoints, newest first; without a manifest a folder is none."""
    found = [path for path in stage.glob("step-*") if _step(path) >= 0 and (path / "manifest.json").is_file()]
    return sorted(found, key=_step, reverse=True)


@overload
def find_checkpoint(
    run: Path, stage: str, step: int | None = None, *, missing_ok: Literal[False] = False
) -> Path: ...
@overload
def find_checkpoint(run: Path, stage: str, step: int | None = None, *, missing_ok: bool) -> Path | None: ...
def find_checkpoint(run, stage, step=None, *, missing_ok=False):
    """The newest valid checkpoint of a stage, or the one of `step`.

    A damaged one is passed over for the one before it, with a warning. Raises CheckpointError when there
    is none (with `missing_ok` returns None), or when all are damaged.
    """
    found = _find(run, stage, step)
    if found is None and not missing_ok:
        raise _missing(run, stage, step)
    return found[0] if found else None


def format_of(run: Path, stage: str) -> str | None:
    """The number format in which a stage's newest checkpoint was trained; None where none tells."""
    with warnings.catch_warnings():  # of a damaged one: whoever loads it is told
        warnings.simplefilter("ignore")
        folder = find_checkpoint(run, stage, missing_ok=True)
    return read_json(folder / "meta.json", dict).get("dtype") if folder else None


def _find(run: Path, stage: str, step: int | None) -> tuple[Path, set[str]] | None:
    """A checkpoint and its files' names, verified."""
    folders = [folder for folder in _step_folders(run / stage) if step is None or _step(folder) == step]
    for folder in folders:
        try:
            return folder, verify_checkpoint(folder)
        except CheckpointError as error:
            if folder is folders[-1]:
                raise
            warnings.warn(f"{error}\nFor now the one before it is used.", stacklevel=3)
    return None


def _missing(run: Path, stage: str, step: int | None) -> CheckpointError:
    steps = [_step(folder) for folder in _step_folders(run / stage)]
    if step is not None and steps:
        return CheckpointError(f"{run} has no {stage} checkpoint of step {step}; it has {sorted(steps)}.")
    have = [name for name in STAGES if _step_folders(run / name)]
    return CheckpointError(
        f"{run} has no {stage} checkpoint yet; it has {', '.join(have) or 'none at all'}.\n"
        f"Train it with: nanolab {stage} --model-tag {run.name}"
    )


@dataclass(frozen=True)
class RunInfo:
    """A run on disk: its stages' steps in ascending order, and when it was last written (Unix seconds)."""

    tag: str
    stages: dict[str, list[int]]
    time: float


def list_runs() -> list[RunInfo]:
    """All runs that have a checkpoint, the most recently written first, throw-away runs last.

    Nothing is verified.
    """
    runs = []
    for folder in (home() / "runs").glob("[!.]*"):
        found = {stage: steps for stage in STAGES if (steps := _step_folders(folder / stage)[::-1])}
        times = [(path / "manifest.json").stat().st_mtime for steps in found.values() for path in steps]
        if times:
            stages = {stage: [_step(path) for path in steps] for stage, steps in found.items()}
            runs.append(RunInfo(folder.name, stages, max(times)))
    return sorted(runs, key=lambda run: (not run.tag.startswith(SCRATCH), run.time), reverse=True)


def load_model(
    source: str,
    device: torch.device | str | None = None,
    phase: str = "eval",
    model_tag: str | None = None,
    step: int | None = None,
) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """The model of a stage ("base", "mid", "sft" or "rl"), its tokenizer and its meta.

    model_tag: which run; None is the most recently written one that has the stage. step: None is the
    newest. device: None is the CPU. phase: "eval" or "train", the mode the model is left in. Raises
    CheckpointError for a checkpoint that is missing, damaged, or does not fit its tokenizer or model.
    """
    for value, choices in ((source, STAGES), (phase, ("eval", "train"))):
        if value not in choices:
            raise ConfigError(f"{value!r} is not one of {', '.join(choices)}.")
    run = run_dir(model_tag or latest_tag(source))
    found = _find(run, source, step)
    if found is None:
        raise _missing(run, source, step)
    path, files = found
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    meta = read_json(path / "meta.json", dict)
    if meta.get("stage") != source:
        raise CheckpointError(f"{path} is a checkpoint of stage {meta.get('stage')}, not of {source}.")
    config = config_of(path, meta)
    if config.vocab_size < tokenizer.get_vocab_size():
        raise CheckpointError(
            f"{path} knows {config.vocab_size} tokens, its tokenizer has {tokenizer.get_vocab_size()}.\n"
            "Use the tokenizer.json it was trained with."
        )
    model = GPT(config)
    _load(path, files, model, (), tokenizer)
    return model.to(device or "cpu").train(phase == "train"), tokenizer, meta


def latest_tag(stage: str) -> str:
    """The newest run that has the stage; the newest of all, to say what it lacks, where none has.

    Raises CheckpointError when there is no run.
    """
    runs = list_runs()
    if not runs:
        where = home() / "runs"
        raise CheckpointError(f"there is no trained model in {where} yet.\nTrain one with: nanolab run")
    return next((run.tag for run in runs if stage in run.stages), runs[0].tag)


def config_of(path: Path, meta: Mapping[str, Any]) -> GPTConfig:
    """The `model_config` of the checkpoint at `path`, where nothing is unknown, and no size missing.

    Checkpoints from before a part was a setting do not name it: they are of models without it. Raises
    CheckpointError, also for a value of another kind.
    """
    given = meta.get("model_config")
    names = {field.name for field in fields(GPTConfig)}
    sizes = {field.name for field in fields(GPTConfig) if type(field.default) is int and field.default}
    if not isinstance(given, dict) or not sizes <= set(given) <= names:
        found = set(given if isinstance(given, dict) else ())
        wrong = sorted((sizes - found) | (found - names))
        raise CheckpointError(
            f"{path}: its model_config is not one of this nanolab's; look at: {', '.join(map(str, wrong))}.\n"
            "Was it saved by another version? Update nanolab, or use that version."
        )
    try:
        return GPTConfig(**given)
    except NanolabError as error:
        raise CheckpointError(f"{path}: its model_config cannot be built: {error}") from error
