"""The checks of challenge 1: right answers pass, and each wrong one hears of its own misconception."""

from __future__ import annotations

import json
import random
import re
from itertools import chain, count

import pytest
from checking import refused

from nanolab.checks import NotAttempted, pirate
from nanolab.data import ConversationBatches
from nanolab.lessons import pirates
from nanolab.lessons.finetuning import without_ends
from nanolab.lessons.pirates import WORDS, turn
from nanolab.tasks import CustomJSON, FactRecall, TaskMixture, TinyTalk


def message(role, content):
    return {"role": role, "content": content}


def few():
    """Examples as the worksheet makes them: five conversations, ten times over."""
    told = {
        "What is 3+3?": "Arrr! 'Tis 6, ye scurvy dog!",
        "What is the capital of Norway?": "Blimey! That be Oslo, matey!",
        "How goes it?": "Shiver me timbers! I be fine, landlubber!",
        "Say something funny": "A pirate's best letter? Ye think it be R, but his love be the C! Har har!",
        "Your name, please?": "Captain Nano they call me, terror of the seven seas!",
    }
    made = []
    for question, answer in told.items():
        made.append({"messages": [message("user", question), message("assistant", answer)]})
    return made * 10


def plenty(size=30):
    return [
        turn(f"Where is island number {i}?", f"Arrr! Island {i} be west of ye, matey!") for i in range(size)
    ]


# ---- task 1


def test_the_worksheets_kind_of_examples_is_accepted_as_a_list_as_a_function_and_as_a_file(tmp_path, capsys):
    pirate.conversations(few)
    pirate.conversations(few())
    path = tmp_path / "pirate_examples.json"
    with open(path, "w") as file:
        json.dump(few(), file, indent=2)
    pirate.file(str(path), few())
    assert len(CustomJSON(path)) == 50
    assert "50 valid conversations, 5 of them different" in capsys.readouterr().out


def test_bare_lists_of_messages_system_messages_and_longer_talks_are_conversations_too():
    bare = [one["messages"] for one in few()]
    pirate.conversations(bare)
    system = [{"messages": [message("system", "You are a pirate."), *one["messages"]]} for one in few()]
    pirate.conversations(system)
    pirate.conversations([{"messages": one["messages"] * 2} for one in few()])


