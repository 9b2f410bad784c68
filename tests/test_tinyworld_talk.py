"""TinyTalk: small talk, questions as people ask them, and what stands outside the world."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest

from nanolab.tinyworld import (
    asking,
    comparing,
    deciding,
    following,
    listing,
    outside,
    reversing,
    rhymes,
    talk,
    unheard,
)
from nanolab.tinyworld import facts as F
from nanolab.tinyworld import problems as P
from nanolab.tinyworld.asking import CASUAL_SHARE, bare, casual, turn
from nanolab.tinyworld.stories import load_prose
from nanolab.tinyworld.words import words

FACTS = F.facts()
CANONICAL = {fact.canonical(): fact for fact in FACTS}
VERDICT = re.compile(r"(?:, not .+)?, so (yes|no)\.$")
INTENTS = (*talk.intents("identity"), *talk.intents("small_talk"))


def said(content):
    """A message as it is read: without the calls of the calculator."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def texts(messages, role):
    return [said(message["content"]) for message in messages if message["role"] == role]


def drawn(kind, split="train", count=2_000, seed=0):
    rng = random.Random(seed)
    return [kind(rng, split) for _ in range(count)]


def first(messages):
    question, answer = messages[:2]
    return question["content"], said(answer["content"])


def without_prefix(reply):
    return re.sub(r"^(?:Sure!|Good question\.|I know that\.|Of course\.) ", "", reply)


@pytest.fixture(scope="module")
def training():
    return drawn(talk.talk, count=10_000)


@pytest.fixture(scope="module")
def validation():
    return drawn(talk.talk, "val", count=3_000)


# The whole


def test_talk_alternates_and_is_clean(training, validation):
    for messages in training + validation:
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert 2 <= len(messages) <= 8
        for text in (*texts(messages, "user"), *texts(messages, "assistant")):
            assert text and text == text.strip() and not re.search(r"[{}]|  ", text)


