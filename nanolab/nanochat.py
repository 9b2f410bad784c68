"""nanochat's published models as runs: its tokenizer.pkl, model_NNNNNN.pt and meta_NNNNNN.json.

    import_run("nanochat-d32/", "nanochat-d32/tokenizer.pkl", "d32")

and then `nanolab chat --source sft --model-tag d32`. Two nanochats can be read: that of October to December
2025 (d20, d32), and that of 14 March 2026 and later. A checkpoint does not say which it is of, and the
numbers that nanochat keeps in its code (rotary base, gain of queries and keys, cap of the logits) are not in
it: the names of its tensors decide. What lies between, when these changed every few weeks, is refused.

Both pickles come from strangers, so neither is unpickled on trust. The tokenizer's is read by an interpreter
that has no instruction to call anything (`unpickle.py`). The weights' is searched for names it should not
have, then given to torch with `weights_only=True`, and stays in the file until it is copied out of it.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from nanolab.checkpoint import save_checkpoint
from nanolab.errors import CheckpointError, ConfigError, DataError, NanolabError
from nanolab.model import GPT, LONGEST_PATTERN, GPTConfig
from nanolab.paths import atomic_write, run_dir
from nanolab.profiles import STAGES, get_profile, override
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer, split_pattern
from nanolab.unpickle import LARGEST_PICKLE, Encoding, Refused, read_pickle, shown, strange_name

LONGEST_CONTEXT = 2**17
"""tokens; nanochat's models have 2,048"""
LARGEST_PADDING = 127
"""rows of the embedding beyond the vocabulary: nanochat rounds up to a multiple of 64"""

STATE_DICT_GLOBALS = {
    "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    "torch FloatStorage", "torch BFloat16Storage", "torch HalfStorage",
}  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

UNTRUSTED = "Nothing of it was run. Fetch it again from a source you trust."
MISMATCH = "The model_*.pt, meta_*.json and tokenizer.pkl of one training belong together: fetch all three."
PARTS = {
    "value_embeds": "value embeddings",
    "attn.ve_gate": "gates of value embeddings",
    "resid_lambdas": "a scale for each layer's residual stream",
    "x0_lambdas": "the embedding added again in each layer",
    "smear_gate": "each token mixed with the one before",
    "smear_lambda": "each token mixed with the one before",
    "backout_lambda": "an earlier layer subtracted at the end",
}
"""What nanochat's models have gained since January 2026, by the name it has in their files. The last three
came on 14 March, together with the last change of what its code alone says."""

OF_2026: dict[str, Any] = {
    "value_embeddings": True, "residual_scalars": True, "smear": True, "backout": True,
    "qk_gain": 1.2, "rotary_base": 100_000.0,
}  # fmt: skip
"""a model that has all of PARTS"""


# ---- the tokenizer


