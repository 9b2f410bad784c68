"""nanochat's own files: the logits of transformers for good ones, one clear line and no side effect for bad."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from dataclasses import asdict, replace

import pytest
import tiktoken
import torch
from by_loops import logits_by_loops

from nanolab import nanochat
from nanolab.checkpoint import load_model
from nanolab.cli import main
from nanolab.errors import CheckpointError, ConfigError, DataError
from nanolab.model import GPT, GPTConfig
from nanolab.nanochat import import_run, import_tokenizer
from nanolab.paths import home, run_dir
from nanolab.profiles import Profile
from nanolab.stages import model_config
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer, split_pattern
from nanolab.unpickle import LARGEST_PICKLE

SYSTEM = "nt" if os.name == "nt" else "posix"  # the module that os takes its functions from
VOCAB = 300
CONFIG = GPTConfig(sequence_len=64, vocab_size=VOCAB, n_layer=3, n_head=4, n_kv_head=2, n_embd=64)


@pytest.fixture(scope="module")
def tokenizer():
    chance = random.Random(0)
    texts = ["".join(chance.choices("eeeeettttaaooiinn shrdlu 12\n", k=400)) for _ in range(20)]
    return Tokenizer.train(texts, VOCAB, digits=2)


def pickled(tokenizer, protocol=None, **changes):
    """What nanochat's tokenizer writes: the tiktoken Encoding of rustbpe's ranks."""
    special = {name: len(tokenizer.mergeable_ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
    given = {
        "pat_str": tokenizer.pattern,
        "mergeable_ranks": tokenizer.mergeable_ranks,
        "special_tokens": special,
    }
    return pickle.dumps(tiktoken.Encoding("rustbpe", **{**given, **changes}), protocol=protocol)


def state_dict(
    config=CONFIG, *, rows=VOCAB, prefix="_orig_mod.", embedding=torch.bfloat16, other=torch.float32
):
    """Random weights under nanochat's names, as a compiled model saves them."""
    generator = torch.Generator().manual_seed(0)
    width, kv = config.n_embd, config.n_embd // config.n_head * config.n_kv_head
    shapes = {"transformer.wte": (rows, width)}
    for layer in range(config.n_layer):
        attn, mlp = f"transformer.h.{layer}.attn", f"transformer.h.{layer}.mlp"
        shapes |= {f"{attn}.c_q": (width, width), f"{attn}.c_k": (kv, width), f"{attn}.c_v": (kv, width)}
        shapes |= {f"{attn}.c_proj": (width, width), f"{mlp}.c_fc": (4 * width, width)}
        shapes |= {f"{mlp}.c_proj": (width, 4 * width)}
    shapes["lm_head"] = (rows, width)
    weights = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator) * (1.0 if name.endswith("wte") else 0.15)
        weights[f"{prefix}{name}.weight"] = weight.to(embedding if name.endswith("wte") else other)
    return weights


def sizes(config=CONFIG, **more):
    """A model_config as nanochat writes it: sizes, and since January 2026 the windows."""
    return {name: value for name, value in asdict(config).items() if type(value) is int and value} | more