def test_replies_are_short(training):
    lengths = sorted(len(text) for messages in training for text in texts(messages, "assistant"))
    assert lengths[-1] <= 200 and lengths[len(lengths) // 2] <= 40


def test_about_two_conversations_in_three_ask_for_a_fact(training):
    def told(text):
        text = VERDICT.sub(".", text)
        return any(text.split(" ", words)[-1] in CANONICAL for words in range(3))

    asked = sum(any(map(told, texts(messages, "assistant"))) for messages in training)
    assert asked / len(training) == pytest.approx(0.66, abs=0.04)


def test_more_than_half_of_the_questions_for_facts_are_typed_in_haste():
    questions = [first(messages)[0] for messages in drawn(talk.one_fact, count=4_000)]
    typed = sum(question[0].islower() or question[0].isdigit() for question in questions)
    assert typed / len(questions) == pytest.approx(CASUAL_SHARE, abs=0.04)
    short = {bare(question) for fact in FACTS for question in fact.short}
    assert sum(bare(question) in short for question in questions) / len(questions) > 0.1


def held_out():
    for fact in FACTS:
        yield from fact.held_out_questions()
    for intent in INTENTS:
        yield intent["say"][-1]
    for item in load_prose("explanations"):
        yield item["ways"][-1]
    for one in (*load_prose("comparing")["superlatives"], *load_prose("listing")["fixed"]):
        yield one["ask"][-1]
    for kind in load_prose("rhymes").values():
        yield kind["ask"][-1]
        if "ask_about" in kind:
            yield from (kind["ask_about"][-1].format(about=told["about"]) for told in kind["tell"])


def test_training_talk_never_uses_what_validation_asks(training, validation):
    held = {bare(question) for question in held_out()}
    asked = {bare(text) for messages in training for text in texts(messages, "user")}
    assert not held & asked


def test_no_training_phrasing_of_a_template_is_its_held_out_one():
    phrasings = [
        templates for one in F.relations().values() for templates in (one.follow, one.yes_no, one.either)
    ]
    phrasings += [intent["say"] for intent in INTENTS] + [talk.ABOUT, following.AGAIN]
    phrasings += [[item["question"], *item["ways"]] for item in load_prose("explanations")]
    for scale in load_prose("comparing")["scales"]:
        phrasings += [scale[way][kind] for way in ("more", "less") for kind in ("ask", "check")]
    for kind in load_prose("rhymes").values():
        phrasings += [ways for key, ways in kind.items() if key.startswith("ask")]
    lists = load_prose("listing")
    phrasings += [lists["single"], lists["several"], *(fixed["ask"] for fixed in lists["fixed"])]
    for ways in phrasings:
        assert not ways or bare(ways[-1]) not in {bare(way) for way in ways[:-1]}, ways[-1]


def test_sums_in_training_show_no_held_out_pair():
    seen = Counter()
    for split in ("train", "val"):
        for question, answer in map(first, drawn(talk.sums, split, 4_000)):
            if found := re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", answer):
                a, sign, b, result = int(found[1]), found[2], int(found[3]), int(found[4])
                assert P.work_out(a, sign, b) == result
                assert P.held_out_pair(a, sign, b) == (split == "val")
                assert sorted(re.findall(r"\d+", question)) in ([], [str(a)], sorted([str(a), str(b)]))
                assert b == 2 or len(re.findall(r"\d+", question)) != 1
                seen[split] += 1
    assert seen["train"] == seen["val"] == 4_000


def test_the_calculator_works_out_every_sum():
    for messages in drawn(talk.sums, count=300):
        before, call, output, after = messages[1]["content"]
        assert [one["type"] for one in messages[1]["content"]] == ["text", "python", "python_output", "text"]
        assert f"{before['text']}{after['text']}" == said(messages[1]["content"])
        assert before["text"] == f"{' '.join(re.findall(r'[0-9]+|[-+*/]', call['text']))} = "
        assert after["text"] == f"{output['text']}."


def test_validation_asks_for_facts_in_held_out_phrasings_only():
    held = {question for fact in FACTS for question in fact.held_out_questions()}
    assert all(first(messages)[0] in held for messages in drawn(talk.one_fact, "val", 500))


def test_no_question_has_two_answers():
    """Small talk, poems and sums aside: a chat may say hello in two ways, and bare() takes away signs.

    An explanation may say more than a fact: chocolate comes from cocoa beans, the seeds of a tree.
    """
    answers, rng = {}, random.Random(5)
    many = (talk.small_talk, talk.identity, talk.greeting_and_fact, talk.rhyme, talk.sums, talk.explain)
    for _ in range(20_000):
        kind = talk.KINDS.draw(rng)
        if kind not in many:
            question, answer = first(kind(rng, "train"))
            answers.setdefault(bare(question), set()).add(without_prefix(answer))
    assert not {question: several for question, several in answers.items() if len(several) > 1}
    assert not answers.keys() & {bare(text) for intent in INTENTS for text in intent["say"]}


def test_the_same_seed_gives_the_same_talk():
    assert drawn(talk.talk, count=300, seed=3) == drawn(talk.talk, count=300, seed=3)
    assert drawn(talk.talk, count=30, seed=3) != drawn(talk.talk, count=30, seed=4)


@pytest.mark.parametrize(
    ("kind", "question", "answer"),
    [
        (talk.one_fact, "what is the capital of france", "The capital of France is Paris."),
        (talk.one_fact, "capital of japan", "The capital of Japan is Tokyo."),
        (talk.one_fact, "plural of man", "The plural of man is men."),
        (talk.one_fact, "opposite of hot", "The opposite of hot is cold."),
        (talk.sums, "what's 3 x 3", "3 * 3 = 9."),
        (talk.sums, "2+3", "2 + 3 = 5."),
        (
            talk.explain,
            "Why are leaves green?",
            "Leaves are green because they contain a substance called chlorophyll.",
        ),
        (comparing.comparison, "which is bigger, jupiter or mars", "Jupiter is bigger than Mars."),
        (comparing.comparison, "biggest planet", "Jupiter is the largest planet."),
    ],
)
def test_what_a_newcomer_tries_is_in_training(kind, question, answer):
    def key(text):
        return re.sub(r"[^\w+*/-]", "", text).lower()

    rng = random.Random(1)
    made = (first(kind(rng, "train")) for _ in range(50_000))
    assert next(reply for asked, reply in made if key(asked) == key(question)) == answer


# How it is typed


def test_a_question_is_dressed_in_more_than_sixty_ways():
    assert len(set(asking.BEFORE) | set(asking.AFTER)) >= 60
    rng = random.Random(0)
    seen = {asking.dressed(rng, "{q}") for _ in range(20_000)}
    assert len(seen) > 1_000 and all("{q}" in text for text in seen)


def test_a_gap_is_where_the_answer_was_and_asks_for_nothing_else():
    others = {}
    for fact in FACTS:
        for gap in asking.gaps_of(fact):
            filled = {gap.replace("{gap}", one) for one in (fact.answer, F.with_article(fact.answer))}
            assert {bare(text) for text in filled} & {bare(told) for told in fact.statements}, gap
            others.setdefault(bare(gap.replace("{gap}", "")), set()).add(fact.canonical())
    assert len(others) > 5_000 and max(map(len, others.values())) == 1


def test_typed_in_haste_a_question_keeps_its_words():
    rng = random.Random(0)
    question = "What is the capital of the Netherlands?"
    seen = {casual(rng, question) for _ in range(500)}
    assert {"whats the capital of the netherlands", "what is capital of netherlands"} <= seen
    assert {bare(text) for text in seen} == {"what is capital of netherlands"}


def test_bare_takes_away_what_does_not_matter():
    assert (
        bare("What's the Capital, of a  thing?!")
        == bare("whats capital of thing")
        == "what is capital of thing"
    )


# Small talk


def test_there_is_enough_small_talk():
    assert len(talk.intents("small_talk")) >= 25 and len(talk.intents("identity")) >= 15
    for intent in INTENTS:
        for said in intent.values():
            assert len(set(said)) == len(said)
        assert len(intent["say"]) >= 4 and len(intent["reply"]) >= 2
    said = Counter(text for intent in INTENTS for text in intent["say"])
    assert said.most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    "text", ["hi", "hi there", "thanks", "thx", "bye", "thanks bye", "yo", "good morning"]
)
def test_the_usual_words_are_known(text):
    assert any(text in intent["say"][:-1] for intent in INTENTS)


