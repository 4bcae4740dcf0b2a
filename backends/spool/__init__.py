"""The local disk as the place of last resort, and as a journal."""

from .options import SpoolOptions
from .spool import Spool

__all__ = ["Spool", "SpoolOptions"]
