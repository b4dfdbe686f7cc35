"""Contracts of importing foreign checkpoints: the same pictures, and nothing in a file is ever run."""

import io
import os
import pickle
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histogan.errors import CheckpointError
from napari_histogan.models.official_checkpoint import import_generator
from napari_histogan.models.pickle_records import plain_array
from napari_histogan.models.safe_pickle import read_pickle
from napari_histogan.models.stylegan2 import (
    Discriminator,
    DiscriminatorSpec,
    Generator,
    GeneratorSpec,
    save_discriminator,
    save_generator,
)
from napari_histogan.models.torch_container import read_torch_file
from tests.models.foreign_checkpoints import (
    Persistent,
    foreign_modules,
    persistent,
    rosinality_state,
    source_that_must_not_run,
    write_snapshot,
    write_tensorflow,
)


@pytest.fixture
def marker(tmp_path):
    """A file that nothing may write."""
    path = tmp_path / "was-run"
    yield path
    assert not path.exists()


def networks(**spec) -> tuple[Generator, Discriminator]:
    torch.manual_seed(1)
    plan = {"channel_base": 256, "channel_max": 24, "conv_clamp": 256.0} | spec
    generator = Generator(GeneratorSpec(8, 0, 12, 32, mapping_layers=3, **plan)).eval()
    judge = {k: v for k, v in plan.items() if k != "num_fp16_res"}
    discriminator = Discriminator(DiscriminatorSpec(32, **judge)).eval()
    with torch.no_grad():
        generator.mapping.w_avg.normal_()
        for name, value in [*generator.named_parameters(), *discriminator.named_parameters()]:
            if value.ndim < 2:
                value.add_(torch.randn_like(value) * (0.1 if "affine" in name else 0.5))
    return generator.requires_grad_(False), discriminator.requires_grad_(False)


def assert_same_pictures(imported, generator, discriminator=None):
    z = torch.randn(2, generator.spec.z_dim)
    pictures = generator(z, truncation_psi=0.6)
    torch.testing.assert_close(imported.generator(z, truncation_psi=0.6), pictures, atol=1e-5, rtol=1e-5)
    if discriminator is not None:
        logits = discriminator(pictures)
        torch.testing.assert_close(imported.discriminator(pictures), logits, atol=1e-5, rtol=1e-5)


# What is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_snapshots_paint_the_same_pictures(tmp_path, marker, architecture, protocol):
    generator, discriminator = networks(architecture=architecture, num_fp16_res=2)
    path = tmp_path / "network-snapshot-000100.pkl"
    source = source_that_must_not_run(marker)
    fp16 = frozenset({"synthesis.b32", "synthesis.b16"})
    write_snapshot(path, generator, discriminator, source, fp16=fp16, protocol=protocol)
    imported = import_generator(path)
    assert imported.generator.spec == generator.spec
    assert not imported.generator.training
    assert_same_pictures(imported, generator, discriminator)
    assert imported.info["imported_from"] == path.name
    assert imported.info["training_set"] == {"resolution": 16, "xflip": True}
    assert "secret" not in str(imported.info)


def test_snapshots_give_the_reference_pictures(tmp_path, shared):
    folder = shared / "reference" / "golden"
    if not folder.is_dir():
        pytest.skip("the reference arrays are absent")
    for name in ("skip_c0", "skip_c3", "resnet_c3", "orig_c0"):
        with np.load(folder / f"arch_{name}.npz") as arrays:
            golden = {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind == "f"}
        labels = 3 if name.endswith("c3") else 0
        plan = {"channel_base": 256, "channel_max": 24, "architecture": name.split("_")[0]}
        generator = Generator(GeneratorSpec(16, labels, 24, 16, mapping_layers=3, **plan))
        discriminator = Discriminator(DiscriminatorSpec(16, c_dim=labels, mapping_layers=3, **plan))
        for letter, network in (("G.", generator), ("D.", discriminator)):
            network.load_state_dict({k[2:]: v for k, v in golden.items() if k.startswith(letter)})
        write_snapshot(tmp_path / "x.pkl", generator, discriminator, "")
        imported = import_generator(tmp_path / "x.pkl")
        c = golden["c"] if labels else None
        torch.testing.assert_close(imported.generator(golden["z"], c), golden["img"], atol=1e-3, rtol=1e-3)
        logits = imported.discriminator(golden["x"], c)
        torch.testing.assert_close(logits, golden["logits"], atol=1e-3, rtol=1e-3)


