"""Device and number format are chosen on request, and say why."""

import os
import subprocess
import sys

import pytest
import torch

from nanolab import compute
from nanolab.compute import choose_compute, prepare_process
from nanolab.errors import ConfigError


def test_bf16_is_chosen_on_a_cpu_only_where_it_is_clearly_faster(monkeypatch):
    monkeypatch.setattr(compute, "cpu_speedup_of_bf16", lambda: 1.4)
    assert choose_compute("cpu").dtype == torch.float32
    # What a processor with AVX-512-BF16 was measured at, with the worst neighbours: not near the threshold.
    for ratio in (1.9, 2.4):
        monkeypatch.setattr(compute, "cpu_speedup_of_bf16", lambda ratio=ratio: ratio)
        chosen = choose_compute("cpu")
        assert chosen.dtype == torch.bfloat16 and f"{ratio} times" in chosen.reason and not chosen.note


@pytest.mark.parametrize(
    ("begun", "ratio", "better"),
    [
        ("bfloat16", 0.4, "float32"),
        ("bfloat16", 1.2, None),
        ("bfloat16", 4.0, None),
        ("float32", 4.0, "bfloat16"),
        ("float32", 1.9, None),
        ("float32", 0.4, None),
    ],
)
def test_a_begun_format_is_kept_and_only_a_clear_loser_is_spoken_of(begun, ratio, better, monkeypatch):
    monkeypatch.setattr(compute, "cpu_speedup_of_bf16", lambda: ratio)
    kept = choose_compute("cpu", "auto", begun)
    assert kept.format == begun and bool(kept.note) is bool(better)
    if better:
        assert f"--dtype {better}" in kept.note and "\n" not in kept.note
    asked = choose_compute("cpu", "float32", begun)
    assert asked.format == "float32" and not asked.note


def test_an_unknown_begun_format_is_measured_anew(monkeypatch):
    monkeypatch.setattr(compute, "cpu_speedup_of_bf16", lambda: 4.0)
    assert choose_compute("cpu", "auto", "float8").format == "bfloat16"


def test_a_neighbour_that_comes_and_goes_slows_both_sides_of_a_comparison(monkeypatch):
    """A clock on which the first half of the time runs ten times as fast."""
    now = 0.0

    def work(seconds):
        def do():
            nonlocal now
            now += seconds * (10 if now < 30 else 1)

        return do

    monkeypatch.setattr(compute.time, "perf_counter", lambda: now)
    assert compute.best_seconds_of_each([work(1.0), work(0.5)], repeats=6) == pytest.approx([1.0, 0.5])


def test_a_comparison_with_something_very_slow_ends_soon(monkeypatch):
    now, runs = 0.0, 0

    def slow():
        nonlocal now, runs
        now, runs = now + 1.0, runs + 1

    monkeypatch.setattr(compute.time, "perf_counter", lambda: now)
    assert compute.best_seconds_of_each([slow], repeats=20, patience=0.3) == [1.0]
    assert runs == 2


def test_the_measurement_leaves_the_threads_as_they_were(monkeypatch):
    seen = []
    monkeypatch.setattr(compute, "best_seconds_of_each", lambda *_, **__: seen.append(threads()) or (3, 1))
    threads, before = torch.get_num_threads, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert compute.cpu_speedup_of_bf16.__wrapped__() == 3
        assert seen == [1] and threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_is_asked_for_is_taken():
    assert choose_compute("cpu", "bfloat16").dtype == torch.bfloat16
    with choose_compute("cpu", "bfloat16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with choose_compute("cpu", "float32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("device", "dtype", "words"), [("tpu", "auto", "This machine has"), ("cpu", "int8", "Choose auto")]
)
def test_what_is_not_there_is_refused_with_the_choice(device, dtype, words):
    with pytest.raises(ConfigError, match=words):
        choose_compute(device, dtype)


SHOW = "import os, nanolab; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"


def run_with(code, **settings):
    clean = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **settings}, capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch has another OpenMP")
def test_waiting_threads_soon_sleep_unless_the_learner_says_otherwise():
    assert run_with(SHOW).stdout.split() == ["5000", "None"]
    assert run_with(SHOW, GOMP_SPINCOUNT="7").stdout.split() == ["7", "None"]
    assert run_with(SHOW, OMP_WAIT_POLICY="ACTIVE").stdout.split() == ["None", "ACTIVE"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch has another OpenMP")
def test_the_openmp_that_torch_loads_has_read_it():
    shown = run_with("import nanolab.compute", OMP_DISPLAY_ENV="VERBOSE").stderr
    if "GOMP_" not in shown:
        pytest.skip("this torch has another OpenMP than GNU's")
    assert "GOMP_SPINCOUNT = '5000'" in shown


def test_preparing_the_process_twice_is_harmless():
    prepare_process()
    prepare_process()
    assert torch.ones(1000, 1000).sum() == 1e6


def test_a_model_trains_in_bf16_autocast_with_fp32_weights():
    code = (
        "import torch; from nanolab.model import *; from nanolab.optim import *; from nanolab.train import fit\n"
        "from nanolab.compute import choose_compute\n"
        "torch.manual_seed(0); m = GPT(GPTConfig(8, 20, 1, 1, 1, 32)); x = torch.arange(8)[None]\n"
        "o = build_optimizers(m, LearningRates(), ns_dtype=torch.bfloat16)\n"
        "b = iter(lambda: (x, x + 1), None)\n"
        "l = [r.loss for r in fit(m, o, b, Schedule(40), compute=choose_compute('cpu', 'bfloat16'))]\n"
        "assert l[-1] < 0.2 and all(p.dtype == torch.float32 for p in m.parameters()), l[-1]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
