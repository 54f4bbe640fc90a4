import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.probes.conftest import problem
from toast_cli.errors import ToastError
from toast_cli.probes.batched import LinearProbe, MlpProbe


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", 0), ("epochs", "five"), ("batch_size", 2.5), ("learning_rate", -1)]
)
def test_settings_are_checked_before_anything_is_encoded(key: str, value: object):
    with pytest.raises(ToastError, match=f"^probe.{key}={value} cannot be used: give a .*number (from 1|above 0).$"):
        LinearProbe(**{key: value})


def train_alone(features: np.ndarray, labels: np.ndarray, seed: int) -> torch.nn.Linear:
    """The same probe for one plan (N, F), as anyone would write it."""
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Linear(6, 3)
    with torch.no_grad():
        model.weight.uniform_(-(6**-0.5), 6**-0.5, generator=generator)
        model.bias.uniform_(-(6**-0.5), 6**-0.5, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        for batch in torch.randperm(len(features), generator=generator).split(256):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.from_numpy(features)[batch]), torch.from_numpy(labels)[batch]).backward()
            optimizer.step()
    return model


def test_all_plans_together_equal_one_at_a_time():
    (train, labels), (test, _) = problem(), problem(seed=1)
    for seed in (0, 1):
        together = LinearProbe().fit(train, labels, 3, seed)
        predicted = together.predict(test)
        assert predicted.shape == (4, 700)
        for plan in range(4):
            alone = train_alone(train[:, plan], labels, seed)
            assert torch.allclose(together.weights_[0][plan].T, alone.weight, atol=1e-5)
            assert (predicted[plan] == alone(torch.from_numpy(test[:, plan])).argmax(1).numpy()).all()


def test_it_learns_and_the_seed_decides():
    (train, labels), (test, truth) = problem(), problem(seed=1)
    predicted = LinearProbe(epochs=30).fit(train, labels, 3, 0).predict(test)
    accuracy = (predicted == truth).mean(axis=1)
    assert accuracy[-1] > 0.8 > 0.6 > accuracy[0] > 0.3
    assert (
        LinearProbe().fit(train, labels, 3, 5).predict(test) == LinearProbe().fit(train, labels, 3, 5).predict(test)
    ).all()
    assert (
        LinearProbe().fit(train, labels, 3, 5).predict(test) != LinearProbe().fit(train, labels, 3, 6).predict(test)
    ).any()


def test_mlp_of_all_plans_equals_one_at_a_time():
    """Each plan alone sees the same weights, minibatches and dropout, so that P = 1 is the reference."""
    (train, labels), (test, _) = problem(), problem(seed=1)
    together = MlpProbe(epochs=3).fit(train, labels, 3, 0).predict(test)
    for plan in range(4):
        alone = MlpProbe(epochs=3).fit(train[:, plan : plan + 1], labels, 3, 0).predict(test[:, plan : plan + 1])
        assert (alone[0] == together[plan]).mean() > 0.995


def test_mlp_is_linear_layernorm_silu_linear():
    (train, labels), (test, truth) = problem(), problem(seed=1)
    probe = MlpProbe(learning_rate=1e-2, epochs=20).fit(train, labels, 3, 0)
    weight1, bias1, scale, shift, weight2, bias2 = (value[-1].detach() for value in probe.weights_)
    norm = torch.nn.LayerNorm(6)
    norm.load_state_dict({"weight": scale[0], "bias": shift[0]})
    hidden = F.silu(norm(torch.from_numpy(test[:, -1]) @ weight1 + bias1))
    predicted = probe.predict(test)[-1]
    assert (predicted == (hidden @ weight2 + bias2).argmax(1).numpy()).all()
    assert (predicted == truth).mean() > 0.8


def test_dropout_is_checked():
    with pytest.raises(ToastError, match="probe.dropout=1 cannot be used"):
        MlpProbe(dropout=1)
