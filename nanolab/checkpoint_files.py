"""The files of a checkpoint's folder: JSON and safetensors, and the manifest that vouches for them.

Nothing is pickled: state of dicts, lists and tensors is JSON, with its tensors kept apart (`pack`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from nanolab.errors import CheckpointError
from nanolab.paths import atomic_write

FORMAT = 1
REQUIRED_FILES = {"model.safetensors", "state.json", "meta.json"}
OPTIONAL_FILES = {"optimizer.safetensors", "optimizer.json"}


def write_file(path: Path, content: Any) -> None:
    """Tensors as safetensors, anything else as JSON; on the disk, not only in a cache, when this returns."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as plain JSON; each tensor in it is put into `tensors` under a name made from its place."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"$tensor": name}
    if isinstance(value, Mapping):
        pairs = [(key, pack(item, f"{name}.{key}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$dict": pairs}
    if isinstance(value, (list, tuple)):
        items = [pack(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"{name} is a {type(value).__name__}, which a checkpoint cannot hold.\n"
        "Use numbers, strings, None, tensors, and lists, tuples and dicts of them."
    )


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(unpack(value["$tuple"], tensors))
    if "$dict" in value:
        return {key: unpack(item, tensors) for key, item in value["$dict"]}
    return {key: unpack(item, tensors) for key, item in value.items()}


def write_manifest(folder: Path) -> None:
    """Write `manifest.json` for the files that are in `folder` now."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name in REQUIRED_FILES | OPTIONAL_FILES
    }
    content = {"files": files, "format": FORMAT}
    atomic_write(folder / "manifest.json", _canonical({**content, "sha256": _digest(content)}))


def verify_checkpoint(folder: Path) -> set[str]:
    """Check every file against the manifest and return their names. Raises CheckpointError for a flaw."""
    files = _read_manifest(folder)
    strange = {path.name for path in folder.glob("*.safetensors")} - set(files)
    if strange:
        raise damaged(folder, f"{min(strange)} is not in its manifest")
    for name, expected in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise damaged(folder, f"{name} has {size:,} bytes, not {expected['bytes']:,}")
            if _sha256(path) != expected["sha256"]:
                raise damaged(folder, f"{name} is not what was saved (its SHA-256 differs)")
        except OSError as error:
            raise damaged(folder, f"{name} cannot be read ({error})") from error
    return set(files)


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        content = {"files": manifest["files"], "format": manifest["format"]}
        intact = raw == _canonical({**content, "sha256": _digest(content)}).encode("utf-8")
        names = {name for name, entry in manifest["files"].items() if entry.keys() == {"bytes", "sha256"}}
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no checkpoint: it has no manifest.json.") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, f"manifest.json cannot be read ({type(error).__name__})") from error
    if not intact:
        raise damaged(folder, "manifest.json is not what was saved")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{folder} has checkpoint format {content['format']}; this nanolab reads format {FORMAT}.\n"
            "Update nanolab (pip install --upgrade), or use the version that saved it."
        )
    if absent := REQUIRED_FILES - names:
        raise damaged(folder, f"its manifest does not list {min(absent)}")
    if strange := content["files"].keys() - REQUIRED_FILES - OPTIONAL_FILES:
        raise damaged(folder, f"its manifest lists {min(strange)!r}, which is no file of a checkpoint")
    return content["files"]


def _canonical(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _digest(content: Any) -> str:
    return hashlib.sha256(_canonical(content).encode("utf-8")).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {folder} is damaged: {what}.\n"
        "Delete this folder: the run then continues from the checkpoint before it."
    )


def read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path.parent, f"{path.name} cannot be read ({error})") from error
    if not isinstance(content, kind):
        raise damaged(path.parent, f"{path.name} should hold a {kind.__name__}")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise damaged(path.parent, f"{path.name} is not in the safetensors format ({error})") from error
