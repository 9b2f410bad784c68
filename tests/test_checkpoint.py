from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from nanolab import checkpoint, checkpoint_files
from nanolab.checkpoint import (
    find_checkpoint,
    list_runs,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from nanolab.checkpoint_files import verify_checkpoint, write_manifest
from nanolab.errors import CheckpointError, ConfigError
from nanolab.model import GPT, GPTConfig
from nanolab.optim import LearningRates, build_optimizers

CONFIG = GPTConfig(sequence_len=16, vocab_size=32, n_layer=1, n_head=2, n_kv_head=1, n_embd=8)


class FakeTokenizer:
    """What a checkpoint needs of a tokenizer."""

    def __init__(self, name: str = "ours", size: int = 32) -> None:
        self.name, self.size = name, size

    def hash(self) -> str:
        return self.name

    def get_vocab_size(self) -> int:
        return self.size

    @staticmethod
    def load(path: Path) -> FakeTokenizer:
        return FakeTokenizer(**json.loads(path.read_text(encoding="utf-8")))


class Slow(torch.optim.Optimizer):
    """A custom optimizer with one buffer for each parameter, a number and a tuple setting."""

    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.5, 0.25)})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["buffer"] = state.get("buffer", torch.zeros_like(p)).mul(group["betas"][0]).add(p.grad)
                state["count"] = state.get("count", 0) + 1
                p.sub_(state["buffer"], alpha=group["lr"] / state["count"])


def make_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))


def make_optimizers(model: nn.Sequential) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(model[0].parameters(), lr=0.01), Slow(model[2].parameters())]


def train(model, optimizers, rng: random.Random, steps: int) -> list[float]:
    """Uses torch's random state (dropout) and Python's (inputs)."""
    losses = []
    for _ in range(steps):
        x = torch.tensor([[rng.random() for _ in range(4)] for _ in range(3)])
        loss = model(x).square().mean()
        losses.append(loss.item())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def save(run: Path, step: int = 1, stage: str = "base", **changes) -> Path:
    model = changes.pop("model", None) or make_model()
    meta = {"tokenizer": "ours", "model_config": asdict(CONFIG), **changes.pop("meta", {})}
    return save_checkpoint(run, stage, step, model=model, meta=meta, **changes)


@pytest.fixture
def full(tmp_path) -> Path:
    """A checkpoint with every kind of file."""
    model = make_model()
    optimizers = make_optimizers(model)
    train(model, optimizers, random.Random(0), 2)
    return save(tmp_path / "run", model=model, optimizers=optimizers, state={"batches": {"epoch": 1}})


# ---- what is saved comes back


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path):
    model, rng = make_model(), random.Random(5)
    optimizers = make_optimizers(model)
    train(model, optimizers, rng, 3)
    path = save(tmp_path, 3, model=model, optimizers=optimizers, state={"python": rng.getstate()})
    unbroken = train(model, optimizers, rng, 4)

    resumed, new_rng = make_model(seed=99), random.Random(99)
    new_optimizers = make_optimizers(resumed)
    _, state = load_checkpoint(path, model=resumed, optimizers=new_optimizers)
    new_rng.setstate(state["python"])
    assert train(resumed, new_optimizers, new_rng, 4) == unbroken
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name])


def test_loading_a_model_alone_leaves_the_random_state_alone(full):
    model = make_model(seed=7)
    before = torch.get_rng_state()
    load_checkpoint(full, model=model)
    assert torch.equal(torch.get_rng_state(), before)


def test_state_and_meta_come_back_equal(tmp_path):
    state = {"tuple": (1, (2.5, None)), "list": [True, "x"], "numbers": {3: "three"}, "odd": {"$tensor": 1},
             "tensor": torch.arange(3), "tiny": 5e-324, "infinite": float("inf"), "empty": {}}  # fmt: skip
    path = save(tmp_path, 12, state=state, meta={"parent": {"stage": "mid", "step": 4}})
    meta, loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("tensor"), state.pop("tensor"))
    assert loaded == state and isinstance(loaded["tuple"], tuple)
    assert (meta["stage"], meta["step"], meta["parent"]) == ("base", 12, {"stage": "mid", "step": 4})


