"""The lines that the integrations' READMEs change, tried on stand-ins for those code bases."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from wic_layers import WIC, WellPosed
from wic_layers.hosts import load_optimizer_state

ROOT = Path(__file__).parents[1]
INTEGRATIONS = ROOT / "integrations"
FEWEST = 10  # lines that may change


def changes(name):
    """The (removed, added) lines of every place in the README's diffs."""
    text = (INTEGRATIONS / name / "README.md").read_text(encoding="utf-8")
    places = []
    for block in re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL):
        for run in re.findall(r"(?:^[-].*\n)*(?:^[+].*\n)*", block, flags=re.MULTILINE):
            lines = run.splitlines()
            removed = [line[1:] for line in lines if line.startswith("-")]
            added = [line[1:] for line in lines if line.startswith("+")]
            if lines:
                places.append((removed, added))
    return places


def upstream(name, *, changed):
    """The stand-in as a module, with or without the changes; DLV changes IRN's."""
    standin = "irn" if name == "dlv" else name
    lines = (ROOT / "tests/standins" / f"{standin}.py").read_text(encoding="utf-8").splitlines()
    for removed, added in changes(name) if changed else ():
        if not removed:  # an import
            lines = [*added, *lines]
        for line in removed:
            (place,) = (at for at, found in enumerate(lines) if found.strip() == line.strip())
            depth = " " * (len(lines[place]) - len(lines[place].lstrip()))
            is_last = line is removed[-1]
            lines[place : place + 1] = [depth + new.strip() for new in added] if is_last else []
    module = ModuleType(name)
    exec(compile("\n".join(lines), name, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("name", ["irn", "hinet", "dlv", "iicnet"])
def test_few_lines_change(name):
    assert sum(max(len(removed), len(added)) for removed, added in changes(name)) <= FEWEST


def check_resumed(new, old, kernel):
    """The optimizer's state from before goes in where torch refuses it."""
    state = old.state_dict()
    with pytest.raises(ValueError, match="doesn't match the size"):
        new.load_state_dict(state)
    load_optimizer_state(new, state)
    assert kernel not in new.state
    assert len(new.state) == len(old.state) > 0
    for mine, theirs in zip(new.state.values(), old.state.values(), strict=True):
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])


def irn_model(*, changed, scale=2):
    return upstream("irn", changed=changed).Model(
        {"network_G": {"in_nc": 3, "out_nc": 3, "scale": scale}}
    )


@pytest.mark.parametrize("scale", [2, 4])
def test_irn_in_its_own_code(scale):
    torch.manual_seed(0)
    old, new = (irn_model(changed=changed, scale=scale) for changed in (False, True))
    x = torch.rand(2, 3, 16, 16)
    small = torch.nn.functional.avg_pool2d(x, scale)
    for model in (old, new):
        model.feed_data(small, x)
        model.optimize_parameters()
    assert isinstance(new.netG.module, WellPosed)
    # a checkpoint from before loads under DataParallel, and gives the picture that it gave
    new.netG.load_state_dict({f"module.{key}": v for key, v in old.checkpoint().items()})
    fresh = irn_model(changed=True, scale=scale)
    fresh.feed_data(small, x)
    fresh.netG.module.load_state_dict(old.checkpoint())
    old.test(), fresh.test()
    assert (fresh.forw_L - old.forw_L).abs().max() <= 1 / 255 + 1e-6
    assert ((fresh.forw_L - old.forw_L).abs() > 1e-6).float().mean() < 1e-3
    first = fresh.fake_H
    fresh.test()
    assert torch.equal(fresh.fake_H, first)
    first = old.fake_H
    old.test()
    assert not torch.equal(old.fake_H, first)
    check_resumed(fresh.optimizer_G, old.optimizer_G, fresh.netG.module.wic.weight)
    # it trains, and its own checkpoints load
    losses = [new.optimize_parameters() for _ in range(30)]
    assert losses[-1] < losses[0]
    fresh.netG.load_state_dict(new.netG.state_dict())
    for key, value in new.netG.state_dict().items():
        assert torch.equal(fresh.netG.state_dict()[key], value)