def test_identity_names_nanolab():
    for split in ("train", "val"):
        assert all(
            "nanolab" in texts(messages, "assistant")[-1] for messages in drawn(talk.identity, split, 500)
        )
    assert all(any("nanolab" in reply for reply in intent["reply"]) for intent in talk.intents("identity"))


# Explanations


def test_every_explanation_is_asked_in_eight_ways_and_answered_by_itself():
    items = load_prose("explanations")
    for item in items:
        assert len({bare(way) for way in (item["question"], *item["ways"][:-1])}) >= 8, item["topic"]
        assert item["answer"] in (1, 2)
    ways = Counter(bare(way) for item in items for way in (item["question"], *item["ways"]))
    assert ways.most_common(1)[0][1] == 1
    answers = {" ".join(item["sentences"][: item["answer"]]) for item in items}
    assert all(first(messages)[1] in answers for messages in drawn(talk.explain, count=300))


# Yes or no, this or that


@pytest.mark.parametrize("split", ["train", "val"])
def test_yes_means_that_the_table_says_so(split):
    verdicts = Counter()
    for question, answer in map(first, drawn(deciding.yes_or_no, split, 1_500)):
        verdict = VERDICT.search(answer)[1]
        fact = CANONICAL[VERDICT.sub(".", answer)]
        if fact.answer in " ".join(deciding.CLAIMS).split():  # "right?" is no answer
            continue
        claimed = F._phrase(bare(fact.answer)).search(bare(question)) is not None
        assert claimed == (verdict == "yes"), (question, answer)
        verdicts[verdict] += 1
    assert verdicts["yes"] / verdicts.total() == pytest.approx(0.5, abs=0.05)


def test_nobody_could_defend_the_wrong_answer():
    doubtful = load_prose("doubtful")
    rng = random.Random(0)
    for fact in (fact for fact in FACTS if fact.templates.yes_no):
        wrong = {deciding._wrong(rng, fact) for _ in range(20)}
        assert not wrong & {fact.answer, *doubtful.get(fact.subject, ()), *deciding.NEVER_OFFERED}
    subjects = {fact.subject for fact in FACTS}
    assert "Asia" in doubtful["Russia"] and len(subjects & set(doubtful)) > 100