def write(folder, tokenizer, weights=None, *, step=650, meta=None, config=CONFIG):
    """A checkpoint in nanochat's layout, as karpathy/nanochat-d32 has it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state_dict() if weights is None else weights, folder / f"model_{step:06d}.pt")
    content = {"step": step, "val_bpb": 0.4, "model_config": sizes(config), "user_config": {"depth": 3}}
    (folder / f"meta_{step:06d}.json").write_text(json.dumps({**content, **(meta or {})}), encoding="utf-8")
    (folder / "tokenizer.pkl").write_bytes(pickled(tokenizer))
    return folder


def first_line(error):
    return str(error.value).splitlines()[0]


# ---- what is right


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_tokenizer_pkl_becomes_the_same_tokenizer(tokenizer, tmp_path, protocol):
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickled(tokenizer, protocol))
    assert import_tokenizer(path).hash() == tokenizer.hash()


@pytest.mark.parametrize("other", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "vocab"), [(VOCAB, VOCAB), (320, VOCAB), (320, 320)], ids=str)
def test_imported_weights_give_the_logits_of_transformers(tokenizer, tmp_path, other, rows, vocab):
    transformers = pytest.importorskip("transformers")
    weights = state_dict(rows=rows, other=other)
    config = GPTConfig(**{**asdict(CONFIG), "vocab_size": vocab})
    folder = write(tmp_path / "d3", tokenizer, weights, config=config)
    import_run(folder, folder / "tokenizer.pkl", "d3")
    model, loaded, meta = load_model("sft", model_tag="d3")
    assert loaded.hash() == tokenizer.hash() and meta["step"] == 650 and model.config.vocab_size == VOCAB
    assert next(model.parameters()).dtype == torch.float32

    theirs = transformers.NanoChatForCausalLM(
        transformers.NanoChatConfig(
            vocab_size=rows, hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, final_logit_softcapping=15.0,
            rms_norm_eps=torch.finfo(torch.float32).eps, tie_word_embeddings=False, pad_token_id=None,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    ).eval()  # fmt: skip
    names = {
        "_orig_mod.": "", "transformer.wte": "model.embed_tokens", "transformer.h": "model.layers",
        "attn.c_q": "self_attn.q_proj", "attn.c_k": "self_attn.k_proj", "attn.c_v": "self_attn.v_proj",
        "attn.c_proj": "self_attn.o_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    }  # fmt: skip
    state = {}
    for name, weight in weights.items():
        for before, after in names.items():
            name = name.replace(before, after)
        state[name] = weight.float()
    theirs.load_state_dict(state, strict=True)
    idx = torch.randint(VOCAB, (2, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, other = model(idx), theirs(idx).logits[..., :VOCAB]
    assert other.abs().mean() > 0.3
    assert (ours - other).abs().max() < 1e-4


def test_a_run_can_be_imported_and_chatted_with_from_the_command_line(tokenizer, tmp_path, capsys):
    folder = write(tmp_path / "nanochat" / "chatsft_checkpoints" / "d3", tokenizer)
    (tmp_path / "nanochat" / "tokenizer").mkdir()
    os.replace(folder / "tokenizer.pkl", tmp_path / "nanochat" / "tokenizer" / "tokenizer.pkl")
    assert main(["import", str(folder), "--model-tag", "d3"]) == 0
    assert "nanolab chat --source sft --model-tag d3" in capsys.readouterr().out
    assert main(["chat", "-p", "Hi", "--source", "sft", "--model-tag", "d3", "--max-tokens", "8"]) == 0
    assert main(["import", str(folder), "--model-tag", "d3"]) == 1
    assert "has a sft checkpoint already" in capsys.readouterr().err


def test_the_last_step_is_taken_and_stages_of_one_model_share_a_run(tokenizer, tmp_path):
    folder = write(tmp_path / "d3", tokenizer, step=99)
    write(folder, tokenizer, step=100)
    (folder / "model_000200_backup.pt").write_bytes(b"")
    for source in ("mid", "sft"):
        assert import_run(folder, None, "d3", source) == run_dir("d3")
        assert load_model(source, model_tag="d3")[2]["step"] == 100


def test_weights_keep_their_number_format_on_disk(tokenizer, tmp_path):
    import safetensors.torch

    folder = write(tmp_path / "d3", tokenizer)
    run = import_run(folder, None, "d3")
    saved = safetensors.torch.load_file(run / "sft" / "step-000650" / "model.safetensors")
    assert {str(t.dtype) for t in saved.values()} == {"torch.bfloat16", "torch.float32"}
    assert torch.equal(saved["transformer.wte.weight"], state_dict()["_orig_mod.transformer.wte.weight"])


def test_a_published_size_gets_a_profile_that_trains_it_further(tokenizer):
    d20 = GPTConfig(sequence_len=2048, vocab_size=65_536, n_layer=20, n_head=10, n_kv_head=10, n_embd=1280)
    profile = Profile.from_json(nanochat._profile(d20, tokenizer))
    assert model_config(profile) == d20 and profile.digits == 2
    assert nanochat._profile(CONFIG, tokenizer) is None


# ---- what is right, of 2026

NOW = replace(
    CONFIG, sequence_len=160, n_layer=4, window_pattern="SSL", value_embeddings=True, residual_scalars=True,
    smear=True, backout=True, qk_gain=1.2, rotary_base=100_000.0,
)  # fmt: skip


def state_dict_of_2026(rows=VOCAB, prefix=""):
    """The late one, with the names and shapes that karpathy/nanochat's gpt.py has in July 2026."""
    weights = state_dict(NOW, rows=rows, prefix=prefix)
    generator = torch.Generator().manual_seed(2)
    shapes = {"resid_lambdas": (4,), "x0_lambdas": (4,), "smear_gate.weight": (1, 24), "smear_lambda": (1,)}
    shapes |= {"backout_lambda": (1,)}
    for layer in (1, 3):
        shapes[f"transformer.h.{layer}.attn.ve_gate.weight"] = (2, 12)
        shapes[f"value_embeds.{layer}.weight"] = (rows, 32)
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator) * 0.3 + (name == "resid_lambdas")
        kind = torch.bfloat16 if name.startswith("value_embeds") else torch.float32
        weights[prefix + name] = weight.to(kind)
    return weights


