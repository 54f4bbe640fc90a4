"""The model that is trained, and the schedule it is trained by."""

import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.plans import Map, Plan, Span, Variant
from toast_cli.stages import tune as tuning
from toast_cli.stages.tune import Student
from toast_cli.stages.tuning import Settings


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_a_student_is_the_shortened_model_with_a_head(name: str):
    backbone = tiny(name)
    head = torch.nn.Linear(32, 5)
    variant, maps = Variant(Plan((Span(0, 1),)), 9), {Map(Span(0, 1), 9): torch.nn.Identity()}
    student = Student(backbone, variant, maps, head, train_maps=True)
    stem, extras = backbone.stem(pixels())
    latent = backbone.block(2, backbone.block(0, stem, extras), extras)
    assert torch.allclose(student.model(pixels()), head(backbone.readout(latent)), atol=1e-5)
    trained = {name for name, parameter in student.model.named_parameters() if parameter.requires_grad}
    assert all(name.startswith(("vit.blocks", "vit.norm", "head")) for name in trained)
    assert "head.weight" in trained


def test_a_student_rounds_as_its_features_were_rounded():
    backbone = tiny(depth=5).on(torch.device("cpu"), torch.bfloat16)
    head = torch.nn.Linear(32, 5)
    plan, key = Plan((Span(0, 2),)), Map(Span(0, 2), 9)
    maps = {key: torch.nn.Linear(32, 32)}
    student = Student(backbone, Variant(plan, 9), maps, head, train_maps=False)
    stem, extras = backbone.stem(pixels())
    latent = maps[key](backbone.block(0, stem, extras))
    for i in (3, 4):
        latent = backbone.block(i, latent, extras)
    with torch.inference_mode():
        assert torch.equal(student.model(pixels()), head(backbone.readout(latent)))


def test_the_schedule_warms_up_and_falls_to_nothing():
    class Short:
        settings = Settings(4, 1e-3, None, 0.0, 1.0, 0.0, 1.0, 8, 0.1, True, False)

    factor = [tuning.Training._factor(Short, epoch) for epoch in (0, 0.5, 1, 2.5, 4)]
    assert factor[0] < 0.01
    assert factor[1] == pytest.approx(0.5, abs=0.01)
    assert factor[2:] == pytest.approx([1, 0.5, 0])
