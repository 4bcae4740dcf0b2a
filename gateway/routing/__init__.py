"""Where calls go: names, the choice among targets, how these are doing, and what is tried again."""

from .attempts import is_tried_again
from .health import Health, Ticket
from .named import NamedModel, Target, named_models
from .plan import Plan, Step
from .router import Router
from .routes import Destination, Route, resolve

__all__ = [
    "Destination",
    "Health",
    "NamedModel",
    "Plan",
    "Route",
    "Router",
    "Step",
    "Target",
    "Ticket",
    "is_tried_again",
    "named_models",
    "resolve",
]
