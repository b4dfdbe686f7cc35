"""Contracts of the StyleGAN2 networks: parity with the golden arrays, shapes, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.errors import ModelError
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.models.stylegan2_discriminator import Discriminator, DiscriminatorSpec, minibatch_std

Arrays = dict[str, Tensor]
GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "reference" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="golden arrays are not beside the checkout")


def load(name: str) -> Arrays:
    with np.load(GOLDEN / name) as arrays:
        return {k: torch.from_numpy(v) for k, v in arrays.items()}


def strip(data: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def assert_close(found: Tensor, golden: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == golden.shape
    assert (found - golden).abs().max() <= tolerance * (1 + golden.abs().max())


def generator(spec: GeneratorSpec, parameters: Arrays) -> Generator:
    network = Generator(spec).eval()
    assert list(network.state_dict()) == list(parameters)
    network.load_state_dict(parameters, strict=True)
    return network


def thin(features: Tensor, block_resolution: int, limit: int) -> Tensor:
    step = max(block_resolution // limit, 1)
    return features[:1, :, ::step, ::step]


@pytest.fixture(scope="module")
def g64() -> tuple[Generator, Arrays]:
    if not GOLDEN.exists():
        pytest.skip("golden arrays are not beside the checkout")
    data = load("g64.npz")
    spec = GeneratorSpec(128, 0, 128, 64, channel_base=8192, channel_max=128)
    return generator(spec, strip(data, "param.")), data


@torch.no_grad()
def test_64px_mapping_and_truncation_match(g64):
    network, data = g64
    mapping = network.mapping
    assert_close(mapping(data["z"]), data["w"])
    assert_close(mapping(data["z"], truncation_psi=0.7), data["w_psi0.7"])
    assert_close(mapping(data["z"], truncation_psi=0.5, truncation_cutoff=4), data["w_psi0.5_cut4"])


@torch.no_grad()
def test_64px_images_and_features_match(g64):
    network, data = g64
    image, features = network.synthesis.features(data["w"])
    assert_close(image, data["img"])
    assert [f.name for f in features][:3] == ["b4.conv1", "b8.conv0", "b8.conv1"]
    for name, resolution, tensor in features:
        kept = tensor[:1, ::8] if resolution == 64 else tensor[:1]
        assert_close(kept, data[f"feat.{name}"])
    assert_close(network.synthesis(data["w"][:1]), data["img_nonfused"], 2e-5)
    assert_close(network.synthesis(data["w"][:1], "none"), data["img_none"])
    assert_close(network.synthesis(data["w_psi0.7"][:1]), data["img_psi0.7"])
    mixed = torch.cat([data["w"][:1, :4], data["w"][1:2, 4:]], dim=1)
    assert_close(network.synthesis(mixed), data["mix_cut4_img"])


@torch.no_grad()
def test_stored_noise_given_by_hand_changes_nothing(g64):
    network, data = g64
    stored = [
        getattr(network.synthesis, f"b{r}").get_submodule(name).noise_const[None, None].expand(4, 1, r, r)
        for r in (4, 8, 16, 32, 64)
        for name in (("conv1",) if r == 4 else ("conv0", "conv1"))
    ]
    assert_close(network.synthesis(data["w"], noise=stored), data["img"])


@torch.no_grad()
def test_bfloat16_images_stay_near_float32(g64):
    network, data = g64
    image = network.synthesis(data["w"], dtype=torch.bfloat16)
    assert image.dtype == torch.float32
    assert (image - data["img"]).abs().mean() < 0.01 * data["img"].std()
    assert (image - data["img"]).abs().max() < 0.1 * data["img"].std()


@torch.no_grad()
def test_training_mode_moves_the_mean_of_w(g64):
    network, data = g64
    twin = Generator(network.spec).train()
    twin.load_state_dict(network.state_dict())
    twin.mapping(data["z"], track_mean=False)
    torch.testing.assert_close(twin.mapping.w_avg, network.mapping.w_avg)
    twin.mapping(data["z"])
    assert_close(twin.mapping.w_avg, data["w_avg_after_train_forward"])


@needs_golden
@torch.no_grad()
def test_256px_generator_matches():
    data = load("g256tiny.npz")
    spec = GeneratorSpec(32, 0, 32, 256, mapping_layers=2, channel_base=2048, channel_max=32)
    network = generator(spec, strip(data, "param."))
    assert_close(network.mapping(data["z"]), data["w"])
    image, features = network.synthesis.features(data["w"])
    assert_close(image[:1], data["img"])
    assert_close(image[1:, :, ::8, ::8], data["img1_lattice8"])
    for name, resolution, tensor in features:
        assert_close(thin(tensor, resolution, 32), data[f"feat.{name}"])


@needs_golden
@torch.no_grad()
@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_every_architecture_matches(architecture, labels):
    data = load(f"arch_{architecture}_c{labels}.npz")
    spec = GeneratorSpec(
        16, labels, 24, 16, mapping_layers=3, channel_base=256, channel_max=24, architecture=architecture
    )
    network = generator(spec, strip(data, "G."))
    critic_spec = DiscriminatorSpec(
        16, c_dim=labels, mapping_layers=3, channel_base=256, channel_max=24, architecture=architecture
    )
    critic = Discriminator(critic_spec).eval()
    assert list(critic.state_dict()) == list(strip(data, "D."))
    critic.load_state_dict(strip(data, "D."), strict=True)
    assert spec.num_ws == data["num_ws"]
    assert_close(network.mapping(data["z"], data.get("c")), data["w"])
    assert_close(network(data["z"], data.get("c")), data["img"])
    assert_close(critic(data["x"], data.get("c")), data["logits"])


@pytest.fixture(scope="module")
def d64() -> tuple[Discriminator, Arrays]:
    if not GOLDEN.exists():
        pytest.skip("golden arrays are not beside the checkout")
    data = load("d64.npz")
    network = Discriminator(DiscriminatorSpec(64, channel_base=2048, channel_max=64)).eval()
    network.load_state_dict(strip(data, "param."), strict=True)
    return network, data


@torch.no_grad()
def test_discriminator_matches(d64):
    network, data = d64
    assert_close(network(data["x"]), data["logits"])
    assert_close(network(data["x"][:1]), data["logits_n1"])
    network.b4.group_size = None
    assert_close(network(data["x"]), data["logits_group_all"])
    network.b4.group_size = 4
    x, img = None, data["x"]
    for resolution in (64, 32, 16, 8):
        x, img = getattr(network, f"b{resolution}")(x, img, torch.float32)
        golden = data[f"feat.b{resolution}"]
        step = x.shape[-1] // golden.shape[-1]
        assert_close(x[:1, :, ::step, ::step], golden)


def test_r1_penalty_and_its_gradients_match(d64):
    # In float64: a rounding error that flips one leaky ReLU moves a float32 gradient by up to 1e-3.
    network, data = d64
    twin = Discriminator(network.spec).double()
    twin.load_state_dict(network.state_dict())
    x = data["x"].double().requires_grad_()
    logits = twin(x, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    r1 = gradient.square().sum(dim=[1, 2, 3])
    assert_close(gradient[:2].float(), data["r1_grad_image"])
    torch.testing.assert_close(r1.float(), data["r1_penalty"], rtol=1e-5, atol=0)
    loss = (F.softplus(-logits) + 5 * r1[:, None]).mean()
    torch.testing.assert_close(loss.float(), data["loss_real_plus_r1_gamma10"], rtol=1e-5, atol=0)
    loss.backward()
    for name, parameter in twin.named_parameters():
        found = torch.zeros([]) if parameter.grad is None else parameter.grad.norm().float()
        torch.testing.assert_close(found, data[f"gradnorm.{name}"].float(), rtol=1e-3, atol=1e-6)
        if f"grad.{name}" in data:
            golden = data[f"grad.{name}"]
            assert (parameter.grad - golden).abs().max() <= 1e-4 * golden.abs().max()


def test_r1_penalty_in_float32_is_near_the_golden_one(d64):
    network, data = d64
    x = data["x"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    r1 = gradient.square().sum(dim=[1, 2, 3])
    torch.testing.assert_close(r1, data["r1_penalty"], rtol=1e-3, atol=0)
    assert (r1 / data["r1_penalty"] - 1).abs().median() < 1e-5


@needs_golden
@torch.no_grad()
def test_half_precision_and_clamp():
    data = load("fp16_clamp32.npz")
    spec = GeneratorSpec(
        32, 0, 32, 32, mapping_layers=2, channel_base=1024, channel_max=64, num_fp16_res=2, conv_clamp=256
    )
    network = generator(spec, strip(data, "param."))
    full = network.synthesis(data["w"], dtype=torch.float32)
    assert_close(full, data["img_force_fp32"])
    half = network.synthesis(data["w"], dtype=torch.float16)
    assert (half - full).abs().max() < 5e-2
    assert (half - data["img_fp16"]).abs().max() < 5e-2
    network.synthesis.b32.conv1.bias.copy_(data["param_clamp.synthesis.b32.conv1.bias"])
    assert_close(network.synthesis(data["w"], dtype=torch.float32), data["img_clamped_force_fp32"])


@needs_golden
@torch.no_grad()
def test_seeded_pictures_match():
    data = load("seeds.npz")
    for seed in (0, 1, 85):
        z = np.random.RandomState(seed).randn(1, 16)
        np.testing.assert_array_equal(z, data[f"z_seed{seed}_dim16"].numpy())
    spec = GeneratorSpec(16, 0, 16, 8, img_channels=1, mapping_layers=2, channel_base=64, channel_max=8)
    network = generator(spec, strip(data, "G."))
    for seed in (0, 1):
        z = torch.from_numpy(np.random.RandomState(seed).randn(1, 16))
        assert_close(network(z, truncation_psi=0.8), data[f"grey_img_seed{seed}"])


@needs_golden
@pytest.mark.parametrize(
    "config", list(json.loads((GOLDEN / "state_dict_shapes.json").read_text())) if GOLDEN.exists() else []
)
def test_stock_configurations_have_the_official_shapes(config):
    golden = json.loads((GOLDEN / "state_dict_shapes.json").read_text())[config]
    resolution = int("".join(c for c in config.split("_")[0] if c.isdigit()))
    base = 16384 if resolution < 512 else 32768
    with torch.device("meta"):
        network = Generator(
            GeneratorSpec(
                512, 0, 512, resolution, mapping_layers=2 if "auto" in config else 8, channel_base=base
            )
        )
        critic = Discriminator(DiscriminatorSpec(resolution, channel_base=base))
    assert network.spec.num_ws == golden["num_ws"]
    for found, key in ((network, "G"), (critic, "D")):
        shapes = {name: list(value.shape) for name, value in found.state_dict().items()}
        assert shapes == {k: list(v) for k, v in golden[key].items()}
        assert list(shapes) == list(golden[key])


def test_minibatch_std_groups_are_strided():
    x = torch.tensor([0.0, 10.0, 2.0, 10.0]).reshape(4, 1, 1, 1)
    spread = minibatch_std(x, group_size=2)[:, 1, 0, 0]
    torch.testing.assert_close(spread, torch.tensor([1.0, 1e-4, 1.0, 1e-4]))
    with pytest.raises(ModelError, match="multiple of the group size 3"):
        minibatch_std(x, group_size=3)


def test_specs_survive_json_and_refuse_what_cannot_be():
    spec = GeneratorSpec(8, 0, 8, 16, channel_base=128, channel_max=8)
    assert GeneratorSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    critic = DiscriminatorSpec(16, channel_base=128, channel_max=8)
    assert DiscriminatorSpec.from_dict(json.loads(json.dumps(critic.to_dict()))) == critic
    with pytest.raises(ModelError, match="24 px"):
        GeneratorSpec(8, 0, 8, 24)
    with pytest.raises(ModelError, match="no channel"):
        GeneratorSpec(8, 0, 8, 64, channel_base=32)
    with pytest.raises(ModelError, match="depth"):
        GeneratorSpec.from_dict(spec.to_dict() | {"depth": 3})


def test_wrong_inputs_are_refused():
    network = Generator(GeneratorSpec(8, 0, 8, 16, channel_base=128, channel_max=8))
    with pytest.raises(ModelError, match=r"expected|Expected"):
        network.mapping(torch.zeros(2, 5))
    with pytest.raises(ModelError, match="ws has shape"):
        network.synthesis(torch.zeros(2, 3, 8))
    with pytest.raises(ModelError, match="noise maps"):
        network.synthesis(torch.zeros(2, 6, 8), noise=[torch.zeros(2, 1, 4, 4)])
