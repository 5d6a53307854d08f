"""What a training process loads: nothing to train that is only there to serve models or to exchange them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ssl_core import datasets

TRAINED = """
import sys
from pathlib import Path
from ssl_core import pretrain
from ssl_core.run import run
from ssl_core.run_context import FileContext

def loaded():
    return {name.partition(".")[0] for name in sys.modules}

def checked(*given):
    # Trained by now; only for the model's card, how near 8 bits are, onnxruntime is loaded.
    assert {"torch", "tokenizers"} <= loaded()
    found = loaded() & {"onnx", "onnxruntime", *never}
    assert not found, found
    seen.append(given)
    return told(*given)

never, seen, told = {"transformers", "onnxscript", "huggingface_hub"}, [], pretrain.precision.int8_told
pretrain.precision.int8_told = checked
folder = Path(sys.argv[1])
assert run(folder, FileContext(folder))["status"] == "succeeded"
assert len(seen) == 1 and not loaded() & never, loaded() & never
"""


def test_a_pretraining_run_trains_without_the_libraries_of_interchange(tmp_path: Path) -> None:
    pool = datasets.text_dataset(tmp_path / "data")
    spec = {
        "type": "pretrain", "dataset": "ds_toy", "objective": {"name": "mlm"}, "modality": datasets.TEXT,
        "backbone": datasets.TINY_TEXT, "budget": {"steps": 2}, "batch_size": 8,
    }  # fmt: skip
    datasets.order(tmp_path / "run", spec, {"ds_toy": pool})
    command = [sys.executable, "-c", TRAINED, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
