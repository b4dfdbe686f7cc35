"""What people read for a stage, and for a result of one: plain words, the same in the whole dock."""

from __future__ import annotations

from collections.abc import Iterable

TITLES = {
    "add_slides": "Add slides",
    "extract_patches": "Find tissue and plan patches",
    "train_gan": "Train generator",
    "import_gan": "Import generator",
    "sample_images": "Draw samples",
    "invert_patches": "Find real patches",
    "mix_samples": "Mix samples",
    "train_pixel_classifier": "Train pixel classifier",
    "synthesize_dataset": "Make synthetic data set",
    "train_segmenter": "Train segmentation net",
    "import_block_labels": "Import block labels",
    "train_super_resolution": "Train on blocks",
    "train_weakly": "Train on slide labels",
    "train_patch_gan": "Train patch classifier",
    "predict_heatmap": "Run on slide",
    "predict_patch_map": "Map patches",
    "detect_objects": "Find objects",
    "evaluate": "Compare with outlines",
    "merge_corrections": "Gather corrections",
    "label_efficiency": "Compare ways of labeling",
}
"""Every stage's title, in the order of the data flow."""

_RESULTS = {
    "datasets": "data set",
    "corrections": "corrections",
    "segmenters": "net",
    "block_labels": "blocks",
    "outlines": "outlines",
    "generators": "generator",
}
"""What a net learned from, by the folder of a result; what lies further behind is left out."""


def title_of(stage: str) -> str:
    """Return a stage's title; the name of one that is not known, in words."""
    return TITLES.get(stage, stage.replace("_", " ").capitalize())


def results_in_words(identities: Iterable[str]) -> str:
    """Return what results are, such as "data set 5, corrections 8" for datasets/0005 and corrections/0008.

    Parameters
    ----------
    identities
        Ids of results; others, such as masks/0003, are left out as long as there is one.
    """
    every = list(identities)
    words = []
    for identity in every:
        folder, _, number = identity.partition("/")
        if folder in _RESULTS and number.isdigit():
            words.append(f"{_RESULTS[folder]} {int(number)}")
    return ", ".join(dict.fromkeys(words)) or ", ".join(every)