def test_a_snapshot_may_hold_the_averaged_generator_alone(tmp_path):
    generator, _ = networks()
    with foreign_modules():
        data = pickle.dumps({"G_ema": persistent(generator, "")})
    (tmp_path / "x.pkl").write_bytes(data)
    imported = import_generator(tmp_path / "x.pkl")
    assert imported.discriminator is None
    assert_same_pictures(imported, generator)


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_tensorflow_pickles_paint_the_same_pictures(tmp_path, marker, architecture):
    generator, discriminator = networks(architecture=architecture, conv_clamp=None)
    path = tmp_path / "stylegan2.pkl"
    write_tensorflow(path, generator, discriminator, source=source_that_must_not_run(marker))
    imported = import_generator(path)
    assert imported.generator.spec == generator.spec
    assert_same_pictures(imported, generator, discriminator)


@pytest.mark.parametrize("new_layout", [True, False])
def test_pt_files_paint_the_same_pictures_and_get_a_mean_style(tmp_path, new_layout):
    generator, _ = networks(conv_clamp=None)
    content = {"g_ema": rosinality_state(generator), "ada_aug_p": 0.1, "g_optim": {"state": {0: {"step": 3}}}}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=new_layout)
    imported = import_generator(tmp_path / "x.pt")
    z = torch.randn(2, 8)
    torch.testing.assert_close(imported.generator(z), generator(z), atol=1e-5, rtol=1e-5)
    mean = generator.mapping.map(torch.randn(40_000, 8), None).mean(dim=0)
    torch.testing.assert_close(imported.generator.mapping.w_avg, mean, atol=0.03, rtol=0)
    content["latent_avg"] = torch.arange(12.0)
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=new_layout)
    assert torch.equal(import_generator(tmp_path / "x.pt").generator.mapping.w_avg, torch.arange(12.0))


def test_our_own_files_and_folders_are_read_with_what_they_remember(tmp_path):
    generator, discriminator = networks()
    save_generator(tmp_path / "generator.safetensors", generator, {"mpp": 0.5})
    alone = import_generator(tmp_path / "generator.safetensors")
    assert (alone.info, alone.discriminator) == ({"mpp": 0.5}, None)
    save_discriminator(tmp_path / "discriminator.safetensors", discriminator)
    assert_same_pictures(import_generator(tmp_path), generator, discriminator)


def test_torch_files_of_all_number_types_are_read_as_they_are():
    content = {
        str(dtype): torch.arange(6).reshape(2, 3).t().to(dtype)
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8)
    }
    content |= {"empty": torch.zeros(0), "scalar": torch.tensor(2.5), "view": torch.arange(9)[2:8:3]}
    for new_layout in (True, False):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=new_layout)
        read = read_torch_file(buffer.getvalue())
        assert all(torch.equal(read[key], content[key]) for key in content)


def test_arrays_of_other_byte_orders_are_read():
    for array in (np.arange(6.0).reshape(2, 3), np.arange(6, dtype=">i4"), np.asfortranarray(np.eye(3)[:2])):
        read, _ = read_pickle(pickle.dumps(array, protocol=2))
        np.testing.assert_array_equal(plain_array(read), array)


# What is refused ------------------------------------------------------------------------------------------


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