@torch.no_grad()
@pytest.mark.parametrize(
    ("rows", "prefix", "pattern"), [(VOCAB, "_orig_mod.", "SSL"), (320, "", "ssl"), (320, "", None)]
)
def test_a_model_of_2026_has_the_logits_of_loops(tokenizer, tmp_path, rows, prefix, pattern):
    weights = state_dict_of_2026(rows, prefix)
    given = sizes(NOW) if pattern is None else sizes(NOW, window_pattern=pattern)
    folder = write(tmp_path / "d4", tokenizer, weights, meta={"model_config": given})
    run = import_run(folder, None, "d4")
    model, _, meta = load_model("sft", model_tag="d4")
    config = NOW if pattern else replace(NOW, window_pattern="L")
    assert model.config == config and meta["profile"] is None and not (run / "profile.json").exists()
    right = {name.removeprefix(prefix): weight.float() for name, weight in weights.items()}
    padded = ("transformer.wte", "lm_head", "value_embeds")
    right = {name: w[:VOCAB] if name.startswith(padded) else w for name, w in right.items()}
    direct = GPT(config).eval()
    direct.load_state_dict(right)
    idx = torch.randint(VOCAB, (140,), generator=torch.Generator().manual_seed(1))
    ours = model(idx[None])[0]
    assert torch.equal(ours, direct(idx[None])[0])
    expected = torch.tensor(logits_by_loops(config, right, idx.tolist()))
    assert expected.abs().mean() > 0.3 and (ours - expected).abs().max() < 1e-4


def test_a_model_of_2026_keeps_its_number_formats_and_chats(tokenizer, tmp_path, capsys):
    import safetensors.torch

    given = sizes(NOW, window_pattern="SSL")
    folder = write(tmp_path / "d4", tokenizer, state_dict_of_2026(), meta={"model_config": given})
    run = import_run(folder, None, "d4")
    saved = safetensors.torch.load_file(run / "sft" / "step-000650" / "model.safetensors")
    assert {name for name, w in saved.items() if w.dtype == torch.bfloat16} == {
        "transformer.wte.weight", "value_embeds.1.weight", "value_embeds.3.weight",
    }  # fmt: skip
    assert main(["chat", "-p", "Hi", "--source", "sft", "--model-tag", "d4", "--max-tokens", "8"]) == 0


def test_late_2025_with_full_attention_written_out_is_late_2025(tokenizer, tmp_path):
    meta = {"model_config": sizes(window_pattern="LL")}
    import_run(write(tmp_path / "d3", tokenizer, meta=meta), None, "d3")
    assert load_model("sft", model_tag="d3")[0].config == replace(CONFIG, window_pattern="LL")


# ---- a tokenizer.pkl that is an attack


