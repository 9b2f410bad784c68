"""An exported run with parts of 2026: transformers runs the folder's own code, and it is our model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path

import pytest
import torch

import nanolab.export
from nanolab.chat import render_for_completion
from nanolab.checkpoint import save_checkpoint
from nanolab.cli import main
from nanolab.engine import Engine
from nanolab.export import export_run, known_to_transformers, model_config
from nanolab.model import GPT, GPTConfig
from nanolab.paths import run_dir
from nanolab.tinyworld.documents import documents
from nanolab.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: E402

VOCAB = 500
LATE_2025 = GPTConfig(sequence_len=256, vocab_size=VOCAB, n_layer=4, n_head=4, n_kv_head=2, n_embd=64)
PARTS = {
    "value embeddings": {"value_embeddings": True},
    "residual scalars": {"residual_scalars": True},
    "smear": {"smear": True},
    "backout": {"backout": True},
    "gain": {"qk_gain": 1.2},
    "windows": {"window_pattern": "SSL"},
}
ALL = {name: value for part in PARTS.values() for name, value in part.items()} | {"rotary_base": 100_000.0}
CONFIG = replace(LATE_2025, **ALL)
LONG = 200
"""tokens; the short window of a context of 256 is 128 and the token itself"""


@pytest.fixture(scope="module", autouse=True)
def own_modules(tmp_path_factory):
    """transformers copies the code it is told to trust into a cache, which here is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        place = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", place)
        patch.setattr(sys, "path", [*sys.path])
        yield place


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(islice(documents("train"), 300), VOCAB, digits=2)


def awake(config=CONFIG):
    """A model of random weights, so that every path matters."""
    generator = torch.Generator().manual_seed(0)
    model = GPT(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 1.0 if name == "transformer.wte.weight" else 0.2
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
            if name in ("resid_lambdas", "smear_lambda"):
                weight.add_(0.9)
    return model.eval()


def export(tokenizer, model, folder):
    meta = {"model_config": asdict(model.config), "tokenizer": tokenizer.hash()}
    tokenizer.save(run_dir("mine") / "tokenizer.json")
    save_checkpoint(run_dir("mine"), "sft", 7, model=model, meta=meta)
    return export_run("mine", "sft", folder)


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """(folder, our model) of one exported run with every part."""
    place = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOLAB_HOME", str(place / "home"))
        model = awake()
        yield export(tokenizer, model, place / "out" / "mine"), model


def load(folder, **given):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **given).eval()


@pytest.fixture(scope="module")
def theirs(exported):
    return load(exported[0])


def some_tokens(*shape, seed=1):
    return torch.randint(9, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


# ---- the folder


def test_the_folder_brings_its_code_and_says_so(exported):
    folder, _ = exported
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "modeling_nanolab.py", "README.md",
    }  # fmt: skip
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "trust_remote_code=True` runs that file" in readme
    code = (folder / "modeling_nanolab.py").read_text(encoding="utf-8")
    assert "import nanolab" not in code and "from nanolab" not in code


def test_without_trust_nothing_is_run(exported):
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(exported[0], trust_remote_code=False)


@pytest.mark.parametrize("parts", [ALL, {}], ids=["2026", "2025"])
def test_the_command_line_says_whose_code_is_run(tokenizer, tmp_path, capsys, parts):
    export(tokenizer, awake(replace(LATE_2025, **parts)), tmp_path / "first")
    assert main(["export", str(tmp_path / "out"), "--source", "sft"]) == 0
    out = capsys.readouterr().out
    assert ("trust_remote_code runs modeling_nanolab.py of the folder" in out) == bool(parts)
    assert ("trust_remote_code=True)" in out) == bool(parts)
    assert (tmp_path / "out" / "modeling_nanolab.py").exists() == bool(parts)


def test_every_setting_is_in_the_configuration(tokenizer):
    """Each field of GPTConfig, changed alone, changes config.json."""
    other = {
        "sequence_len": 512, "vocab_size": 600, "n_layer": 5, "n_head": 2, "n_kv_head": 1, "n_embd": 128,
        "value_embeddings": False, "residual_scalars": False, "smear": False, "backout": False,
        "qk_gain": 1.3, "rotary_base": 500.0, "window_pattern": "SL", "short_window": 2,
    }  # fmt: skip
    assert list(other) == [field.name for field in fields(GPTConfig)]
    files = [json.dumps(model_config(CONFIG, tokenizer, {"F32"}))]
    files += [
        json.dumps(model_config(replace(CONFIG, **{n: v}), tokenizer, {"F32"})) for n, v in other.items()
    ]
    assert len(set(files)) == 1 + len(other)


