"""What a config stands for: everything the stages of one run share."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

from toast_cli.compute import Compute
from toast_cli.data import Data
from toast_cli.errors import ToastError
from toast_cli.features import FeatureFile
from toast_cli.folders import RunFolder
from toast_cli.images import Batch, Images
from toast_cli.models import Backbone
from toast_cli.plans import Map, Plan, Span, Variant, variants
from toast_cli.probes import Probe
from toast_cli.team import ALONE, Team
from toast_cli.translators import Translator

Fitted = Mapping[Map, Translator]


@dataclass(frozen=True)
class Job:
    """One run. ``plans`` are as asked for, the untouched model first.

    ``translators`` are the run's own, by the empty name, and those that spans name; ``sequential`` are the kinds of fit
    that plans of several spans get. ``stage`` tells the features of one set of plans in a folder from another's.
    """

    folder: RunFolder
    backbone: Backbone
    data: Data
    plans: list[Plan]
    translators: Mapping[str, Translator]
    probe: Probe
    seeds: list[int]
    protocol: str
    compute: Compute
    batch_size: int
    workers: int
    sequential: tuple[bool, ...] = (False,)
    stage: str = ""
    team: Team = ALONE

    @property
    def translator(self) -> Translator:
        """The run's own."""
        return self.translators[""]

    @property
    def variants(self) -> list[Variant]:
        """Every plan at every number of fit images: what features, rows and predictions are in the order of."""
        return variants(self.plans, self.data.fit_sizes, self.sequential)

    @property
    def spans(self) -> list[Span]:
        """Those of all plans, each once."""
        return sorted({span for plan in self.plans for span in plan.spans})

    @property
    def maps(self) -> list[Map]:
        """Those of all variants, each once."""
        return list(dict.fromkeys(key for variant in self.variants for key in variant.maps))

    def batches(self, images: Images, size: int, start: int = 0, keep: Container[int] = ()) -> Iterator[Batch]:
        """This process's share of the images from number ``start`` on, ``size`` at a time: ``images.batches`` with the model's
        transform, pixels on the run's device."""
        device = self.compute.device
        pin = device.type == "cuda"
        ranges = self.team.ranges(start, len(images), size)
        for batch in images.batches(self.backbone.transform, size, self.workers, ranges, keep, pin):
            yield replace(batch, pixels=batch.pixels.to(device, non_blocking=pin))

    def feature_file(self, name: str) -> FeatureFile:
        """The features of every variant for the ``train`` or the ``test`` images."""
        images = getattr(self.data, name)
        path = self.folder / "features" / f"{self.stage}{name}.f32"
        return FeatureFile(path, len(images), len(self.variants), self.backbone.feature_width)

    def not_finite(self, what: str) -> ToastError:
        """What to say where numbers overflow."""
        advice = "check the weights" if self.compute.precision == "fp32" else "use precision=fp32"
        return ToastError(f"{what} are not finite in {self.compute.precision}: {advice}.")
