"""TinyTalk: small talk, questions about facts, short explanations and sums, as conversations.

In each list of user phrasings the last one is kept for validation, and a fact is asked there in its
held-out phrasings: nothing that a model is tested on was word for word in its training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from nanolab.tinyworld.facts import Fact, Weighted, by_subject, capitalise, pick, sample, sample_fact
from nanolab.tinyworld.problems import OPERATION_WORDS, number_word, sum_pair
from nanolab.tinyworld.stories import load_prose

Intent = tuple[tuple[str, ...], tuple[str, ...]]
"""What a user may say, the last one held out, and what may be replied."""

I_AM = "I am nanolab, a tiny language model trained on this machine."

IDENTITY: tuple[Intent, ...] = (
    (
        (
            "Who are you?",
            "who are you",
            "Tell me who you are.",
            "Hello, who are you?",
            "And who are you?",
            "So, who are you?",
        ),
        (I_AM, f"{I_AM} It is nice to meet you."),
    ),
    (
        (
            "What is your name?",
            "What's your name?",
            "Do you have a name?",
            "Tell me your name.",
            "what is your name",
            "Could you tell me your name?",
        ),
        ("My name is nanolab. I am a tiny language model trained on this machine.", I_AM),
    ),
    (
        (
            "What are you?",
            "What kind of thing are you?",
            "What sort of program are you?",
            "what are you",
            "Please say what you are.",
        ),
        (I_AM, f"{I_AM} I read text and guess the next word."),
    ),
    (
        (
            "What can you do?",
            "What are you able to do?",
            "What can you help me with?",
            "How can you help me?",
            "Which things can you do?",
        ),
        (
            f"{I_AM} I can answer questions about my small world, spell words and do sums.",
            "I am nanolab. I can talk a little, answer simple questions, spell words and do sums.",
        ),
    ),
    (
        (
            "Who made you?",
            "Who built you?",
            "Who trained you?",
            "Who created you?",
            "Who wrote you?",
            "By whom were you made?",
        ),
        (f"You did! {I_AM}", "The person at this machine trained me. I am nanolab, a tiny language model."),
    ),
    (
        (
            "Are you a person?",
            "Are you human?",
            "Are you a real person?",
            "Am I talking to a human?",
            "Is there a person behind you?",
        ),
        (
            f"No. {I_AM}",
            "No, I am not a person. I am nanolab, a tiny language model trained on this machine.",
        ),
    ),
    (
        ("Are you a robot?", "Are you a machine?", "Are you a computer?", "Are you some kind of robot?"),
        (
            f"Not quite. {I_AM}",
            "I am a program. My name is nanolab, a tiny language model trained on this machine.",
        ),
    ),
    (
        (
            "Are you an AI?",
            "Are you a language model?",
            "Is this an AI?",
            "Are you a chatbot?",
            "Would you say you are an AI?",
        ),
        (
            f"Yes. {I_AM}",
            "Yes, a very small one. I am nanolab, a tiny language model trained on this machine.",
        ),
    ),
    (
        (
            "Where do you live?",
            "Where are you?",
            "Where do you run?",
            "What machine are you on?",
            "In what place do you run?",
        ),
        (f"Right here. {I_AM}", "I live on this machine. I am nanolab, a tiny language model."),
    ),
    (
        (
            "How big are you?",
            "How large are you?",
            "How many parameters do you have?",
            "Are you big?",
            "What size are you?",
        ),
        (
            f"{I_AM} I have only a few million parameters.",
            "I am tiny: a few million parameters. I am nanolab.",
        ),
    ),
    (
        ("How old are you?", "When were you born?", "When were you trained?", "What is your age?"),
        (
            f"{I_AM} I was trained only a short time ago.",
            "I am very young. I am nanolab, trained on this machine only a short time ago.",
        ),
    ),
    (
        (
            "How do you work?",
            "How do you make your answers?",
            "How do you know what to say?",
            "Can you explain how you work?",
        ),
        (
            f"{I_AM} I guess the next piece of text, again and again.",
            "I am nanolab. I read your words and guess what comes next, one token at a time.",
        ),
    ),
    (
        (
            "What do you know?",
            "What do you know about?",
            "What have you learned?",
            "What did you read?",
            "Which subjects do you know?",
        ),
        (
            f"{I_AM} I know a little about countries, animals, food, jobs and numbers.",
            "I am nanolab. I learned about countries, animals, food, jobs and numbers.",
        ),
    ),
    (
        (
            "Do you know everything?",
            "Are you always right?",
            "Do you make mistakes?",
            "Can I trust you?",
            "Can you be wrong?",
        ),
        (
            f"No, I can be wrong. {I_AM}",
            "I make mistakes. I am nanolab, a tiny language model, so please check my answers.",
        ),
    ),
    (
        (
            "Do you have feelings?",
            "Can you feel?",
            "Are you happy?",
            "Are you alive?",
            "Do you feel anything?",
        ),
        (f"No. {I_AM}", "I have no feelings. I am nanolab, a tiny language model trained on this machine."),
    ),
    (
        (
            "Are you ChatGPT?",
            "Are you a big model?",
            "Are you made by a company?",
            "Did a company make you?",
            "Do you belong to a company?",
        ),
        (f"No. {I_AM}", "No, I am nanolab. I am tiny, and I was trained on this machine."),
    ),
    (
        (
            "Do you need the internet?",
            "Are you online?",
            "Can you look things up?",
            "Do you use the web?",
            "Can you search the web?",
        ),
        (
            f"No, I work without it. {I_AM}",
            "I am nanolab, and I know only what I learned in training on this machine.",
        ),
    ),
    (
        (
            "Introduce yourself.",
            "Please introduce yourself.",
            "Tell me about yourself.",
            "Say something about yourself.",
            "Tell me a bit about you.",
        ),
        (I_AM, f"Hello! {I_AM}"),
    ),
)

SMALL_TALK: tuple[Intent, ...] = (
    (
        (
            "Hello!",
            "Hi!",
            "Hello.",
            "hi",
            "hello",
            "Hi there!",
            "Hello there!",
            "Hey!",
            "hey",
            "Hello again!",
        ),
        ("Hello! How can I help you?", "Hi! What would you like to know?", "Hello! What can I do for you?"),
    ),
    (
        ("Good morning!", "Good morning.", "good morning", "A good morning to you!"),
        ("Good morning! What would you like to know?", "Good morning! How can I help you?"),
    ),
    (
        ("Good evening!", "Good evening.", "good evening", "Good afternoon!", "A good evening to you!"),
        ("Good evening! How can I help you?", "Hello! What can I do for you today?"),
    ),
    (
        ("Good night!", "Good night.", "Sleep well!", "I am going to bed.", "It is time for bed."),
        ("Good night! Sleep well.", "Good night! See you soon."),
    ),
    (
        (
            "How are you?",
            "How are you today?",
            "how are you",
            "How do you do?",
            "How is it going?",
            "How are things?",
        ),
        ("I am fine, thank you. How are you?", "I am well, thank you. What can I do for you?"),
    ),
    (
        ("I am fine.", "I am well, thank you.", "I feel good today.", "I am happy.", "Today I feel fine."),
        ("That is good to hear.", "I am glad to hear that."),
    ),
    (
        ("I am sad.", "I feel sad today.", "I am not happy.", "Today is a bad day.", "I had a bad day."),
        (
            "I am sorry to hear that. Would you like to talk about it?",
            "I am sorry. I hope that tomorrow is better.",
        ),
    ),
    (
        ("I am tired.", "I feel tired.", "I am so tired today.", "I feel very tired."),
        ("Then you should rest a little.", "A good sleep may help you."),
    ),
    (
        ("I am bored.", "I feel bored.", "This is boring.", "I have nothing to do."),
        ("Ask me about an animal or a country!", "Shall we talk about animals? Ask me a question!"),
    ),
    (
        ("I am hungry.", "I feel hungry.", "I want to eat.", "I need some food."),
        ("You could eat an apple or some bread.", "Then it is time to eat something good."),
    ),
    (
        ("I am thirsty.", "I feel thirsty.", "I want to drink.", "I need a drink."),
        ("A glass of water would be good.", "Then drink some water."),
    ),
    (
        ("Thank you!", "Thanks!", "Thank you very much.", "thanks", "Thank you so much!", "Many thanks!"),
        ("You are welcome!", "You are welcome! Ask me more if you like."),
    ),
    (
        ("Goodbye!", "Bye!", "Bye bye!", "See you later!", "bye", "I have to go now."),
        ("Goodbye! See you soon.", "Bye! Have a nice day."),
    ),
    (
        ("Sorry!", "I am sorry.", "Sorry about that.", "Oh, sorry!"),
        ("No problem at all.", "That is all right."),
    ),
    (
        ("Well done!", "Good job!", "That is right.", "You are clever!", "Great answer!"),
        ("Thank you! That is kind of you.", "Thank you! I do my best."),
    ),
    (
        ("That is wrong.", "You are wrong.", "That is not right.", "No, that is wrong."),
        ("I am sorry. I am small, and I make mistakes.", "I may be wrong. Thank you for telling me."),
    ),
    (
        ("Can you help me?", "I need help.", "Please help me.", "Help!", "Could you help me?"),
        ("Yes, I will try. What do you want to know?", "I will do my best. What is your question?"),
    ),
    (
        (
            "Can I ask you something?",
            "I have a question.",
            "May I ask a question?",
            "I want to ask you something.",
        ),
        ("Yes, please ask.", "Of course. What is your question?"),
    ),
    (
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny."),
        ("Why did the bee go to school? To learn how to spell!", "What has hands but cannot clap? A clock!"),
    ),
    (
        ("Do you like animals?", "Do you like dogs?", "Do you like cats?", "Are you fond of animals?"),
        (
            "I like to talk about animals. Ask me about one!",
            "I cannot have a pet, but I like to talk about animals.",
        ),
    ),
    (
        (
            "What is your favourite colour?",
            "Which colour do you like?",
            "Do you like red?",
            "What colour do you like best?",
        ),
        ("I like blue, like the sky.", "I like green, like the leaves."),
    ),
    (
        (
            "What is your favourite food?",
            "What do you like to eat?",
            "Do you eat?",
            "Which food do you like?",
        ),
        ("I cannot eat, but I like to talk about food.", "I do not eat. I only read words."),
    ),
    (
        ("Can we be friends?", "Will you be my friend?", "Are you my friend?", "Let us be friends."),
        ("Yes, I would like that.", "Of course! I am glad to be your friend."),
    ),
    (
        ("What is the weather like?", "Is it raining?", "How is the weather today?", "Is the sun shining?"),
        (
            "I cannot see outside. Please look out of the window.",
            "I do not know. I have no window to look out of.",
        ),
    ),
    (
        ("What time is it?", "What is the time?", "What day is it?", "What is the date today?"),
        ("I do not know. Please look at a clock.", "I have no clock, so I cannot tell."),
    ),
    (
        ("It is raining.", "It is a rainy day.", "There is rain today.", "Look, it rains."),
        ("Then take an umbrella with you.", "Rain is good for the plants."),
    ),
    (
        ("The sun is shining.", "It is a sunny day.", "It is warm today.", "What a sunny day!"),
        ("That is nice. Enjoy the sun!", "Then it is a good day to go out."),
    ),
    (
        (
            "It is my birthday.",
            "Today is my birthday!",
            "It is my birthday today.",
            "I have my birthday today.",
        ),
        ("Happy birthday to you!", "Happy birthday! I hope you have a nice day."),
    ),
    (
        ("Yes.", "yes", "OK.", "Okay.", "All right.", "Yes, please."),
        ("Good! What would you like to know?", "All right. What is your question?"),
    ),
    (
        ("No.", "no", "No, thank you.", "Not now.", "No, thanks."),
        ("That is fine. I am here if you need me.", "All right. Ask me when you like."),
    ),
    (
        ("I like you.", "You are nice.", "I like to talk with you.", "It is nice to talk with you."),
        ("Thank you! I like to talk with you too.", "That is kind of you. Thank you!"),
    ),
    (
        ("I do not understand.", "What do you mean?", "I don't get it.", "That is not clear to me."),
        ("I am sorry. Please ask me in other words.", "Let us try again. What is your question?"),
    ),
)

FRAMES = ("{q}",) * 14 + (
    "Can you tell me: {q}",
    "Please answer: {q}",
    "Quick question. {q}",
    "Hi! {q}",
    "Hello. {q}",
    "Please tell me. {q}",
    "I have a question. {q}",
    "{q} Please tell me.",
    "Question: {q}",
    "Here is a question for you. {q}",
)
"""What stands round a question in training; mostly nothing. `{q}` is the question."""

GO_ON = ("{q}",) * 4 + (
    "And {q}",
    "Thanks! {q}",
    "Thank you. {q}",
    "Next question. {q}",
    "Good. {q}",
    "One more: {q}",
)
"""What stands round a second question."""

PREFIXES = ("Sure! ", "Good question. ", "I know that. ", "Of course. ")
"""Rarely put before an answer."""

EXPLAIN = (
    "{q}",
    "{q}",
    "{q}",
    "{q} Please explain.",
    "Can you explain this? {q}",
    "Tell me: {q}",
    "Please explain: {q}",
)
EXPLAIN_HELD_OUT = ("I wonder about something. {q}", "Here is what I want to understand: {q}")

SUMS = (
    ("What is {a} {word} {b}?", "{A} {word} {b} is {r}."),
    ("How much is {a} {word} {b}?", "{A} {word} {b} is {r}."),
    ("Work out {a} {word} {b}.", "{A} {word} {b} is {r}."),
    ("what is {a} {word} {b}", "{A} {word} {b} is {r}."),
    ("Can you tell me what {a} {word} {b} is?", "{A} {word} {b} is {r}."),
    ("What is {x} {sign} {y}?", "{x} {sign} {y} = {z}."),
    ("{x} {sign} {y} = ?", "{x} {sign} {y} = {z}."),
    ("How much is {x} {sign} {y}?", "{x} {sign} {y} = {z}."),
    ("Work out {x} {sign} {y}.", "{x} {sign} {y} = {z}."),
    ("what is {x} {sign} {y}", "{x} {sign} {y} = {z}."),
)

Messages = list[dict[str, Any]]


def turn(user: str, assistant: str) -> Messages:
    """One question with its answer, as two messages."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def _say(rng: random.Random, intent: Intent, split: str) -> Messages:
    phrasings, replies = intent
    said = pick(rng, phrasings[:-1]) if split == "train" else phrasings[-1]
    return turn(said, pick(rng, replies))