def import_tokenizer(path: Path | str) -> Tokenizer:
    """nanochat's `tokenizer.pkl` as a Tokenizer; `save` then keeps it as JSON. Nothing in the file is run.

    Raises DataError, before anything else happens, for a file that is not nanochat's vocabulary.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > LARGEST_PICKLE:
            raise Refused(f"it has {size:,} bytes, and a tokenizer less than {LARGEST_PICKLE:,}")
        return _tokenizer_of(read_pickle(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file.\nnanochat keeps its own in ~/.cache/nanochat/tokenizer; a "
            "published model has it beside its weights."
        ) from None
    except (Refused, DataError) as error:
        what = str(error).split("\n")[0].removesuffix(".")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"it is damaged, or no pickle ({type(error).__name__}: {shown(str(error))})"
    raise DataError(f"{path} is not imported: {what}.\n{UNTRUSTED}")


def _tokenizer_of(value: Any) -> Tokenizer:
    state = value.state if isinstance(value, Encoding) else None
    if not isinstance(state, dict) or not {"pat_str", "mergeable_ranks", "special_tokens"} <= state.keys():
        raise Refused("it is not the vocabulary of a tiktoken Encoding")
    ranks, special, pattern = state["mergeable_ranks"], state["special_tokens"], state["pat_str"]
    if not isinstance(ranks, dict) or not all(
        isinstance(token, bytes) and isinstance(rank, int) for token, rank in ranks.items()
    ):
        raise Refused("its mergeable_ranks are not bytes with their ranks")
    if special != {name: len(ranks) + number for number, name in enumerate(SPECIAL_TOKENS)}:
        names = " ".join(map(str, special)) if isinstance(special, dict) else type(special).__name__
        raise Refused(f"its special tokens are not nanochat's nine, after all others: {shown(names)}")
    # A stranger's regular expression could take for ever: only the known one is let in.
    if not any(pattern == split_pattern(digits) for digits in range(1, 10)):
        pattern = pattern if isinstance(pattern, str) else type(pattern).__name__
        raise Refused(f"its split pattern is not nanochat's: {shown(pattern)}")
    return Tokenizer(ranks, pattern)


# ---- the weights


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `model_NNNNNN.pt`, mapped from the file, without torch.compile's `_orig_mod.`

    Every byte is checked against the archive's checksums first: of 400 single flipped bits, torch alone let
    368 pass. Raises CheckpointError for a file that is damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file.\nDownload it beside its meta_*.json.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_archive(path, archive)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        _refuse(path, f"it is cut short, or was not written by torch.save ({shown(str(error))})")
    try:
        loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # whatever a stranger's file makes torch stumble over, it is not a model
        _refuse(path, f"torch cannot read it ({shown(str(error))})")
    if not isinstance(loaded, dict):
        _refuse(path, f"it holds a {type(loaded).__name__} instead of named tensors")
    weights = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.dtype not in DTYPES:
            _refuse(path, f"{shown(repr(name))} is no tensor of floating-point numbers")
        if tensor.layout != torch.strided or not tensor.is_contiguous():
            _refuse(path, f"{shown(name)} does not lie in one piece")
        weights[name.removeprefix("_orig_mod.")] = tensor.detach()
    return weights


def _check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that is packed (it could swell), damaged, or whose pickle names strange things."""
    pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
        _refuse(path, "it has not the one list of tensors that torch.save writes")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        _refuse(path, "it is a compressed archive, which torch.save never writes")
    if damaged := archive.testzip():
        _refuse(path, f"{shown(damaged)} in it is not what was saved (its checksum differs)")
    if strange := strange_name(archive.read(pickles[0]), STATE_DICT_GLOBALS):
        _refuse(path, f"it asks for {strange}, which no tensor needs")


def _refuse(path: Path, what: str, advice: str = UNTRUSTED) -> NoReturn:
    raise CheckpointError(f"{path} is not imported: {what}.\n{advice}")


# ---- the run


def import_run(folder: Path | str, tokenizer_path: Path | str | None, tag: str, source: str = "sft") -> Path:
    """A nanochat checkpoint as the stage `source` of the run `tag`, for `load_model`; returns its folder.

    folder: holds model_NNNNNN.pt and meta_NNNNNN.json; of several steps the last is taken. tokenizer_path:
    tokenizer.pkl, or an imported tokenizer.json; None looks for tokenizer.pkl in `folder` and where nanochat
    keeps it. Weights keep their number format. Padding of the vocabulary is cut off, as nanochat does before
    it samples. Everything is checked before anything is written. Raises CheckpointError for a checkpoint
    that is damaged, newer, or does not fit its meta file or tokenizer, DataError for a tokenizer, ConfigError
    for a stage that the run has already.
    """
    if source not in STAGES:
        raise ConfigError(f"there is no stage {source!r}.\nThe stages are {', '.join(STAGES)}.")
    run, folder = run_dir(tag), Path(folder).expanduser()
    if any((run / source).glob("step-*")):
        raise ConfigError(f"the run {tag!r} has a {source} checkpoint already.\nChoose another --model-tag.")
    model_path, step = _newest(folder)
    tokenizer = _find_tokenizer(folder, tokenizer_path)
    saved = run / "tokenizer.json"
    if saved.exists() and Tokenizer.load(saved).hash() != tokenizer.hash():
        raise ConfigError(f"the run {tag!r} has another tokenizer.\nChoose another --model-tag.")
    meta_path = folder / model_path.name.replace("model_", "meta_").replace(".pt", ".json")
    config = read_config(meta_path, step)
    model = _fitted(model_path, read_weights(model_path), config, tokenizer)
    if not saved.exists():
        tokenizer.save(saved)
    profile = _profile(model.config, tokenizer)
    if profile and not (run / "profile.json").exists():
        atomic_write(run / "profile.json", profile)
    save_checkpoint(
        run, source, step, model=model,
        meta={
            "model_config": asdict(model.config), "tokenizer": tokenizer.hash(), "parent": None,
            "profile": "gpu" if profile else None, "imported": model_path.name,
        },
    )  # fmt: skip
    return run