def test_what_json_cannot_hold_is_refused_when_saving(tmp_path):
    with pytest.raises(CheckpointError, match=r"state\.rng is a Random"):
        save(tmp_path, state={"rng": random.Random(0)})
    assert not list((tmp_path / "base").iterdir())


def test_dtypes_survive(tmp_path):
    model = nn.Linear(2, 2).to(torch.bfloat16)
    other = nn.Linear(2, 2).to(torch.bfloat16)
    load_checkpoint(save(tmp_path, model=model), model=other)
    assert torch.equal(model.weight, other.weight) and other.weight.dtype == torch.bfloat16


# ---- damage


def test_every_bit_flip_and_truncation_is_refused(full):
    rng = random.Random(0)
    files = sorted(path for path in full.iterdir())
    assert len(files) == 6
    for trial in range(240):
        path = files[trial % len(files)]
        original = path.read_bytes()
        damaged = bytearray(original)
        if trial % 4 == 3:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        model = make_model(seed=3)
        before = model[0].weight.clone()
        with pytest.raises(CheckpointError):
            load_checkpoint(full, model=model, optimizers=make_optimizers(model))
        assert torch.equal(model[0].weight, before)
        path.write_bytes(original)
    verify_checkpoint(full)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.json", "state.json", "meta.json"])
def test_a_missing_file_is_named(full, name):
    (full / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        load_checkpoint(full)


def test_a_safetensors_file_that_is_not_in_the_manifest_is_refused(full):
    shutil.copy(full / "model.safetensors", full / "extra.safetensors")
    with pytest.raises(CheckpointError, match=r"extra\.safetensors is not in its manifest"):
        load_checkpoint(full)


def test_a_file_browser_may_leave_its_own_files(full):
    (full / ".DS_Store").write_bytes(b"x")
    load_checkpoint(full)


def rewrite_manifest(folder: Path, **changes) -> None:
    """A manifest that agrees with itself: what damage never makes, and an attacker does."""
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del content["sha256"]
    content.update(changes)
    text = checkpoint_files._canonical({**content, "sha256": checkpoint_files._digest(content)})
    (folder / "manifest.json").write_text(text, encoding="utf-8", newline="\n")


@pytest.mark.parametrize("name", ["../../secret.json", "/etc/passwd", "..\\x", "model.pt", "meta.json "])
def test_a_manifest_naming_other_files_is_refused(full, name):
    files = json.loads((full / "manifest.json").read_text(encoding="utf-8"))["files"]
    rewrite_manifest(full, files={**files, name: files["meta.json"]})
    with pytest.raises(CheckpointError, match="no file of a checkpoint"):
        load_checkpoint(full)


@pytest.mark.parametrize("files", [{}, [], None, {"model.safetensors": 3}, {"meta.json": {"bytes": 1}}])
def test_a_manifest_of_another_shape_is_refused(full, files):
    rewrite_manifest(full, files=files)
    with pytest.raises(CheckpointError):
        load_checkpoint(full)


def test_a_newer_format_says_update(full):
    rewrite_manifest(full, format=2)
    with pytest.raises(CheckpointError, match="format 2.*\n.*Update nanolab"):
        load_checkpoint(full)


class Boom:
    def __reduce__(self):
        return (Boom.explode, ())

    @staticmethod
    def explode():
        raise AssertionError("a pickle was executed")


def test_a_pickle_named_safetensors_is_refused_and_never_run(full):
    torch.save({"weight": Boom()}, full / "model.safetensors")
    write_manifest(full)
    with pytest.raises(CheckpointError, match="not in the safetensors format"):
        load_checkpoint(full, model=make_model())


# ---- belonging


def test_a_foreign_tokenizer_is_refused(full):
    load_checkpoint(full, tokenizer=FakeTokenizer("ours"))
    with pytest.raises(CheckpointError, match="another tokenizer"):
        load_checkpoint(full, tokenizer=FakeTokenizer("theirs"))


def test_other_shapes_are_refused_and_both_named(full):
    other = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 2))
    with pytest.raises(CheckpointError, match=r"0\.bias is \(8,\) in the checkpoint and \(6,\) in the model"):
        load_checkpoint(full, model=other)


