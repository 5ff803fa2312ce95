"""swap_1x1 over the small flows of standins/flows: a WIC answers, and all else is what it was."""

import copy
import os
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest
import torch
from standins.flows import CASES
from swapping import (
    COPIED,
    PICKLED,
    SWAPPED,
    batch,
    built,
    layer_batch,
    moved,
    named,
    require_alike,
    require_close,
    require_same,
    snapshot,
    swapped,
    trained,
)
from torch.optim.swa_utils import AveragedModel

from wic_layers import det_loss, swap_1x1
from wic_layers.hosts import unswap_1x1
from wic_layers.hosts.answering import kernel_of, spec_of
from wic_layers.hosts.engine import HostKernel
from wic_layers.layer.kernel import kernels_of

pytestmark = pytest.mark.filterwarnings("ignore:Using non-full backward hooks:FutureWarning")
EVERY = pytest.mark.parametrize("case", CASES, ids=str)
WITH_LAYERS = pytest.mark.parametrize("case", SWAPPED, ids=str)


# no square matrix of the channels' size: never tried, and not worth a line
SILENT = {
    ("everything is left", "flow.layers.3"),
}


@EVERY
def test_the_right_layers_change_and_the_others_are_left_with_their_reason(case):
    pair = swapped(case)
    changed = {n for n, m in pair.model.named_modules(remove_duplicate=False) if spec_of(m)}
    names = [name for swap in pair.report or () for name in swap.names]
    assert changed == set(names) >= set(case.layers)
    assert len({pair.model.get_submodule(name) for name in changed}) == len(case.layers)
    assert all(
        swap.is_new and not swap.note and not swap.new_parameters for swap in pair.report or ()
    )
    for name, word in case.left.items():
        if (case.name, name) in SILENT:
            continue
        reasons = [text for one, text in pair.left.items() if f"{one}.".startswith(f"{name}.")]
        assert len(reasons) == 1, name
        assert word in reasons[0]
    assert bool(case.layers) != bool(pair.error)


@EVERY
def test_the_trial_leaves_no_trace(case):
    pair = swapped(case)
    require_same(pair.after, pair.before)


@EVERY
def test_layers_stay_what_they_are(case):
    pair = swapped(case)
    assert list(pair.classes) == list(pair.model.modules())
    for module, kind in pair.classes.items():
        assert isinstance(module, kind)
        assert (type(module).__name__, type(module).__module__) == (kind.__name__, kind.__module__)
        assert spec_of(module) is None or spec_of(module).owner is kind
    assert list(pair.model.state_dict()) == list(pair.twin.state_dict())
    for new, old in zip(pair.model.named_parameters(), pair.twin.named_parameters(), strict=True):
        assert new[0] == old[0]
        assert new[1].requires_grad == old[1].requires_grad
        require_close(new[1], old[1])  # an ActNorm has started from what a WIC returns


@EVERY
@pytest.mark.parametrize("is_training", [False, True])
@torch.no_grad()
def test_the_model_gives_what_it_gave(case, is_training, monkeypatch):
    pair, x = swapped(case), batch(case)
    pair.model.train(is_training)
    pair.twin.train(is_training)
    answered = []
    run = HostKernel.run

    def recorded(self, x, **arguments):
        answered.append((self.host, arguments["rev"]))
        return run(self, x, **arguments)

    monkeypatch.setattr(HostKernel, "run", recorded)
    z, log_det = case.forward(pair.model, x)
    hosts = {host for host, _ in answered}
    assert hosts == set(pair.layers.values())
    answered.clear()
    old_z, old_log_det = case.forward(pair.twin, x)
    require_alike(z, old_z)
    require_alike(log_det, old_log_det)
    back = case.inverse(pair.model, old_z)
    assert {host for host, _ in answered} == hosts
    require_alike(back, case.inverse(pair.twin, old_z))
    if not is_training:  # spectral_norm's weight moves at every call while it trains
        require_close(back, x.view_as(back), 1e-4)
    pair.model.eval()
    pair.twin.eval()


