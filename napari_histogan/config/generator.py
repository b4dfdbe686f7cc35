"""Configs of the stages that make generators and samples."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from napari_histogan.config.stage import StageConfig, basic, more


class TrainGanConfig(StageConfig):
    """Train StyleGAN2-ADA on the stream of patches."""

    stage: ClassVar[str] = "train_gan"
    result: ClassVar[str] = "generator"

    kimg: float = basic(300.0, "Length of training in thousands of real images shown.", "kimg", gt=0)
    preset: Literal["auto", "plain"] = more(
        "auto",
        "auto: fields left at their defaults are chosen for the size of the patches and the number of slides "
        "when the job is started; plain: all fields are taken as they are. The defaults fit 64 px.",
    )
    batch: int = more(32, "Images per step, over all devices.", "images", ge=2, le=1024)
    micro_batch: int = more(
        0,
        "Images per forward pass, to save memory; gradients add up to those of the whole batch. 0 takes all.",
        "images",
        ge=0,
    )
    devices: int = more(
        1, "GPUs (or processes on the CPU) that share the batch; more than 1 needs Fabric.", ge=1, le=1024
    )
    z_dim: int = more(128, "Length of the random input z.", ge=8, le=1024)
    w_dim: int = more(128, "Length of the style w; 512 in the paper, 128 is ample at 64 px.", ge=8, le=1024)
    mapping_layers: int = more(4, "Layers of the mapping network.", "layers", ge=1, le=8)
    channel_base: int = more(4096, "Channels at resolution r are channel_base / r, up to channel_max.", ge=64)
    channel_max: int = more(96, "Most channels of a layer.", "channels", ge=8, le=1024)
    learning_rate: float = more(0.0025, "Adam's step size of both networks (section 4.3).", gt=0, lt=1)
    r1_gamma: float = more(
        0.05, "Weight of R1; about 0.0002 x resolution^2 / batch, larger when D overfits.", ge=0
    )
    r1_every: int = more(16, "Steps between R1 penalties.", "steps", ge=1)
    path_length_weight: float = more(
        0.0, "Weight of path length regularization; 2 in the paper, 0 saves time when small.", ge=0
    )
    path_length_every: int = more(4, "Steps between path length penalties.", "steps", ge=1)
    style_mixing: float = more(0.9, "Share of batches with two styles.", ge=0, le=1)
    ema_kimg: float = more(10.0, "Half-life of the averaged generator.", "kimg", gt=0)
    ema_rampup: float = more(0.05, "The half-life is at most this share of the images so far.", ge=0, le=1)
    mirror_and_rotate: bool = more(True, "Show patches in all eight orientations; tissue has no up.")
    ada_target: float = more(
        0.6, "Overfitting of D that adaptive augmentation holds (section 4.4); 0 turns it off.", ge=0, lt=1
    )
    ada_kimg: float = more(100.0, "Thousands of images in which p can rise from 0 to 1.", "kimg", gt=0)
    warmup_kimg: float = more(
        0.0,
        "Thousands of images that D sees alone first, where it starts at random and the generator does not.",
        "kimg",
        ge=0,
    )
    tensorboard: bool = more(False, "Write TensorBoard event files into the run folder, too.")
    inception: Path | None = more(
        None,
        "File with the weights of Inception (pt_inception-2015-12-05-6726825d.pth), or download to fetch it "
        "once; with it FID and KID are reported, too. They take minutes per report on a CPU.",
    )
    take: Literal["last", "best"] = more(
        "last",
        "Which averaged generator becomes the result: the last, or the one of the best quality figure.",
    )
    tick_kimg: float = more(4.0, "Images between reports, previews, and quality figures.", "kimg", gt=0)
    checkpoint_minutes: float = more(10.0, "Time between checkpoints.", "min", gt=0)
    keep_checkpoints: int = more(2, "Newest checkpoints kept beside the best.", ge=1, le=100)
    patches: str = more("", "Patch plan to train on; empty takes the newest.")
    init: str = more(
        "",
        "Generator to start from, of the patches' size or a smaller one; its discriminator is taken, too, if "
        "it has one. Empty starts from random weights.",
    )


class ImportGanConfig(StageConfig):
    """Bring in a generator of this program, or a StyleGAN2 of another one."""

    stage: ClassVar[str] = "import_gan"
    result: ClassVar[str] = "generator"

    path: Path = basic(
        Path(),
        "Folder or .safetensors file of this program; .pkl of StyleGAN2-ADA (PyTorch, TensorFlow); .pt with "
        "g_ema; or the run folder of a generator's training. Nothing that the file contains is run.",
    )
    checkpoint: str = more(
        "",
        "Of the folder of a training or its result: last, best, or the thousands of images of a checkpoint "
        "that is there; empty takes the result, or the last of an unfinished training.",
    )
    mpp: float | None = basic(
        None, "Resolution of its images, if its file does not say.", "um/px", gt=0.01, lt=100
    )


class SampleImagesConfig(StageConfig):
    """Draw samples to browse and paint; stored as w and noise seed."""

    stage: ClassVar[str] = "sample_images"
    result: ClassVar[str] = "samples"

    count: int = basic(200, "Samples to draw.", "images", ge=1, le=100_000)
    truncation: float = basic(
        0.7, "Variety: 1 is all that the generator knows, smaller is more typical.", ge=0, le=1
    )
    generator: str = more("", "Generator to use; empty takes the newest.")


class MixSamplesConfig(StageConfig):
    """Make new samples from old ones: every mix of two, or neighbors of one."""

    stage: ClassVar[str] = "mix_samples"
    result: ClassVar[str] = "samples"

    first: int = basic(0, "Number of a sample in the set.", ge=0)
    second: int | None = basic(
        None, "Number of another sample to mix with the first; none makes samples like the first.", ge=0
    )
    count: int = basic(24, "Samples like the first, if there is no second.", "images", ge=1, le=10_000)
    strength: float = basic(
        0.4, "How far they go from the first, if there is no second: 0 not at all, 1 anywhere.", ge=0, le=1
    )
    samples: str = more("", "Set of samples; empty takes the newest.")
