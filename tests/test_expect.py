"""Guesses are kept and shown beside results; bands tell what a value means, and never stop a notebook."""

from __future__ import annotations

import json
import math

import pytest
import torch

from nanolab import expect as module
from nanolab.errors import ConfigError
from nanolab.evals import Score
from nanolab.expect import bands, expect, predict, reveal
from nanolab.paths import home
from nanolab.profiles import PROFILES

BANDS = {
    "t/loss": {
        "what": "the first loss", "unit": "nats", "smoke": [6.8, 7.1], "laptop": [7.5, 7.7],
        "low": "It saw this before.", "high": "The weights are too large.",
    }
}  # fmt: skip


@pytest.fixture
def two_bands(monkeypatch):
    monkeypatch.setattr(module, "bands", lambda: BANDS)


def test_a_guess_is_kept_on_disk_beside_earlier_ones(capsys):
    predict("first loss", 8.0)
    assert predict("accuracy", "half").value == "half"
    kept = json.loads((home() / "predictions.json").read_text(encoding="utf-8"))
    assert kept == {"first loss": 8.0, "accuracy": "half"}
    assert "first loss: 8" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00"])
def test_a_damaged_file_of_guesses_costs_nothing(content):
    home().mkdir(parents=True)
    (home() / "predictions.json").write_text(content, encoding="utf-8")
    predict("q", 1)
    assert json.loads((home() / "predictions.json").read_text(encoding="utf-8")) == {"q": 1}


def test_the_guess_stands_beside_the_result(capsys):
    reveal(predict("first loss", 8.0), 7.62, "nats")
    reveal(predict("words", 10), 40)
    reveal(predict("capital", "Lyon"), "Paris")
    out = capsys.readouterr().out
    assert "you said 8, it is 7.62 nats. Close." in out
    assert "you said 10, it is 40. That is 30 apart." in out
    assert "you said Lyon, it is Paris." in out


@pytest.mark.parametrize(
    ("value", "ok", "part"),
    [
        (7.6, True, "As expected"),
        (7.5, True, "7.5 to 7.7 nats"),
        (7.0, False, "It saw this before."),
        (9.0, False, "The weights are too large."),
        (float("nan"), False, "not a number"),
    ],
)
def test_a_band_names_the_cause_on_either_side(two_bands, value, ok, part):
    outcome = expect("t/loss", value)
    assert outcome.ok is ok and part in outcome.message


def test_a_cause_that_is_half_a_sentence_becomes_one(monkeypatch, capsys):
    monkeypatch.setattr(module, "bands", lambda: {"t": {**BANDS["t/loss"], "low": "seen before"}})
    assert expect("t", 1.0).message.endswith("is usual. Likely cause: seen before.")
    assert "Likely cause: seen before." in capsys.readouterr().out


def test_scores_and_tensors_are_numbers_too(two_bands, capsys):
    assert expect("t/loss", torch.tensor(7.6)).ok
    reveal(predict("share right", 0.5), Score(9, 10))
    reveal(predict("loss", 7.5), torch.tensor(7.5))
    out = capsys.readouterr().out
    assert "you said 0.5, it is 0.9" in out and "you said 7.5, it is 7.5. Close." in out


def test_what_is_shown_cannot_be_markup(monkeypatch):
    shown = []
    monkeypatch.setattr(module, "publish", shown.append)
    predict("<b>loss</b>", "<script>")
    assert "<b>" not in shown[0]["text/html"] and "<script>" not in shown[0]["text/html"]
    assert "<script>" in shown[0]["text/plain"]


def test_each_profile_has_its_own_band(two_bands, monkeypatch):
    assert not expect("t/loss", 7.0).ok and expect("t/loss", 7.0, profile="smoke").ok
    monkeypatch.setenv("NANOLAB_PROFILE", "smoke")
    assert expect("t/loss", 7.0).ok
    assert "No band was measured" in expect("t/loss", 7.0, profile="gpu").message


def test_an_unknown_band_is_an_error_of_the_notebook():
    with pytest.raises(ConfigError, match="nothing of that name"):
        expect("no/such", 1.0)


@pytest.mark.parametrize("name", sorted(bands()))
def test_every_shipped_band_is_complete(name):
    band = bands()[name]
    assert band["what"] and band["low"] and band["high"]
    for profile in ("smoke", "laptop"):
        assert profile in PROFILES and band[profile][0] < band[profile][1], profile


def test_the_workshop_bands_hold_what_the_worksheet_reports():
    stated = {
        "base/first_loss": math.log(65_536), "base/final_loss": 5.9, "mid/final_loss": 4.5,
        "sft/first_loss": 4.5, "sft/final_loss": 4.2, "rl/pass_1": 0,
    }  # fmt: skip
    for name, value in stated.items():
        assert expect(name, value, "workshop").ok, name
    assert not expect("base/final_loss", 10.0, "workshop").ok, "stuck at 10: a data loading problem"
