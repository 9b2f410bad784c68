"""nanolab: train a chat model end to end on your own laptop."""

__version__ = "0.1.0"