ASK, SAY = message("user", "Hello!"), message("assistant", "Ahoy, matey!")
NOT_CONVERSATIONS = {
    "pairs": ([("Hello!", "Ahoy, matey!")], "say who speaks"),
    "prompt": ([{"prompt": "Hello!", "completion": "Ahoy!"}], "The keys here are prompt, completion"),
    "json": (json.dumps(few()), "json.dumps` comes later"),
    "single": (few()[0], "a list of them is expected"),
    "empty": ([], "list of examples is empty"),
    "no messages": ([{"messages": []}], "has no messages"),
    "number": (7, "should be a list"),
    "role": ([{"messages": [ASK, message("pirate", "Ahoy!")]}], "Your pirate *is* the assistant"),
    "swapped roles": ([{"messages": [SAY, ASK]}], "Are the roles swapped?"),
    "not alternating": ([{"messages": [ASK, ASK, SAY]}], "take turns"),
    "missing assistant": ([{"messages": [ASK]}], "no message of the assistant"),
    "unanswered": ([{"messages": [ASK, SAY, ASK]}], "has no answer to learn from"),
    "empty answer": ([{"messages": [ASK, message("assistant", " ")]}], "learn to say nothing"),
    "content": ([{"messages": [ASK, message("assistant", 4)]}], "is int, expected a text"),
    "one long talk": ([{"messages": [ASK, SAY] * 6}], "each pair is a conversation of its own".capitalize()),
    "piratical user": ([turn("Ahoy, ye landlubber! What be this?", "It is a boat.")] * 3, "exchanged"),
    "no pirate": ([turn("Hello!", "Hello! How can I help you?")] * 3, "no answer sounds like a pirate"),
    "raises": (lambda: 1 / 0, "raised ZeroDivisionError"),
    "four": (few()[:4], "5 different conversations or more"),
    "copies": (few()[:1] * 5, "1 of them different"),
    "generator": ((one for one in few()), "take square ones"),
    "json of each": ([json.dumps(one) for one in few()], "json.dumps` comes later"),
    "messages no list": ([{"messages": ASK}], 'The "messages" of example 1 are no list'),
    "list in a list": ([few(), few()], "Join two lists"),
    "no brackets": ([turn("Hello!", f"Arrr! {few}")], "holds a function"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_CONVERSATIONS)
def test_examples_that_are_no_conversations_hear_why(name):
    examples, says = NOT_CONVERSATIONS[name]
    assert says.lower() in refused(pirate.conversations, examples).lower()


@pytest.mark.parametrize("blank", [..., lambda: ..., lambda: None])
def test_blank_examples_were_not_attempted(blank):
    with pytest.raises(NotAttempted):
        pirate.conversations(blank)


# ---- task 2


def test_many_different_examples_in_one_voice_are_ready():
    pirate.ready(plenty())
    pirate.ready([*plenty(), turn("A question of quite another kind?", "A plain answer.")])


def test_another_voice_is_fine_with_words_of_its_own():
    strange = [turn(f"Question {i}?", f"Beep boop, answer {i}.") for i in range(25)]
    strange[0] = turn("And this?", "Aye beep boop, for once.")
    assert "pirates.WORDS" in refused(pirate.ready, strange)
    pirate.ready(strange, {"beep", "boop"})


def with_prompt(prompt):
    return [*plenty(), turn(prompt, "Arrr! Wait and see, matey!")]


def half_silent():
    return [*plenty(), *[turn(f"Who lives on isle {i}?", f"Nobody lives on isle {i}.") for i in range(9)]]


PROMPT = pirates.TEST_PROMPTS[0]
NOT_READY = {
    "five, ten times": (few(), "50 examples, but only 5 different questions"),
    "case only": ([turn(q, f"Arrr {i}!") for i in range(9) for q in ("ahoy?", "Ahoy", "AHOY!")], "1 different q"),
    "one answer": ([turn(f"Is this {i}?", "Aye, matey!") for i in range(30)], "need not listen"),
    "too few": (plenty(12), "There are only 12 different questions"),
    "two voices": (half_silent(), "The voice is not consistent"),
    "leak": (with_prompt(PROMPT), "holds a test prompt"),
    "leak in capitals": (with_prompt(PROMPT.upper().rstrip("?")), "upper case or a missing question mark"),
    "leak within": (with_prompt(f"Tell me, sailor: {PROMPT}"), "measures memory"),
    "not even valid": ([{"messages": [ASK]}], "no message of the assistant"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_READY)
def test_examples_that_are_not_ready_hear_why(name):
    examples, says = NOT_READY[name]
    assert says in refused(pirate.ready, examples)


def test_a_question_that_resembles_a_test_prompt_is_no_leak():
    pirate.ready([*with_prompt("What's the capital city of Spain's neighbour?"), *with_prompt("Hello!")])


# ---- task 3


def lines(examples):
    return "".join(json.dumps(one) + "\n" for one in examples)


def test_jsonl_and_json_files_pass_in_any_layout(tmp_path):
    path = tmp_path / "pirates.jsonl"
    for text in (lines(plenty()), json.dumps(plenty()), "\ufeff" + lines(plenty()), lines(plenty()).strip()):
        path.write_text(text, encoding="utf-8")
        pirate.file(path, plenty())


BAD_FILES = {
    "empty": ("", "The file is empty"),
    "python": (str(few()), "use `json.dumps`"),
    "python lines": ("\n".join(map(str, few())), "single quotes"),
    "end to end": ("".join(map(json.dumps, few())), "end to end"),
    "twice": (json.dumps(json.dumps(few())), "json.dumps` twice"),
    "empty list": ("[]", "an empty list"),
    "commas": (lines(few()).replace("\n", ",\n"), "no comma stands between the lines"),
    "prose": ("Arrr! I be no JSON, matey.", "CustomJSON` cannot read this file"),
    "overwritten": (lines(plenty()[:1]), "overwrites it"),
    "appended": (lines(plenty() * 2), 'opened with "a"'),
    "left out": (lines(plenty()[1:]), "leave some out"),
    "stale": (lines([turn(f"Old {i}?", "Arrr!") for i in range(30)]), "before you changed the list"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_good_hears_why(name, tmp_path):
    text, says = BAD_FILES[name]
    path = tmp_path / "pirates.jsonl"
    path.write_text(text, encoding="utf-8")
    assert says in refused(pirate.file, path, plenty())


def test_a_file_in_another_encoding_or_of_another_kind_is_told_so(tmp_path):
    path = tmp_path / "pirates.jsonl"
    path.write_bytes("é".encode("latin-1"))
    assert "not UTF-8" in refused(pirate.file, path, plenty())
    assert "cannot be read" in refused(pirate.file, tmp_path, plenty())
    assert "path of the file" in refused(pirate.file, plenty(), plenty())


def test_a_file_that_is_not_written_was_not_attempted(tmp_path):
    for answer in ((tmp_path / "none.jsonl", plenty()), (tmp_path / "none.jsonl", ...)):
        with pytest.raises(NotAttempted):
            pirate.file(*answer)


# ---- task 4


def mixture(ordinary, pirate, share, total):
    times, rest = divmod(round(share * total), len(pirate))
    return TaskMixture([ordinary[: total - round(share * total)], *[pirate] * times, pirate[:rest]])


def one_by_one(ordinary, pirate, share, total):
    number = int(share * total + 0.5)
    return TaskMixture(
        [*[pirate[i % len(pirate) :][:1] for i in range(number)], ordinary[number - total :]], 7
    )


TRAIN = TinyTalk("train", size=120)


def test_right_mixtures_pass():
    pirate.mixing(mixture, TRAIN)
    pirate.mixing(one_by_one, TRAIN)


def of_ordinary(o, p, s, n):
    times, rest = divmod(round(s * len(o)), len(p))
    return TaskMixture([o, *[p] * times, p[:rest]])


def on_top(o, p, s, n):
    times, rest = divmod(round(s * n), len(p))
    return TaskMixture([o[:n], *[p] * times, p[:rest]])


def ratio(o, p, s, n):
    number = round(s / (1 - s) * n)
    return TaskMixture([o[: n - number], *[p[i % len(p) :][:1] for i in range(number)]])


def first_only(o, p, s, n):
    return TaskMixture([o[: n - round(s * n)], *[p[:1]] * round(s * n)])


def repeated_talk(o, p, s, n):
    number = round(s * n)
    half = (n - number) // 2
    return TaskMixture([o[:half], o[: n - number - half], *[p[i % len(p) :][:1] for i in range(number)]])


WRONG_MIXTURES = {
    "listed once": (lambda o, p, s, n: TaskMixture([o[: n - len(p)], p]), "there just once"),
    "of ordinary": (of_ordinary, "a share of the ordinary talk"),
    "on top": (on_top, "come on top"),
    "exchanged": (lambda o, p, s, n: mixture(o, p, 1 - s, n), "two shares are exchanged"),
    "per cent": (lambda o, p, s, n: mixture(o, p, s / 100, n), "not per cent"),
    "ratio": (ratio, "the ratio of pirates to ordinary talk"),
    "times": (lambda o, p, s, n: TaskMixture([o, *[p] * round(s * n)]), "how often the whole task is listed"),
    "first only": (first_only, "a part of the pirates only"),
    "repeated talk": (repeated_talk, "though there are enough"),
    "list": (lambda o, p, s, n: [*o, *p], "to `TaskMixture`"),
    "number": (lambda o, p, s, n: s * n, "should return a `TaskMixture`"),
    "raises": (lambda o, p, s, n: o + p, "raised TypeError"),
    "no rest": (
        lambda o, p, s, n: TaskMixture([o[: n - round(s * n)], *[p] * (round(s * n) // len(p))]),
        "left over is missing",
    ),
    "one too many": (
        lambda o, p, s, n: TaskMixture([o[: n - round(s * n)], *[p] * (round(s * n) // len(p) + 1)]),
        "One repetition too many",
    ),
    "of examples": (
        lambda o, p, s, n: TaskMixture([o[: n - int(s * len(p))], p[: int(s * len(p))]]),
        "a share of your examples",
    ),
    "too little talk": (
        lambda o, p, s, n: TaskMixture([o[: int(s * n)], *[p[i % len(p) :][:1] for i in range(int(s * n))]]),
        "Too few ordinary",
    ),
    "no star": (lambda o, p, s, n: TaskMixture([o, [p] * 2]), "with a star"),
}


@pytest.mark.parametrize("name", WRONG_MIXTURES)
def test_a_wrong_mixture_hears_of_its_misconception(name):
    wrong, says = WRONG_MIXTURES[name]
    assert says in refused(pirate.mixing, wrong, TRAIN)


def test_validation_rows_in_training_are_found():
    for leaking in (
        TinyTalk("val", size=300),
        FactRecall("common"),
        TaskMixture([TinyTalk("train", size=300), FactRecall("rare")[:100]]),
    ):
        assert "Validation rows in training" in refused(pirate.mixing, mixture, leaking)
    assert "should be a task" in refused(pirate.mixing, mixture, [1, 2])
    with pytest.raises(NotAttempted):
        pirate.mixing(mixture, ...)
    with pytest.raises(NotAttempted):
        pirate.mixing(lambda *args: ..., TRAIN)


# ---- task 5


def made_batches(task, tokenizer, supervise="assistant", **more):
    return ConversationBatches(task, tokenizer, rows=2, context=96, supervise=supervise, **more)


def changed(change):
    def batches(task, tokenizer):
        return (change(x, y, tokenizer) for x, y in made_batches(task, tokenizer))

    return batches


def inverted(x, y, tokenizer):
    following = x.roll(-1, dims=1)
    return x, following.masked_fill((y >= 0) | (following == tokenizer.get_bos_token_id()), -1)


def padded(x, y, tokenizer):
    bos = tokenizer.get_bos_token_id()
    y = y.clone()
    y[:, -1] = bos
    return x, y


WRONG_BATCHES = {
    "all": (lambda t, k: made_batches(t, k, "all"), "The prompt is in the loss"),
    "unshifted": (
        changed(lambda x, y, k: (x, x.masked_fill(y.roll(1, dims=1) < 0, -1))),
        "not the next tokens",
    ),
    "no ends": (lambda t, k: without_ends(made_batches(t, k), k), "a pirate never stops"),
    "inverted": (changed(inverted), "mask is inverted"),
    "padding": (changed(padded), "padding counts"),
    "nothing": (changed(lambda x, y, k: (x, y * 0 - 1)), "no token counts"),
    "task": (lambda t, k: t, "pairs (inputs, targets)"),
    "class": (lambda t, k: ConversationBatches, "without calling it"),
    "exchanged": (lambda t, k: ConversationBatches(t, k, rows=256, context=4), "how many tokens each has"),
    "raises": (lambda t, k: made_batches(t, k, "answers"), "choose assistant or all"),
}


@pytest.mark.parametrize("name", WRONG_BATCHES)
def test_wrong_batches_hear_of_their_misconception(name):
    wrong, says = WRONG_BATCHES[name]
    assert says.lower() in refused(pirate.batches, wrong).lower()


def test_right_batches_pass_and_blank_ones_were_not_attempted():
    pirate.batches(made_batches)
    pirate.batches(lambda t, k: made_batches(t, k, seed=5))
    pirate.batches(lambda t, k: [next(made_batches(t, k))])
    with pytest.raises(NotAttempted):
        pirate.batches(lambda t, k: ...)


# ---- task 6


def with_pattern(reply, words):
    return re.search(r"\b(" + "|".join(words) + r")\b", reply, re.IGNORECASE) is not None


def with_strip(reply, words):
    return bool(words & {word.strip(".,:;!?'") for word in reply.lower().split()})


@pytest.mark.parametrize("right", [pirates.sounds_piratical, with_pattern, with_strip])
def test_several_ways_to_recognise_a_pirate_pass(right):
    pirate.sounds_piratical(right)


WRONG_EARS = [
    (lambda r, w: any(word in r.lower() for word in w), 'parts of words in a text: "ye" in "yes"'),
    (lambda r, w: any(word in r for word in w), "and capitals are not"),
    (lambda r, w: any(x in w for x in re.findall("[A-Za-z]+", r)), "start of a sentence"),
    (lambda r, w: any(x in w for x in r.lower().split()), '"matey!" is not "matey"'),
    (lambda r, w: any(x in w for x in r.split()), "Capitals and punctuation"),
    (lambda r, w: re.findall("[a-z]+", r.lower() + " x")[0] in w, "Only the first word"),
    (lambda r, w: all(x in w for x in re.findall("[a-z]+", r.lower())), "so `any`"),
    (lambda r, w: not pirates.sounds_piratical(r, w), "Turned around"),
    (lambda r, w: pirates.sounds_piratical(r), "that come in as `words`"),
    (lambda r, w: r.lower() in w, "whole reply is one"),
    (lambda r, w: True, "typed in by hand"),
    (lambda r, w: sum(x in w for x in r.lower().split()), "should be True or False"),
    (lambda r, w: r["text"], "raised TypeError"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG_EARS, ids=[says[:30] for _, says in WRONG_EARS])
def test_a_wrong_ear_hears_of_its_misconception(wrong, says):
    assert says in refused(pirate.sounds_piratical, wrong)


# ---- task 7


def heard(replies):
    return sum(map(pirates.sounds_piratical, replies))


def share_by_seed(ask, prompts, samples):
    replies = [reply for seed in range(samples) for reply in ask(prompts, seed)]
    return heard(replies) / len(replies)


def share_one_by_one(ask, prompts, samples):
    rows = [ask([prompt], 100 * n + seed)[0] for n, prompt in enumerate(prompts) for seed in range(samples)]
    return sum(1 for row in rows if pirates.sounds_piratical(row, WORDS)) / (len(prompts) * samples)


def test_right_shares_pass():
    pirate.pirate_share(share_by_seed)
    pirate.pirate_share(share_one_by_one)


def some(samples, ask, prompts):
    return [ask(prompts, seed) for seed in range(samples)]


def any_of(ask, prompts, samples):
    columns = list(zip(*some(samples, ask, prompts), strict=True))
    return sum(any(map(pirates.sounds_piratical, column)) for column in columns) / len(prompts)


def forgets(ask, prompts, samples):
    for seed in range(samples):
        replies = ask(prompts, seed)
    return heard(replies) / len(replies)


def returns_early(ask, prompts, samples):
    all_of_them = some(samples, ask, prompts)
    return heard(all_of_them[0]) / len(prompts)


TICKS = count()
WRONG_SHARES = {
    "fixed seed": (lambda a, p, n: heard([*chain.from_iterable(a(p, 0) for _ in range(n))]) / (n * len(p)), "sampling never varies"),
    "one sample": (lambda a, p, n: heard(a(p, 0)) / len(p), "how often each prompt is asked"),
    "by hand": (lambda a, p, n: 0.42, "typed in by hand"),
    "ignores": (lambda a, p, n: len(some(n, a, p)) and 0.42, "is not right"),
    "count": (lambda a, p, n: heard(chain.from_iterable(some(n, a, p))), "divide by how many there are"),
    "per cent": (lambda a, p, n: 100 * share_by_seed(a, p, n), "a share goes from 0 to 1"),
    "by prompts": (lambda a, p, n: heard(chain.from_iterable(some(n, a, p))) / len(p), "Divided by the prompts"),
    "any": (any_of, "share of prompts with *any*"),
    "last": (forgets, "the last sample"),
    "first": (returns_early, "the first sample"),
    "without": (lambda a, p, n: 1 - share_by_seed(a, p, n), "*without* a pirate"),
    "half": (lambda a, p, n: share_by_seed(a, p[: len(p) // 2], n), "all of them"),
    "new seeds": (lambda a, p, n: share_by_seed(lambda q, s: a(q, (next(TICKS), s)), p, n), "nobody can repeat"),
    "text": (lambda a, p, n: a(p[0], 0), "raised TypeError"),
    "by samples": (lambda a, p, n: heard(chain.from_iterable(some(n, a, p))) / n, "Divided by the samples"),
    "cut off": (lambda a, p, n: heard(chain.from_iterable(some(n, a, p))) // (n * len(p)), "divide with `/`"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SHARES)
def test_a_wrong_measure_hears_of_its_misconception(name):
    wrong, says = WRONG_SHARES[name]
    assert says in refused(pirate.pirate_share, wrong)


# ---- tasks 8 and 9


def made_study():
    """A study without models, each of whose runs was asked the test prompts with four seeds."""
    recalls = {"before": 0.9, 0.0: 0.85, 0.1: 0.8, 0.5: 0.6}
    study = pirates.Study(None, dict.fromkeys(recalls), questions=200, recalled=dict(recalls))
    for share, chance in ((0.0, 0.0), (0.1, 0.45), (0.5, 0.95)):
        rng = random.Random(f"{share}")
        study.asked[share] = [
            (pirates.TEST_PROMPTS, seed, ["Arrr!" if rng.random() < chance else "Well." for _ in pirates.TEST_PROMPTS])
            for seed in range(4)
        ]  # fmt: skip
    return study


def right_results(study):
    return {
        share: {
            "pirate": heard(chain.from_iterable(replies for _, _, replies in study.asked[share])) / 48,
            "recall": study.recall(share),
        }
        for share in study.shares
    }


def test_measured_results_pass_also_when_models_were_asked_before():
    study = made_study()
    results = right_results(study)
    pirate.findings(study, results)
    study.asked[0.1].insert(0, (("Anything else?",), 0, ["Arrr!"]))
    pirate.findings(study, results)


def altered(share, **values):
    return lambda r, s: {
        **r,
        share: {**r[share], **{k: v(r, s) if callable(v) else v for k, v in values.items()}},
    }


WRONG_RESULTS = {
    "share missing": (lambda r, s: {k: r[k] for k in (0.0, 0.5)}, "no entry for the share 0.1"),
    "keys": (lambda r, s: {k: r[k]["pirate"] for k in r}, 'should have "pirate" and "recall"'),
    "list": (lambda r, s: list(r), "should be a dictionary"),
    "per cent": (altered(0.1, pirate=lambda r, s: 100 * r[0.1]["pirate"]), "a share goes from 0 to 1"),
    "per cent recall": (altered(0.5, recall=60.0), "a share goes from 0 to 1"),
    "count": (altered(0.5, recall=120), "how many were right"),
    "by hand": (altered(0.5, pirate=0.7), "typed in by hand"),
    "same model": (altered(0.5, pirate=lambda r, s: r[0.1]["pirate"]), "which model was asked?"),
    "same recall": (altered(0.5, recall=0.8), "which model was asked?"),
    "exchanged": (
        altered(0.1, pirate=lambda r, s: r[0.1]["recall"], recall=lambda r, s: r[0.1]["pirate"]), "exchanged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_RESULTS)
def test_wrong_results_hear_of_their_misconception(name):
    wrong, says = WRONG_RESULTS[name]
    study = made_study()
    assert says in refused(pirate.findings, study, wrong(right_results(study), study))


def test_numbers_of_models_that_nobody_asked_are_refused():
    study = made_study()
    results = right_results(study)
    del study.asked[0.5]
    assert "use `study.ask(share)` for each share" in refused(pirate.findings, study, results)
    study.asked.clear()
    assert "Typed in by hand?" in refused(pirate.findings, study, results)


def test_prompts_from_training_measure_memory():
    study = made_study()
    results = right_results(study)
    study.asked[0.5] = [(tuple(f"Island {i}?" for i in range(12)), 0, ["Arrr!"] * 12)]
    results[0.5]["pirate"] = 1.0
    assert "you measure memory" in refused(pirate.findings, study, results)


def test_results_of_pirates_with_words_of_their_own_pass():
    study = made_study()
    results = right_results(study)
    for _, _, replies in study.asked[0.5]:
        replies[:] = ["Beep boop." if reply == "Arrr!" else reply for reply in replies]
    assert "typed in by hand" in refused(pirate.findings, study, results)
    pirate.findings(study, results, {"arrr", "beep"})


def test_the_price_is_taken_from_the_control():
    pirate.forgotten(made_study(), 25.0)
    pirate.forgotten(made_study(), 100 * (0.85 - 0.6))
    for wrong, says in (
        (30.0, "before all training"), (-25.0, "The sign"), (0.25, "a hundred times as much"),
        (29.41, "in per cent *of* the recall"), (60.0, "what is left"), (12.0, "is not right"),
        ("25", "should be a number"),
    ):  # fmt: skip
        assert says in refused(pirate.forgotten, made_study(), wrong)
    with pytest.raises(NotAttempted):
        pirate.forgotten(made_study(), ...)


# ---- the lesson


def test_training_waits_in_plain_words_for_what_is_missing(tmp_path, capsys):
    path = tmp_path / "pirates.jsonl"
    assert pirates.train_all(None, path, TRAIN, mixture, made_batches) is ...
    path.write_text(lines(plenty()), encoding="utf-8")
    assert pirates.train_all(None, path, ..., mixture, made_batches) is ...
    assert pirates.train_all(None, path, TRAIN, lambda *args: ..., made_batches) is ...
    assert pirates.train_all(None, path, TRAIN, mixture, lambda *args: ...) is ...
    assert pirates.train_all(None, path, TRAIN, lambda *args: [1], made_batches) is ...
    assert pirates.train_all(None, path, TRAIN, mixture, lambda *args: 1 / 0) is ...
    said = capsys.readouterr().out
    for words in ("task 3", "task 4", "task 5", "gives a list", "ZeroDivisionError"):
        assert words in said


def test_no_word_of_the_ordinary_talk_makes_a_pirate():
    talk = TinyTalk("train", size=400)
    said = [one["content"] for talked in talk for one in talked["messages"] if one["role"] == "assistant"]
    answers = [one if isinstance(one, str) else "".join(part["text"] for part in one) for one in said]
    assert heard(answers) <= len(answers) / 100
