import base64
import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import LabelError, StorageError
from napari_histogan.evaluation.report import Figure, Section, Table, interval, write_report

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 17, 3), np.uint8).astype(np.uint8))


class Page(HTMLParser):
    """Collects tags, texts, and attributes, and checks that tags are closed in order."""

    EMPTY = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_report_stands_alone_and_is_well_formed(tmp_path):
    table = Table(("model", "MCC"), [("synthetic", 0.91234), ("a < b", None), ("n", 3)], "Higher is better.")
    sections = [Section("How good & why", ("One <b>paragraph</b>.", table, Figure("slide", PICTURE, "All.")))]
    path = write_report(tmp_path / "new" / "report.html", "Demo", sections, "In short.")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    for expected in ("Demo", "In short.", "How good & why", "One <b>paragraph</b>.", "Higher is better."):
        assert expected in page.texts
    cells = ("synthetic", "0.912", "a < b", "\N{EN DASH}", "n", "3")
    assert [t for t in page.texts if t in cells] == list(cells)
    (image,) = page.attributes("img")
    assert image["alt"] == "All."
    embedded = Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))))
    np.testing.assert_array_equal(np.asarray(embedded), np.asarray(PICTURE))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "slide.png")), np.asarray(PICTURE))
    assert "http" not in text
    assert not page.attributes("script")
    assert not page.attributes("link")


def test_light_and_dark_screens_have_colors_of_their_own(tmp_path):
    text = write_report(tmp_path / "r.html", "t", []).read_text(encoding="utf-8")
    light, dark = text.split("prefers-color-scheme: dark", 1)
    for name in ("--ink", "--paper", "--line", "--faint", "--accent", "--stripe"):
        assert f"{name}: #" in light
        assert f"{name}: #" in dark


def test_intervals_read_as_text():
    assert interval(0.9123, 0.8, 1.0) == "0.912 (0.800 to 1.000)"
    assert interval(0.9, math.nan, math.nan) == "0.900 (\N{EN DASH} to \N{EN DASH})"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([Table(("a", "b"), [("x", 1), ("y",)])], "row 2 of a table has 1 cells"),
        ([Figure("Bad Name", PICTURE, "")], "'Bad Name'"),
        ([Figure("../up", PICTURE, "")], "'../up'"),
        ([Figure("a", PICTURE, ""), Figure("a", PICTURE, "")], "each name once"),
    ],
)
def test_wrong_content_is_refused_before_anything_is_written(tmp_path, content, message):
    with pytest.raises(LabelError, match=message):
        write_report(tmp_path / "sub" / "r.html", "t", [Section("s", content)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        write_report(tmp_path / "file" / "r.html", "t", [])
