"""Every operation of the gateway."""

from __future__ import annotations

from .inference_operations import INFERENCE
from .management_operations import MANAGEMENT
from .usage_operations import OPERATIONS, USAGE

TABLE = (*INFERENCE, *MANAGEMENT, *USAGE, *OPERATIONS)
"""The router serves them in this order, the document names them in it."""
