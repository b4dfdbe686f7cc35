"""Every key of the dock: where it acts, what it is at first, and what it does."""

from __future__ import annotations

from dataclasses import dataclass

ANYWHERE, GALLERY = "anywhere", "gallery"
PLACES = {
    ANYWHERE: "Everywhere",
    "samples": "Samples",
    "paint": "Paint",
    "train": "Train",
    "slides": "Slides",
    "correct": "Correct",
    "blocks": "Blocks",
    "labels": "Labels",
    "patches": "Patches",
    GALLERY: "Gallery",
}
"""Where keys act, and how the place is called: the tabs, the list of samples, and the whole window."""


@dataclass(frozen=True)
class Shortcut:
    """One key.

    Parameters
    ----------
    where
        One of :data:`PLACES`.
    key
        The key at first, in Qt's portable words, such as "Ctrl+Return".
    words
        What it does.
    fixed
        Whether it cannot be changed in napari's preferences.
    """

    where: str
    key: str
    words: str
    fixed: bool = False

    @property
    def name(self) -> str:
        """Name of the action in napari's preferences."""
        plain = "".join(c if c.isalnum() else "_" for c in self.key.lower())
        return f"napari:histogan_{self.where}_{plain}"


_TOOLS = (
    ("P", "Brush"),
    ("E", "Eraser, back to unlabeled"),
    ("F", "Fill a closed region"),
    ("G", "Polygon"),
)
_CLASS = "Choose the class with this number"


def _rows(where: str, *rows: tuple[str, str]) -> tuple[Shortcut, ...]:
    return tuple(Shortcut(where, key, words) for key, words in rows)


def _fixed(where: str, *rows: tuple[str, str]) -> tuple[Shortcut, ...]:
    return tuple(Shortcut(where, key, words, fixed=True) for key, words in rows)


SHORTCUTS: tuple[Shortcut, ...] = (
    *_rows(
        ANYWHERE,
        *((f"Alt+{number}", f"Tab {title}") for number, title in enumerate(tuple(PLACES.values())[1:9], 1)),
        ("Alt+0", "Bring the keyboard into the tab; Tab goes from control to control"),
        ("Alt+9", "Show what the guide's present step means"),
        ("Alt+G", "Show or hide the guide"),
        ("Alt+N", "Do what comes next"),
        ("Alt+P", "Back to the list of projects"),
    ),
    *_fixed(ANYWHERE, ("?", "Show this table of keys")),
    *_rows("samples", ("Ctrl+Return", "Draw samples"), ("Alt+R", "Find real patches in the generator")),
    *_fixed("paint", ("1 to 9", _CLASS)),
    *_rows(
        "paint",
        *_TOOLS,
        ("A", "Brush that paints only where the prediction agrees"),
        ("N", "Open the next most informative sample"),
        ("Shift+N", "Open the sample before"),
        ("Y", "Take the predicted region under the mouse as paint"),
        ("Shift+Y", "Take the whole prediction as paint"),
        ("R", "Predict after each stroke, or not"),
        ("T", "Show or hide the prediction"),
        ("U", "Show or hide the uncertainty"),
        ("O", "Outlines or areas"),
        ("Q", "The picture alone: while the key is held, or until it is tapped again"),
        ("W", "Fainter paint"),
        ("L", "Like this sample"),
        ("B", "Earlier versions of the mask"),
    ),
    *_rows("train", ("Ctrl+Return", "Train from paint to a net; acts in the tab Paint, too")),
    *_fixed("slides", ("1 to 9", "Choose the class whose probability is shown")),
    *_rows(
        "slides",
        ("R", "Run the net on the slide"),
        ("H", "Show or hide the heatmap"),
        ("Q", "The slide alone: while the key is held, or until it is tapped again"),
        ("W", "Swipe: the map on one side of a line that follows the mouse"),
        ("S", "Slide and map side by side"),
        ("O", "Outline of what is above the threshold"),
        ("J", "Next unsure place"),
        ("K", "Unsure place before"),
        ("D", "Next doubtful object"),
        ("Shift+D", "Doubtful object before"),
        ("B", "Find objects"),
        ("E", "Export outlines"),
        ("T", "Export the table of objects"),
    ),
    *_fixed("correct", ("1 to 9", _CLASS)),
    *_rows(
        "correct",
        *_TOOLS,
        ("C", "Place a frame, or go on with the one that was left"),
        ("Return", "Keep the frame"),
        ("Escape", "Discard the frame"),
        ("Q", "The slide alone: while the key is held, or until it is tapped again"),
        ("Ctrl+Return", "Retrain with corrections"),
        ("V", "Compare the maps of two chosen versions"),
        ("W", "Swipe between the maps of two chosen versions"),
        ("X", "Use the chosen version for slides"),
        ("Shift+X", "Go back to the version before a round that made the net worse"),
    ),
    *_rows(
        "blocks",
        ("E", "Estimate blocks, or end it"),
        ("B", "Show or hide the blocks"),
        ("M", "Show or hide the sharpened mask"),
        ("H", "Show or hide the probability"),
        ("S", "Mask and probability beside the blocks"),
        ("Ctrl+Return", "Train and sharpen"),
        ("N", "Next block without saying anything"),
        ("Return", "Keep what the sliders show"),
        ("Backspace", "The block before"),
        ("Delete", "Take back what was said of the block"),
        ("F", "The whole block is of the chosen class"),
        ("C", "Choose the next class"),
    ),
    *_fixed("blocks", ("0 to 9", "So many tenths of the block are of the chosen class")),
    *_rows(
        "labels",
        ("B", "The chosen slides are benign"),
        ("M", "The chosen slides are malign"),
        ("U", "The chosen slides are unknown"),
        ("H", "Show or hide the training's map"),
        ("Ctrl+Return", "Train on slide labels"),
    ),
    *_fixed("patches", ("1 to 9", _CLASS)),
    *_rows(
        "patches",
        *_TOOLS,
        ("N", "New labels"),
        ("M", "Map this picture"),
        ("H", "Show or hide the map"),
        ("Ctrl+Return", "Train and map"),
    ),
    *_fixed(
        GALLERY,
        ("Return", "Paint the chosen sample"),
        ("L", "Like the chosen samples"),
        ("M", "Mix two chosen samples"),
        ("S", "Show samples like the chosen one"),
        ("F", "Show the next part of the samples: all, painted, and so on"),
    ),
)
"""All keys in the order of the tabs."""

BY_PLACE = {(each.where, each.key): each for each in SHORTCUTS}