class Call:
    """A pickle of this calls `function(*arguments)` when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


ENCODING = short("tiktoken.core") + short("Encoding") + b"\x93)\x81"  # an Encoding without state
START = b"\x80\x04"


def attacks(canary):
    """name -> a pickle that would do harm in Python's unpickler."""
    touch = f"{'copy NUL' if os.name == 'nt' else 'touch'} {canary}"
    nested = short("tiktoken.core") + short("Encoding.__init__.__globals__") + b"\x93"
    return {
        "system call": pickle.dumps(Call(os.system, touch)),
        "system call, protocol 0": pickle.dumps(Call(os.system, touch), protocol=0),
        "eval": pickle.dumps(Call(eval, f"open({str(canary)!r}, 'w')")),
        "import": pickle.dumps(Call(__import__, "antigravity")),
        "call hidden in a token": pickle.dumps({b"a": Call(os.system, touch)}),
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "nested globals": START + nested + b".",
        "nested globals, text": b"ctiktoken.core\nEncoding.__init__.__globals__\n.",
        "another class of tiktoken": b"ctiktoken.load\nread_file_cached\n.",
        "registry": START + ENCODING + short("gpt2") + b"b.",
        "arguments for the class": START + ENCODING[:-2] + short("x") + b"\x85\x81.",
        "extension registry": START + b"\x82\x01.",
        "persistent id": START + short("x") + b"Q.",
        "huge bytes": START + b"\x8e" + struct.pack("<Q", 2**40) + b".",
        "huge text": START + b"\x8d" + struct.pack("<Q", 2**40) + b".",
        "huge bytearray": START + b"\x96" + struct.pack("<Q", 2**40) + b".",
        "huge memo": START + b"}r" + struct.pack("<I", 2**32 - 1) + b".",
        "huge frame": START + b"\x95" + struct.pack("<Q", 2**60) + b"}.",
        "huge number": START + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
        "bytearray(2**40)": pickle.dumps(Call(bytearray, 2**40)),
        "too many values": START + b"}" * 100_000 + b".",
        "too many marks": START + b"(" * 100_000 + b".",
        "too many memories": START + b"}" + b"\x94" * 250_000 + b".",
        "copies of copies": START + b"]" + b"\x94h\x00h\x00e" * 1000 + b".",
        "deep tuples": START + b")" + b"\x85" * 100_000 + b".",
        "deep dictionaries": START + b"}" + b"\x94}\x8c\x01ah\x00s" * 1000 + b".",
        "a dictionary within itself": START + ENCODING + b"}\x94\x8c\x01ah\x00sb.",
        "a state within itself": START + ENCODING + b"\x94h\x00b.",
        "keys that cannot be keys": START + b"}}}s.",
    }


ATTACKS = sorted(attacks("nothing"))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_by_pickle_is_refused_in_one_line_without_a_side_effect(name, tmp_path, capfd):
    canary, path = tmp_path / "canary", tmp_path / "tokenizer.pkl"
    path.write_bytes(attacks(canary)[name])
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error:
            import_tokenizer(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert first_line(error).startswith(f"{path} is not imported: ") and len(first_line(error)) < 400
    assert not canary.exists() and not home().exists() and peak < 100 * 2**20
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["system call", "eval", "call hidden in a token"])
def test_the_attacks_are_live_ammunition(name, tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(attacks(canary)[name])
    assert canary.exists()


def test_a_system_call_is_named_in_the_refusal(tmp_path):
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(Call(os.system, "true")))
    with pytest.raises(DataError, match=f"it asks for {SYSTEM}.system, and only"):
        import_tokenizer(path)


def test_no_tail_and_no_flip_of_a_tokenizer_ends_in_another_error(tokenizer, tmp_path):
    data, path, chance = pickled(tokenizer), tmp_path / "tokenizer.pkl", random.Random(0)
    for trial in range(300):
        broken = bytearray(data)
        if trial % 3:
            broken[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del broken[chance.randrange(len(data)) :]
        path.write_bytes(bytes(broken))
        try:
            import_tokenizer(path)
        except DataError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {"pat_str": r"\w+|\W+"}, "split pattern is not nanochat's"),
        (lambda t: {"special_tokens": {"<|endoftext|>": VOCAB}}, "special tokens are not nanochat's nine"),
        (
            lambda t: {"special_tokens": {n: VOCAB + i for i, n in enumerate(SPECIAL_TOKENS)}},
            "after all others",
        ),
        (lambda t: {"mergeable_ranks": {bytes([b]): b for b in range(256)}}, "special tokens"),
    ],
)
def test_another_vocabulary_is_refused_by_what_differs(tokenizer, tmp_path, change, says):
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickled(tokenizer, **change(tokenizer)))
    with pytest.raises(DataError, match=says):
        import_tokenizer(path)


