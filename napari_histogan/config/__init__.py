"""One frozen model per stage: it is the form, the command line, and the TOML file.

Every field carries a unit, a range, and the reason for its default.  Unknown fields
are refused.  ``STAGES`` names every stage in the order of the data flow; a stage's
function in :mod:`napari_histogan.pipeline`, its command (with hyphens), and its run
folder carry the same name.
"""

from __future__ import annotations

from napari_histogan.config.block_labels import ImportBlockLabelsConfig, TrainSuperResolutionConfig
from napari_histogan.config.files import dump_config, load_config, make_config
from napari_histogan.config.generator import (
    ImportGanConfig,
    MixSamplesConfig,
    SampleImagesConfig,
    TrainGanConfig,
)
from napari_histogan.config.labeling import SynthesizeDatasetConfig, TrainPixelClassifierConfig
from napari_histogan.config.patch_gan import PredictPatchMapConfig, TrainPatchGanConfig
from napari_histogan.config.real_patches import InvertPatchesConfig
from napari_histogan.config.segmentation import (
    DetectObjectsConfig,
    EvaluateConfig,
    MergeCorrectionsConfig,
    PredictHeatmapConfig,
    TrainSegmenterConfig,
)
from napari_histogan.config.slides import AddSlidesConfig, ExtractPatchesConfig
from napari_histogan.config.stage import Device, Precision, StageConfig
from napari_histogan.config.studies import LabelEfficiencyConfig
from napari_histogan.config.weak_labels import TrainWeaklyConfig

__all__ = [
    "AddSlidesConfig",
    "DetectObjectsConfig",
    "Device",
    "EvaluateConfig",
    "ExtractPatchesConfig",
    "ImportBlockLabelsConfig",
    "ImportGanConfig",
    "InvertPatchesConfig",
    "LabelEfficiencyConfig",
    "MergeCorrectionsConfig",
    "MixSamplesConfig",
    "Precision",
    "PredictHeatmapConfig",
    "PredictPatchMapConfig",
    "STAGES",
    "SampleImagesConfig",
    "StageConfig",
    "SynthesizeDatasetConfig",
    "TrainGanConfig",
    "TrainPatchGanConfig",
    "TrainPixelClassifierConfig",
    "TrainSegmenterConfig",
    "TrainSuperResolutionConfig",
    "TrainWeaklyConfig",
    "dump_config",
    "load_config",
    "make_config",
]

STAGES: dict[str, type[StageConfig]] = {
    model.stage: model
    for model in (
        AddSlidesConfig,
        ExtractPatchesConfig,
        TrainGanConfig,
        ImportGanConfig,
        SampleImagesConfig,
        InvertPatchesConfig,
        MixSamplesConfig,
        TrainPixelClassifierConfig,
        SynthesizeDatasetConfig,
        TrainSegmenterConfig,
        ImportBlockLabelsConfig,
        TrainSuperResolutionConfig,
        TrainWeaklyConfig,
        TrainPatchGanConfig,
        PredictHeatmapConfig,
        PredictPatchMapConfig,
        DetectObjectsConfig,
        EvaluateConfig,
        MergeCorrectionsConfig,
        LabelEfficiencyConfig,
    )
}
"""Every stage's config by the stage's name, in the order of the data flow."""
