"""Profiles hold together, survive JSON, and say what is wrong with a setting."""

import pytest

from nanolab.errors import ConfigError
from nanolab.paths import atomic_write, run_dir
from nanolab.profiles import PROFILES, STAGES, Profile, get_profile, override


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_consistent(name):
    profile = get_profile(name)
    assert Profile.from_json(profile.to_json()) == profile
    for stage in STAGES[:-1]:
        plan = profile.plan(stage)
        assert plan.micro_batches >= 1
        assert plan.max_seq_len <= profile.sequence_len
    assert profile.n_embd % profile.n_head == 0
    head = profile.n_embd // profile.n_head
    assert head <= profile.head_dim and head % 2 == 0, "rotary embeddings turn pairs of channels"


def test_the_width_is_64_a_layer_unless_the_profile_says_otherwise():
    for name in ("smoke", "workshop", "gpu"):
        assert get_profile(name).n_embd == 64 * get_profile(name).depth
    laptop = get_profile("laptop")
    assert laptop.n_embd == laptop.width == 128
    assert override(laptop, width=0).n_embd == 64 * laptop.depth


def test_the_workshop_profile_is_the_worksheets():
    profile = get_profile("workshop")
    assert (profile.depth, profile.vocab_size, profile.sequence_len) == (4, 65_536, 1024)
    assert [profile.plan(s).num_iterations for s in STAGES[:-1]] == [30_000, 1_000, 200]
    assert profile.rl.num_iterations == 30
    assert (profile.base.total_batch_size, profile.mid.total_batch_size) == (512, 1024)


def test_the_environment_names_the_default_profile(monkeypatch):
    monkeypatch.setenv("NANOLAB_PROFILE", "smoke")
    assert get_profile().name == "smoke"
    assert get_profile("gpu").name == "gpu"
    monkeypatch.delenv("NANOLAB_PROFILE")
    assert get_profile().name == "laptop"


def test_an_unknown_profile_is_answered_with_the_choice():
    with pytest.raises(ConfigError, match="smoke, laptop, workshop, gpu"):
        get_profile("huge")


def test_override_changes_the_stages_plan_first_then_the_profile():
    profile = override(get_profile("laptop"), "base", num_iterations=7, matrix_lr=0.5, device=None)
    assert profile.base.num_iterations == 7 and profile.matrix_lr == 0.5
    assert profile.mid == get_profile("laptop").mid
    with pytest.raises(ConfigError, match="colour"):
        override(profile, "rl", colour=3)
    with pytest.raises(ConfigError, match="no such setting of a profile(?s:.*)data"):
        override(profile, text="python")
    with pytest.raises(ConfigError, match="override\\(profile, data='python'\\)"):
        override(profile, "python")


def test_batch_sizes_that_do_not_divide_are_refused_with_the_numbers():
    profile = override(get_profile("laptop"), "base", device_batch_size=3)
    with pytest.raises(ConfigError, match="2048.*3 \\* 256 = 768"):
        _ = profile.base.micro_batches


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"}', '{"base": 3}'])
def test_a_foreign_profile_file_is_refused_in_words(text):
    with pytest.raises(ConfigError, match="not a profile"):
        Profile.from_json(text)


@pytest.mark.parametrize("tag", ["", "..", "../x", "a/b", ".hidden", "a\\b", "-x", "a" * 200, "x\n"])
def test_a_tag_cannot_leave_the_runs_folder(tag):
    with pytest.raises(ConfigError, match="cannot name a run"):
        run_dir(tag)


def test_runs_live_under_nanolab_home(monkeypatch, tmp_path):
    monkeypatch.setenv("NANOLAB_HOME", str(tmp_path))
    assert run_dir("my_tag-1.2") == tmp_path / "runs" / "my_tag-1.2"


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.txt"
    atomic_write(path, "old\n")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError):
        atomic_write(path, "new\n")
    assert path.read_bytes() == b"old\n" and list(path.parent.iterdir()) == [path]