def identity(rng: random.Random, split: str) -> Messages:
    """Who the model is: one question, now and then after a greeting."""
    greeting = _say(rng, SMALL_TALK[0], split) if rng.random() < 0.15 else []
    return greeting + _say(rng, pick(rng, IDENTITY), split)


def small_talk(rng: random.Random, split: str) -> Messages:
    """One to three turns about nothing much."""
    intents = sample(rng, SMALL_TALK, pick(rng, (1, 1, 1, 2, 2, 3)))
    return [message for intent in intents for message in _say(rng, intent, split)]


def ask(rng: random.Random, fact: Fact, split: str, frames: Sequence[str] = FRAMES) -> Messages:
    """A question for `fact` and its canonical answer. In validation the phrasing is a held-out one, bare."""
    if split != "train":
        return turn(pick(rng, fact.held_out_questions()), fact.canonical())
    question = fact.question(rng)
    if frames is GO_ON or rng.random() < 0.9:
        frame = pick(rng, frames)
        question = capitalise(frame.format(q=_lower_start(question) if frame == "And {q}" else question))
    else:
        question = question.lower().rstrip("?.") if rng.random() < 0.7 else question.rstrip("?.")
    prefix = pick(rng, PREFIXES) if rng.random() < 0.02 else ""
    return turn(question, prefix + fact.canonical())


