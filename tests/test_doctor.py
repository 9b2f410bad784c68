"""The doctor: fine machines get 0, each problem gets a remedy, estimates follow from the plan."""

import builtins
import itertools
import time
from dataclasses import replace

import pytest
import torch

from nanolab import doctor
from nanolab.compute import Compute
from nanolab.model import KVCache
from nanolab.paths import home
from nanolab.profiles import get_profile
from nanolab.train import StepRecord

CPU = Compute(torch.device("cpu"), torch.float32, "for the test")


def report(**options):
    lines: list[str] = []
    return doctor.examine(lines.append, **options), "\n".join(lines)


def test_a_quick_look_at_this_machine_finds_no_problem():
    began = time.perf_counter()
    status, text = report(quick=True)
    assert status == 0, text
    for name in ("system", "processor", "memory", "python", "packages", "torch ", "home", "device"):
        assert name in text
    assert str(home()) in text and "PROBLEM" not in text and text.isascii()
    assert time.perf_counter() - began < 10


def test_the_full_report_measures_and_advises(monkeypatch):
    monkeypatch.setattr(doctor, "MEASURING_SECONDS", 0.0)
    findings = {finding.name: finding for finding in doctor.arithmetic(quick=False)}
    assert set(findings) == {"device", "products", "3 steps", "speed", "time", "advice"}
    assert "GFLOP/s" in findings["products"].found and "tok/s" in findings["speed"].found
    assert not findings["3 steps"].remedy and "last bit" in findings["3 steps"].found
    assert "nanolab run" in findings["advice"].found


def test_a_home_that_cannot_be_written_to_is_a_problem_with_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("NANOLAB_HOME", str(tmp_path / "file" / "home"))
    (finding,) = doctor.storage()
    assert "cannot be written" in finding.found and "NANOLAB_HOME" in finding.remedy
    status, text = report(quick=True)
    assert status == 1 and "PROBLEM  home" in text and "-> Set the environment variable" in text


def test_too_little_disk_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1e30)
    (finding,) = doctor.storage()
    assert finding.remedy.startswith("Free ")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    finding = doctor.packages()
    assert "missing: no-such-package" in finding.found and "constraints.txt" in finding.remedy


def test_a_torch_that_cannot_be_imported_is_a_finding(monkeypatch):
    original = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "torch":
            raise OSError("a library is missing")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    (finding,) = doctor.arithmetic(quick=True)
    assert "a library is missing" in finding.found and finding.remedy


def test_a_device_that_computes_wrongly_is_found(monkeypatch):
    """Pretend that the second run was on another device, which gets the last loss wrong."""
    good = [7.0, 6.9, 6.8, 6.7]
    answers = {"cpu": good, "meta": [*good[:3], 6.5]}
    monkeypatch.setattr(doctor, "few_losses", lambda device: answers[device.type])
    finding = doctor.compare_devices(replace(CPU, device=torch.device("meta")))
    assert "2.0e-01" in finding.found and "--device cpu" in finding.remedy
    answers["meta"] = [7.0, 6.9, 6.8, 6.7001]
    assert not doctor.compare_devices(replace(CPU, device=torch.device("meta"))).remedy


def test_three_steps_train_and_repeat_exactly():
    losses = doctor.few_losses(CPU.device)
    assert len(losses) == 4 and losses[-1] < losses[0] - 0.1
    assert losses[0] == pytest.approx(torch.tensor(1024.0).log().item(), abs=1e-4)
    assert doctor.few_losses(CPU.device) == losses


def test_a_short_training_is_told_in_seconds():
    assert doctor.training_time({"base": 0.05, "mid": 0.02}) == "4 seconds of training (base 3, mid 1)"
    assert doctor.training_time({"base": 3.0, "mid": 2.04}) == "5.0 minutes of training (base 3.0, mid 2.0)"


