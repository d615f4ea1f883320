"""What training estimates of a bundle against what was exported."""

from __future__ import annotations

from ondevice.bundle.estimate import bundle_bytes
from ondevice.data import Dataset
from ondevice.program.export import Exported
from ondevice.recommender import Recommender

SMALLEST = 24_000
"""The smallest budget that is to be used to within 5 %; these programs are smaller, their constant part is not."""


def estimated(
    recommender: Recommender, data: Dataset, endpoints: tuple[str, ...], fingerprint_bits: int | None = None
) -> int:
    forms = recommender.forms()
    projected = recommender.projection is not None
    return bundle_bytes(forms, recommender.model, data, endpoints, projected, fingerprint_bits)


def assert_close(exported: Exported, data: Dataset, endpoints: tuple[str, ...]) -> None:
    """Never below, so that a budget holds, and at most 5 % above, so that it is used."""
    real = exported.bundle.needed_bytes
    above = estimated(exported.recommender, data, endpoints) - real
    assert 0 <= above <= 0.05 * max(real, SMALLEST), (exported.byte_parts(), above)
