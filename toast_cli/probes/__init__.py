"""Probes: what turns features into accuracy."""

from typing import TYPE_CHECKING

from toast_cli import when_used

if TYPE_CHECKING:
    from toast_cli.probes.base import Probe
    from toast_cli.probes.batched import BatchedProbe, LinearProbe, MlpProbe
    from toast_cli.probes.classifiers import KnnProbe, LogisticProbe, PretrainedHead
    from toast_cli.probes.zero_shot import ZeroShot

__all__ = [
    "BatchedProbe",
    "KnnProbe",
    "LinearProbe",
    "LogisticProbe",
    "MlpProbe",
    "PretrainedHead",
    "Probe",
    "ZeroShot",
]
__getattr__ = when_used(
    __name__,
    {
        "Probe": "base",
        "BatchedProbe": "batched",
        "LinearProbe": "batched",
        "MlpProbe": "batched",
        "KnnProbe": "classifiers",
        "LogisticProbe": "classifiers",
        "PretrainedHead": "classifiers",
        "ZeroShot": "zero_shot",
    },
)
