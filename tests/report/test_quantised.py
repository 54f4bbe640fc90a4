"""What is said of an export in int8."""

import dataclasses

import pytest

from toast_cli.report.quantised import findings, print_compared
from toast_cli.runs.measured import Compared

FP32 = Compared(
    "fp32", "", 0, 4000000, 500, 0.9, None, None, None, 1.0, 2.0, 1.0, 1.0, 1.0, 16, 20.0, 1.0, 1.0, 1.0, "1.30"
)
INT8 = dataclasses.replace(
    FP32, dtype="int8", quantisation="static", size=1000000, accuracy=0.88, accuracy_delta=-0.02, accuracy_delta_low=-0.04,
    accuracy_delta_high=0.0, same_class=0.95, latency_ratio=0.8, latency_ratio_low=0.7, batch_ratio=0.9, batch_ratio_low=0.8,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"latency_ratio": 1.3, "latency_ratio_low": 0.9}, []),
        (
            {"latency_ratio": 1.3, "latency_ratio_low": 1.1},
            ["note: int8 is slower than fp32 on this machine: it takes 1.30 times as long for one image"],
        ),
        (
            {"latency_ratio": 1.3, "latency_ratio_low": 1.1, "batch_ratio": 2, "batch_ratio_low": 1.5},
            ["note: int8 is slower than fp32 on this machine: it takes 1.30 times as long for one image and 2.00 times as long for 16 images"],
        ),
        (
            {"accuracy_delta_high": -0.001},
            [
                "note: int8 is less accurate than fp32, by more than noise explains: -0.0200 (-0.0400 … -0.0010); quantisation=dynamic or dtype=fp16 "
                "may lose less"
            ],
        ),
        ({"accuracy": None, "accuracy_delta": None, "accuracy_delta_low": None, "accuracy_delta_high": None}, []),
    ],
)  # fmt: skip
def test_slower_and_less_accurate_is_said(changes: dict, told: list[str]):
    assert findings(dataclasses.replace(INT8, **changes)) == told


def test_the_table_is_no_result(capsys: pytest.CaptureFixture):
    print_compared([FP32, INT8])
    out, err = capsys.readouterr()
    assert out == ""
    cells = [line.split() for line in err.splitlines()]
    assert ["fp32", "4.0", "0.9000", "1.000", "2.00", "1.00", "20.00", "1.00"] in cells
    assert [
        "int8",
        "static",
        "1.0",
        "0.8800",
        "-0.0200",
        "-0.0400",
        "…",
        "+0.0000",
        "0.950",
        "2.00",
        "0.80",
        "20.00",
        "0.90",
    ] in cells
