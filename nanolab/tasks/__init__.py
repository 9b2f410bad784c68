"""Tasks: where conversations come from, and how answers to them are scored."""

from nanolab.tasks.arc import ARC
from nanolab.tasks.base import Conversation, MultipleChoice, Task, TaskMixture, load_rows, multiple_choice
from nanolab.tasks.customjson import CustomJSON
from nanolab.tasks.gsm8k import GSM8K, extract_answer
from nanolab.tasks.mmlu import MMLU
from nanolab.tasks.outside import OutsideQuestions
from nanolab.tasks.smoltalk import SmolTalk
from nanolab.tasks.spelling import SimpleSpelling, SpellingBee
from nanolab.tasks.tiny import FactRecall, Identity, TinyARC, TinyGSM, TinyMMLU, TinyTalk

__all__ = [
    "ARC",
    "GSM8K",
    "MMLU",
    "Conversation",
    "CustomJSON",
    "FactRecall",
    "Identity",
    "MultipleChoice",
    "OutsideQuestions",
    "SimpleSpelling",
    "SmolTalk",
    "SpellingBee",
    "Task",
    "TaskMixture",
    "TinyARC",
    "TinyGSM",
    "TinyMMLU",
    "TinyTalk",
    "extract_answer",
    "load_rows",
    "multiple_choice",
]