@WITH_LAYERS
@pytest.mark.parametrize("gradients", [False, True])
def test_every_call_of_a_layer_returns_what_it_returned(case, gradients):
    pair, x = swapped(case), layer_batch(case)
    name = case.layers[0]
    layer, twin = pair.model.get_submodule(name), pair.twin.get_submodule(name)
    for use, call in case.layer_calls.items():
        for _ in range(2):  # the second finds what the first one kept
            with torch.set_grad_enabled(gradients):
                results = call(layer, x), call(twin, x)
            try:
                require_alike(*results)
            except AssertionError as error:
                raise AssertionError(f"{use}: {error}") from error


@pytest.mark.parametrize("case", [c for c in SWAPPED if "masked" in c.notes], ids=str)
@torch.no_grad()
def test_positions_outside_of_a_mask_are_zero(case):
    pair, x = swapped(case), torch.randn(2, 8, 5)
    for use, call in case.layer_calls.items():
        layers = [one.get_submodule(case.layers[0]) for one in (pair.model, pair.twin)]
        new, old = (call(layer, x) for layer in layers)
        require_alike(new, old)
        assert "position" in use or ("mask" in use) == (not new[0][1, :, -2:].any())


@WITH_LAYERS
def test_training_goes_on_as_in_an_unswapped_twin(case):
    both = trained(case)
    pairs = list(zip(both.model.named_parameters(), both.twin.named_parameters(), strict=True))
    for (name, new), (_, old) in pairs:
        require_close(new, old, 1e-6)
        assert (new.grad is None) == (old.grad is None), name
        if old.grad is not None and not name.endswith(case.drifts or ("\0",)):
            require_close(new.grad, old.grad, 1e-6)
    assert both.hooks[0] == both.hooks[1]
    (z, log_det, back), (old_z, old_log_det, x) = both.results
    require_alike((z, log_det), (old_z, old_log_det))
    require_close(back.view_as(x), x, 1e-5)


@WITH_LAYERS
@torch.no_grad()
def test_checkpoints_load_both_ways(case):
    pair, x = swapped(case), batch(case)
    own = copy.deepcopy(pair.model.state_dict())
    case.inverse(pair.model, case.forward(pair.model, x)[0])  # fills the cache
    other = moved(case, built(case), seed=8).eval()
    try:
        pair.model.train().load_state_dict(other.state_dict())  # train(): hosts' own caches
        z, _ = case.forward(other, x)
        require_close(case.forward(pair.model.eval(), x.clone())[0], z)
        require_close(case.inverse(pair.model, z).view_as(x), x, 1e-4)
    finally:
        pair.model.train().load_state_dict(own)
        pair.model.eval()
    unswapped = moved(case, built(case), seed=9).train()
    unswapped.load_state_dict(pair.model.state_dict())
    result = case.forward(unswapped.eval(), x)
    require_alike(case.forward(pair.model, x.clone()), result)


@pytest.mark.parametrize("case", COPIED, ids=str)
@torch.no_grad()
def test_copies_stay_swapped_and_are_independent(case):
    pair, x = swapped(case), batch(case)
    for model in (pair.twin, pair.model):  # some hosts keep results with a graph
        z, log_det = case.forward(model, x)
        case.inverse(model, z)
    average = AveragedModel(pair.model)
    average.update_parameters(pair.model)
    for one in (copy.deepcopy(pair.model), average.module):
        require_alike(case.forward(one, x), (z, log_det))
        for name, layer in pair.layers.items():
            twin = one.get_submodule(name)
            assert spec_of(twin) is spec_of(layer)
            assert kernel_of(twin).host is twin
            assert kernel_of(twin) is not kernel_of(layer)
        expected = moved(case, copy.deepcopy(pair.twin), seed=10).eval()
        moved(case, one, seed=10).eval()
        require_alike(case.forward(one, x), case.forward(expected, x))
        back = case.inverse(one, case.forward(one, x)[0])
        require_close(back.view_as(x), x, 1e-4)
    require_alike(case.forward(pair.model, x), (z, log_det))