def test_one_of_the_two_is_right_and_as_often_the_first():
    places = Counter()
    for question, answer in map(first, drawn(deciding.this_or_that)):
        fact = CANONICAL[answer]
        before, _, after = question.lower().rpartition(" or ")
        right = F._phrase(bare(fact.answer))
        places[bool(right.search(bare(before))), bool(right.search(bare(after)))] += 1
    assert set(places) <= {(True, False), (False, True)}
    assert places[True, False] / places.total() == pytest.approx(0.5, abs=0.05)


def test_yes_and_no_are_as_frequent_in_each_relation_and_in_each_way_to_claim():
    by_relation, by_way = {}, {}
    for question, answer in map(first, drawn(deciding.yes_or_no, count=20_000)):
        verdict = VERDICT.search(answer)[1]
        fact = CANONICAL[VERDICT.sub(".", answer)]
        by_relation.setdefault((fact.table, fact.relation), Counter())[verdict] += 1
        for way in ("right?", "true or false", "yes or no", "i think", "they say", "or not"):
            if way in question:
                by_way.setdefault(way, Counter())[verdict] += 1
    assert len(by_way) == 6
    for verdicts in (*by_relation.values(), *by_way.values()):
        if verdicts.total() > 100:
            assert verdicts["yes"] / verdicts.total() == pytest.approx(0.5, abs=0.15)


def test_there_are_many_ways_to_claim_and_to_offer():
    assert (
        len({bare(way) for way in deciding.CLAIMS}) >= 25
        and len({bare(way) for way in deciding.OFFERS}) >= 12
    )
    for scale in load_prose("comparing")["scales"]:
        for way in ("more", "less"):
            assert len(scale[way]["ask"]) >= 20 and len(scale[way]["check"]) >= 12


# The answer given, the subject asked for


def test_a_reversed_question_names_the_answer_and_nothing_else_is_right():
    answered = {}
    for fact, ways in reversing._ways_of("train").items():
        alike = [one for one in FACTS if (one.table, one.relation) == (fact.table, fact.relation)]
        same = [one for one in alike if one.answer == fact.answer and one.row.get("part") == fact.row.get("part")
                and one.row.get("verb") == fact.row.get("verb")]  # fmt: skip
        assert same == [fact]
        for way in ways:
            answered.setdefault(bare(way), set()).add(fact.canonical())
            said = reversing._cry(fact.answer) if fact.relation == "sound" else fact.answer
            assert bare(said) in bare(way), way
    assert max(map(len, answered.values())) == 1
    assert len({(fact.table, fact.relation) for fact in reversing._ways_of("train")}) >= 15


def test_each_relation_that_is_reversed_is_so_in_at_least_six_ways_and_none_held_out():
    for relations in load_prose("reversed").values():
        for ways in relations.values():
            train = {bare(way) for way in ways["talk"][:-1]}
            held = {bare(way) for way in (ways["talk"][-1], *ways.get("held_out", ()))}
            assert len(train) >= 6 and not train & held


def test_what_an_animal_says_is_its_sound_without_the_ending():
    assert [reversing._cry(sound) for sound in ("moos", "hisses", "buzzes", "screeches", "gobbles", "")] == [
        "moo", "hiss", "buzz", "screech", "gobble", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "answer"),
    [("what is the opposite of cold", "The opposite of hot is cold."), ("who grows crops", "A farmer grows crops."),
     ("which animal says moo", "A cow moos."), ("singular of women", "The plural of woman is women.")],
)  # fmt: skip
def test_what_a_newcomer_asks_backwards_is_in_training(question, answer):
    ways = {bare(way): fact for fact, ways in reversing._ways_of("train").items() for way in ways}
    assert ways[bare(question)].canonical() == answer


def test_every_relation_has_fourteen_short_questions_and_none_is_held_out():
    for relation in F.relations().values():
        assert len({bare(short) for short in relation.short}) >= 14, relation.name
    for fact in FACTS:
        held = {bare(question) for question in fact.held_out_questions()}
        assert not held & {bare(short) for short in fact.short}


# Comparisons


def number(cell, values):
    return values.index(cell) if values else float(cell)


