"""The 1x1 layers of public flow code bases, as they are.

    python tests/real_flows.py SOURCES

The folder holds a copy of each repository as OWNER+NAME (nothing of them is kept here, and nothing
is written there); ``SOURCES/../registry`` may hold packages that were installed with ``pip install
--no-deps --target``. What is not there is skipped with a line. For every case the model is built,
run in both directions, trained for a step, saved and copied: what it does before anything of it is
changed.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from real_flows_cases import CODE_BASES
from real_flows_sources import Source
from standins.flows.case import Case
from torch import Tensor, nn


def cases_of(source: Source, table: object) -> list[Case]:
    """The cases of a code base; building a model makes the code base importable, if need be."""

    def entering(case: Case) -> Case:
        def build() -> nn.Module:
            source.enter()
            return case.build()

        return dataclasses.replace(case, build=build)

    return [entering(case) for case in table(source.load)]  # type: ignore[operator]


def all_cases(sources: Path) -> Iterator[tuple[Source, Case | str]]:
    """Every code base with each of its cases, or with why there is none."""
    for source, table in CODE_BASES:
        if not source.find(sources):
            yield source, "not there"
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                cases = cases_of(source, table)
        except Exception as error:
            yield source, f"does not load: {_line(error)}"
            continue
        for case in cases:
            yield source, case


def new_model(case: Case, seed: int = 0) -> nn.Module:
    """The case's model as its owner builds it: in train mode, no batch seen."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- half of them draw from it
    return case.build()


def used_model(case: Case, seed: int = 0) -> nn.Module:
    """A model that has seen a batch and whose couplings are not zero, in eval mode."""
    model = new_model(case, seed)
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        case.forward(model, case.x())
        changed = [module for name, module in model.named_modules() if name in case.layers]
        own = {id(parameter) for module in changed for parameter in module.parameters()}
        for parameter in model.parameters():
            if parameter.is_floating_point() and id(parameter) not in own and not parameter.any():
                wide = parameter[0].numel() if parameter.dim() > 1 else 1
                parameter.add_(0.1 * torch.randn_like(parameter) / wide**0.5)
    return model.eval()


@dataclasses.dataclass
class Facts:
    """What a case does as it is.

    Attributes:
        there_and_back: Largest error of inverse(forward(x)).
        log_det: Largest error of forward's log-det against the Jacobian's; None where it keeps
            none, or a word that says why there is no Jacobian.
        trains: Why a step of training fails; empty where it does not.
        wrong: What its :class:`Case` says of it and is not so, and calls that raise.
    """

    there_and_back: float
    log_det: float | str | None
    trains: str
    wrong: list[str]

    def __str__(self) -> str:
        number = self.log_det if not isinstance(self.log_det, float) else f"{self.log_det:.1e}"
        words = [f"there and back {self.there_and_back:.1e}", f"log-det {number}", *self.wrong]
        words += [f"does not train: {self.trains}"] if self.trains else []
        return "; ".join(words)


def facts(case: Case) -> Facts:
    """Runs a case as its owner would."""
    model = used_model(case)
    names = dict(model.named_modules())
    wrong = [f"no module {name!r}" for name in (*case.layers, *case.left) if name not in names]
    torch.manual_seed(2)
    x = case.x()
    with torch.no_grad():
        z, log_det = case.forward(model, x)
        back = case.inverse(model, z)
    error: float | str | None = None
    if log_det is not None:
        try:
            error = float((jacobian_log_det(case, model, x) - log_det).abs().max())
        except RuntimeError as failure:
            error = f"unknown ({_line(failure)[:90]}...)"
    there_and_back = float((back - x).abs().max())
    if not there_and_back < 1e-4 or (isinstance(error, float) and not error < 1e-3):
        wrong.append("WRONG")
    for fact, name in ((_pickles, "pickles"), (_copies, "copies")):
        if fact(case) is not getattr(case, name):
            wrong.append(f"{name} is not {getattr(case, name)}")
    return Facts(there_and_back, error, _training(case), wrong + failing_calls(case))


def jacobian_log_det(case: Case, model: nn.Module, x: Tensor) -> Tensor:
    """log |det| of the Jacobian of ``forward``, in the units of the case."""
    # samples do not see each other in eval mode
    whole = torch.autograd.functional.jacobian(
        lambda x: case.forward(model, x)[0].flatten(1).sum(0), x
    )
    log_det = torch.linalg.slogdet(whole.flatten(2).transpose(0, 1).double())[1].float()
    return log_det.sum() if case.units == "batch" else log_det


def _training(case: Case) -> str:
    model = new_model(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        z, log_det = case.forward(model, case.x())
        loss = z.square().mean()
        if log_det is not None:  # FrEIA's is a plain 0.0 where no module has one
            loss = loss - torch.as_tensor(log_det).mean() / z[0].numel()
        if not loss.requires_grad:
            return "no parameter requires a gradient"
        optimizer.zero_grad()
        try:
            loss.backward()
        except RuntimeError as error:
            return f"{_line(error)[:90]}..."
        optimizer.step()
    return ""


def _pickles(case: Case) -> bool:
    try:
        torch.save(used_model(case), io.BytesIO())
    except Exception:
        return False
    return True


def _copies(case: Case) -> bool:
    model = used_model(case)
    case.forward(model, case.x())
    try:
        copy.deepcopy(model)
    except Exception:
        return False
    return True


def failing_calls(case: Case) -> list[str]:
    """The calls of the layer by itself that raise."""
    if not case.layers:
        return []
    layer = used_model(case).get_submodule(case.layers[0])
    words = []
    for name, call in case.layer_calls.items():
        torch.manual_seed(3)
        try:
            with torch.no_grad():
                call(layer, case.layer_x())
        except Exception as error:
            words.append(f"{name}: {_line(error)}")
    return words


def _line(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"


def main(sources: Path) -> int:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    cases = wrong = 0
    for source, case in all_cases(sources):
        if isinstance(case, str):
            print(f"{source.name}: {case}")
            wrong += case != "not there"
            continue
        cases += 1
        label = f"{source.name} {source.commit}: {case.name} ({len(case.layers)} layers)"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # some print while they are built
                result = facts(case)
        except Exception as failure:
            print(f"{label}: {_line(failure)}")
            wrong += 1
            continue
        wrong += bool(result.wrong)
        print(f"{label}: {result}")
    print(f"{cases} cases, {wrong} wrong")
    return wrong or not cases


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(bool(main(Path(sys.argv[1]).resolve())))