def test_other_parameter_names_are_refused(full):
    with pytest.raises(CheckpointError, match=r"has, and the model lacks, 0\.bias"):
        load_checkpoint(full, model=nn.Sequential(nn.Linear(4, 8, bias=False), nn.Dropout(), nn.Linear(8, 2)))


def test_other_optimizers_are_refused_before_anything_changes(full):
    model = make_model(seed=3)
    before = model[0].weight.clone()
    for optimizers in ([make_optimizers(model)[0]], make_optimizers(model)[::-1]):
        with pytest.raises(CheckpointError, match="other optimizers"):
            load_checkpoint(full, model=model, optimizers=optimizers)
    assert torch.equal(model[0].weight, before)


def test_a_checkpoint_without_optimizers_cannot_be_resumed(tmp_path):
    model = make_model()
    with pytest.raises(CheckpointError, match="without optimizers"):
        load_checkpoint(save(tmp_path), model=model, optimizers=make_optimizers(model))


# ---- crashes


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, monkeypatch):
    first = save(tmp_path, 1)

    def write(path, content):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_file", write)
        with pytest.raises(CheckpointError, match="step 2, could not be saved.*No space left.*\n.*disk"):
            save(tmp_path, 2)
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["step-000001"]
    assert find_checkpoint(tmp_path, "base") == first


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX")
def test_a_real_write_error_is_a_checkpoint_error(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="could not be saved"):
            save(tmp_path, model=nn.Linear(100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "base").iterdir())


class Killed(BaseException):
    pass


def test_what_a_kill_leaves_behind_is_ignored_and_cleaned_later(tmp_path, monkeypatch):
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            save(tmp_path, 2)
    (left,) = (tmp_path / "base").glob(".tmp-*")
    assert (left / "manifest.json").exists()
    assert find_checkpoint(tmp_path, "base").name == "step-000001"
    save(tmp_path, 2)
    assert left.exists()  # too young: another process might be writing it
    os.utime(left, (0, 0))
    save(tmp_path, 3)
    assert not left.exists()


def test_a_step_can_be_saved_again(tmp_path):
    save(tmp_path, 1, model=make_model(0))
    path = save(tmp_path, 1, model=make_model(1))
    model = make_model(2)
    load_checkpoint(path, model=model)
    assert torch.equal(model[0].weight, make_model(1)[0].weight)
    assert [folder.name for folder in (tmp_path / "base").iterdir()] == ["step-000001"]


def test_the_newest_are_kept_for_each_stage(tmp_path):
    for stage in ("base", "mid"):
        for step in (1, 2, 3):
            save(tmp_path, step, stage)
    for stage in ("base", "mid"):
        assert sorted(path.name for path in (tmp_path / stage).iterdir()) == ["step-000002", "step-000003"]


def test_the_checkpoint_just_saved_is_never_deleted(tmp_path):
    for step in (8, 9, 1):
        path = save(tmp_path, step, keep=1)
        assert path.is_dir()


# ---- finding


def test_a_folder_without_a_manifest_does_not_exist(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "manifest.json").unlink()
    assert find_checkpoint(tmp_path, "base").name == "step-000001"


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "meta.json").write_text("{}", encoding="utf-8")
    with pytest.warns(UserWarning, match="step-000002 is damaged.*meta.json"):
        assert find_checkpoint(tmp_path, "base").name == "step-000001"
    with pytest.raises(CheckpointError, match="damaged"):
        find_checkpoint(tmp_path, "base", 2)


