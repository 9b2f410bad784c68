"""What nanolab raises when a learner needs to know something.

The message says what happened, where (the learner's own file and line), and what to do about it.
The command line prints it as one paragraph, without a stack trace.
"""


class NanolabError(Exception):
    """Base class of every error that nanolab raises on purpose."""


class ConfigError(NanolabError):
    """A setting that cannot work: an unknown profile, a bad tag, a device that is not there."""


class DataError(NanolabError):
    """Text, conversations or a tokenizer file that cannot be used as they are."""


class CheckpointError(NanolabError):
    """A checkpoint that is missing, damaged, or belongs to something else."""


class DownloadError(NanolabError):
    """Something that should have come over the network and did not, or came damaged."""
