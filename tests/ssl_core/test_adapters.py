"""Low-rank adapters: against the paper's formula, merged, counted, refused, and in whole runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from ssl_core.adapters import Adapted, adapt, merge
from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.batch import Batch, Pairs, Tokens
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.encoders.dual import Dual
from ssl_core.errors import SpecError
from ssl_core.inference import load
from ssl_core.low_rank import LowRank, adapter_parameters
from ssl_core.recipes import estimate, resolve
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import FinetuneSpec, ModelFacts
from ssl_core.tasks.classification import Classification
from tests.ssl_core import datasets
from tests.ssl_core.test_data_parallel import torchrun
from tests.ssl_core.toys import ENCODERS

LOW = LowRank(4, 6.0)
FACTS: dict[str, Any] = {
    "vocab_size": 50, "max_length": 16, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4,
    "channels": 3, "size": 8,
}  # fmt: skip
TINY: dict[str, Any] = {"name": "custom", "family": "transformer", "width": 32, "depth": 2, "heads": 4}
LLAMA = {**TINY, "mlp": "swiglu", "key_value_heads": 2, "bias": False, "norm_kind": "rms", "attention": "causal"}
SHAPES = {"bert": {**TINY, "norm": "post"}, "llama": LLAMA, "vit": ENCODERS["vit"]}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def inputs(shape: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(2)
    if shape["family"] == "vit":
        return torch.randn(6, 3, 8, 8, generator=generator, dtype=dtype)
    ids = torch.randint(5, 50, (6, 12), generator=generator)
    return Tokens(ids, torch.zeros_like(ids), torch.arange(12).expand(6, 12).clone(), torch.ones_like(ids).bool())


def plain(shape: dict[str, Any]) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(EncoderSpec.model_validate({**shape, "dropout": 0.0}), FACTS).eval()


def stirred(encoder: nn.Module) -> None:
    """Give every B values of its own."""
    torch.manual_seed(3)
    for part in encoder.modules():
        if isinstance(part, Adapted):
            nn.init.normal_(part.adapter_out, std=0.2)


def split_formula(part: Adapted) -> tuple[list[Tensor], list[Tensor]]:
    """Each A and each B of a layer as leaves of their own."""
    downs = [part.adapter_in[at * 4 : at * 4 + 4].detach().clone() for at in range(len(part.blocks))]
    ends = [sum(part.blocks[:at]) for at in range(len(part.blocks) + 1)]
    ups = [part.adapter_out[ends[at] : ends[at + 1]].detach().clone() for at in range(len(part.blocks))]
    return [one.requires_grad_() for one in downs], [one.requires_grad_() for one in ups]


@every_shape
def test_loss_and_gradients_are_those_of_the_papers_formula(shape: dict[str, Any]) -> None:
    task, labels = Classification(mode="lora", rank=4, alpha=6.0), torch.arange(6) % 3
    nets = task.build(plain(shape), ["a", "b", "c"]).eval().double()
    nn.init.normal_(nets.parts["classifier"].linear.weight)  # type: ignore[union-attr,arg-type]
    reference = copy.deepcopy(nets)
    adapt(nets.encoder, LOW)
    stirred(nets.encoder)
    batch = Batch((inputs(shape, torch.float64),), torch.arange(6), labels)
    loss = task.loss(nets, batch)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]

    weights, leaves = dict(reference.encoder.named_parameters()), {}
    for name, part in nets.encoder.named_modules():
        if isinstance(part, Adapted):
            leaves[name] = split_formula(part)
            product = torch.cat([up @ down for down, up in zip(*leaves[name], strict=True)])
            weights[f"{name}.weight"] = weights[f"{name}.weight"].detach() + 6.0 / 4 * product
    vectors = functional_call(reference.encoder, weights, (batch.views[0],))
    logits = nets.parts["classifier"](vectors)
    expected = -logits.log_softmax(1)[torch.arange(6), labels].mean()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    assert leaves
    for name, part in nets.encoder.named_modules():
        if isinstance(part, Adapted):
            found = part.adapter_in.grad, part.adapter_out.grad
            for mine, theirs in zip(found, leaves[name], strict=True):
                assert mine is not None
                torch.testing.assert_close(mine, torch.cat([one.grad for one in theirs]), rtol=1e-7, atol=1e-12)


@every_shape
def test_fresh_adapters_change_nothing(shape: dict[str, Any]) -> None:
    encoder, x = plain(shape), inputs(shape)
    before = encoder(x)
    adapt(encoder, LOW)
    assert torch.equal(encoder(x), before)


@every_shape
def test_merged_weights_answer_as_the_adapters_did(shape: dict[str, Any]) -> None:
    encoder, x = plain(shape), inputs(shape)
    names, before = list(encoder.state_dict()), encoder(x)
    adapt(encoder, LOW)
    stirred(encoder)
    adapted = encoder(x)
    merge(encoder)
    assert (adapted - before).abs().max() > 0.01
    torch.testing.assert_close(encoder(x), adapted, rtol=1e-5, atol=1e-5)
    assert list(encoder.state_dict()) == names
    assert not any(isinstance(part, Adapted) for part in encoder.modules())


@every_shape
def test_only_adapters_learn_and_as_many_as_predicted(shape: dict[str, Any]) -> None:
    encoder = plain(shape)
    adapt(encoder, LOW)
    trained = {name: parameter.numel() for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert all(".adapter_" in name for name in trained)
    assert sum(trained.values()) == adapter_parameters(LOW, encoder.spec)


def test_of_pairs_the_tower_for_pictures_is_adapted() -> None:
    spec = EncoderSpec.model_validate(datasets.TINY_PAIR)
    assert spec.image is not None
    tower = EncoderSpec.model_validate(ENCODERS["vit"])
    spec = spec.model_copy(update={"image": tower})
    encoder = build_encoder(spec, {"image": FACTS, "text": FACTS})
    adapt(encoder, LOW)
    assert isinstance(encoder, Dual)
    assert not [name for name, p in encoder.text.named_parameters() if p.requires_grad]
    encoder(Pairs(torch.randn(2, 3, 8, 8), None)).sum().backward()  # type: ignore[no-untyped-call]
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    assert trained and all(parameter.grad is not None for parameter in trained)
    assert sum(parameter.numel() for parameter in trained) == adapter_parameters(LOW, spec)


BASE = ModelFacts(id="mdl_b", modality=datasets.TEXT, backbone=EncoderSpec.model_validate(datasets.TINY_TEXT))
PRETRAIN: dict[str, Any] = {
    "type": "pretrain", "objective": {"name": "mlm"}, "dataset": "ds_toy", "modality": datasets.TEXT,
    "backbone": datasets.TINY_TEXT, "batch_size": 8, "seed": 5, "budget": {"steps": 6}, "validation_fraction": 0.0,
}  # fmt: skip
TUNE: dict[str, Any] = {
    "type": "finetune", "dataset": "ds_toy", "model": "mdl_b", "batch_size": 8, "seed": 5, "budget": {"steps": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], str]:
    """Labelled texts, and a model pretrained on them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lora")
    data = {"ds_toy": datasets.text_dataset(folder / "data")}
    datasets.order(folder / "base", PRETRAIN, data)
    assert run(folder / "base", FileContext(folder / "base"))["status"] == "succeeded"
    return data, str(folder / "base" / "artifact")