def test_only_what_transformers_lacks_needs_code():
    for part in PARTS.values():
        assert not known_to_transformers(replace(LATE_2025, **part))
    assert known_to_transformers(LATE_2025)
    assert known_to_transformers(replace(LATE_2025, rotary_base=100_000.0))
    assert known_to_transformers(replace(LATE_2025, sequence_len=128, window_pattern="S"))


def test_a_base_of_rotary_positions_alone_is_transformers_own(tokenizer, tmp_path):
    model = awake(replace(LATE_2025, rotary_base=100_000.0))
    theirs = AutoModelForCausalLM.from_pretrained(export(tokenizer, model, tmp_path / "out"))
    assert type(theirs).__name__ == "NanoChatForCausalLM"
    idx = some_tokens(2, LONG)
    with torch.no_grad():
        assert (model(idx) - theirs(idx).logits).abs().max() < 1e-5


# ---- the model


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_equal(exported, attention):
    model = load(exported[0], attn_implementation=attention)
    assert type(model).__name__ == "NanolabForCausalLM" and type(model.config).__name__ == "NanolabConfig"
    assert model.num_parameters() == exported[1].num_parameters()
    idx = some_tokens(2, LONG)
    ours = exported[1](idx)
    assert ours.abs().mean() > 0.3
    torch.testing.assert_close(model(idx).logits, ours, rtol=1e-5, atol=1e-5)
    kept = model(idx, logits_to_keep=3).logits
    assert kept.shape == (2, 3, VOCAB) and (ours[:, -3:] - kept).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_is_equal(tokenizer, tmp_path, part):
    model = awake(replace(LATE_2025, **PARTS[part], n_kv_head=4))
    theirs, idx = load(export(tokenizer, model, tmp_path / "out")), some_tokens(1, LONG)
    assert (model(idx) - theirs(idx).logits).abs().max() < 1e-5
    assert not torch.allclose(model(idx), awake(replace(LATE_2025, n_kv_head=4))(idx), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * 20 + [LONG - 20], [150, 1, 1, 48], [60, 80, 60]], ids=str)
def test_cached_logits_equal_the_full_pass(exported, theirs, pieces):
    idx, cache, parts = some_tokens(2, LONG), None, []
    for part in idx.split(pieces, dim=1):
        out = theirs(part, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        parts.append(out.logits)
    assert type(cache).__name__ == "DynamicCache" and cache.get_seq_length() == LONG
    assert (torch.cat(parts, 1) - exported[1](idx)).abs().max() < 2e-5


@torch.no_grad()
def test_padding_on_the_left_changes_nothing(exported, theirs):
    rows = [some_tokens(length, seed=length) for length in (150, 7, 60)]
    idx = torch.stack([torch.cat([torch.zeros(150 - len(row), dtype=torch.long), row]) for row in rows])
    mask = torch.stack([(torch.arange(150) >= 150 - len(row)).long() for row in rows])
    logits = theirs(idx, attention_mask=mask).logits
    for row, given in zip(rows, logits, strict=True):
        assert (given[-len(row) :] - exported[1](row[None])[0]).abs().max() < 2e-5


def test_greedy_generation_is_the_engines(tokenizer, exported, theirs):
    auto = AutoTokenizer.from_pretrained(exported[0])
    auto.padding_side = "left"
    chats = [
        [{"role": "user", "content": text}]
        for text in ("What is the capital of France?", "Hi", "Tell me of the river and the hill. " * 8)
    ]
    given = auto.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    written = theirs.generate(**given, do_sample=False, max_new_tokens=40)
    engine = Engine(exported[1], tokenizer)
    for row, chat in zip(written, chats, strict=True):
        prompt = render_for_completion(tokenizer, {"messages": chat})
        ours = list(engine.generate(prompt, max_tokens=40, temperature=0.0, use_tools=False))
        answer = row[given["input_ids"].shape[1] :].tolist()
        assert answer[: len(ours)] == ours and len(set(ours)) > 5
        assert set(answer[len(ours) :]) <= {
            theirs.generation_config.pad_token_id,
            *theirs.generation_config.eos_token_id,
        }


@torch.no_grad()
def test_beams_keep_their_own_past(theirs):
    """What smear remembers is reordered with the beams: with and without a cache they end alike."""
    idx = some_tokens(2, 12)
    ways = [
        theirs.generate(
            idx, num_beams=3, do_sample=False, max_new_tokens=12, use_cache=cached,
            attention_mask=torch.ones_like(idx), eos_token_id=None,
        )
        for cached in (True, False)
    ]  # fmt: skip
    assert torch.equal(*ways)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_the_loss_of_labels_and_its_gradients_are_ours(exported, theirs):
    folder, ours = exported
    model = load(folder).train()
    idx = some_tokens(2, LONG)
    labels, targets = idx.clone(), idx.roll(-1, dims=1)
    labels[:, :50] = -100
    targets[:, :49] = targets[:, -1] = -1  # labels[1:] are the targets of positions 0 and on
    expected, actual = ours(idx, targets), model(idx, labels=labels, use_cache=False).loss
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)
    right = torch.autograd.grad(expected, list(ours.parameters()))
    names = [nanolab.export.renamed(name) for name, _ in ours.named_parameters()]
    actual.backward()
    plain = {}
    for name, grad in zip(names, right, strict=True):
        plain[name] = model.get_parameter(name).grad.clone()
        assert (plain[name] - grad).norm() <= 1e-4 * grad.norm(), name
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(idx, labels=labels).loss.backward()
    for name in names:
        torch.testing.assert_close(model.get_parameter(name).grad, plain[name], rtol=1e-4, atol=1e-7)


