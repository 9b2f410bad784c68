"""TinyWorld: its facts, documents, problems and quizzes."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import islice

import pytest

from nanolab.errors import ConfigError, DataError
from nanolab.tinyworld import documents as docs
from nanolab.tinyworld import facts as F
from nanolab.tinyworld import problems as P
from nanolab.tinyworld import quiz
from nanolab.tinyworld.asking import bare, short_questions
from nanolab.tinyworld.stories import load_prose
from nanolab.tinyworld.words import held_out

FACTS = F.facts()


def stream(split: str, n: int, seed: int = 0) -> list[str]:
    return list(islice(docs.documents(split, seed), n))


# Facts


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("countries", 150), ("animals", 100), ("planets", 8), ("elements", 30), ("foods", 60), ("jobs", 40),
        ("opposites", 120), ("plurals", 60), ("history", 30),
    ],
)  # fmt: skip
def test_tables_are_as_large_as_the_course_needs(table, rows):
    assert len(F.table(table)) >= rows


def test_there_are_1500_facts_of_every_tier():
    assert len(FACTS) >= 1_500
    assert set(Counter(fact.tier for fact in FACTS)) == set(F.TIER_WEIGHT)


def test_every_relation_has_enough_phrasings():
    for relation in F.relations().values():
        for templates, least in ((relation.statements, 8), (relation.questions, 12), (relation.held_out, 4)):
            assert len(set(templates)) == len(templates) >= least, relation.name
        for templates, least in (
            (relation.short, 4),
            (relation.follow, 0),
            (relation.yes_no, 0),
            (relation.either, 0),
        ):
            assert len(set(templates)) == len(templates) >= least, relation.name


def test_every_sentence_renders_whole():
    broken = re.compile(r"[{}]|\s\s|\s[.?,]|\b[Aa]n? (an?|the)\b|^\W*$", re.IGNORECASE)
    for fact in FACTS:
        for sentence in (*fact.statements, *fact.questions, *fact.held_out_questions()):
            assert not broken.search(sentence) and sentence[-1] in ".?!", sentence
            assert sentence[0] == sentence[0].upper()


def test_every_statement_holds_its_answer():
    for fact in FACTS:
        for sentence in fact.statements:
            assert fact.answer.lower() in sentence.lower(), sentence


def test_every_question_names_its_subject():
    for fact in FACTS:
        names = [fact.subject.lower(), fact.row.get("plural", fact.subject).lower()]
        for question in (*fact.questions, *fact.held_out_questions()):
            assert any(name in question.lower() for name in names), question


def test_no_question_gives_its_answer_away():
    for fact in FACTS:
        answer = F._phrase(fact.answer)
        for question in (fact.subject, *fact.questions, *fact.held_out_questions()):
            assert not answer.search(question), (question, fact.answer)


def test_no_training_question_is_a_held_out_one():
    training = {bare(question) for fact in FACTS for question in (*fact.questions, *fact.short)}
    held = {bare(question) for fact in FACTS for question in fact.held_out_questions()}
    assert not training & held


def test_no_short_question_has_two_different_answers():
    answers: dict[str, str] = {}
    for fact in FACTS:
        assert len(short_questions(fact)) >= 4
        for question in short_questions(fact):
            assert answers.setdefault(bare(question), fact.answer) == fact.answer, question


def test_no_question_has_two_different_answers():
    answers: dict[str, str] = {}
    for fact in FACTS:
        for question in (*fact.questions, *fact.held_out_questions()):
            assert answers.setdefault(question, fact.answer) == fact.answer, question


def test_no_subject_stands_twice_in_a_table():
    for (name, _), relation in F.relations().items():
        subjects = Counter(row[relation.subject] for row in F.table(name))
        assert max(subjects.values()) == 1, subjects.most_common(1)


@pytest.mark.parametrize(
    ("table", "column"),
    [("elements", "symbol"), ("elements", "number"), ("countries", "capital"), ("planets", "position")],
)
def test_what_is_unique_in_the_world_is_unique_here(table, column):
    values = [row[column] for row in F.table(table)]
    assert len(set(values)) == len(values)


def test_a_few_facts_that_everyone_can_check():
    known = {fact.key: fact.answer for fact in FACTS}
    assert known["countries", "capital", "France"] == "Paris"
    assert known["elements", "symbol", "gold"] == "Au"
    assert known["animals", "legs", "spider"] == "eight"
    assert known["planets", "position", "Earth"] == "third"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("dog", "a dog"), ("owl", "an owl"), ("hour", "an hour"), ("unicorn", "a unicorn"),
        ("house", "a house"),
        ("umbrella", "an umbrella"), ("Eurasian lynx", "a Eurasian lynx"), ("UFO", "a UFO"),
        ("ice giant", "an ice giant"),
    ],
)  # fmt: skip
def test_articles_go_by_sound(noun, expected):
    assert F.with_article(noun) == expected


def test_every_canonical_answer_matches():
    assert [fact for fact in FACTS if not F.matches(fact, fact.canonical())] == []


def fact_of(table: str, relation: str, subject: str) -> F.Fact:
    return next(fact for fact in FACTS if fact.key == (table, relation, subject))


@pytest.mark.parametrize(
    ("key", "reply", "right"),
    [
        (("countries", "capital", "France"), "The capital of France is Paris.", True),
        (("countries", "capital", "France"), "paris", True),
        (("countries", "capital", "France"), "It is Parisian.", False),
        (("countries", "capital", "France"), "", False),
        (("countries", "continent", "France"), "France is in Europe.", True),
        (("countries", "continent", "France"), "Europe or Asia.", False),
        (("animals", "legs", "snake"), "A snake has no legs.", True),
        (("animals", "legs", "spider"), "A spider has six legs.", False),
    ],
)
def test_a_reply_counts_only_if_it_says_the_answer(key, reply, right):
    assert F.matches(fact_of(*key), reply) is right


def test_symbols_are_not_found_in_ordinary_words():
    iron = fact_of("elements", "symbol", "iron")
    indium_like = F.Fact("elements", "symbol", "iron", "In", "rare", iron.row)
    assert not F.matches(indium_like, "It is in the table, as you know.")
    assert F.matches(indium_like, "The symbol is In.")


def test_distractors_are_wrong_and_different():
    rng = random.Random(0)
    for fact in FACTS:
        wrong = fact.distractors(rng, 4)
        right = (
            {other.answer for other in FACTS if other.key == fact.key} if len(wrong) < 4 else {fact.answer}
        )
        assert len(set(wrong)) == len(wrong) and not right & set(wrong)


def test_an_unknown_fact_is_refused():
    with pytest.raises(DataError, match="Atlantis"):
        F.get_fact("countries", "capital", "Atlantis", "Poseidonis")


def test_sampled_facts_follow_their_tiers():
    rng = random.Random(0)
    drawn = Counter(F.sample_fact(rng).tier for _ in range(60_000))
    sizes = Counter(fact.tier for fact in FACTS)
    rate = {tier: drawn[tier] / sizes[tier] for tier in F.TIER_WEIGHT}
    assert rate["common"] / rate["uncommon"] == pytest.approx(10, rel=0.15)
    assert rate["common"] / rate["rare"] == pytest.approx(100, rel=0.15)


# Documents


@pytest.fixture(scope="module")
def training() -> list[str]:
    return stream("train", 20_000)


def test_documents_are_clean(training):
    for text in training:
        assert text == text.strip() and not re.search(r"[{}]|  |\t", text), text
        assert len(text) > 10


def test_no_validation_document_is_ever_trained_on(training):
    validation = set(stream("val", 200)) | set(stream("val", 100, seed=1))
    assert not validation & set(training) and not validation & set(stream("train", 3_000, seed=1))


@pytest.fixture(scope="module")
def told() -> Counter:
    """How often each fact is told, by its key."""
    known = {sentence: fact.key for fact in FACTS for sentence in fact.statements}
    rng, counts = random.Random(0), Counter()
    for _ in range(40_000):
        pieces = re.split(r"(?<=[.?]) ", docs.entry(rng))
        counts.update(known[piece] for piece in pieces if piece in known)
    return counts


def test_facts_are_told_in_proportion_to_their_tier(told):
    rate = {
        tier: sum(told[fact.key] for fact in group) / len(group)
        for tier in F.TIER_WEIGHT
        if (group := [fact for fact in FACTS if fact.tier == tier])
    }
    assert rate["common"] / rate["uncommon"] == pytest.approx(10, rel=0.1)
    assert rate["common"] / rate["rare"] == pytest.approx(100, rel=0.15)


def test_a_fact_is_told_as_often_whether_its_subject_has_many_facts_or_few(told):
    rates: dict[int, list[int]] = {}
    for group in F.by_subject().values():
        rates.setdefault(len(group), []).extend(told[fact.key] for fact in group if fact.tier == "common")
    means = [sum(counts) / len(counts) for counts in rates.values() if len(counts) >= 20]
    assert len(means) >= 3 and max(means) / min(means) < 1.2


def test_families_get_their_share_of_the_bytes():
    assert sum(docs.SHARES.values()) == 100 and set(docs.SHARES) == set(docs.FAMILIES)
    rng, sizes = random.Random(0), Counter()
    names = {write: name for name, write in docs.FAMILIES.items()}
    for _ in range(30_000):
        write = docs._families().draw(rng)
        sizes[names[write]] += len(write(rng))
    for name, share in docs.SHARES.items():
        assert 100 * sizes[name] / sizes.total() == pytest.approx(share, rel=0.15), name


def test_few_documents_repeat(training):
    assert 1 - len(set(training)) / len(training) < 0.02


def test_documents_spell_no_held_out_word(training):
    spelled = [match.replace("-", "") for text in training for match in re.findall(r"\b\w(?:-\w\b)+", text)]
    assert len(spelled) > 500
    assert not [word for word in spelled if held_out(word)]


def test_documents_show_no_held_out_pair_of_numbers(training):
    sums = [found for text in training for found in re.findall(r"(\d+) ([-+*/]) (\d+) (?:=|makes|is)", text)]
    assert len(sums) > 500
    assert not [(a, sign, b) for a, sign, b in sums if P.held_out_pair(int(a), sign, int(b))]


def test_documents_compare_and_ask_in_short(training):
    told = {say for one in load_prose("comparing")["superlatives"] if (say := one["say"])}
    assert sum(text.startswith(tuple(told)) or " than " in text for text in training) > 100
    short = {f"{question.rstrip('?').lower()}?" for fact in FACTS for question in fact.short}
    assert (
        sum(
            any(question in short for question in re.findall(r"(?:^|(?<=\. ))[a-z0-9][^.?]*\?", text))
            for text in training
        )
        > 500
    )


def test_worked_problems_in_the_text_are_worked_right_and_without_calls(training):
    pages = [docs.problems(random.Random(seed)) for seed in range(200)]
    sums = [re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", found) for page in pages
            for found in re.findall(r"\d+ [-+*/] \d+ = \d+", page)]  # fmt: skip
    assert len(sums) > 500 and "<<" not in "".join(pages) and "####" not in "".join(pages)
    assert all(P.work_out(int(a), sign, int(b)) == int(r) for a, sign, b, r in (m.groups() for m in sums))
    assert any("How many" in text and " = " in text for text in training)


def test_the_same_seed_gives_the_same_documents_and_another_does_not():
    assert stream("train", 200) == stream("train", 200)
    assert stream("train", 20) != stream("train", 20, seed=1)


FINGERPRINT = """
import hashlib, random
from itertools import islice
from nanolab.tinyworld import documents, problems, quiz, talk
rng = random.Random(7)
made = [*islice(documents.documents("train"), 300), *islice(documents.documents("val"), 5)]
for split in ("train", "val"):
    for _ in range(60):
        made += [talk.talk(rng, split), quiz.mmlu(rng, split), quiz.arc(rng, split)]
        made += [problems.problem(rng, split)]
