"""What a training process loads: nothing that is only there to exchange models with others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ssl_core import datasets

TRAINED = """
import sys
from pathlib import Path
from ssl_core.run import run
from ssl_core.run_context import FileContext
folder = Path(sys.argv[1])
assert run(folder, FileContext(folder))["status"] == "succeeded"
loaded = {name.partition(".")[0] for name in sys.modules}
assert "torch" in loaded and "tokenizers" in loaded
found = loaded & {"transformers", "onnx", "onnxscript", "onnxruntime", "huggingface_hub"}
assert not found, found
"""


def test_a_pretraining_run_loads_no_library_of_interchange(tmp_path: Path) -> None:
    pool = datasets.text_dataset(tmp_path / "data")
    spec = {
        "type": "pretrain", "dataset": "ds_toy", "objective": {"name": "mlm"}, "modality": datasets.TEXT,
        "backbone": datasets.TINY_TEXT, "budget": {"steps": 2}, "batch_size": 8,
    }  # fmt: skip
    datasets.order(tmp_path / "run", spec, {"ds_toy": pool})
    command = [sys.executable, "-c", TRAINED, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