READ = """
    import sys
    from pathlib import Path
    sys.modules["wic_layers"] = None
    import torch
    from standins.flows import CASES
    cases = {case.name: case for case in CASES}
    folder = Path(sys.argv[1])
    results = {}
    with torch.no_grad():
        for path in folder.glob("*.pt"):
            saved = torch.load(path, weights_only=False)
            case, model = cases[saved["name"]], saved["model"]
            kinds = [type(module) for module in model.modules()]
            own = all(getattr(sys.modules[k.__module__], k.__name__, k) is k for k in kinds)
            left = any("_wic_kernel" in vars(module) for module in model.modules())
            results[case.name] = own, left, case.forward(model, saved["x"])
    torch.save(results, folder / "results")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@cache
def read_elsewhere(folder):
    """What a process without this library makes of the models that were saved whole."""
    for index, case in enumerate(PICKLED):
        saved = {"name": case.name, "model": swapped(case).model, "x": batch(case)}
        torch.save(saved, folder / f"{index}.pt")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(READ), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "results", weights_only=False)


@pytest.mark.parametrize("case", PICKLED, ids=str)
def test_a_model_saved_whole_loads_without_this_library(case, folder):
    is_own, has_kernel, result = read_elsewhere(folder)[case.name]
    assert is_own
    assert not has_kernel
    with torch.no_grad():
        require_alike(result, case.forward(swapped(case).model, batch(case)))


@WITH_LAYERS
def test_the_losses_reach_the_owners_factors(case):
    pair = swapped(case)
    assert [name for name, _ in kernels_of(pair.model)] == list(case.layers)
    expected = 0
    for layer in pair.layers.values():
        kernel = kernel_of(layer).weight.double()
        expected += 2 * torch.slogdet(kernel)[1].abs()
    case.forward(pair.model, batch(case))  # torch's older utilities compute a weight in it
    loss = det_loss(pair.model)
    require_close(loss, expected)
    if not loss.requires_grad:
        assert not any(p.requires_grad for one in pair.layers.values() for p in one.parameters())
        return
    pair.model.zero_grad()
    loss.backward()
    inside = {id(parameter) for layer in pair.layers.values() for parameter in layer.parameters()}
    for name, layer in pair.layers.items():
        trains = [p for p in layer.parameters() if p.requires_grad]
        assert not trains or any(p.grad is not None for p in trains), name
    assert all(p.grad is None for p in pair.model.parameters() if id(p) not in inside)
    pair.model.zero_grad()


@WITH_LAYERS
@torch.no_grad()
def test_a_second_swap_is_no_error_and_unswapping_gives_everything_back(case):
    pair, x = swapped(case), batch(case)
    states = snapshot(pair.model)
    report = swap_1x1(pair.model)
    assert [swap.names[0] for swap in report] == list(case.layers)
    assert not any(swap.is_new for swap in report)
    assert str(report).count("since an earlier call") == len(case.layers)
    require_same(snapshot(pair.model), states)
    kinds = {module: type(module) for module in pair.model.modules()}
    try:
        assert unswap_1x1(pair.model) == list(case.layers)
        assert {module: type(module) for module in pair.model.modules()} == pair.classes
        assert not any("_wic_kernel" in vars(module) for module in pair.model.modules())
        assert list(kernels_of(pair.model)) == []
        require_alike(case.forward(pair.model, x), case.forward(pair.twin, x))
    finally:
        for module, kind in kinds.items():
            module.__class__ = kind


def test_a_swap_after_unswapping():
    case = named("forward, reverse(y), LU")
    model = built(case)
    swap_1x1(model)
    unswap_1x1(model)
    assert [swap.is_new for swap in swap_1x1(model)] == [True, True]