def test_ranks_that_leave_out_a_byte_are_refused(tmp_path):
    ranks = {bytes([byte]): rank for rank, byte in enumerate(range(1, 256))}
    special = {name: 255 + i for i, name in enumerate(SPECIAL_TOKENS)}
    path = tmp_path / "tokenizer.pkl"
    encoding = tiktoken.Encoding("x", pat_str=split_pattern(2), mergeable_ranks=ranks, special_tokens=special)
    path.write_bytes(pickle.dumps(encoding))
    with pytest.raises(DataError, match="1 of the 256 single bytes are missing"):
        import_tokenizer(path)


def test_a_missing_an_empty_and_an_endless_tokenizer_are_refused(tmp_path):
    path = tmp_path / "tokenizer.pkl"
    with pytest.raises(DataError, match="there is no such file"):
        import_tokenizer(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="damaged, or no pickle"):
        import_tokenizer(path)
    with path.open("wb") as file:
        file.truncate(LARGEST_PICKLE + 1)
    with pytest.raises(DataError, match="bytes, and a tokenizer less than"):
        import_tokenizer(path)


# ---- a model that is an attack, damaged, newer, or does not fit


def refused(folder, says, tag="bad", error=CheckpointError):
    """The import fails with `says` in its first line and writes nothing."""
    with pytest.raises(error) as caught:
        import_run(folder, None, tag)
    assert says in first_line(caught), first_line(caught)
    assert not home().exists()
    return str(caught.value)


def zip_of(pickled_list, **entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"m/data.pkl": pickled_list, "m/version": b"3\n", **entries}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pt_file_is_refused_without_a_side_effect(tokenizer, tmp_path, legacy):
    canary = tmp_path / "canary"
    folder = write(tmp_path / "d3", tokenizer)
    evil = {**state_dict(), "_orig_mod.lm_head.weight": Call(os.mkdir, str(canary))}
    path = folder / "model_000650.pt"
    torch.save(evil, path, _use_new_zipfile_serialization=not legacy)
    refused(folder, "cut short, or was not written" if legacy else f"it asks for {SYSTEM}.mkdir")
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("name", [n for n in ATTACKS if n not in ("huge frame",)])
def test_no_pickle_in_an_archive_does_harm(tokenizer, tmp_path, name):
    canary = tmp_path / "canary"
    folder = write(tmp_path / "d3", tokenizer)
    (folder / "model_000650.pt").write_bytes(zip_of(attacks(canary)[name]))
    refused(folder, "is not imported")
    assert not canary.exists()