@pytest.mark.parametrize("scale", [2, 4])
def test_dlv_in_irns_own_code(scale):
    torch.manual_seed(0)
    opt = {"network_G": {"in_nc": 5, "out_nc": 3, "scale": scale}}
    model = upstream("dlv", changed=True).Model(opt)
    x = torch.rand(2, 3, 16, 16)
    model.feed_data(torch.nn.functional.avg_pool2d(x, scale), x)
    closed = model.netG.module[1]
    assert isinstance(closed, WellPosed)
    assert closed.wic.in_channels == 5 * scale**2
    losses = [model.optimize_parameters() for _ in range(30)]
    assert losses[-1] < losses[0]
    model.test()
    small, first = model.forw_L, model.fake_H
    assert small.shape == (2, 3, 16 // scale, 16 // scale)
    assert first.shape == x.shape
    model.test()
    assert torch.equal(model.fake_H, first)
    # w counts on the way forward, and is gone on the way back
    w = torch.randn(2, 2, 16, 16)
    assert not torch.equal(model.netG(x=x, w=w), model.netG(x=x))


def test_hinet_in_its_own_code():
    torch.manual_seed(0)
    old, new = (upstream("hinet", changed=changed) for changed in (False, True))
    data = torch.rand(2, 3, 16, 16)
    before, after = old.start(), new.start()
    old.train(before, data, 5)
    after.load_state_dict(before.state_dict())
    assert isinstance(after.module, WellPosed)
    assert torch.equal(after.module.wic.weight, torch.eye(24))
    _, secret, stego = old.train(before, data, 1)
    losses, first, again = new.train(after, data, 1)
    torch.testing.assert_close(again, stego)
    assert not torch.equal(first, secret)
    losses, _, _ = new.train(after, data, 30)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        x = torch.rand(1, 12, 8, 8)
        assert torch.equal(after(x, rev=True), after(x, rev=True))
    new.start().load_state_dict(after.state_dict())


def test_iicnet_in_its_own_code():
    size = {"in_nc": 6, "out_nc": 3}
    old, new = (upstream("iicnet", changed=changed).InvNet(size) for changed in (False, True))
    assert isinstance(new.cs, WIC)
    x = torch.rand(2, 6, 16, 16)
    for parameter in old.net.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    # a checkpoint from before loads, and both directions are what they were
    new.load_current_state_dict({f"module.{key}": v for key, v in old.net.state_dict().items()})
    embedding = old.embed(x)
    assert (new.embed(x) - embedding).abs().max() <= 1 / 255 + 1e-6
    assert ((new.embed(x) - embedding).abs() > 1e-6).float().mean() < 1e-3
    torch.testing.assert_close(new.restore(embedding), old.restore(embedding))
    # it trains, the kernel too, and its own checkpoints load
    for parameter in old.net.parameters():
        parameter.grad = torch.ones_like(parameter)
    old.optimizer.step()
    check_resumed(new.optimizer, old.optimizer, new.cs.weight)
    kernel = new.cs.weight.detach().clone()
    losses = [new.train(x) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert not torch.equal(new.cs.weight, kernel)
    other = upstream("iicnet", changed=True).InvNet(size)
    other.load_current_state_dict(new.net.state_dict())
    assert torch.equal(other.embed(x), new.embed(x))
    assert "3.weight" in new.net.state_dict()


def test_a_flow_changes_by_three_lines():
    places = changes("flows")
    assert places
    for removed, added in places:
        assert not removed
        assert len(added) <= 3


@pytest.mark.parametrize("name", ["irn", "hinet", "dlv", "iicnet", "flows"])
def test_the_readmes_python_runs(name, tmp_path, monkeypatch):
    pytest.importorskip("normflows" if name == "flows" else "FrEIA")
    text = (INTEGRATIONS / name / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, name, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["irn", "hinet", "dlv", "iicnet"])
def test_examples_run(name, tmp_path):
    pytest.importorskip("skimage")
    done = subprocess.run(
        [
            sys.executable, "-m", f"integrations.{name}.example", "--steps", "3",
            "--out", tmp_path / "a.png",
        ],
        cwd=INTEGRATIONS.parent, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = "dB; a pixel changes by" if name == "dlv" else "| upgraded, after 3 steps |"
    assert expected in done.stdout
    assert Image.open(tmp_path / "a.png").size[0] > 500


@pytest.mark.slow
@pytest.mark.ddp
def test_the_table_of_flows_has_a_row_without_a_no():
    done = subprocess.run(
        [sys.executable, "-m", "integrations.flows.table", "--only", "(x, sldj, reverse)"],
        cwd=INTEGRATIONS.parent, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, _, row = (line.split(" | ") for line in done.stdout.splitlines()[:3])
    cells = dict(zip(header[1:], row[1:], strict=True))
    assert cells["found"] == "2 of 2"
    assert all(float(cells[column]) < 1e-5 for column in ("equal", "training"))
    for column in ("checkpoints", "save", "compile", "DataParallel", "autocast", "EMA", "DDP"):
        assert cells[column] == "yes", done.stdout


@pytest.mark.parametrize("column", ["equal", "training", "checkpoints", "saved", "averaged"])
def test_the_table_of_flows_notices_a_swap_that_changes_what_a_layer_does(column, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from standins.flows import CASES

    from integrations.flows import checks

    def wrong(model):
        layer = model.get_submodule(case.layers[0])
        layer.register_forward_hook(lambda layer, args, out: (1.01 * out[0], out[1]))
        layer.added = torch.nn.Parameter(torch.zeros(1))

    case = next(case for case in CASES if case.name == "(x, sldj, reverse)")
    getattr(checks, column)(case, checks.keep)
    with pytest.raises(Exception, match=r"off by|keys|parameter|pickle|argument"):
        getattr(checks, column)(case, wrong)
