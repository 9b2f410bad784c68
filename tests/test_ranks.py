"""Two processes under torchrun train as one does, resume each other's runs, and end cleanly when one is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nanolab import ranks
from nanolab.checkpoint import find_checkpoint, load_checkpoint, load_model
from nanolab.errors import ConfigError
from nanolab.model import GPT
from nanolab.profiles import Profile
from nanolab.stages import Log, model_config

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun and SIGKILL: macOS and Linux"),
    pytest.mark.timeout(240),
]

HERE = Path(__file__).resolve().parent
STEPS = 20
HELPER = {"main": (str(HERE / "ranks_main.py"),)}
BASE = [
    "--profile", "smoke", "--device", "cpu", "--dtype", "float32", "--num-iterations", str(STEPS),
    "--depth", "1", "--vocab-size", "400", "--max-seq-len", "64", "--total-batch-size", "512",
    "--device-batch-size", "2", "--save-every", "8", "--eval-every", "10",
]  # fmt: skip
RL = ["--num-iterations", str(STEPS), "--num-samples", "4", "--max-new-tokens", "12", "--init-lr-frac", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Home and texts of all tests here."""
    folder = tmp_path_factory.mktemp("ranks")
    texts = folder / "texts"
    texts.mkdir()
    for number in range(40):
        lines = [f"Line {i} of text {number} says that {i} and {number} make {i + number}." for i in range(40)]
        (texts / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def program(folder, arguments, *, processes=1, main=("-m", "nanolab"), **environment):
    """Run nanolab in so many processes; returns the finished torchrun."""
    environment = {
        **os.environ, "NANOLAB_HOME": str(folder), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]), **environment,
    }  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), *main, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def base(folder, tag, **options):
    """Train the base model; the tokenizer is made once."""
    made, own = (folder / "runs" / name / "tokenizer.json" for name in ("one", tag))
    if made.exists() and not own.exists():
        own.parent.mkdir()
        shutil.copy(made, own)
    return program(folder, ["base", "--model-tag", tag, "--data", str(folder / "texts"), *BASE], **options)


def rows(folder, tag, stage, key):
    found = Log(folder / "runs" / tag).rows()
    return [row[key] for row in found if row["stage"] == stage and key in row]


def weights(folder, tag, stage):
    run = folder / "runs" / tag
    profile = Profile.from_json((run / "profile.json").read_text(encoding="utf-8"))
    model = GPT(model_config(profile))
    load_checkpoint(find_checkpoint(run, stage), model=model)
    return model.state_dict()


def assert_alike(folder, one, other, stage):
    """Equal as a whole: AdamW turns rounding into whole steps where a gradient is next to nothing."""
    left, right = weights(folder, one, stage), weights(folder, other, stage)
    for name in left:
        assert (left[name] - right[name]).norm() <= 1e-4 * left[name].norm(), name


@pytest.fixture(scope="module")
def one(folder):
    done = base(folder, "one")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def two(folder):
    done = base(folder, "two", processes=2)
    assert done.returncode == 0, done.stderr
    return done


def test_base_by_two_processes_equals_base_by_one(folder, one, two):
    for key in ("loss", "grad_norm"):
        expected = rows(folder, "one", "base", key)
        assert len(expected) == STEPS
        assert rows(folder, "two", "base", key) == pytest.approx(expected, abs=1e-5)
    assert expected[0] > 0
    losses = rows(folder, "one", "base", "loss")
    assert losses[-1] < losses[0] - 0.5, "nothing was learnt, so that equality says little"
    assert rows(folder, "one", "base", "tokens") == rows(folder, "two", "base", "tokens")
    measured = [rows(folder, tag, "base", "validation") for tag in ("one", "two")]
    assert len(measured[0]) == 3
    for left, right in zip(*measured, strict=True):
        assert left == pytest.approx(right, abs=1e-5)
    assert_alike(folder, "one", "two", "base")


def test_only_the_first_process_talks(one, two):
    def without_times(text):
        return [line.split(" | dt: ")[0] for line in text.splitlines()]

    assert without_times(two.stdout) == without_times(one.stdout)
    assert "nanolab" not in two.stderr