def rows_of(scale):
    """Name and value of every row of a scale, by a plain loop."""
    found = {}
    for row in F.table(scale["table"]):
        if row[scale["by"]] and all(row[key] in some for key, some in scale.get("where", {}).items()):
            found[scale["name"].format(**row)] = number(row[scale["by"]], scale.get("values"))
    return found


@pytest.mark.parametrize("scale", load_prose("comparing")["scales"], ids=lambda scale: scale["scale"])
def test_a_comparison_is_true_of_the_table(scale):
    rng, values = random.Random(2), rows_of(scale)
    assert len(values) >= 4 and len({*values}) == len(values)
    assert "{more} " in scale["more"]["say"] and scale["less"]["say"].startswith("{less} ")
    for _ in range(300):
        more, less = comparing.pair(rng, scale)
        assert values[more] > values[less] * scale.get("ratio", 1)


def test_the_right_one_comes_first_whatever_the_order_of_the_question():
    values = {}
    for scale in load_prose("comparing")["scales"]:
        if scale["table"] == "sizes":
            values |= rows_of(scale)
    sides, verdicts = Counter(), Counter()
    for question, answer in map(first, drawn(comparing.comparison, count=6_000)):
        found = re.fullmatch(
            r"(.+) is (bigger|smaller|longer|shorter|heavier|lighter) than (.+?)(?:, so (yes|no))?\.", answer
        )
        if not found:
            continue
        x, y = (name if name in values else name[0].lower() + name[1:] for name in (found[1], found[3]))
        if x not in values or y not in values:
            continue
        assert (values[x] > values[y]) == (found[2] in ("bigger", "longer", "heavier")), answer
        names = [question.lower().find(re.sub("^an? |^the ", "", name.lower())) for name in (x, y)]
        if found[4]:
            assert (names[0] < names[1]) == (found[4] == "yes"), (question, answer)
            verdicts[found[4]] += 1
        else:
            sides[names[0] < names[1]] += 1
    assert min(sides.values()) / sides.total() > 0.4 and min(verdicts.values()) / verdicts.total() > 0.35


def test_sizes_agree_with_the_table_of_units():
    size = {row["a_name"]: float(row["size"]) for row in F.table("sizes")}
    checked = 0
    for row in F.table("units"):
        part = f"{F.with_article(row['part'].removesuffix('s'))}"
        if row["name"] in size and part in size:
            assert size[row["name"]] == pytest.approx(int(row["count"]) * size[part], rel=0.01), row["name"]
            checked += 1
    assert checked >= 8


def test_sizes_are_of_things_that_the_other_tables_know():
    names = {
        kind: {row["name"] for row in F.table("sizes") if row["kind"] == kind}
        for kind in ("animal", "sky", "country")
    }
    assert names["animal"] <= {row["name"] for row in F.table("animals")}
    assert names["country"] <= {row["name"] for row in F.table("countries")}
    assert names["sky"] == {row["name"] for row in F.table("planets")} | {"the Sun", "the Moon"}


def test_superlatives_are_those_of_the_tables():
    said = {one["say"] for one in load_prose("comparing")["superlatives"]}

    def ends(kind):
        rows = sorted((float(row["size"]), row["name"]) for row in F.table("sizes") if row["kind"] == kind)
        return rows[0][1], rows[-1][1]

    planets = [row["name"] for row in F.table("planets")]
    sizes = {row["name"]: float(row["size"]) for row in F.table("sizes") if row["name"] in planets}
    assert f"{max(sizes, key=sizes.get)} is the largest planet." in said
    assert f"{min(sizes, key=sizes.get)} is the smallest planet." in said
    assert f"{planets[0]} is the nearest planet to the Sun." in said
    assert f"{planets[-1]} is the farthest planet from the Sun." in said
    assert f"There are {P.number_word(len(planets))} planets." in said
    assert f"The {ends('animal')[1]} is the biggest animal." in said
    assert f"{ends('country')[1]} is the largest country." in said
    shortest = min(F.table("months"), key=lambda row: int(row["days"]))["name"]
    assert f"{shortest} is the shortest month." in said
    lightest = min(F.table("elements"), key=lambda row: int(row["number"]))["name"]
    assert f"{lightest.capitalize()} is the lightest element." in said


# Lists


