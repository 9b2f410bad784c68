"""A notebook finds the learner's own model, or says whose stands in."""

from __future__ import annotations

import base64
import re
import shutil

import pytest

from nanolab import course as module
from nanolab.checkpoint import load_model
from nanolab.course import PLACES, Course, road_map
from nanolab.errors import ConfigError
from nanolab.paths import run_dir
from nanolab.stages import open_stage


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """One home for the module, so that TinyWorld is written and the reference unpacked once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def course(shared_home, monkeypatch):
    """A learner who has nothing yet, at smoke size."""
    monkeypatch.setenv("NANOLAB_HOME", str(shared_home))
    monkeypatch.setattr("nanolab.stages.TOKENIZER_CHARACTERS", 50_000)
    for run in (shared_home / "runs").glob("*"):
        if run.name != "reference":
            shutil.rmtree(run)
    return Course("smoke")


def train(work):
    for _ in work.steps():
        pass
    return work


def test_without_a_model_of_ones_own_the_reference_stands_in_under_a_banner(course, capsys):
    model, tokenizer, meta = course.load("sft")
    assert meta["reference"] and meta["stage"] == "sft" and not model.training
    assert "no sft model of your own yet: the reference model" in capsys.readouterr().out
    assert course.tokenizer().hash() == tokenizer.hash()
    assert "no tokenizer of your own yet" in capsys.readouterr().out


def test_a_stand_in_measures_nothing(course, monkeypatch):
    def choose(*_):
        raise AssertionError("it measured the machine")

    monkeypatch.setattr("nanolab.stages.choose_compute", choose)
    course.load("base")


def test_ones_own_model_comes_without_a_banner(course, capsys):
    train(course.open("base", num_iterations=1))
    capsys.readouterr()
    _, tokenizer, meta = course.load("base")
    assert meta["step"] == 1 and "reference" not in meta
    assert course.tokenizer().hash() == tokenizer.hash()
    assert course.open("mid", num_iterations=1).run == run_dir(course.tag)
    assert capsys.readouterr().out == ""


def test_a_stage_without_its_parent_starts_from_the_reference_in_a_run_of_its_own(course, capsys):
    work = course.open("mid", num_iterations=1)
    assert work.run.name == "mine-smoke-on-reference" and "the reference model" in capsys.readouterr().out
    parent = load_model("base", model_tag="reference")[0]
    assert work.model.config == parent.config
    assert work.model.transformer.wte.weight.equal(parent.transformer.wte.weight)
    train(work)
    assert not run_dir("mine-smoke").exists()
    assert course.open("mid", num_iterations=1).finished
    assert course.load("mid")[2]["step"] == 1
    capsys.readouterr()
    assert course.open("sft", num_iterations=1).run == work.run
    assert "began with the reference model" in capsys.readouterr().out


def test_a_stage_that_was_opened_and_not_trained_opens_again(course, capsys):
    for _ in range(2):
        capsys.readouterr()
        assert course.open("rl").start == 0
        assert "stands in" in capsys.readouterr().out


def test_a_stage_on_a_stand_in_has_the_steps_of_this_profile_and_the_changes_asked_for(course):
    work = course.open("sft", total_batch_size=512, device_batch_size=4, matrix_lr=0.5)
    assert work.profile.name == "smoke" and work.profile.depth == 3 and work.profile.matrix_lr == 0.5
    assert work.plan.num_iterations == course.profile.sft.num_iterations and work.plan.total_batch_size == 512


def test_a_profile_of_the_hub_trains_the_reference_by_the_plans_it_was_made_for(course):
    work = Course("workshop").open("mid", num_iterations=1)
    assert work.profile.source == "tinyworld" and work.plan.max_seq_len <= work.profile.sequence_len
    assert next(work.steps()).loss > 0


def test_a_copy_that_was_cut_short_is_none(course, monkeypatch):
    def cut(source, target):
        target.mkdir(parents=True)
        (target / "manifest.json").write_bytes((source / "manifest.json").read_bytes())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copytree", cut)
        with pytest.raises(KeyboardInterrupt):
            course.open("mid")
    assert course.open("mid").start == 0


def test_the_model_of_make_course_stands_in_before_the_reference(course, capsys):
    train(course.open("base", num_iterations=1))
    shutil.move(run_dir("mine-smoke"), run_dir("course"))
    capsys.readouterr()
    _, tokenizer, meta = course.load("base")
    assert meta["step"] == 1 and "--tag course" in capsys.readouterr().out
    assert course.tokenizer().hash() == tokenizer.hash()
    assert course.open("mid").run.name == "mine-smoke-on-course"
    other = Course("laptop").load("base")[2]
    assert other.get("reference"), "a smoke model must not stand in for a laptop one"


def test_a_scratch_run_is_empty_each_time(course):
    tag = course.scratch("muon")
    train(open_stage(course.open("base", num_iterations=1).profile, "base", tag))
    assert (run_dir(tag) / "base").exists() and not (run_dir(course.tag) / "base").exists()
    assert course.scratch("muon") == tag and not run_dir(tag).exists()


def test_the_learners_run_is_another_at_every_profile(monkeypatch):
    assert [Course(name).tag for name in ("laptop", "smoke")] == ["mine", "mine-smoke"]
    monkeypatch.setenv("NANOLAB_PROFILE", "smoke")
    assert Course().tag == "mine-smoke"
    monkeypatch.setenv("NANOLAB_PROFILE", "vast")
    with pytest.raises(ConfigError, match="'vast'"):
        Course()


def test_an_unknown_stage_is_named(course):
    with pytest.raises(ConfigError, match="'middle'"):
        course.open("middle", num_iterations=1)


@pytest.mark.parametrize("place", PLACES)
def test_the_map_says_in_words_where_we_are(place, capsys):
    Course("smoke").map(place, 30, 2)
    out = capsys.readouterr().out
    assert f"You are here: {PLACES[place]}" in out and "About 30 minutes, 2 of them waiting" in out
    svg = road_map(place, "You <are> here")
    assert "<title>You &lt;are&gt; here</title>" in svg and 'aria-label="You &lt;are&gt; here"' in svg
    filled = re.findall(r'fill="#FFFFFF" font-weight="bold">([^<]+)<', svg)
    assert filled == [PLACES[place]] and all(f">{name}<" in svg for name in PLACES.values())


def test_the_map_is_a_picture_with_words_beside_it(monkeypatch):
    shown = []
    monkeypatch.setattr(module, "publish", shown.append)
    Course("smoke").map("base", minutes=45, waiting=5)
    (bundle,) = shown
    picture = re.search(r'<img alt="(.+?)".* src="data:image/svg\+xml;base64,(.+?)"', bundle["text/html"])
    assert picture[1] == bundle["text/plain"]
    assert base64.b64decode(picture[2]).decode("utf-8") == road_map("base", bundle["text/plain"])


def test_an_unknown_stop_is_named():
    with pytest.raises(ConfigError, match="'mars'"):
        Course("smoke").map("mars")


def test_a_number_for_each_profile():
    assert Course("smoke").pick(laptop=60, smoke=4) == 4
    assert [Course(name).pick(laptop=60, smoke=4) for name in ("laptop", "workshop")] == [60, 60]


def test_a_stage_can_be_trained_after_the_one_that_follows_it(course):
    course.open("rl", num_iterations=1)
    work = course.open("sft", num_iterations=1)
    assert not work.finished and sum(1 for _ in work.steps()) == 1