def _newest(folder: Path) -> tuple[Path, int]:
    """The weights of the last step in a folder, and the step."""
    found = {
        int(match[1]): path
        for path in folder.glob("model_*.pt")
        if (match := re.fullmatch(r"model_([0-9]{1,9})\.pt", path.name))
    }
    if not found:
        raise CheckpointError(
            f"{folder} holds no nanochat checkpoint: there is no model_NNNNNN.pt.\n"
            "Give the folder itself, for example ~/.cache/nanochat/chatsft_checkpoints/d20."
        )
    return found[max(found)], max(found)


def _find_tokenizer(folder: Path, path: Path | str | None) -> Tokenizer:
    if path is None:
        # ~/.cache/nanochat/tokenizer/tokenizer.pkl, seen from ~/.cache/nanochat/chatsft_checkpoints/d20
        places = [folder / "tokenizer.pkl", folder.resolve().parent.parent / "tokenizer" / "tokenizer.pkl"]
        path = next((place for place in places if place.exists()), places[0])
    return Tokenizer.load(path) if Path(path).suffix == ".json" else import_tokenizer(path)


def read_config(path: Path, step: int | None = None) -> GPTConfig:
    """The sizes and windows in a `meta_NNNNNN.json`, of a model without the parts that only its weights show.

    Raises CheckpointError for sizes or settings that nanolab lacks.
    """
    try:
        if path.stat().st_size > LARGEST_PICKLE:
            raise ValueError("it is too large")
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no such file.\nIt says how large the model is: download it with the weights."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        _refuse(path, f"it is no JSON, or cut short ({shown(str(error))})")
    given = meta.get("model_config") if isinstance(meta, dict) else None
    if not isinstance(given, dict):
        _refuse(path, 'it has no "model_config"')
    sizes = {field.name for field in fields(GPTConfig) if type(field.default) is int and field.default}
    if unknown := sorted(map(str, given.keys() - sizes - {"window_pattern"})):
        raise _unknown(path, f"its model_config has {_listed(unknown)}")
    if missing := sorted(sizes - given.keys()):
        _refuse(path, f"its model_config lacks {', '.join(missing)}")
    if wrong := [name for name in sizes if type(given[name]) is not int or not 0 < given[name] < 2**31]:
        _refuse(path, f"its {min(wrong)} is no positive whole number")
    # nanochat, too, takes a model without a pattern for one of full attention, and small letters for large.
    pattern = given.get("window_pattern", "L")
    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
        _refuse(path, f"its window_pattern is no text of at most {LONGEST_PATTERN} letters")
    if given["sequence_len"] > LONGEST_CONTEXT:
        _refuse(path, f"its context of {given['sequence_len']:,} tokens is more than any nanochat's")
    if step is not None and meta.get("step", step) != step:
        found = shown(str(meta["step"]))
        _refuse(path, f"it belongs to step {found}, and the weights to step {step}", MISMATCH)
    try:
        return GPTConfig(**{**given, "window_pattern": pattern.upper()})
    except NanolabError as error:
        _refuse(path, f"its model_config cannot be built: {str(error).splitlines()[0].removesuffix('.')}")


