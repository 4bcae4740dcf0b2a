"""What holds for the whole run: whose code is under test, and the seed of everything that is random."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

import backends
import gateway
from backends.testing.rig import SEED

# Lets tests import their helpers: ``from servers.base import Server`` is tests/servers/base.py.
sys.path.insert(0, str(Path(__file__).parent))
# The programs in load/ import each other by their bare names, as programs do.
sys.path.append(str(Path(__file__).parents[1] / "load"))

COPY_UNDER_TEST = "TALLYGATE_COPY_UNDER_TEST"
"""Set by those who run cases against a copy of the source: the folder that both packages must come from."""

# A busy machine is slow to make up examples; that says nothing about the code under test.
settings.register_profile(
    "fixed", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("wide", settings.get_profile("fixed"), max_examples=1000)
# For those who only want to know whether something fails, soon.
settings.register_profile(
    "glance", settings.get_profile("fixed"), max_examples=30, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its options
def pytest_configure(config: pytest.Config) -> None:
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = SEED
    folder = os.environ.get(COPY_UNDER_TEST)
    for package in (backends, gateway):
        if folder and Path(folder).resolve() not in Path(str(package.__file__)).resolve().parents:
            raise pytest.UsageError(f"{package.__name__} is {package.__file__}, it should be of {folder}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = config.option.hypothesis_seed
    return [
        f"under test: {Path(str(backends.__file__)).parent}, {Path(str(gateway.__file__)).parent}",
        f"seeds: hypothesis {seed} (another: --hypothesis-seed=N); the kit's jitter, faults, fuzzing {SEED}",
    ]