def test_a_swelling_archive_is_refused(tokenizer, tmp_path):
    folder = write(tmp_path / "d3", tokenizer)
    with zipfile.ZipFile(folder / "model_000650.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("m/data/0", bytes(2**24))
    refused(folder, "compressed archive")


def test_a_flipped_bit_is_refused_or_harmless(tokenizer, tmp_path):
    folder, chance = write(tmp_path / "d3", tokenizer), random.Random(0)
    path = folder / "model_000650.pt"
    data, right = path.read_bytes(), nanochat.read_weights(path)
    right = {name: weight.clone() for name, weight in right.items()}
    caught = 0
    for _ in range(60):
        broken = bytearray(data)
        broken[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(broken))
        try:
            weights = nanochat.read_weights(path)
        except CheckpointError:
            caught += 1
        else:
            assert all(torch.equal(weights[name], right[name]) for name in right)
    assert caught > 40


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_model_is_refused(tokenizer, tmp_path, share):
    folder = write(tmp_path / "d3", tokenizer)
    path = folder / "model_000650.pt"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(folder, "cut short")


NEWER = {
    "value_embeds.1.weight": "value embeddings", "transformer.h.1.attn.ve_gate.weight": "gates of value embeddings",
    "resid_lambdas": "residual stream", "x0_lambdas": "the embedding added again",
    "smear_gate.weight": "mixed with the one before", "backout_lambda": "subtracted", "quantum_gate": "quantum_gate",
    "transformer.h.0.attn.c_q.bias": "attn.c_q.bias", "cos": "it has cos",
}  # fmt: skip


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_architecture_is_refused_by_the_name_of_what_it_has(tokenizer, tmp_path, name):
    weights = {**state_dict(), f"_orig_mod.{name}": torch.zeros(3)}
    folder = write(tmp_path / "d3", tokenizer, weights)
    message = refused(folder, NEWER[name])
    assert "October to December 2025" in message and "14 March 2026" in message and "nanochat-d32" in message


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        # 11 January, 16 January and 9 March 2026, and models that never were
        (("smear", "backout", "value_embeds", "ve_gate"), "lacks attn.ve_gate, backout_lambda, smear_gate"),
        (("smear", "backout"), "and lacks backout_lambda, smear_gate, smear_lambda"),
        (("backout",), "and lacks backout_lambda"),
        (("resid_lambdas",), "and lacks resid_lambdas"),
        (("value_embeds",), "and lacks value_embeds"),
        (("value_embeds.1",), "it lacks value_embeds.1.weight"),
        (("h.3.attn.ve_gate",), "it lacks transformer.h.3.attn.ve_gate.weight"),
    ],
)
def test_a_mixture_of_times_is_refused_by_what_it_lacks(tokenizer, tmp_path, left_out, says):
    weights = {n: w for n, w in state_dict_of_2026().items() if not any(part in n for part in left_out)}
    meta = {"model_config": sizes(NOW, window_pattern="SSL")}
    assert "\x1b" not in refused(write(tmp_path / "d4", tokenizer, weights, meta=meta), says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"transformer.h.1.attn.ve_gate.weight": torch.zeros(2, 32)}, "ve_gate.weight is (2, 32)"),
        ({"value_embeds.1.weight": torch.zeros(VOCAB - 1, 32)}, "value_embeds.1.weight has 299 rows"),
        ({"value_embeds.1.weight": torch.zeros(VOCAB, 64)}, "value_embeds.1.weight is (300, 64)"),
        ({"value_embeds.1.weight": torch.zeros(())}, "value_embeds.1.weight has 0 rows"),
        ({"value_embeds.2.weight": torch.zeros(VOCAB, 32)}, "it has value_embeds.2.weight, which has no place"),
        ({"value_embeds.\x1b[2J.weight": torch.zeros(VOCAB, 32)}, "[2J"),
        ({"resid_lambdas": torch.zeros(3)}, "resid_lambdas is (3,)"),
        ({"backout_lambda": torch.zeros(())}, "backout_lambda is ()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_weights_of_2026_that_do_not_fit_are_refused(tokenizer, tmp_path, change, says):
    meta = {"model_config": sizes(NOW, window_pattern="SSL")}
    message = refused(write(tmp_path / "d4", tokenizer, state_dict_of_2026() | change, meta=meta), says)
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("S" * 10_000_000, "it is too large"),
        ("S" * 1_000_000, "its window_pattern is no text of at most 128 letters"),
        (3, "its window_pattern is no text"),
        (None, "its window_pattern is no text"),
        (["S", "L"], "its window_pattern is no text"),
        ("", "its model_config cannot be built: window_pattern=''"),
        ("SSM\x1b", "its model_config cannot be built: window_pattern='SSM\\x1b'"),
    ],
    ids=["10 MB", "1 MB", "number", "null", "list", "empty", "other letters"],
)
def test_a_strange_window_is_refused(tokenizer, tmp_path, pattern, says):
    meta = {"model_config": sizes(NOW, window_pattern=pattern)}
    message = refused(write(tmp_path / "d4", tokenizer, state_dict_of_2026(), meta=meta), says)
    assert len(message) < 500


@pytest.mark.parametrize(
    "name", ["smear", "value_embeddings", "qk_gain", "rotary_base", "logit_cap", "\x1b[2J" + "x" * 10**6]
)
def test_a_setting_that_nanochat_does_not_have_is_refused_by_name(tokenizer, tmp_path, name):
    meta = {"model_config": sizes(NOW, **{name: True})}
    message = refused(
        write(tmp_path / "d4", tokenizer, state_dict_of_2026(), meta=meta), "its model_config has"
    )
    assert "\x1b" not in message and len(message) < 1000


def test_a_newer_configuration_is_refused_by_name(tokenizer, tmp_path):
    folder = write(tmp_path / "d3", tokenizer, meta={"model_config": {**sizes(), "window_pattern": "SSSL"}})
    assert "sliding window" in refused(folder, "window_pattern='SSSL'")