def _with_its_parts(path: Path, config: GPTConfig, names: Collection[str]) -> GPTConfig:
    """`config` with the parts that a model of these tensors has: none of PARTS, or all."""
    stems = {re.sub(r"^(transformer\.)?(h\.[0-9]+\.)?|(\.[0-9]+)?(\.weight)?$", "", name) for name in names}
    if unknown := sorted(stems - _PARAMETERS - PARTS.keys()):
        raise _unknown(path, f"it has {_listed(unknown)}")
    if lacking := PARTS.keys() - stems:
        if has := [name for name in PARTS if name in stems]:
            meanings = "; ".join(dict.fromkeys(PARTS[name] for name in has))
            raise _unknown(path, f"it has {_listed(has)} ({meanings}), and lacks {_listed(sorted(lacking))}")
        if "S" in config.window_pattern:
            pattern = shown(config.window_pattern)
            raise _unknown(
                path, f"it has window_pattern='{pattern}' (attention to a sliding window) and no more"
            )
        return config
    try:
        return replace(config, **OF_2026)
    except NanolabError as error:
        _refuse(path, f"its model cannot be built: {str(error).splitlines()[0].removesuffix('.')}")


def _unknown(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is none of the two nanochats that nanolab has, of October to December 2025 and since "
        f"14 March 2026: {what}.\n"
        "Between the two, numbers changed that nanochat keeps in its code and not in a model's files. "
        "Import a model of these times, such as karpathy/nanochat-d32, or run this one with nanochat itself."
    )


def _listed(names: Sequence[str]) -> str:
    more = f", {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(shown, names[:8])) + more


def _fitted(path: Path, weights: dict[str, Tensor], config: GPTConfig, tokenizer: Tokenizer) -> GPT:
    """A model of these very tensors, once they fit meta file and tokenizer; padding rows are cut off."""
    layers = {name.split(".")[2] for name in weights if re.match(r"transformer\.h\.[0-9]+\.", name)}
    config = _with_its_parts(path, config, weights)
    says = "and its meta file says"
    if len(layers) != config.n_layer:
        _refuse(path, f"it has {len(layers)} layers, {says} n_layer={config.n_layer}", MISMATCH)
    rows, given = tokenizer.get_vocab_size(), config.vocab_size
    for name in ("transformer.wte.weight", "lm_head.weight"):
        if name not in weights:
            _refuse(path, f"it lacks {name}")
        if (width := list(weights[name].shape[1:])) != [config.n_embd]:
            _refuse(path, f"{name} has {width} channels, {says} n_embd={config.n_embd}", MISMATCH)
    for name in [name for name in weights if name.startswith(_A_ROW_FOR_EACH_TOKEN)]:
        have = weights[name].size(0) if weights[name].dim() else 0
        if not rows <= given <= have or have - rows > LARGEST_PADDING:
            _refuse(
                path,
                f"{name} has {have:,} rows, {says} vocab_size={given:,}, and the tokenizer has "
                f"{rows:,} tokens",
                MISMATCH,
            )
        if have > rows:
            weights[name] = weights[name][:rows].clone()
    model = _without_memory(replace(config, vocab_size=rows))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() ^ weights.keys()):
        what = f"it lacks {name}" if name in expected else f"it has {shown(name)}, which has no place"
        _refuse(path, what, MISMATCH)
    for name, tensor in weights.items():
        if (shape := tuple(tensor.shape)) != expected[name]:
            _refuse(path, f"{name} is {shape}, and its meta file asks for {expected[name]}", MISMATCH)
    model.load_state_dict(weights, assign=True)
    return model


def _without_memory(config: GPTConfig) -> GPT:
    """A model that is only names and shapes, to be given the tensors of a file."""
    with torch.device("meta"):
        return GPT(config)


_PARAMETERS = {
    "wte", "lm_head", "attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj",
}  # fmt: skip


_A_ROW_FOR_EACH_TOKEN = ("transformer.wte.", "lm_head.", "value_embeds.")


def _profile(config: GPTConfig, tokenizer: Tokenizer) -> str | None:
    """The gpu profile at this model's size, as JSON, so that the run can be trained further.

    None for a model whose width or context is not what that profile gives, or with parts of 2026.
    """
    digits = next(n for n in range(1, 10) if tokenizer.pattern == split_pattern(n))
    profile = override(get_profile("gpu"), depth=config.n_layer, vocab_size=config.vocab_size, digits=digits)
    its = GPTConfig(
        sequence_len=profile.sequence_len, vocab_size=profile.vocab_size, n_layer=profile.depth,
        n_head=profile.n_head, n_kv_head=profile.n_head, n_embd=profile.n_embd,
    )  # fmt: skip
    return profile.to_json() if config == its else None
