"""What a config stands for: everything the stages of one run share."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from toast_cli.data.dataset import Data
from toast_cli.data.images import Batch, Images, PixelCache, Transform
from toast_cli.errors import ToastError
from toast_cli.machine.device import Compute
from toast_cli.machine.team import ALONE, Team
from toast_cli.models.backbone import Backbone
from toast_cli.plans import INDEPENDENT, Fit, HealedBlock, Map, Plan, Span, Variant, variants
from toast_cli.probes.base import Probe
from toast_cli.runs import contents
from toast_cli.runs.features import FeatureFile
from toast_cli.runs.folder import Folder
from toast_cli.translators.base import BaseTranslator, ClosedForm, FittedMap

Modules = Mapping[Any, nn.Module]  # maps and healed blocks, (N, T, D) -> (N, T, D) each, by Map and by HealedBlock


@dataclass(frozen=True)
class Fitted:
    """The fitted maps of a job, and by healed block the tensors that differ from the block's own.

    ``images_used``: how many fit images could be decoded, by how many were asked for.
    """

    maps: Mapping[Map, FittedMap]
    images_used: Mapping[int, int]
    healed: Mapping[HealedBlock, Mapping[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run. ``plans`` are as asked for, the untouched model first.

    ``translators`` are the run's own, under the empty name, and those named in spans. ``fits`` lists the kinds of fit
    that plans get; those in ``unrefitted`` get an independent one alone. ``feature_prefix`` tells one set of plans'
    features in a folder from another's. ``pixels`` keeps the fit images that are also train images. ``held_out_r2``: score
    maps in closed form on fit images that they were not fitted on. ``only`` leaves out all other variants, if given.
    """

    folder: Folder
    backbone: Backbone
    data: Data
    plans: list[Plan]
    translators: Mapping[str, BaseTranslator]
    probe: Probe
    seeds: list[int]
    protocol: str
    compute: Compute
    batch_size: int
    workers: int
    pixels: PixelCache
    fits: tuple[Fit, ...] = (INDEPENDENT,)
    unrefitted: Container[Plan] = ()
    feature_prefix: str = ""
    team: Team = ALONE
    held_out_r2: bool = False
    only: Container[Variant] | None = None

    @property
    def translator(self) -> BaseTranslator:
        """The run's own translator."""
        return self.translators[""]

    @property
    def closed_forms(self) -> dict[str, ClosedForm]:
        """The translators that are fitted from moments."""
        return {name: each for name, each in self.translators.items() if isinstance(each, ClosedForm)}

    @property
    def variants(self) -> list[Variant]:
        """Every plan at every number of fit images, in the order of features, rows and predictions."""
        found = variants(self.plans, self.data.fit_sizes, self.backbone.depth, self.fits)
        return [
            each
            for each in found
            if (each.plan not in self.unrefitted or each == Variant(each.plan, each.fit_images))
            and (self.only is None or each in self.only)
        ]

    @property
    def spans(self) -> list[Span]:
        """The spans of all plans, each once."""
        return sorted({span for plan in self.plans for span in plan.spans})

    @property
    def maps(self) -> list[Map]:
        """The maps of all variants, each once."""
        return list(dict.fromkeys(key for variant in self.variants for key in variant.maps))

    @property
    def healed(self) -> list[HealedBlock]:
        """The healed blocks of all variants, each once."""
        depth = self.backbone.depth
        return list(dict.fromkeys(key for variant in self.variants for key in variant.healed_blocks(depth)))

    def modules(self, fitted: Fitted) -> Modules:
        """The fitted maps and the healed blocks as modules (N, T, D) -> (N, T, D) on the run's device."""
        found: dict[Any, nn.Module] = {
            key: each.to_module().to(self.compute.device) for key, each in fitted.maps.items()
        }
        for block, tensors in fitted.healed.items():
            found[block] = self.backbone.healed(block.block, tensors)
        return found

    def batches(
        self, images: Images, size: int, start: int = 0, keep: bool = False, transform: Transform | None = None
    ) -> Iterator[Batch]:
        """This process's share of the images from number ``start`` on, ``size`` at a time, on the run's device.

        ``keep`` remembers the pixels of images that are needed again. ``transform`` is the model's own if None.

        Raises ToastError that names a bad image, unless
        such images are left out.
        """
        device = self.compute.device
        pin = device.type == "cuda"
        ranges = self.team.ranges(start, len(images), size)
        transform, cache = transform or self.backbone.transform, self.pixels
        for batch in images.batches(transform, size, self.workers, ranges, cache, keep, pin):
            yield replace(batch, pixels=batch.pixels.to(device, non_blocking=pin))

    def images(self, split: str) -> Images:
        """The images of a ``split``, ``train`` or ``test``."""
        return {"train": self.data.train, "test": self.data.test}[split]

    def feature_file(self, split: str) -> FeatureFile:
        """The features of every variant for the images of a ``split``, ``train`` or ``test``."""
        path = self.folder / contents.features(split, self.feature_prefix)
        return FeatureFile(path, len(self.images(split)), len(self.variants), self.backbone.feature_width)

    def not_finite(self, what: str) -> ToastError:
        """The error for numbers that are not finite."""
        advice = "check the weights" if self.compute.precision == "fp32" else "use precision=fp32"
        return ToastError(f"{what} are not finite in {self.compute.precision}: {advice}.")