def without(name):
    return {key: value for key, value in sizes().items() if key != name}


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"model_config": without("n_head")}, "lacks n_head"),
        ({"model_config": None}, 'has no "model_config"'),
        ({"model_config": {**sizes(), "n_layer": 2}}, "3 layers, and its meta file says n_layer=2"),
        ({"model_config": {**sizes(), "n_layer": 2**30}}, "n_layer=1073741824"),
        ({"model_config": {**sizes(), "n_embd": 128}}, "n_embd=128"),
        ({"model_config": {**sizes(), "n_embd": 2**30}}, "n_embd=1073741824"),
        ({"model_config": {**sizes(), "n_kv_head": 4}}, "attn.c_k.weight is (32, 64)"),
        ({"model_config": {**sizes(), "n_head": 7}}, "cannot be cut into 7 heads"),
        ({"model_config": {**sizes(), "n_head": "4"}}, "n_head is no positive whole number"),
        ({"model_config": {**sizes(), "n_layer": True}}, "n_layer is no positive whole number"),
        ({"model_config": {**sizes(), "sequence_len": 2**30}}, "more than any nanochat's"),
        ({"model_config": {**sizes(), "vocab_size": 500}}, "300 rows, and its meta file says vocab_size=500"),
        ({"model_config": {**sizes(), "vocab_size": 299}}, "the tokenizer has 300 tokens"),
        ({"step": 651}, "belongs to step 651, and the weights to step 650"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_meta_file_that_does_not_fit_is_refused(tokenizer, tmp_path, meta, says):
    refused(write(tmp_path / "d3", tokenizer, meta=meta), says)


@pytest.mark.parametrize("text", ["", "{", '{"model_config": {"n_layer"', "[" * 100_000, "[]", "\x00"])
def test_a_truncated_or_strange_meta_file_is_refused(tokenizer, tmp_path, text):
    folder = write(tmp_path / "d3", tokenizer)
    (folder / "meta_000650.json").write_text(text, encoding="utf-8")
    refused(folder, "meta_000650.json is not imported")


@pytest.mark.parametrize(
    ("missing", "error", "says"),
    [
        ("model_000650.pt", CheckpointError, "there is no model_NNNNNN.pt"),
        ("meta_000650.json", CheckpointError, "meta_000650.json: there is no such file"),
        ("tokenizer.pkl", DataError, "tokenizer.pkl: there is no such file"),
    ],
)
def test_a_missing_file_is_named(tokenizer, tmp_path, missing, error, says):
    folder = write(tmp_path / "d3", tokenizer)
    (folder / missing).unlink()
    refused(folder, says, error=error)


def shared(weights):
    weights["_orig_mod.lm_head.weight"] = torch.zeros(1).expand(VOCAB, 64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("_orig_mod.lm_head.weight"), "it lacks lm_head.weight"),
        (
            lambda w: w.pop("_orig_mod.transformer.h.1.mlp.c_fc.weight"),
            "it lacks transformer.h.1.mlp.c_fc.weight",
        ),
        (
            lambda w: w.update({"_orig_mod.lm_head.weight": torch.zeros(VOCAB, 64).long()}),
            "it asks for torch.LongStorage",
        ),
        (lambda w: w.update({"_orig_mod.lm_head.weight": "zero"}), "is no tensor of floating"),
        (lambda w: w.update({"_orig_mod.lm_head.weight": torch.zeros(3)}), "lm_head.weight has"),
        (shared, "does not lie in one piece"),
    ],
)
def test_weights_that_are_no_model_are_refused(tokenizer, tmp_path, change, says):
    weights = state_dict()
    change(weights)
    refused(write(tmp_path / "d3", tokenizer, weights), says)


def test_a_model_with_another_tokenizer_is_refused(tokenizer, tmp_path):
    small = Tokenizer({bytes([byte]): byte for byte in range(256)}, split_pattern(2))
    folder = write(tmp_path / "d3", tokenizer, state_dict(rows=448))
    refused(folder, "448 rows")
    write(folder, small)
    import_run(folder, None, "small")
    write(folder, tokenizer)
    with pytest.raises(ConfigError, match="another tokenizer"):
        import_run(folder, None, "small", "mid")
    assert not (run_dir("small") / "mid").exists()


def test_a_strangers_text_cannot_command_the_terminal(tokenizer, tmp_path):
    weights = {**state_dict(), "\x1b[2J\n" + "x" * 500: torch.zeros(1)}
    message = refused(write(tmp_path / "d3", tokenizer, weights), "??[2J"[1:])
    assert "\x1b" not in message and len(message) < 700
