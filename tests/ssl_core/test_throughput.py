"""How fast a run is."""

from __future__ import annotations

import torch
from torch import nn

from ssl_core.throughput import Meter, peak_flops, peak_memory, step_flops

CPU = torch.device("cpu")


def test_a_matrix_product_costs_two_operations_an_entry_and_a_step_three_times_its_forward() -> None:
    layer = nn.Linear(64, 32, bias=False)
    assert step_flops(lambda: layer(torch.ones(10, 64))) == 3 * 2 * 10 * 64 * 32


def test_counting_leaves_the_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    step_flops(lambda: torch.rand(100))
    assert torch.equal(torch.rand(1), expected)


def test_a_meter_reports_rates_since_its_last_reading() -> None:
    meter = Meter(CPU, tokens_per_example=10.0)
    meter.flops, meter.peak = 50.0, 1000.0
    meter.count(8, seconds=0.5, waited=0.1)
    meter.count(8, seconds=0.5, waited=0.0)
    values = meter.read()
    assert values["throughput/examples_per_second"] == 16 and values["throughput/tokens_per_second"] == 160
    assert values["time/data_wait_share"] == 0.1 and values["time/step_seconds"] == 0.5
    assert values["throughput/mfu"] == 50.0 * 2 / 1.0 / 1000.0
    assert meter.read() == {}


def test_the_machine_has_a_peak_and_the_process_a_size() -> None:
    assert peak_flops(CPU, "fp32") > 1e8
    assert peak_memory(CPU) > 50 * 2**20
