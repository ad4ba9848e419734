"""Settings of all tests. Property tests draw the same examples on every run, and others with KRINGLE_EXPLORE=1."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("KRINGLE_EXPLORE"):
    settings.load_profile("same")

# What only tests use lies beside site-packages (see the Makefile); processes that tests start find it there too.
TESTED = Path(sys.prefix) / "tested"
if TESTED.is_dir() and str(TESTED) not in sys.path:
    sys.path.append(str(TESTED))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(TESTED))))

# Files of tests that take longest, with those of other files beside them: the last to end should be a short one. The
# first ones begin together; of these only one runs a study and compiles kernels, the others wait for a jail or train.
LONGEST = (
    *("run_killed", "jail_attacks", "training_parallel", "run_again", "run_machine", "run_study", "run_planted"),
    *("run_odd_files", "run_parts", "data_optout", "run_mistakes", "generation_engine", "tokens_encoder"),
    *("model_engines", "data_comments", "study_controls", "release", "run_licenses", "run_attribution"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files, the longest first. Takes effect on several processes with `--no-loadscope-reorder`."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Matrices as small as tests have are multiplied faster by one thread than two threads wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
