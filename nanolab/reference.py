"""The reference checkpoint: the four stages of one laptop run, shipped for those who have none of their own.

Weights are kept as 8-bit integers, a row of a matrix sharing one fp32 scale: a quarter of the size, and
answers that hardly differ. `about.json` says how they were made and holds the SHA-256 of every file.

To make it anew, train a run with `nanolab run --tag reference-run`, then in Python
`nanolab.reference.build("reference-run")`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from nanolab.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from nanolab.errors import CheckpointError
from nanolab.model import GPT, GPTConfig
from nanolab.paths import atomic_write, run_dir
from nanolab.profiles import STAGES
from nanolab.tinyworld.documents import documents
from nanolab.tokenizer import Tokenizer

TAG = "reference"
TEXTS = ("tokenizer.json", "profile.json")
DATA = "the first 1,000 training documents of TinyWorld, joined by newlines"


def folder() -> Path:
    """Where the shipped files are."""
    return Path(str(resources.files("nanolab"))) / "reference_data"


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`(rows, cols)` -> 8-bit integers of the same shape, and a scale for each row `(rows, 1)`.

    A row of zeros stays zeros. `integers * scale` is at most half a scale away from the weight.
    """
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().to(torch.int8), scale


def build(
    tag: str, home: Path | None = None, *, command: str | None = None, target: Path | None = None
) -> Path:
    """Make the reference from the run `tag`, which has all four stages; returns its folder.

    home: the NANOLAB_HOME of that run, if not this one's. command: what trained it. target: where to write,
    if not into the package. Raises CheckpointError when a stage is missing, before anything is written.
    """
    run = home / "runs" / tag if home else run_dir(tag)
    found = {stage: find_checkpoint(run, stage) for stage in STAGES}
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    profile = json.loads((run / "profile.json").read_text(encoding="utf-8"))
    target = target or folder()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in TEXTS:
        shutil.copyfile(run / name, target / name)
    stages = {}
    for stage, path in found.items():
        meta, _ = load_checkpoint(path, tokenizer=tokenizer)
        model = GPT(GPTConfig(**meta["model_config"]))
        load_checkpoint(path, model=model)
        tensors = {}
        for name, weight in model.state_dict().items():
            # A vector is rows of one number, which keep their value.
            tensors[name], tensors[f"{name}.scale"] = quantise(weight.reshape(len(weight), -1))
        safetensors.torch.save_file(tensors, target / f"{stage}.safetensors")
        stages[stage] = {key: meta[key] for key in ("step", "parent", "tokenizer", "seed", "model_config")}
    about = {
        "command": command or f"nanolab run --profile {profile['name']} --tag {tag}",
        "profile": profile["name"],
        "seed": profile["seed"],
        "data": DATA,
        "data_sha256": data_hash(),
        "stages": stages,
        "files": {path.name: _sha256(path) for path in sorted(target.iterdir())},
    }
    atomic_write(target / "about.json", json.dumps({**about, "sha256": _digest(about)}, indent=1) + "\n")
    return target


def unpack(source: Path | None = None) -> str:
    """Write the reference as an ordinary run of this machine, once, and return its tag.

    Raises CheckpointError when a shipped file is damaged or missing; what was unpacked before then stays.
    """
    source = source or folder()
    about, run = read_about(source), run_dir(TAG)
    if _is_unpacked(run, about):
        return TAG
    for name, wanted in about["files"].items():
        if not (source / name).is_file() or _sha256(source / name) != wanted:
            raise _damaged(source / name)
    run.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(dir=run.parent, prefix=f".{TAG}-"))
    try:
        _write_run(source, half, about)
        shutil.rmtree(run, ignore_errors=True)
        half.rename(run)
    except OSError as error:
        # Another notebook may have unpacked it meanwhile.
        if not _is_unpacked(run, about):
            raise CheckpointError(
                f"the reference model could not be unpacked into {run}: {error}.\n"
                "Free some disk space, or delete that folder, and run the cell again."
            ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return TAG


def _write_run(source: Path, run: Path, about: dict[str, Any]) -> None:
    for name in TEXTS:
        atomic_write(run / name, _content(source / name))
    for stage, meta in about["stages"].items():
        tensors = safetensors.torch.load_file(source / f"{stage}.safetensors")
        model = GPT(GPTConfig(**meta["model_config"]))
        shapes = {name: weight.shape for name, weight in model.state_dict().items()}
        weights = {name: tensors[name].float() * tensors[f"{name}.scale"] for name in shapes}
        model.load_state_dict({name: weights[name].reshape(shape) for name, shape in shapes.items()})
        rest = {key: value for key, value in meta.items() if key != "step"}
        rest |= {"profile": about["profile"], "reference": True}
        made = save_checkpoint(run, stage, meta["step"], model=model, meta=rest)
        # The newest run is what `nanolab chat` talks to by itself: the reference must never be that.
        os.utime(made / "manifest.json", (0, 0))
    atomic_write(run / "about.json", json.dumps(about, indent=1) + "\n")


def _is_unpacked(run: Path, about: dict[str, Any]) -> bool:
    """Whether `run` holds this very reference, whole."""
    try:
        return (
            json.loads((run / "about.json").read_text(encoding="utf-8")) == about
            and all(_sha256(run / name) == about["files"][name] for name in TEXTS)
            and all(find_checkpoint(run, stage, missing_ok=True) for stage in STAGES)
        )
    except (OSError, ValueError, CheckpointError):
        return False


def read_about(source: Path | None = None) -> dict[str, Any]:
    """What is known of the reference: command, profile, seed, data, stages and the SHA-256 of each file."""
    path = (source or folder()) / "about.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        intact = about["sha256"] == _digest({key: about[key] for key in about if key != "sha256"})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(path) from error
    if not intact:
        raise _damaged(path)
    return about


def data_hash() -> str:
    """SHA-256 of the beginning of TinyWorld's training text: another text gives another one."""
    text = "\n".join(islice(documents("train"), 1000))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}, a part of the reference model that comes with nanolab, is missing or damaged.\n"
        "Get it back with git checkout, or pip install --force-reinstall."
    )


def _content(path: Path) -> bytes:
    """A file's bytes; text as it was committed, since git may have given it Windows' line ends."""
    content = path.read_bytes()
    return content.replace(b"\r\n", b"\n") if path.suffix == ".json" else content


def _sha256(path: Path) -> str:
    return hashlib.sha256(_content(path)).hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()
