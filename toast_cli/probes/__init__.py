"""Probes: what turns features into accuracy."""

from toast_cli.probes.base import Probe
from toast_cli.probes.batched import BatchedProbe, LinearProbe, MlpProbe
from toast_cli.probes.classifiers import KnnProbe, LogisticProbe, PretrainedHead

__all__ = ["BatchedProbe", "KnnProbe", "LinearProbe", "LogisticProbe", "MlpProbe", "PretrainedHead", "Probe"]
