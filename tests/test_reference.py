"""The shipped models come out of their 8 bits nearly unchanged, as an ordinary run, or not at all."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict

import pytest
import torch

from nanolab import reference
from nanolab.checkpoint import list_runs, load_model, save_checkpoint
from nanolab.errors import CheckpointError
from nanolab.model import GPT, GPTConfig
from nanolab.paths import home, run_dir
from nanolab.profiles import STAGES, get_profile
from nanolab.tokenizer import Tokenizer


def test_quantised_rows_are_within_half_a_step():
    weight = (
        torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 2, 50)[:, None]
    )
    ids, scale = reference.quantise(weight)
    assert ids.dtype == torch.int8
    assert ((ids.float() * scale - weight).abs() <= scale / 2 * 1.001).all()
    assert torch.equal(reference.quantise(torch.zeros(3, 4))[0], torch.zeros(3, 4, dtype=torch.int8))


def test_the_four_stages_are_small_and_say_where_they_come_from():
    files = list(reference.folder().iterdir())
    assert sum(file.stat().st_size for file in files) <= 24_000_000
    about = reference.read_about()
    assert set(about["stages"]) == set(STAGES) and about["profile"] == "laptop"
    assert about["command"].startswith("nanolab run") and isinstance(about["seed"], int)
    assert {file.name for file in files} == {*about["files"], "about.json"}


def test_the_reference_is_of_the_tinyworld_of_this_version():
    same = reference.read_about()["data_sha256"] == reference.data_hash()
    assert same, (
        "TinyWorld has changed since: train a run, then make the reference anew (nanolab/reference.py)"
    )


def test_unpacked_it_is_an_ordinary_run_and_unpacking_again_changes_nothing():
    assert reference.unpack() == "reference"
    for stage in STAGES:
        model, tokenizer, meta = load_model(stage, model_tag="reference")
        assert meta["reference"] and meta["stage"] == stage and meta["tokenizer"] == tokenizer.hash()
        assert all(weight.isfinite().all() for weight in model.parameters())
    before = {run.tag: run.time for run in list_runs()}
    began = time.process_time()
    reference.unpack()
    assert time.process_time() - began < 3, "seconds of computing; about 0.2 are usual"
    assert {run.tag: run.time for run in list_runs()} == before == {"reference": 0.0}
    assert [path.name for path in (home() / "runs").iterdir()] == ["reference"]


@pytest.fixture
def copy(tmp_path):
    """The shipped files, to be damaged."""
    shutil.copytree(reference.folder(), tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["sft.safetensors", "tokenizer.json", "about.json"])
def test_one_changed_byte_is_refused_with_one_clear_error(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}, a part of the reference .* missing or damaged"):
        reference.unpack(copy)
    assert not run_dir("reference").exists()


@pytest.mark.parametrize("name", ["base.safetensors", "profile.json", "about.json"])
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}, a part of the reference .* missing or damaged"):
        reference.unpack(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"sha256": "0"}'])
def test_an_about_that_is_none_is_refused(copy, content):
    (copy / "about.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match="about.json"):
        reference.unpack(copy)


def test_line_ends_of_windows_are_no_damage(copy):
    for name in ("about.json", *reference.TEXTS):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content.replace(b"\n", b"\r\n"))
    reference.unpack(copy)
    load_model("base", model_tag="reference")


@pytest.mark.parametrize("name", ["sft/step-*/model.safetensors", "tokenizer.json"])
def test_a_damaged_unpacked_run_is_made_again(name):
    reference.unpack()
    next(run_dir("reference").glob(name)).write_bytes(b"")
    reference.unpack()
    load_model("sft", model_tag="reference")


def test_an_older_reference_gives_way_to_the_shipped_one(copy):
    reference.unpack()
    about = json.loads((run_dir("reference") / "about.json").read_text(encoding="utf-8"))
    (run_dir("reference") / "about.json").write_text(json.dumps({**about, "seed": 1}), encoding="utf-8")
    reference.unpack()
    assert json.loads((run_dir("reference") / "about.json").read_text(encoding="utf-8")) == about


def test_a_run_is_packed_and_comes_out_nearly_as_it_was(tmp_path):
    other, target = tmp_path / "other", tmp_path / "packed"
    run = other / "runs" / "mine"
    tokenizer = Tokenizer.train(["the cow eats grass " * 50], 270)
    tokenizer.save(run / "tokenizer.json")
    (run / "profile.json").write_text(get_profile("smoke").to_json(), encoding="utf-8")
    config = GPTConfig(
        sequence_len=32, vocab_size=tokenizer.get_vocab_size(), n_layer=1, n_head=2, n_kv_head=2, n_embd=32
    )
    meta = {"tokenizer": tokenizer.hash(), "model_config": asdict(config), "parent": None, "seed": 7}
    models = {}
    for stage in STAGES:
        torch.manual_seed(STAGES.index(stage))
        models[stage] = GPT(config)
        with pytest.raises(CheckpointError):
            reference.build("mine", other, target=target)
        assert not target.exists(), "nothing is written while a stage is missing"
        save_checkpoint(run, stage, 5, model=models[stage], meta=meta)
    reference.build("mine", other, target=target)
    assert reference.read_about(target)["command"] == "nanolab run --profile smoke --tag mine"
    reference.unpack(target)
    for stage in STAGES:
        model, _, meta = load_model(stage, model_tag="reference")
        assert meta["step"] == 5 and meta["profile"] == "smoke"
        for weight, original in zip(model.parameters(), models[stage].parameters(), strict=True):
            assert (weight - original).abs().max() <= original.abs().max() / 250