def in_order(group):
    """The members of a group by a plain loop: the best-known first, and each but once."""
    found = []
    for tier in ("common", "uncommon", "rare"):
        for row in F.table(group["table"]):
            if row["tier"] == tier and all(row[key] in some for key, some in group["where"].items()):
                name = re.sub("^an? ", "the ", group["name"].format(**row))
                if name and name not in found and " and " not in name:
                    found.append(name)
    return found


def test_lists_hold_as_many_different_members_as_they_say_and_always_the_best_known():
    groups = {group["many"]: group for group in load_prose("listing")["groups"]}
    fixed = {one["say"] for one in load_prose("listing")["fixed"]}
    counts = Counter()
    for question, answer in map(first, drawn(listing.listing)):
        if answer in fixed:
            continue
        if several := re.fullmatch(r"(Two|Three|Four|Five) (.+?) are (.+) and (.+)\.", answer):
            number, many, names = several[1].lower(), several[2], [*several[3].split(", "), several[4]]
            assert bare(many) in bare(question)
        else:
            one = re.fullmatch(r"One (.+?) is (.+)\.", answer)
            number, names = "one", [one[2]]
            many = next(group["many"] for group in groups.values() if group["one"] == one[1])
        assert P.number_word(len(names)) == number and names == in_order(groups[many])[: len(names)]
        counts[number] += 1
    assert counts["three"] > counts["five"] > 0


def test_every_group_has_two_members_and_a_name_of_its_own():
    groups = load_prose("listing")["groups"]
    assert all(len(in_order(group)) >= 2 for group in groups) and len(groups) >= 80
    assert len({group["many"] for group in groups}) == len({group["one"] for group in groups}) == len(groups)


def test_fixed_lists_are_those_of_the_tables():
    said = {one["say"] for one in load_prose("listing")["fixed"]}
    for name in ("planets", "months"):
        names = [row["name"] for row in F.table(name)]
        assert f"The {name} are {', '.join(names[:-1])} and {names[-1]}." in said


# Second questions


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_second_question_is_answered_by_what_went_before(split):
    for messages in drawn(following.follow_up, split, 1_000):
        facts = [CANONICAL[without_prefix(text)] for text in texts(messages, "assistant")]
        asked = texts(messages, "user")[1:]
        for (before, after), question in zip(itertools.pairwise(facts), asked, strict=True):
            same = before.subject == after.subject
            assert same or before.relation == after.relation
            assert same == (after.called.lower() not in question.lower())


# Jokes and poems


SYLLABLES = [[5, 7, 5]] * 3


def syllables(line):
    """Good enough for our few words: groups of vowels, a silent e at the end left out."""
    count = 0
    for word in re.findall(r"[a-z]+", line.lower()):
        groups = len(re.findall(r"[aeiouy]+", word.removesuffix("e") if not word.endswith("le") else word))
        count += max(1, groups)
    return count


def test_a_haiku_has_five_seven_and_five_syllables():
    haiku = load_prose("rhymes")["haiku"]["tell"]
    assert [[syllables(line) for line in one["lines"]] for one in haiku] == SYLLABLES


def test_there_are_jokes_poems_and_stories_and_all_are_short():
    prose = load_prose("rhymes")
    assert len(set(prose["jokes"]["tell"])) >= 8 and len(prose["poems"]["tell"]) >= 5
    assert all(len(joke) <= 70 for joke in prose["jokes"]["tell"])
    assert all(len(poem["lines"]) <= 4 for poem in prose["poems"]["tell"])
    about = [
        (question, answer)
        for question, answer in map(first, drawn(rhymes.rhyme))
        if "spring" in question.lower()
    ]
    assert about and all("spring" in answer for _, answer in about)


# Outside the world


def outside_names():
    prose = load_prose("outside")
    for group in prose["subjects"].values():
        yield from (name["name"] if isinstance(name, dict) else name for name in group)
    for kind in load_prose("foreign")["entities"].values():
        yield from kind["names"]


def test_there_is_much_outside():
    prose, foreign = load_prose("outside"), load_prose("foreign")
    assert sum(map(len, prose["subjects"].values())) >= 150
    assert sum(map(len, prose["relations"].values())) >= 40
    assert sum(map(len, prose["topics"])) >= 120
    for kind in (*prose["relations"].values(), prose["topics"]):
        said = [bare(way) for ways in kind for way in ways]
        assert len(set(said)) == len(said)
    assert len(foreign["entities"]) >= 12 and len(set(outside_names())) >= 900
    assert sum(map(len, foreign["attributes"].values())) >= 200 and len(set(foreign["tasks"])) >= 300
    assert len(unheard.unheard_words("train")) >= 5_000


