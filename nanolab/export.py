"""A run as a folder that `transformers` loads, and with it vLLM, TRL and the hub.

    export_run("mine", "rl", "my-model")
    AutoModelForCausalLM.from_pretrained("my-model"), AutoTokenizer.from_pretrained("my-model")

transformers has nanochat's architecture of late 2025 under its own names of the parameters, so the weights
are copied byte for byte. A model with parts that came later brings their code: `modeling_nanolab.py` of
`hub_files` goes into the folder, and `from_pretrained` wants `trust_remote_code=True`, since it runs that
file. To write the folder neither transformers nor tokenizers is needed; to load it,
`pip install "nanolab[export]"`.

Two things stay behind. The calculator is a part of nanolab's engine, so an exported model writes its calls
and nobody answers them. And transformers makes a chat by writing text and then cutting it up, where a
message that says `<|user_end|>` would end itself: the chat template refuses such a message. Outside of a
chat, `tokenizer(text, split_special_tokens=True)` reads those names as text, as nanolab's `encode` does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from nanolab.checkpoint import config_of, find_checkpoint, latest_tag
from nanolab.errors import CheckpointError, ConfigError
from nanolab.model import GPTConfig
from nanolab.paths import run_dir
from nanolab.profiles import STAGES
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer

RMS_NORM_EPS = 2.0**-23
"""what torch's rms_norm adds in fp32; transformers would take 1e-6, which moves the logits by 3e-4"""

NAMES = {
    "transformer.wte.": "model.embed_tokens.", "transformer.h.": "model.layers.",
    ".attn.c_q.": ".self_attn.q_proj.", ".attn.c_k.": ".self_attn.k_proj.",
    ".attn.c_v.": ".self_attn.v_proj.", ".attn.c_proj.": ".self_attn.o_proj.",
    ".mlp.c_fc.": ".mlp.fc1.", ".mlp.c_proj.": ".mlp.fc2.", ".attn.ve_gate.": ".self_attn.ve_gate.",
}  # fmt: skip
"""nanochat's names of the parameters, and those of transformers"""

HUB_FILES = Path(__file__).with_name("hub_files")
CODE = "modeling_nanolab.py"

CHAT_TEMPLATE = """
{{ '<|bos|>' }}
{% set now = namespace(system='', text='', turn=0) %}
{% for message in messages %}
  {% if message.content is string %}
    {% set parts = [{'type': 'text', 'text': message.content}] %}
  {% else %}
    {% set parts = message.content %}
  {% endif %}
  {% set now.text = parts | map(attribute='text') | join %}
  {% for name in [SPECIAL_TOKENS] %}
    {% if name in now.text %}
      {{ raise_exception('A message holds ' + name + ', which stands for the structure of a chat.') }}
    {% endif %}
  {% endfor %}
  {% if message.role == 'system' and loop.first %}
    {% set now.system = now.text + NEWLINES %}
  {% elif message.role == 'user' and now.turn % 2 == 0 %}
    {{ '<|user_start|>' + now.system + now.text + '<|user_end|>' }}
    {% set now.system = '' %}
    {% set now.turn = now.turn + 1 %}
  {% elif message.role == 'assistant' and now.turn % 2 == 1 %}
    {{ '<|assistant_start|>' }}
    {% for part in parts %}
      {% if part.type == 'text' %}
        {% generation %}{{ part.text }}{% endgeneration %}
      {% elif part.type == 'python' %}
        {% generation %}{{ '<|python_start|>' + part.text + '<|python_end|>' }}{% endgeneration %}
      {% elif part.type == 'python_output' %}
        {{ '<|output_start|>' + part.text + '<|output_end|>' }}
      {% else %}
        {{ raise_exception('A part of a message is of type text, python or python_output.') }}
      {% endif %}
    {% endfor %}
    {% generation %}{{ '<|assistant_end|>' }}{% endgeneration %}
    {% set now.turn = now.turn + 1 %}
  {% else %}
    {{ raise_exception('A conversation alternates user, assistant, user, ...') }}
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant_start|>' }}{% endif %}
"""
"""`render_conversation` in Jinja. `generation` marks what the assistant writes: TRL's loss mask, equal to
ours. Line breaks and indentation are for reading, and taken out."""