def lora(name: str = "classification", **more: Any) -> dict[str, Any]:
    return {**TUNE, "task": {"name": name, "mode": "lora", "rank": 4, **more}}


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_a_run_leaves_a_model_of_the_usual_shape(world: tuple[dict[str, Path], str], tmp_path: Path, name: str) -> None:
    data, base = world
    # Without held-out rows, whose best weights may be those of the start; smoothed, so that a solved head learns on.
    spec = {**lora(name, label_smoothing=0.1), "validation_fraction": 0.0}
    datasets.order(tmp_path, spec, data, base=BASE, model=base)
    verdict = run(tmp_path, FileContext(tmp_path))
    assert verdict["status"] == "succeeded"
    before, after = load_file(f"{base}/model.safetensors"), load_file(tmp_path / "artifact/model.safetensors")
    encoder = {key for key in after if key.startswith("encoder.")}
    assert encoder == {key for key in before if key.startswith("encoder.")}
    changed = {key for key in encoder if not torch.equal(before[key], after[key])}
    assert changed == {key for key in encoder if key.endswith(("qkv.weight", "out.weight", "up.weight", "down.weight"))}
    assert len(load(tmp_path / "artifact").predict(["bread oven salt flour", "wind harbour mast rope"])) == 2


def test_a_checkpoint_holds_optimizer_state_of_what_learns_alone(
    world: tuple[dict[str, Path], str], tmp_path: Path
) -> None:
    data, base = world
    datasets.order(tmp_path, lora(), data, base=BASE, model=base)
    run(tmp_path, datasets.Interrupted(tmp_path, after=5))
    (saved,) = (tmp_path / "checkpoints").glob("step-*")
    names = {name for path in saved.glob("*optim*.safetensors") for name in load_file(path)}
    assert names and all(".adapter_" in name or "parts.classifier.linear" in name for name in names)


