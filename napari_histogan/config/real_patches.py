"""Config of the stage that finds real patches in the generator."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from napari_histogan.config.stage import StageConfig, basic, more


class InvertPatchesConfig(StageConfig):
    """Find real patches in the generator, to paint and use them like samples."""

    stage: ClassVar[str] = "invert_patches"
    result: ClassVar[str] = "samples"

    count: int = basic(
        8,
        "Random patches of the patch plan, if neither paths nor places are given.",
        "patches",
        ge=1,
        le=10_000,
    )
    drawn: int = basic(
        40, "Drawn samples to put beside the real ones in the same set.", "images", ge=0, le=100_000
    )
    paths: tuple[Path, ...] = more(
        (), "Pictures, or folders of pictures, at the generator's resolution; their middle is taken."
    )
    slide: str = more("", "Slide of the places; empty takes the first.")
    places: str = more(
        "", 'Middles of patches in the slide as "x, y" in um from its top left corner, divided by semicolons.'
    )
    steps: int = basic(
        400, "Search steps per patch; more come nearer, 200 are a quick look.", "steps", ge=1, le=100_000
    )
    learning_rate: float = more(
        0.1, "Largest step, in standard deviations of w; rises, holds, and falls to 0.", gt=0, lt=10
    )
    candidates: int = more(
        256,
        "Random samples of which the most similar is the start of the search.",
        "images",
        ge=2,
        le=100_000,
    )
    feature_weight: float = more(
        0.1, "Weight of the discriminator's features against the pixels, if the generator has one.", ge=0
    )
    fit_noise: bool = more(
        True, "Fit the noise, too: nearer to the patch, with what is random in it (threads, grain)."
    )
    noise_weight: float = more(1e-3, "Keeps fitted noise from drawing the picture.", ge=0)
    batch: int = more(
        4,
        "Patches searched together; a stopped run goes on after the last such group.",
        "patches",
        ge=1,
        le=256,
    )
    poor_psnr: float = more(
        18.0, "Patches reproduced worse than this are warned of; 18 dB is an error of 32 of 255.", "dB", ge=0
    )
    truncation: float = more(0.7, "Variety of the drawn samples.", ge=0, le=1)
    patches: str = more("", "Patch plan of the random patches; empty takes the newest.")
    generator: str = more("", "Generator to search in; empty takes the newest.")

    @model_validator(mode="after")
    def _one_source(self) -> InvertPatchesConfig:
        if self.paths and self.places:
            raise ValueError("give paths or places, not both")
        self.centers()
        return self

    def centers(self) -> list[tuple[float, float]]:
        """Return the places as (x, y) in um.

        Raises
        ------
        ValueError
            If they are written in another way.
        """
        found = []
        for part in self.places.split(";"):
            if part.strip():
                numbers = part.split(",")
                try:
                    x, y = (float(number) for number in numbers)
                except ValueError:
                    raise ValueError(
                        f'places must be like "1200, 850; 300, 90", got {part.strip()!r}'
                    ) from None
                if not (0 <= x < 1e9 and 0 <= y < 1e9):
                    raise ValueError(f"a place must lie in the slide, got {part.strip()!r}")
                found.append((x, y))
        return found