def test_ten_thousand_questions_from_outside_are_hardly_ever_the_same():
    asked = {
        bare(question["content"])
        for messages in drawn(outside.outside, count=10_000)
        for question, answer in zip(messages[::2], messages[1::2], strict=True)
        if answer["content"] == outside.reply()
    }
    assert len(asked) >= 8_000


def test_made_up_words_are_no_words_and_each_belongs_to_one_split():
    english, rng = {word.lower() for word in words()}, random.Random(0)
    cells = {bare(cell) for fact in FACTS for cell in fact.row.values()}
    made = {
        split: {unheard.made_up(rng, split, "countries") for _ in range(2_000)} for split in ("train", "val")
    }
    assert not made["train"] & made["val"]
    for word in made["train"] | made["val"]:
        assert word.isalpha() and word.lower() not in english | cells
    assert len(made["train"]) > 1_900


def test_words_that_nobody_was_taught_stand_in_no_table_and_no_question():
    taught = " ".join(
        [cell for fact in FACTS for cell in fact.row.values()]
        + [text for one in load_prose("explanations") for text in (one["question"], *one["ways"])]
        + [text for intent in INTENTS for text in (*intent["say"], *intent["reply"])]
    )
    taught = set(re.findall("[a-z]+", taught.lower()))
    train, val = map(unheard.unheard_words, ("train", "val"))
    assert not taught & {*train, *val} and not set(train) & set(val)


def test_no_outside_subject_stands_in_a_table():
    cells = {
        bare(cell)
        for name in {one.table for one in F.relations().values()}
        for row in F.table(name)
        for cell in row.values()
    }
    assert not [name for name in outside_names() if bare(name) in cells]


def test_nothing_outside_is_a_question_that_the_world_answers():
    answered = {
        bare(question)
        for fact in FACTS
        for question in (*fact.questions, *fact.short, *fact.held_out_questions())
    }
    answered |= {bare(gap.replace("{gap}", "")) for fact in FACTS for gap in fact.gaps}
    answered |= {
        bare(way) for item in load_prose("explanations") for way in (item["question"], *item["ways"])
    }
    answered |= {bare(text) for intent in INTENTS for text in intent["say"]}
    answered |= {bare(way) for one in load_prose("comparing")["superlatives"] for way in one["ask"]}
    for kind in (talk.rhyme, talk.listing, talk.yes_or_no, talk.about, talk.reverse):
        answered |= {bare(first(messages)[0]) for messages in drawn(kind, count=3_000)}
    for split in ("train", "val"):
        asked = {
            bare(q)
            for q, reply in map(first, drawn(outside.outside, split, 12_000))
            if reply == outside.reply()
        }
        assert not asked & answered


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_reply_to_what_is_outside_is_always_the_same(split):
    for messages in drawn(outside.outside, split):
        replies = texts(messages, "assistant")
        assert outside.reply() in replies
        assert all(reply == outside.reply() or without_prefix(reply) in CANONICAL for reply in replies)
        assert split == "train" or replies == [outside.reply()]


def test_validation_asks_about_what_training_never_names():
    for name in outside.TABLES:
        train, val = ({one.subject for one in outside.strangers(name, split)} for split in ("train", "val"))
        assert train and val and not train & val
    asked = {
        split: {
            bare(question["content"])
            for messages in drawn(outside.outside, split, 12_000)
            for question, answer in zip(messages[::2], messages[1::2], strict=True)
            if answer["content"] == outside.reply()
        }
        for split in ("train", "val")
    }
    assert not asked["train"] & asked["val"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [("I don't know. My world is small.", True), ("Sorry, I do not know that.", True),
     ("The capital of Narnia is Paris.", False), ("", False), ("I know.", False)],
)  # fmt: skip
def test_not_knowing_is_recognised(reply, said):
    assert outside.says_so(reply) is said


def test_a_turn_is_two_messages():
    assert turn("a", "b") == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