print(hashlib.sha256(repr(made).encode("utf-8")).hexdigest())
"""


def test_the_text_does_not_depend_on_the_hash_seed():
    prints = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "42")
    }  # fmt: skip
    assert len(prints) == 1 and len(prints.pop().strip()) == hashlib.sha256().digest_size * 2


def test_documents_stream_fast_enough():
    generator = docs.documents("train")
    next(generator)
    best = 0.0
    for _ in range(3):
        start = time.process_time()
        size = sum(len(text) for text in islice(generator, 3_000))
        best = max(best, size / (time.process_time() - start))
    assert best > 1e6  # bytes a second; 5 MB/s and more on an idle core


def test_an_unknown_split_of_documents_is_refused():
    with pytest.raises(ConfigError, match="test"):
        docs.documents("test")


# Problems


def steps_of(problem: P.Problem) -> list[tuple[int, str, int, int]]:
    found = re.findall(r"<<(\d+)([-+*/])(\d+)=(\d+)>>", problem.answer_text)
    return [(int(a), sign, int(b), int(result)) for a, sign, b, result in found]


SPLITS_AND_STEPS = [(split, steps) for split in ("train", "val") for steps in (1, 2, 3)]


@pytest.fixture(scope="module", params=SPLITS_AND_STEPS, ids=str)
def drawn(request) -> tuple[str, int, list[P.Problem]]:
    split, steps = request.param
    rng = random.Random(5)
    return split, steps, [P.problem(rng, split, (steps,)) for _ in range(2_000)]


def test_every_problem_is_worked_correctly(drawn):
    _, steps, problems = drawn
    for one in problems:
        calls = steps_of(one)
        assert len(calls) == steps == one.answer_text.count("<<")
        for a, sign, b, result in calls:
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign] == result
            assert f"{a} {sign} {b} = <<{a}{sign}{b}={result}>>{result}" in one.answer_text
        assert one.answer_text.endswith(f"\n#### {one.answer}") and one.answer == calls[-1][3]


def test_a_problem_names_its_numbers_in_the_order_of_their_use(drawn):
    """So every number of the answer is one of the question or the result of the step before."""
    for one in drawn[2]:
        calls = steps_of(one)
        assert all(step[0] == before[3] for before, step in itertools.pairwise(calls))
        used = [calls[0][0], *(b for _, _, b, _ in calls)]
        assert [int(number) for number in re.findall(r"\d+", one.question)] == used
        results = [result for call in calls for result in (call[3], call[3])]
        figures = re.sub(r"\d+ [-+*/] \d+ = <<\d+[-+*/]\d+=", "", one.answer_text)
        assert [int(number) for number in re.findall(r"\d+", figures)] == [*results, one.answer]


def test_numbers_stay_small_and_at_least_two(drawn):
    for one in drawn[2]:
        for a, sign, b, result in steps_of(one):
            assert min(a, b, result) >= 2 and b <= (12 if sign in "+-" else 9)
            assert sign != "*" or a <= 9
            assert sign != "/" or result <= 9
        assert steps_of(one)[0][0] <= 81 and one.answer <= 81 + 12 + 12


def test_problems_are_whole_sentences_or_typed_carelessly(drawn):
    split, _, problems = drawn
    careless = [one.question for one in problems if one.question == one.question.lower()]
    assert len(careless) / len(problems) == pytest.approx({"train": 0.2, "val": 0.05}[split], rel=0.35)
    assert not [question for question in careless if question[-1] in "?. "]
    for one in problems:
        assert not re.search(r"[{}]|  ", one.question + one.answer_text)
        assert one.question in careless or re.fullmatch(r"[A-Z0-9].*\?", one.question)
        body = one.answer_text.splitlines()[0]
        assert re.fullmatch(r"[A-Z].*\.", body) and "I " not in body


def test_numbers_stand_before_plurals_and_each_before_a_singular(drawn):
    prose = load_prose("problems")
    pairs = [*prose["things"], *prose["boxes"], *(
        ("person", "people"), ("child", "children"), ("chair", "chairs"), ("page", "pages"), ("row", "rows"),
        ("dollar", "dollars"), ("girl", "girls"), ("boy", "boys"), ("friend", "friends"), ("day", "days"),
        ("year", "years"),
    )]  # fmt: skip
    one_thing = "|".join(singular for singular, _ in pairs)
    several = "|".join([*(plural for _, plural in pairs), *prose["foods"]])
    for one in drawn[2]:
        for text in (one.question, one.answer_text):
            assert not re.search(rf"\d (more |red |full )?({one_thing})\b", text), text
            assert not re.search(rf"\b(one|each|every) ({several})\b", text, re.IGNORECASE), text


def test_problems_are_short():
    rng = random.Random(1)
    lengths = [len(P.problem(rng).question.split()) for _ in range(2_000)]
    assert min(lengths) >= 9 and max(lengths) <= 32


def test_pairs_of_numbers_are_disjoint_between_the_splits():
    rng = random.Random(2)
    training = [step for _ in range(6_000) for step in steps_of(P.problem(rng, "train"))]
    first_steps = [steps_of(P.problem(rng, "val"))[0] for _ in range(2_000)]
    assert not [step for step in training if P.held_out_pair(*step[:3])]
    assert all(P.held_out_pair(*step[:3]) for step in first_steps)

    def pair(a: int, sign: str, b: int, _: int) -> tuple[int, str, int]:
        return (min(a, b), sign, max(a, b)) if sign in "+*" else (a, sign, b)

    assert not {pair(*step) for step in training} & {pair(*step) for step in first_steps}


def test_the_order_of_a_sum_does_not_matter_for_holding_out():
    for a in range(2, 21):
        for b in range(2, 21):
            assert P.held_out_pair(a, "+", b) == P.held_out_pair(b, "+", a)
            assert P.held_out_pair(a, "*", b) == P.held_out_pair(b, "*", a)


def test_about_one_pair_in_five_is_held_out():
    for sign in "+-*/":
        kept, shown = len(P.number_pairs(sign, True)), len(P.number_pairs(sign, False))
        assert 0.1 < kept / (kept + shown) < 0.3, sign


@pytest.mark.parametrize(("steps", "least"), [(1, 30), (2, 22), (3, 12)])
def test_there_are_enough_templates_of_every_number_of_steps(steps, least):
    templates = P.templates(steps)
    assert len({question for _, question, _ in templates}) == len(templates) >= least
    assert {sign for operations, _, _ in templates for sign in operations} == set("+-*/")


def test_every_template_uses_what_it_should_and_nothing_else():
    for steps in (1, 2, 3):
        for operations, question, answer in P.templates(steps):
            numbers = re.findall(r"\{([a-d])\}", question)
            assert numbers == list("abcd"[: steps + 1]), question
            assert re.findall(r"\{(one|two|three)\}", answer) == ["one", "two", "three"][:steps]
            assert set(operations) <= set("+-*/") and len(operations) == steps
            told = set(re.findall(r"\{(\w+)\}", answer)) - {"one", "two", "three"}
            asked = re.findall(r"\{(\w+)\}", question)
            alike = {"thing": "things", "things": "thing", "box": "boxes", "boxes": "box"}
            assert all(word in asked or alike.get(word) in asked for word in told), answer


def test_every_chain_of_operations_has_numbers_for_both_splits():
    """With too few of them a template would be learnt by heart, and with none its drawing would not end."""
    for operations in sorted({one[0] for steps in (1, 2, 3) for one in P.templates(steps)}):
        for held in (False, True):
            chains = [
                result
                for a, b in P.number_pairs(operations[0], held)
                for result in chain_ends(P.work_out(a, operations[0], b), operations[1:], not held)
            ]
            assert len(chains) >= 7, (operations, held)


def chain_ends(result: int, operations: str, training: bool) -> list[int]:
    """The result of every way to go on, by brute force over the numbers that a step may have."""
    if not operations:
        return [result]
    ends = []
    for c in range(2, 13 if operations[0] in "+-" else 10):
        following = {"+": result + c, "-": result - c, "*": result * c, "/": result / c}[operations[0]]
        fits = following >= 2 and following == int(following)
        small = {"*": result, "/": following}.get(operations[0], 0) <= 9
        if fits and small and not (training and P.held_out_pair(result, operations[0], c)):
            ends += chain_ends(int(following), operations[1:], training)
    return ends


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "zero"), (7, "seven"), (13, "thirteen"), (20, "twenty"), (42, "forty-two"), (100, "one hundred"),
     (105, "one hundred and five"), (999, "nine hundred and ninety-nine")],
)  # fmt: skip
def test_number_words(number, words):
    assert P.number_word(number) == words


@pytest.mark.parametrize("bad", [{"split": "test"}, {"steps": ()}, {"steps": (4,)}, {"steps": (0, 1)}])
def test_impossible_problems_are_refused(bad):
    with pytest.raises(ConfigError):
        P.problem(random.Random(0), **bad)


# Quizzes


def reversed_answers(split: str) -> dict[str, list[str]]:
    """Every subject that is an answer to a reversed question: all templates, all rows."""
    found: dict[str, list[str]] = {}
    for name, by_relation in load_prose("reversed").items():
        for relation, templates in by_relation.items():
            known = F.relations()[name, relation]
            for row in F.table(name):
                for template in templates.get("questions" if split == "train" else "held_out", ()):
                    if row[known.answer]:
                        text = template.format_map(row)
                        asked = text[0].upper() + text[1:]
                        found.setdefault(asked, []).append(row[known.subject])
    return found


@pytest.mark.parametrize("make", [quiz.mmlu, quiz.arc])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_reversed_question_has_one_subject_in_the_whole_table(make, split):
    answers, rng, seen = reversed_answers(split), random.Random(8), Counter()
    for _ in range(3_000):
        one = make(rng, split)
        if one.question in answers:
            (subject,) = answers[one.question]
            assert one.choices[one.letters.index(one.letter)] == subject
            assert subject.lower() not in one.question.lower()
            seen[subject] += 1
    assert 0.18 < seen.total() / 3_000 < 0.35 and len(seen) > 50


def test_reversed_questions_of_training_are_not_those_of_validation():
    training, validation = reversed_answers("train"), reversed_answers("val")
    plain = {question for fact in FACTS for question in (*fact.questions, *fact.held_out_questions())}
    assert not training.keys() & validation.keys() and not plain & (training.keys() | validation.keys())


def test_what_two_things_share_is_not_asked_backwards():
    asked = {fact.key for fact in quiz._reversible(tuple(quiz.TOPICS))}
    assert ("units", "count", "a triangle") in asked and ("countries", "capital", "France") in asked
    assert not asked & {("units", "count", "a dollar"), ("colours", "mixture", "red and green")}
    assert ("countries", "capital", "Mexico") not in asked


@pytest.mark.parametrize(("make", "sizes"), [(quiz.mmlu, {4}), (quiz.arc, {3, 4, 5})])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_quiz_has_exactly_one_right_letter(make, sizes, split):
    rng = random.Random(4)
    answers: dict[str, set[str]] = {}
    for fact in FACTS:
        for question in fact.questions if split == "train" else fact.held_out_questions():
            answers.setdefault(question, set()).add(fact.answer)
    for item in load_prose("explanations"):
        for frame in quiz.WHICH_SENTENCE if split == "train" else quiz.WHICH_SENTENCE_HELD_OUT:
            answers.setdefault(frame.format(q=item["question"]), set()).add(item["sentences"][0])
    answers |= {question: set(subjects) for question, subjects in reversed_answers(split).items()}
    seen = set()
    for _ in range(2_000):
        one = make(rng, split)
        right = [
            letter
            for letter, choice in zip(one.letters, one.choices, strict=True)
            if choice in answers[one.question]
        ]
        assert right == [one.letter] and len(set(one.choices)) == len(one.choices) and one.topic
        seen.add(len(one.choices))
    assert seen == sizes


def test_the_right_letter_is_uniform():
    rng = random.Random(0)
    counts = Counter(quiz.mmlu(rng).letter for _ in range(8_000))
    assert set(counts) == set("ABCD")
    assert all(1_800 < count < 2_200 for count in counts.values())


def test_every_table_has_a_topic():
    assert {fact.table for fact in FACTS} <= set(quiz.TOPICS) and set(quiz.EVERYDAY) <= set(quiz.TOPICS)
