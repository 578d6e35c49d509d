"""What only a CUDA device can show: a cell there, its checkpoint, and the meter beside it."""

from pathlib import Path

import pytest
import torch
from support import digits_cell

from bench.cells.run import run_cell
from results.store import read_json

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


class Killed(BaseException):
    """Stands for a kill between two rounds."""


@pytest.mark.parametrize("method", ["ideal", "dfme", "noise", "real", "disguide", "dip_kd"])
def test_a_cell_runs_on_a_gpu_and_goes_on_from_its_checkpoint(trained: Path, method: str) -> None:
    cell, gpu = digits_cell(trained, method, 200), torch.device("cuda:0")
    rounds = 0

    def kill_the_second_round(*_: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise Killed

    with pytest.raises(Killed):
        run_cell(cell, trained, Path("no-data"), gpu, kill_the_second_round, checkpoint_seconds=0)
    run_cell(cell, trained, Path("no-data"), gpu)
    done = read_json(trained / "cells" / cell.name() / "done.json")
    assert 0 < done["spent"] <= 200
    assert done["rounds"] > 1