def test_thousands_of_minutes_are_told_in_hours():
    assert (
        doctor.training_time({"base": 3000.0, "mid": 150.0}) == "52.5 hours of training (base 50.0, mid 2.5)"
    )
    assert doctor.training_time({"base": 100.0, "mid": 79.0}).startswith("179.0 minutes of training")


def test_the_fastest_step_counts_and_a_neighbour_does_not(monkeypatch):
    """Of the steps of a few seconds three quarters are slowed down, by ten times."""
    monkeypatch.setattr(doctor, "MEASURING_SECONDS", 0.05)

    def disturbed(*_, **__):
        for number in itertools.count():
            time.sleep(0.001)
            yield StepRecord(number, 1.0, 1.0, 1000, 1000, 1.0, seconds=0.1 if number % 4 == 2 else 1.0)

    monkeypatch.setattr("nanolab.bench.training_steps", disturbed)
    assert doctor.training_rate(get_profile("smoke"), CPU) == pytest.approx(10_000)


def test_sampling_is_timed_in_several_tries_from_the_middle_of_an_answer(monkeypatch):
    places = []
    positions = KVCache.positions

    def noting(cache, count):
        places.append(int(cache.lengths.max()))
        return positions(cache, count)

    def best_of(work, tries):
        for _ in range(tries):
            work()
        return 0.5

    monkeypatch.setattr(KVCache, "positions", noting)
    monkeypatch.setattr("nanolab.compute.best_seconds", best_of)
    rl = get_profile("smoke").rl
    rate = doctor.sampling_rate(get_profile("smoke"), CPU, steps=2, tries=3)
    assert rate == 2 * rl.examples_per_step * rl.num_samples / 0.5
    assert places == [rl.max_new_tokens, rl.max_new_tokens + 1] * 3


@pytest.mark.parametrize(("load", "words"), [(0.0, "--profile smoke"), (3.0, "close the busy programs")])
def test_busy_programs_do_not_turn_the_advice_to_a_smaller_profile(load, words, monkeypatch):
    monkeypatch.setattr(doctor, "training_rate", lambda *_: 500.0)
    monkeypatch.setattr(doctor, "sampling_rate", lambda *_: 500.0)
    *_, advice = doctor.plan(get_profile("laptop"), CPU, load)
    assert advice.name == "advice" and words in advice.found


def test_the_load_is_that_from_before_the_measurements(monkeypatch):
    monkeypatch.setattr(doctor, "MEASURING_SECONDS", 0.0)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (0.1, 0.0, 0.0), raising=False)
    seen = []

    def plan(profile, compute, load):
        seen.append(load)
        return iter(())

    def measured(compute):
        monkeypatch.setattr(doctor.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
        return doctor.Finding("3 steps", "")

    monkeypatch.setattr(doctor, "plan", plan)
    monkeypatch.setattr(doctor, "compare_devices", measured)
    list(doctor.arithmetic(quick=False))
    assert seen == [0.0] and doctor.load_of_others() == 99.0


def test_minutes_follow_from_steps_and_speed():
    profile = get_profile("laptop")
    minutes = doctor.stage_minutes(profile, trained=1000.0, sampled=500.0)
    assert list(minutes) == ["base", "mid", "sft", "rl"]
    plan = profile.base
    assert minutes["base"] == pytest.approx(plan.num_iterations * plan.total_batch_size / 1000 / 60)
    faster = doctor.stage_minutes(profile, trained=2000.0, sampled=1000.0)
    assert faster == pytest.approx({stage: value / 2 for stage, value in minutes.items()})


def test_the_workshop_model_costs_a_multiple_of_the_laptops():
    """Closed form: 12 L C^2 + V C weights in products, six operations each, and attention."""
    profile = get_profile("workshop")
    width = profile.n_embd
    weights = 12 * profile.depth * width**2 + profile.vocab_size * width
    attention = 12 * profile.depth * width * profile.sequence_len
    assert doctor.arithmetic_per_token(profile) == 6 * weights + attention
    assert doctor.arithmetic_per_token(profile) > 4 * doctor.arithmetic_per_token(get_profile("laptop"))
