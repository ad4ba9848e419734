"""How far the filters of a study keep the same documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kringle.settings import FilterSettings
from kringle.study.plan import Run
from kringle.study.results import Overlap
from kringle.study.teaching import DOCUMENTS


def overlaps(done: Sequence[Run]) -> tuple[Overlap, ...]:
    """What each filter keeps, and what two of them keep both, from the lists that the trainings left."""
    kept = {}
    for run in done:
        filtered = run.arm.filter != FilterSettings() and run.arm.control is None
        path = run.train.folder / DOCUMENTS
        if filtered and run.arm.name not in kept and path.is_file():  # an older version left none
            kept[run.arm.name] = dict(np.load(path))
    names = list(kept)
    found = []
    for i, one in enumerate(names):
        for other in names[i:]:
            both = np.isin(kept[one]["documents"], kept[other]["documents"])
            found.append(Overlap(one, other, int(both.sum()), int(kept[one]["sizes"][both].sum())))
    return tuple(found)
