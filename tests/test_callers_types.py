"""What a type checker knows of a caller's code: results are tensors, and a misspelt keyword is caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import torch
import fairlayer as fl

parity = fl.DemographicParity("sex", 0.1)
x, sex = torch.rand(4, 3), {"sex": torch.tensor([0, 1, 0, 1])}
model = fl.FairModel(torch.nn.Linear(3, 1), [parity])
reveal_type(model(x, sensitive_features=sex))
reveal_type(model.without_layer()(x))
reveal_type(fl.FairProjection([parity])(torch.rand(4), sensitive_features=sex))
reveal_type(fl.Penalty([parity])(torch.rand(4), sensitive_features=sex))
reveal_type(fl.HSIC("sex")(torch.rand(4), sensitive_features=sex))
reveal_type(fl.MMD("sex")(torch.rand(4), sensitive_features=sex))
reveal_type(fl.AugmentedLagrangian([parity])(torch.rand(4), sensitive_features=sex))
fl.FairProjection([parity])(torch.rand(4), sensitive_feature=sex)  # wrong
fl.HSIC("sex")(torch.rand(4), groups=sex)  # wrong
fl.AugmentedLagrangian([parity])(torch.rand(4), labels=sex)  # wrong
"""


@pytest.mark.slow
def test_calls_are_not_any(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "caller.py").write_text(CODE)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command.append(str(tmp_path / "caller.py"))
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in found.stdout.splitlines() if "caller.py" in line]
    revealed = [line for line in lines if "Revealed type" in line]
    assert len(revealed) == 7
    assert all('"torch._tensor.Tensor"' in line for line in revealed), revealed
    errors = {int(line.split(":")[1]) for line in lines if "error:" in line}
    assert errors == {k for k, line in enumerate(CODE.split("\n"), 1) if "# wrong" in line}, lines