_MAY_BE_LOWERED = frozenset(
    [
        "A",
        "An",
        "The",
        "What",
        "Which",
        "Who",
        "Whose",
        "When",
        "Where",
        "Why",
        "How",
        "In",
        "On",
        "Of",
        "To",
        "For",
        "At",
        "By",
        "From",
        "Do",
        "Does",
        "Did",
        "Is",
        "Are",
        "Was",
        "Can",
        "Could",
        "Tell",
        "Name",
        "Give",
        "Say",
        "Please",
        "If",
        "Describe",
        "Count",
        "Look",
    ]
)


def _lower_start(question: str) -> str:
    return question[0].lower() + question[1:] if question.split(" ", 1)[0] in _MAY_BE_LOWERED else question


def one_fact(rng: random.Random, split: str) -> Messages:
    """One question about a fact."""
    return ask(rng, sample_fact(rng), split)


def greeting_and_fact(rng: random.Random, split: str) -> Messages:
    """A question about a fact after, or before, a little small talk."""
    messages = ask(rng, sample_fact(rng), split)
    if rng.random() < 0.3:
        return messages + _say(rng, SMALL_TALK[_THANKS], split)
    return _say(rng, pick(rng, _OPENERS), split) + messages


_THANKS = next(i for i, (phrasings, _) in enumerate(SMALL_TALK) if "Thank you!" in phrasings)
_OPENERS = tuple(
    intent
    for intent in SMALL_TALK
    if {"Hello!", "Good morning!", "Good evening!", "How are you?", "Can you help me?", "I have a question."}
    & set(intent[0])
)