def export_run(tag: str | None, stage: str, folder: Path | str) -> Path:
    """Write the newest checkpoint of a stage to `folder`, which must be new or empty, and return it.

    tag: None is the most recently written run that has the stage. The folder appears whole or not at all.
    Weights keep their number format and pass through memory 16 MB at a time. Raises CheckpointError for a
    checkpoint that is missing, damaged or does not fit its tokenizer, or a full disk; ConfigError for a
    folder in use.
    """
    if stage not in STAGES:
        raise ConfigError(f"there is no stage {stage!r}.\nThe stages are {', '.join(STAGES)}.")
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty.\nName a folder that does not exist yet.")
    run = run_dir(tag or latest_tag(stage))
    checkpoint = find_checkpoint(run, stage)
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    meta = json.loads((checkpoint / "meta.json").read_text(encoding="utf-8"))
    if meta["tokenizer"] != tokenizer.hash():
        raise CheckpointError(
            f"{checkpoint} was made with another tokenizer than {run / 'tokenizer.json'}.\n"
            "Put back the tokenizer.json it was trained with."
        )
    config = config_of(checkpoint, meta)
    half = folder.parent / f".{folder.name}-{uuid.uuid4().hex[:8]}"
    try:
        half.mkdir(parents=True)
        if not known_to_transformers(config):
            for name in (CODE, "README.md"):
                shutil.copyfile(HUB_FILES / name, half / name)
        formats = copy_tensors(checkpoint / "model.safetensors", half / "model.safetensors", renamed)
        texts = {
            "config.json": model_config(config, tokenizer, formats),
            "generation_config.json": generation_config(tokenizer),
            "tokenizer.json": tokenizer_json(tokenizer),
            "tokenizer_config.json": tokenizer_config(config, stage),
        }
        for name, content in texts.items():
            text = json.dumps(content, indent=1) + "\n"
            (half / name).write_text(text, encoding="utf-8", newline="\n")
        if folder.exists():
            folder.rmdir()
        half.rename(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder} could not be written: {error}.\nFree some disk space, or choose another folder."
        ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def how_to_load(folder: Path) -> list[str]:
    """What to write in Python to have the model of an exported folder, and what to know before."""
    has_code = (folder / CODE).exists()
    trust = ", trust_remote_code=True" if has_code else ""
    lines = [
        f"    AutoModelForCausalLM.from_pretrained({str(folder)!r}{trust})",
        f"    AutoTokenizer.from_pretrained({str(folder)!r})",
    ]
    if has_code:
        lines.append(
            f"The model has parts that transformers lacks: trust_remote_code runs {CODE} of the folder."
        )
    return lines


# ---- the weights