def test_none_found_says_what_there_is(tmp_path):
    save(tmp_path, 1, "base")
    assert find_checkpoint(tmp_path, "mid", missing_ok=True) is None
    with pytest.raises(CheckpointError, match="no mid checkpoint yet; it has base.\nTrain it with: nanolab"):
        find_checkpoint(tmp_path, "mid")
    with pytest.raises(CheckpointError, match=r"no base checkpoint of step 5; it has \[1\]"):
        find_checkpoint(tmp_path, "base", 5)


# ---- runs and models


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A home with run `old` (base, mid) and the more recent run `new` (base)."""
    monkeypatch.setenv("NANOLAB_HOME", str(tmp_path))
    monkeypatch.setattr(checkpoint, "Tokenizer", FakeTokenizer)
    for age, (tag, stages) in enumerate({"new": ["base"], "old": ["base", "mid"]}.items()):
        run = tmp_path / "runs" / tag
        for stage in stages:
            torch.manual_seed(age)
            path = save(run, 4, stage, model=GPT(CONFIG))
            os.utime(path / "manifest.json", (2_000 - age, 2_000 - age))
        (run / "tokenizer.json").write_text(json.dumps({"name": "ours"}), encoding="utf-8")
    return tmp_path / "runs"


def test_runs_are_listed_newest_first(runs):
    (runs / "empty").mkdir()
    assert [(run.tag, run.stages, run.time) for run in list_runs()] == [
        ("new", {"base": [4]}, 2_000.0),
        ("old", {"base": [4], "mid": [4]}, 1_999.0),
    ]


def test_throw_away_runs_come_last_and_are_not_taken_for_the_learner_s(runs):
    (runs / "new").rename(runs / "scratch-new")
    assert [run.tag for run in list_runs()] == ["old", "scratch-new"]
    torch.manual_seed(1)
    assert torch.equal(load_model("base")[0].lm_head.weight, GPT(CONFIG).lm_head.weight)


def test_without_a_tag_the_newest_run_that_has_the_stage_is_loaded(runs):
    assert load_model("mid")[2]["stage"] == "mid"
    with pytest.raises(CheckpointError, match=r"new has no sft checkpoint yet; it has base"):
        load_model("sft")


def test_load_model_takes_the_newest_run_and_rebuilds_the_model(runs):
    model, tokenizer, meta = load_model("base")
    torch.manual_seed(0)
    assert torch.equal(model.transformer["wte"].weight, GPT(CONFIG).transformer["wte"].weight)
    assert GPTConfig(**meta["model_config"]) == CONFIG and tokenizer.hash() == "ours"
    assert not model.training and load_model("mid", phase="train", model_tag="old")[0].training


def test_load_model_names_what_is_missing(runs):
    with pytest.raises(CheckpointError, match="no mid checkpoint yet; it has base"):
        load_model("mid", model_tag="new")
    with pytest.raises(CheckpointError, match="no base checkpoint of step 9"):
        load_model("base", step=9)
    for source, wrong in (("best", {}), ("base", {"phase": "x"}), ("base", {"model_tag": "../x"})):
        with pytest.raises(ConfigError):
            load_model(source, **wrong)
    shutil.rmtree(runs)
    with pytest.raises(CheckpointError, match="no trained model.*\nTrain one with: nanolab run"):
        load_model("base")


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [({"name": "theirs"}, "another tokenizer"), ({"name": "ours", "size": 33}, "knows 32 tokens.*has 33")],
)
def test_load_model_refuses_a_foreign_tokenizer(runs, tokenizer, message):
    (runs / "new" / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_model("base")


def edit_meta(path: Path, **changes) -> None:
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    (path / "meta.json").write_text(json.dumps({**meta, **changes}), encoding="utf-8")
    write_manifest(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**asdict(CONFIG), "n_expert": 4}, "look at: n_expert"),
        ({"n_layer": 1}, "look at: n_embd"),
        (None, "model_config is not one"),
        ({**asdict(CONFIG), "n_layer": "1"}, "n_layer is a str, and has to be a whole number"),
        ({**asdict(CONFIG), "n_layer": True}, "n_layer is a bool"),
        ({**asdict(CONFIG), "n_layer": 0}, "n_layer has to be above 0"),
        ({**asdict(CONFIG), "smear": 1}, "smear is a int, and has to be True or False"),
        ({**asdict(CONFIG), "qk_gain": "1.2"}, "qk_gain is a str, and has to be a number"),
        ({**asdict(CONFIG), "qk_gain": float("nan")}, "qk_gain has to be above 0"),
        ({**asdict(CONFIG), "rotary_base": -1.0}, "rotary_base has to be above 0"),
        ({**asdict(CONFIG), "window_pattern": "S" * 10**6}, "1 to 128 of them"),
        ({**asdict(CONFIG), "window_pattern": ["L"]}, "window_pattern is a list, and has to be a text"),
        ({**asdict(CONFIG), "residual_scalars": True}, "the checkpoint lacks resid_lambdas"),
        ({**asdict(CONFIG), "n_head": 3}, "cannot be built"),
        ({**asdict(CONFIG), "vocab_size": 64}, r"\(32, 8\) in the checkpoint and \(64, 8\) in the model"),
        ({**asdict(CONFIG), "n_layer": 2}, "lacks transformer.h.1"),
    ],
)
def test_load_model_refuses_another_config(runs, config, message):
    edit_meta(runs / "new" / "base" / "step-000004", model_config=config)
    with pytest.raises(CheckpointError, match=message):
        load_model("base")


def test_a_checkpoint_of_late_2025_loads_as_the_model_it_was(runs):
    """Its meta.json names six sizes and none of the parts that came later."""
    late_2025 = {
        "sequence_len": 16, "vocab_size": 32, "n_layer": 1, "n_head": 2, "n_kv_head": 1, "n_embd": 8,
    }  # fmt: skip
    expected = load_model("base")[0].state_dict()
    edit_meta(runs / "new" / "base" / "step-000004", model_config=late_2025)
    model = load_model("base")[0]
    assert model.config == CONFIG == GPTConfig(**late_2025)
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


def test_load_model_refuses_another_stage_under_this_name(runs):
    shutil.copytree(runs / "new" / "base", runs / "new" / "sft")
    with pytest.raises(CheckpointError, match="of stage base, not of sft"):
        load_model("sft", model_tag="new")


def test_each_file_is_hashed_once(runs, monkeypatch):
    hashed = []
    original = checkpoint_files._sha256
    monkeypatch.setattr(checkpoint_files, "_sha256", lambda path: hashed.append(path.name) or original(path))
    load_model("base")
    assert sorted(hashed) == ["meta.json", "model.safetensors", "state.json"]


def test_the_optimizers_of_2026_go_on_from_a_checkpoint_as_if_nothing_had_been(tmp_path):
    config = GPTConfig(16, 32, 2, 2, 2, 16, value_embeddings=True, residual_scalars=True)
    rates = LearningRates(polar_express=True, muon_beta2=0.9)

    def fresh():
        torch.manual_seed(0)
        model = GPT(config)
        return model, build_optimizers(model, rates)

    def step(model, optimizers, seed):
        ids = torch.randint(32, (2, 17), generator=torch.Generator().manual_seed(seed))
        model(ids[:, :-1], ids[:, 1:]).backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()

    model, optimizers = fresh()
    for seed in range(3):
        step(model, optimizers, seed)
    saved = save_checkpoint(
        tmp_path, "base", 3, model=model, optimizers=optimizers,
        meta={"model_config": asdict(config), "tokenizer": "ours"},
    )  # fmt: skip
    other, others = fresh()
    load_checkpoint(saved, model=other, optimizers=others)
    for seed in range(3, 6):
        step(model, optimizers, seed)
        step(other, others, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
