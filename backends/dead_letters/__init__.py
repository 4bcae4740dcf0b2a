"""Rows that a sink refuses for good, kept on disk until somebody has mended what was wrong.

Takes refused rows with the reason; gives them back to be sent again when they are marked. One bounded file
per instance, under a lock of its own. Keeps what a sink did not take of a boot's end, too. SQLite is loaded
when a file is opened, not before.
"""

from .file import DEFAULT_MAX_BYTES, DeadLetterFile
from .letter import DeadLetter, DeadLetters, KeptLetter
from .outside import Replayed, UnownedLetters, letters_in, mark_letters, unowned_letters, unstored_boots

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DeadLetter",
    "DeadLetterFile",
    "DeadLetters",
    "KeptLetter",
    "Replayed",
    "UnownedLetters",
    "letters_in",
    "mark_letters",
    "unowned_letters",
    "unstored_boots",
]
