"""The search's stand-in for GPTQ rounds to the grid that GPTQModel starts from."""

from __future__ import annotations

import subprocess
import sys

import pytest

GRID = """
import torch
from gptqmodel import QuantizeConfig
from gptqmodel.quantization.quantizer import Quantizer
from edgewright_builder.quantization.rounding import fake_quantize

torch.manual_seed(0)
weight = torch.randn(48, 128)
for row, largest in ((0, 5.0), (1, -5.0)):  # the largest of a group may be positive or negative
    weight[row, 3::64] = largest
theirs = torch.empty_like(weight)
for start in (0, 64):
    quantizer = Quantizer(QuantizeConfig(bits=4, group_size=64, sym=True))
    quantizer.configure(perchannel=True)
    quantizer.find_params(weight[:, start : start + 64], weight=True)
    theirs[:, start : start + 64] = quantizer.quantize(weight[:, start : start + 64])
torch.testing.assert_close(fake_quantize(weight, 4, 64), theirs)
"""


@pytest.mark.slow  # GPTQModel's import takes seconds
def test_rounding_is_what_gptqmodel_s_symmetric_grid_gives() -> None:
    done = subprocess.run([sys.executable, "-c", GRID], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