def test_a_run_stopped_twice_ends_with_the_bits_of_one_left_alone(
    world: tuple[dict[str, Path], str], tmp_path: Path
) -> None:
    data, base = world
    datasets.order(tmp_path / "whole", lora(), data, base=BASE, model=base)
    run(tmp_path / "whole", FileContext(tmp_path / "whole"))
    checkpoints: list[str] = []
    for attempt, steps in enumerate((5, 3, 1000)):
        part = tmp_path / f"part{attempt}"
        datasets.order(part, lora(), data, checkpoints=checkpoints, base=BASE, model=base)
        verdict = run(part, datasets.Interrupted(part, after=steps))
        checkpoints = [str(path) for path in sorted((part / "checkpoints").glob("step-*"), reverse=True)]
    assert verdict["status"] == "succeeded"
    model = "artifact/model.safetensors"
    assert (part / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


def test_a_run_of_two_processes_ends_as_one_of_one_does(world: tuple[dict[str, Path], str], tmp_path: Path) -> None:
    data, base = world
    spec = {**lora(), "validation_fraction": 0.0}
    for name in ("one", "two"):
        datasets.order(tmp_path / name, spec, data, base=BASE, model=base)
    assert run(tmp_path / "one", FileContext(tmp_path / "one"))["status"] == "succeeded"
    torchrun("ssl_core.run", str(tmp_path / "two"))
    one, two = (load_file(tmp_path / name / "artifact/model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=2e-3, rtol=2e-2) for name in one)


@pytest.mark.parametrize(
    ("changed", "base", "code", "param"),
    [
        ({"task": {"name": "classification", "mode": "lora"}, "model": None}, None, "no_pretrained_model", "model"),
        ({"initialization": "random"}, BASE, "no_pretrained_model", "initialization"),
        ({"task": {"name": "tagging", "mode": "lora", "rank": 33}}, BASE, "rank_too_large", "task.rank"),
    ],
)
def test_what_cannot_be_adapted_is_refused_by_its_field(
    tmp_path: Path, changed: dict[str, Any], base: ModelFacts | None, code: str, param: str
) -> None:
    known = datasets.facts(datasets.text_dataset(tmp_path / "data"))
    body = {**lora(), "model": "mdl_b", **changed}
    with pytest.raises(SpecError) as caught:
        resolve(FinetuneSpec.model_validate(body), known, base)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_an_encoder_of_convolutions_is_refused_with_those_that_can(tmp_path: Path) -> None:
    known = datasets.facts(datasets.image_dataset(tmp_path / "data"))
    base = ModelFacts(id="mdl_b", modality=datasets.IMAGE, backbone=EncoderSpec.model_validate(datasets.TINY_IMAGE))
    with pytest.raises(SpecError, match="family transformer, vit or wave") as caught:
        resolve(FinetuneSpec.model_validate(lora()), known, base)
    assert (caught.value.code, caught.value.param) == ("backbone_mismatch", "task.mode")


@pytest.mark.parametrize(("field", "value"), [("rank", 0), ("rank", 1025), ("alpha", 0.0), ("alpha", -1.0)])
def test_a_rank_or_strength_out_of_bounds_names_its_field(field: str, value: float) -> None:
    with pytest.raises(ValidationError) as caught:
        Classification.model_validate({"mode": "lora", field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_adapters_are_predicted_to_need_less_memory_and_learn_faster(tmp_path: Path) -> None:
    known = datasets.facts(datasets.text_dataset(tmp_path / "data"))
    base = BASE.model_copy(update={"backbone": BACKBONES["text-base"]})
    tuned, probed, full = (
        resolve(FinetuneSpec.model_validate(lora(mode=mode)), known, base, memory_limit=2**40)
        for mode in ("lora", "linear_probe", "full")
    )
    found = {spec.task.model_dump()["mode"]: estimate(spec, known) for spec in (tuned, probed, full)}
    trained = {mode: each.trained_parameters for mode, each in found.items()}
    assert trained["linear_probe"] == 0 < trained["lora"] < 0.05 * trained["full"]
    saved = found["full"].memory_bytes - found["lora"].memory_bytes
    assert saved == pytest.approx(12 * trained["full"], rel=0.05)
    assert tuned.optimizer.learning_rate is not None and full.optimizer.learning_rate is not None
    assert tuned.optimizer.learning_rate > full.optimizer.learning_rate