def test_a_checkpoint_of_two_processes_opens_in_one(folder, two, monkeypatch):
    monkeypatch.setenv("NANOLAB_HOME", str(folder))
    model, tokenizer, meta = load_model("base", model_tag="two")
    assert meta["step"] == STEPS
    assert model(torch.tensor([tokenizer.encode("Line 3")])).isfinite().all()


def test_rl_by_two_processes_equals_rl_by_one(folder, one):
    for tag, processes in (("rl-one", 1), ("rl-two", 2)):
        run = folder / "runs" / tag
        shutil.copytree(folder / "runs" / "one", run)
        (run / "base").rename(run / "sft")
        done = program(folder, ["rl", "--model-tag", tag, *RL], processes=processes, **HELPER)
        assert done.returncode == 0, done.stderr
    for key in ("reward", "length", "tokens", "without_variance", "finished"):
        expected = rows(folder, "rl-one", "rl", key)
        assert len(expected) == STEPS
        assert rows(folder, "rl-two", "rl", key) == expected
    norms = rows(folder, "rl-one", "rl", "grad_norm")
    assert rows(folder, "rl-two", "rl", "grad_norm") == pytest.approx(norms, abs=1e-5)
    assert sum(norm > 0 for norm in norms) > STEPS / 2, "no rewards differed: equality says little"
    assert_alike(folder, "rl-one", "rl-two", "rl")


def test_a_run_goes_on_with_another_number_of_processes_after_one_was_killed(folder, one):
    began = time.monotonic()
    killed = base(folder, "killed", processes=2, FAULT="KILL 1 5", **HELPER)
    assert killed.returncode != 0 and time.monotonic() - began < 60
    assert killed.stderr.count("nanolab: ") == 1
    assert "nanolab: another process of this training has ended" in killed.stderr
    assert "continues from the last checkpoint" in killed.stderr
    assert rows(folder, "killed", "base", "step")[-1] == 4

    lost = base(folder, "killed", processes=2, FAULT="KILL 0 5", **HELPER)
    assert lost.returncode != 0 and lost.stderr.count("nanolab: another process") == 1
    assert "resumed at step 5" in lost.stdout

    rest = base(folder, "killed")
    assert "resumed at step 8" in rest.stdout
    assert rows(folder, "killed", "base", "loss") == pytest.approx(rows(folder, "one", "base", "loss"), abs=1e-5)
    assert_alike(folder, "one", "killed", "base")


def test_ctrl_c_stops_all_processes_at_the_same_step_and_saves(folder):
    done = base(folder, "stopped", processes=2, FAULT="INTERRUPT 1 5", **HELPER)
    assert done.returncode != 0
    saved = find_checkpoint(folder / "runs" / "stopped", "base").name.removeprefix("step-")
    assert 5 <= int(saved) < STEPS
    assert done.stdout.count(f"Stopped at step {int(saved)}/{STEPS}; everything is saved.") == 1
    assert rows(folder, "stopped", "base", "step")[-1] == int(saved) - 1
    assert "nanolab: " not in done.stderr


def test_a_batch_that_cannot_be_dealt_is_refused_in_one_line(folder):
    uneven = [*BASE, "--device-batch-size", "8"]
    done = program(folder, ["base", "--model-tag", "uneven", "--data", str(folder / "texts"), *uneven], processes=2)
    assert done.returncode != 0 and done.stderr.count("nanolab: ") == 1
    assert "cannot be dealt to 2 processes" in done.stderr and "--device-batch-size 4" in done.stderr


def test_alone_nothing_is_shared():
    assert ranks.world_size() == 1 and ranks.is_main()
    with ranks.joined(), ranks.main_first():
        assert ranks.share([1, 2, 3]) == [1, 2, 3]
        assert ranks.total(0.1) == 0.1 and ranks.anyone(True) and not ranks.anyone(False)
    ranks.check_batch(512, 3, 7)
    assert ranks.own_device("mps") == "mps"


@pytest.mark.parametrize(
    ("sizes", "advice"),
    [((1024, 8, 128), "--device-batch-size 4"), ((768, 4, 128), "--device-batch-size 3"), ((896, 1, 128), "number of")],
)
def test_what_to_do_about_an_uneven_batch_is_said(sizes, advice, monkeypatch):
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match=advice):
        ranks.check_batch(*sizes)
    ranks.check_batch(1024, 4, 128)