def test_a_saved_copy_loads_again_with_its_code(exported, theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "modeling_nanolab.py").exists()
    assert list((tmp_path / "again").glob("*.safetensors"))
    again, idx = load(tmp_path / "again"), some_tokens(1, 30)
    assert torch.equal(again(idx).logits, theirs(idx).logits)
    assert again.config.to_dict() | {"_name_or_path": ""} == theirs.config.to_dict() | {"_name_or_path": ""}


def test_half_precision_loads_as_such(tokenizer, tmp_path):
    model = awake().to(torch.bfloat16)
    theirs = load(export(tokenizer, model, tmp_path / "out"))
    assert {parameter.dtype for parameter in theirs.parameters()} == {torch.bfloat16}
    assert theirs(some_tokens(1, 5)).logits.dtype == torch.float32


def test_embeddings_in_place_of_tokens_are_refused(theirs):
    with pytest.raises(ValueError, match="reads token ids"):
        theirs(inputs_embeds=torch.zeros(1, 3, 64))


@torch.no_grad()
def test_it_follows_the_rules_of_vllms_backend(tokenizer, tmp_path):
    """vLLM loads AutoModel, puts its own attention in, and gives it many sequences as one row."""
    model = awake(replace(CONFIG, smear=False))
    folder = export(tokenizer, model, tmp_path / "out")
    lengths = [150, 20, 30]
    seen = []

    def attention(module, query, key, value, attention_mask, scaling=None, attention_instances=None, **_):
        assert attention_mask is None and query.shape[1:] == (4, 200, 16) and key.shape[1:] == (2, 200, 16)
        seen.append(attention_instances[module.layer_idx])
        outputs = []
        window = module.sliding_window or 10**6
        for q, k, v in zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True):
            back = torch.arange(q.size(2))[:, None] - torch.arange(q.size(2))
            outputs.append(
                torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, attn_mask=(back >= 0) & (back < window), scale=scaling, enable_gqa=True
                )
            )
        return torch.cat(outputs, 2).transpose(1, 2).reshape(1, 200, -1), None

    ALL_ATTENTION_FUNCTIONS.register("like-vllm", attention)
    theirs = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    assert theirs.is_backend_compatible()
    theirs.config._attn_implementation = "like-vllm"
    rows = [some_tokens(length, seed=length) for length in lengths]
    hidden = theirs(
        input_ids=torch.cat(rows)[None], inputs_embeds=None, use_cache=False, return_dict=False,
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        attention_instances={layer: f"instance {layer}" for layer in range(4)},
    )[0][0]  # fmt: skip
    assert seen == [f"instance {layer}" for layer in range(4)]
    for row, given in zip(rows, hidden.split(lengths), strict=True):
        assert (given - model.hidden(row[None])[0]).abs().max() < 1e-4


def test_smear_says_that_vllm_cannot(theirs):
    with pytest.raises(ValueError, match="smear=True needs the token before"):
        theirs.model(some_tokens(1, 5), attention_instances={})


def test_it_works_where_nanolab_is_not_installed(exported, own_modules, tmp_path):
    folder, ours = exported
    idx = some_tokens(1, 40)
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nanolab":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import socket
def no_network(*_):
    raise AssertionError("network")
socket.socket.connect = no_network
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(folder)!r}, trust_remote_code=True).eval()
idx = torch.tensor({idx.tolist()})
with torch.no_grad():
    print("sum", model(idx).logits.double().abs().sum().item())
assert "nanolab" not in sys.modules
print(model.generate(idx, max_new_tokens=5, do_sample=False).shape)
"""
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HOME": str(tmp_path / "hf"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total = float(done.stdout.split("sum ")[1].split()[0])
    with torch.no_grad():
        assert total == pytest.approx(ours(idx).double().abs().sum().item(), rel=1e-5)


def test_the_code_is_in_the_package():
    import tomllib

    root = Path(nanolab.export.__file__).parents[1]
    if (root / "pyproject.toml").exists():
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        assert "hub_files/*" in settings["tool"]["setuptools"]["package-data"]["nanolab"]