def program(*operations: bytes) -> bytes:
    return b"\x80\x04" + b"".join(operations) + b"."


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def legacy_with(content: bytes) -> bytes:
    """An old torch file around a pickle, as a tensor's bytes in a snapshot."""
    parts = [pickle.dumps(p, protocol=2) for p in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(parts) + content + pickle.dumps([], protocol=2)


def zip_with(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def bottomless(levels: int) -> bytes:
    """Modules that hold each other twice: 2^levels paths, `levels` objects."""
    module = Persistent("SynthesisBlock", {"_modules": {}}, "")
    for _ in range(levels):
        module = Persistent("SynthesisBlock", {"_modules": {"a": module, "b": module}}, "")
    with foreign_modules():
        return pickle.dumps({"G_ema": module})


def tensor_call(offset, size, stride) -> bytes:
    """A tensor of any shape over three numbers."""
    rebuild, (storage, *_) = torch.zeros(3).__reduce_ex__(2)
    return pickle.dumps({"G_ema": Calls(rebuild, storage, offset, size, stride, False, {})})


def hostile_files(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    run = f"open({str(marker)!r}, 'w').close()"
    system = pickle.dumps(Calls(os.system, touch), protocol=2)
    load_bytes = named("torch.storage", "_load_from_bytes")
    huge = struct.pack("<Q", 1 << 60)
    return {
        "os.system": system,
        "eval": pickle.dumps({"G_ema": Calls(eval, run)}),
        "exec": pickle.dumps([Calls(exec, run)]),
        "Popen": pickle.dumps(Calls(subprocess.Popen, ["touch", str(marker)])),
        "getattr chain": pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")),
        "import": pickle.dumps(Calls(__import__, "os")),
        "open for writing": pickle.dumps(Calls(open, str(marker), "w")),
        "dotted name": program(named("torch_utils.persistence", "os.system"), text(touch), b"\x85R"),
        "neighbor of an allowed name": program(named("torch.storage", "_load_from_bytes.__globals__")),
        "numpy load": program(named("numpy", "load"), text(str(marker)), b"\x85R"),
        "torch load": program(named("torch", "load"), text(str(marker)), b"\x85R"),
        "copyreg": program(named("copyreg", "_reconstructor"), b")R"),
        "object of any class": program(named("pathlib", "Path"), b")\x81"),
        "instance by INST": program(b"(" + text(touch) + b"ios\nsystem\n"),
        "extension code": program(b"\x82\x01)R"),
        "call of data": program(text("os.system"), text(touch), b"\x85R"),
        "state into a function": program(load_bytes, b"N}", text("__code__"), b"Ns\x86b"),
        "state into a table": program(b"}}", text("items"), b"Nsb"),
        "items into a record": program(named("argparse", "Namespace"), b")\x81", text("a"), b"Ns"),
        "mentioned name called": program(named("numpy", "ndarray"), b")R"),
        "data from outside": program(text("file:///etc/passwd"), b"Q"),
        "call inside a tensor's bytes": program(load_bytes, b"B" + _counted(legacy_with(system)), b"\x85R"),
        "call inside a zip": zip_with({"x/data.pkl": system}),
        "zip bomb": zip_with({"x/data.pkl": bytes(10_000_000)}, zipfile.ZIP_DEFLATED),
        "huge bytes": program(b"\x8e" + huge),
        "huge buffer": program(b"\x96" + huge),
        "huge text": program(b"\x8d" + huge),
        "huge number": program(b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000),
        "huge memo": program(b"]r\xff\xff\xff\xff"),
        "nesting as a key": program(b"}", b")" + b"\x85" * 150_000, b"Ns"),
        "nesting as content": program(b")" + b"\x85" * 20_000),
        "endless paths": bottomless(40),
        "module within itself": self_containing(),
        "tensor beyond its data": tensor_call(0, (1 << 20, 1 << 19), (1 << 19, 1)),
        "tensor of repeats": tensor_call(0, (1 << 39,), (0,)),
        "tensor before its data": tensor_call(-8, (2,), (1,)),
        "array of objects": pickle.dumps(np.array([None, {}], dtype=object)),
        "name that breaks terminals": pickle.dumps({"\x1b[2J\udc80": 1, "G_ema": 2}),
        "no end": b"\x80\x04]]]",
        "stack runs dry": program(b"aaa"),
        "mark missing": program(b"u"),
        "another thing": pickle.dumps({"weights": [1, 2]}),
        "protocol 0": pickle.dumps({"G_ema": 1}, protocol=0),
        "empty": b"",
        "no pickle": b"<html>not found</html>",
    }


def _counted(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def self_containing() -> bytes:
    """A module whose table of children is its own state."""
    table: dict = {}
    table["_modules"] = table
    with foreign_modules():
        return pickle.dumps({"G_ema": Persistent("Generator", table, "")})


MARKER = Path("was-run")
HOSTILE = hostile_files(MARKER)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_run_nothing_and_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.pkl").write_bytes(HOSTILE[kind])
    with pytest.raises(CheckpointError) as error:
        import_generator(tmp_path / "hostile.pkl")
    assert len(str(error.value)) < 800
    assert str(error.value).isprintable()
    assert not MARKER.exists()


def test_refusals_say_the_name_that_was_asked_for(tmp_path):
    (tmp_path / "hostile.pkl").write_bytes(HOSTILE["os.system"])
    with pytest.raises(CheckpointError, match=r"(posix|nt)\.system"):
        import_generator(tmp_path / "hostile.pkl")


def test_the_marker_would_appear_if_the_files_were_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["eval"])
    assert MARKER.exists()


def test_every_cut_off_file_is_refused(tmp_path):
    generator, _ = networks()
    write_snapshot(tmp_path / "x.pkl", generator, None, "")
    torch.save({"g_ema": rosinality_state(generator)}, tmp_path / "x.pt")
    old = io.BytesIO()
    torch.save({"g_ema": rosinality_state(generator)}, old, _use_new_zipfile_serialization=False)
    for data in ((tmp_path / "x.pkl").read_bytes(), (tmp_path / "x.pt").read_bytes(), old.getvalue()):
        for share in (0.001, 0.1, 0.5, 0.9, 0.9999):
            (tmp_path / "cut.pkl").write_bytes(data[: int(len(data) * share)])
            with pytest.raises(CheckpointError):
                import_generator(tmp_path / "cut.pkl")


def test_stylegan3_is_refused_by_name(tmp_path):
    entrance = Persistent("SynthesisInput", {"_modules": {}}, "")
    synthesis = Persistent("SynthesisNetwork", {"_modules": {"input": entrance}}, "")
    with foreign_modules():
        data = pickle.dumps({"G_ema": Persistent("Generator", {"_modules": {"synthesis": synthesis}}, "")})
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(CheckpointError, match="StyleGAN3"):
        import_generator(tmp_path / "x.pkl")


def test_other_layers_and_broken_weights_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    strange = Persistent("Transformer", {"_modules": {}}, "")
    with foreign_modules():
        path.write_bytes(pickle.dumps({"G_ema": strange}))
    with pytest.raises(CheckpointError, match="Transformer"):
        import_generator(path)

    generator, _ = networks()
    generator.synthesis.b8.conv0.weight[0, 0, 0, 0] = float("nan")
    write_snapshot(path, generator, None, "")
    with pytest.raises(CheckpointError, match=r"synthesis\.b8\.conv0\.weight is not finite"):
        import_generator(path)

    generator, _ = networks()
    del generator.synthesis.b16.conv1.bias
    write_snapshot(path, generator, None, "")
    with pytest.raises(CheckpointError, match=r"lacks the weight synthesis\.b16\.conv1\.bias"):
        import_generator(path)


def test_old_tensorflow_networks_are_refused_with_the_reason(tmp_path):
    generator, _ = networks()
    write_tensorflow(tmp_path / "x.pkl", generator, None, version=3)
    with pytest.raises(CheckpointError, match="version 3"):
        import_generator(tmp_path / "x.pkl")
    write_tensorflow(tmp_path / "x.pkl", generator, None)
    data = (tmp_path / "x.pkl").read_bytes()
    (tmp_path / "x.pkl").write_bytes(data.replace(b"8x8/Conv1/mod_bias", b"8x8/Conv1/StyleMod"))
    with pytest.raises(CheckpointError, match="StyleGAN1"):
        import_generator(tmp_path / "x.pkl")


def test_an_unreadable_discriminator_is_left_out(tmp_path):
    generator, _ = networks(conv_clamp=None)
    write_tensorflow(tmp_path / "x.pkl", generator, None)
    imported = import_generator(tmp_path / "x.pkl")
    assert imported.discriminator is None
    assert_same_pictures(imported, generator)


def test_missing_files_are_said(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_generator(tmp_path / "nothing.pkl")