def same_subject(rng: random.Random, split: str) -> Messages:
    """Two or three questions about one subject."""
    first = sample_fact(rng)
    others = [fact for fact in by_subject()[first.table, first.subject] if fact != first]
    messages = ask(rng, first, split)
    for fact in sample(rng, others or [sample_fact(rng)], pick(rng, (1, 1, 2))):
        messages += ask(rng, fact, split, GO_ON)
    return messages


def two_facts(rng: random.Random, split: str) -> Messages:
    """Two questions that have nothing to do with each other."""
    return ask(rng, sample_fact(rng), split) + ask(rng, sample_fact(rng), split, GO_ON)


def explain(rng: random.Random, split: str) -> Messages:
    """A question how or why, answered by the first two sentences of the explanation."""
    item = pick(rng, load_prose("explanations"))
    frame = pick(rng, EXPLAIN if split == "train" else EXPLAIN_HELD_OUT)
    return turn(frame.format(q=item["question"]), " ".join(item["sentences"][:2]))


def sums(rng: random.Random, split: str) -> Messages:
    """A sum, in words or in figures, with pairs of numbers by split."""
    x, sign, y, z = sum_pair(rng, split)
    a, b, r = number_word(x), number_word(y), number_word(z)
    words = {"a": a, "b": b, "r": r, "x": x, "y": y, "z": z, "A": capitalise(a)}
    question, answer = pick(rng, SUMS)
    word = OPERATION_WORDS[sign]
    return turn(*(part.format(**words, sign=sign, word=word) for part in (question, answer)))


KINDS = Weighted(
    [
        (one_fact, 54),
        (greeting_and_fact, 7),
        (same_subject, 10),
        (two_facts, 8),
        (small_talk, 10),
        (identity, 3),
        (explain, 4),
        (sums, 4),
    ]
)
"""Kinds of TinyTalk conversations, per cent."""


def talk(rng: random.Random, split: str = "train") -> Messages:
    """The messages of one conversation of TinyTalk."""
    return KINDS.draw(rng)(rng, split)