def renamed(name: str) -> str:
    """`transformer.h.0.attn.c_q.weight` -> `model.layers.0.self_attn.q_proj.weight`."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def copy_tensors(source: Path, target: Path, rename: Callable[[str], str]) -> set[str]:
    """Copy a safetensors file with other names for its tensors; returns their number formats, as "F32".

    The file is 8 bytes of header size, the header (JSON: name -> dtype, shape, place), then the numbers:
    only the header is read, the numbers are copied as they are.
    """
    with source.open("rb") as old, target.open("wb") as new:
        header = json.loads(old.read(int.from_bytes(old.read(8), "little")))
        tensors = {rename(name): entry for name, entry in header.items() if name != "__metadata__"}
        text = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode("utf-8")
        text += b" " * (-len(text) % 8)
        new.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(old, new, 2**24)
        new.flush()
        os.fsync(new.fileno())
    return {entry["dtype"] for entry in tensors.values()}


def model_config(config: GPTConfig, tokenizer: Tokenizer, formats: set[str]) -> dict[str, Any]:
    """transformers' NanoChatConfig, or hub_files' NanolabConfig. formats: of the weights; fp32 if mixed."""
    half = {"BF16": "bfloat16", "F16": "float16"}
    known = {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "dtype": half.get(min(formats), "float32") if len(formats) == 1 else "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "max_position_embeddings": config.sequence_len,
        "hidden_act": "relu2",
        "attention_bias": False,
        "rms_norm_eps": RMS_NORM_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "final_logit_softcapping": 15.0,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.get_bos_token_id(),
        "eos_token_id": tokenizer.encode_special("<|assistant_end|>"),
        # torch never trains the embedding of a padding token, and <|bos|> must be trained.
        "pad_token_id": None,
    }
    if known_to_transformers(config):
        return known
    windows = [config.window(layer) for layer in range(config.n_layer)]
    short = [window for window in windows if window < config.sequence_len]
    return known | {
        "architectures": ["NanolabForCausalLM"],
        "model_type": "nanolab",
        "auto_map": {
            "AutoConfig": f"{CODE.removesuffix('.py')}.NanolabConfig",
            "AutoModel": f"{CODE.removesuffix('.py')}.NanolabModel",
            "AutoModelForCausalLM": f"{CODE.removesuffix('.py')}.NanolabForCausalLM",
        },
        "value_embeddings": config.value_embeddings,
        "residual_scalars": config.residual_scalars,
        "smear": config.smear,
        "backout": config.backout,
        "qk_gain": config.qk_gain,
        "layer_types": ["sliding_attention" if w in short else "full_attention" for w in windows],
        # transformers counts the token itself, too.
        "sliding_window": min(short) + 1 if short else None,
    }


def known_to_transformers(config: GPTConfig) -> bool:
    """Whether a model is NanoChatForCausalLM: no part that came after 2025 does anything."""
    parts = (config.value_embeddings, config.residual_scalars, config.smear, config.backout)
    windows = {config.window(layer) for layer in range(config.n_layer)}
    return not any(parts) and config.qk_gain == 1 and windows == {config.sequence_len}


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """How `generate` ends: where nanolab's engine does."""
    bos = tokenizer.get_bos_token_id()
    return {
        "bos_token_id": bos,
        "eos_token_id": [tokenizer.encode_special("<|assistant_end|>"), bos],
        "pad_token_id": bos,
        "max_new_tokens": 128,
    }


# ---- the tokenizer


def visible_bytes() -> dict[int, str]:
    """A printable character for each byte, as GPT-2 chose: its own where it has one, else U+0100 and on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(own)]
    return {byte: chr(byte) for byte in own} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that makes each token, in the order of rank.

    tokenizers wants the pairs, tiktoken keeps the tokens only. A token's pair is what is left of its bytes
    after all merges of lower rank: neighbours cannot change that, since no merge crossed the token's edges.
    A token that no merge makes has no pair (it is still found where it is a whole piece of text).
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            lowest, i = min((ranks.get(a + b, rank), i) for i, (a, b) in enumerate(pairwise(parts)))
            if lowest >= rank:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer in the format of the `tokenizers` library: the same pieces, merges and ids."""
    character = visible_bytes()

    def text(token: bytes) -> str:
        return "".join(character[byte] for byte in token)

    ranks = tokenizer.mergeable_ranks
    special = [
        {
            "id": tokenizer.encode_special(name), "content": name, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True,
        }
        for name in SPECIAL_TOKENS
    ]  # fmt: skip
    pattern = {"Regex": tokenizer.pattern}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, as_bytes]},
        "post_processor": None,
        "decoder": as_bytes,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            # As tiktoken does: a piece of text that is a token needs no merges.
            "ignore_merges": True,
            "vocab": {text(token): rank for token, rank in sorted(ranks.items(), key=lambda item: item[1])},
            "merges": [[text(a), text(b)] for a, b in merges_of(ranks)],
        },
    }  # fmt: skip


def tokenizer_config(config: GPTConfig, stage: str) -> dict[str, Any]:
    """What AutoTokenizer needs besides: roles of the special tokens, and the chat template."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|bos|>" if stage == "base" else "<|assistant_end|>",
        # Not the end token: whoever leaves padding out of a loss would then never train the end.
        "pad_token": "<|bos|>",
        "model_max_length": config.sequence_len,
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template(),
    }


def chat_template() -> str:
    """CHAT_TEMPLATE on one line, so that no blank of it gets into a chat."""
    names = ", ".join(f"'{name}'" for name in SPECIAL_TOKENS)
    text = re.sub(r"\n\s*", "", CHAT_TEMPLATE)
    return text.replace("SPECIAL_TOKENS", names).replace("NEWLINES", r"'\n\n'")
