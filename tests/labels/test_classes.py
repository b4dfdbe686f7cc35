"""Classes are numbered without gaps, told apart by name, key, and color, and survive storage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histogan.errors import LabelError
from napari_histogan.labels.classes import PALETTE, ClassInfo, ClassTable

names = st.lists(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("C", "Z")), min_size=1),
    max_size=20,
    unique_by=str.casefold,
)


@given(names)
def test_a_table_survives_storage(found: list[str]) -> None:
    table = ClassTable.from_names(found)
    assert ClassTable.from_dicts(table.to_dicts()) == table
    assert table.names == tuple(found)
    assert table.num_classes == len(table) == len(found)
    assert [info.index for info in table] == list(range(1, len(found) + 1))


def test_defaults_are_palette_colors_and_digit_keys() -> None:
    table = ClassTable.from_names(f"class {i}" for i in range(11))
    assert [info.key for info in table] == [*"123456789", "", ""]
    assert [info.color for info in table][:9] == list(PALETTE)


def test_the_color_table_holds_each_class_and_nothing_else() -> None:
    lut = ClassTable((ClassInfo(1, "a", "#010203"), ClassInfo(2, "b", "#FF8000"))).color_lut()
    assert lut.shape == (256, 3)
    assert lut.dtype == np.uint8
    assert lut[1].tolist() == [1, 2, 3]
    assert lut[2].tolist() == [255, 128, 0]
    assert not lut[[0, *range(3, 256)]].any()


def test_classes_are_found_by_number_and_by_name() -> None:
    table = ClassTable.from_names(["Epidermis", "dermis"])
    assert table[2].name == "dermis"
    assert table.by_name(" epidermis").index == 1
    with pytest.raises(LabelError, match="no class 3"):
        table[3]
    with pytest.raises(LabelError, match="Epidermis, dermis"):
        table.by_name("glass")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"index": 0, "name": "a"}, "1 to 255"),
        ({"index": 256, "name": "a"}, "1 to 255"),
        ({"index": 1, "name": "  "}, "visible letters"),
        ({"index": 1, "name": "a\nb"}, "visible letters"),
        ({"index": 1, "name": "a", "color": "red"}, "#rrggbb"),
        ({"index": 1, "name": "a", "key": "0"}, '"1" to "9"'),
        ({"index": 1, "name": "a", "key": "12"}, '"1" to "9"'),
    ],
)
def test_wrong_fields_are_refused_with_what_is_right(fields: dict, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        ClassInfo(**fields)


def test_gaps_and_twins_are_refused() -> None:
    with pytest.raises(LabelError, match="without gaps"):
        ClassTable((ClassInfo(1, "a"), ClassInfo(3, "b")))
    with pytest.raises(LabelError, match="share the name a"):
        ClassTable((ClassInfo(1, "a"), ClassInfo(2, "A")))
    with pytest.raises(LabelError, match="share the key 1"):
        ClassTable((ClassInfo(1, "a"), ClassInfo(2, "b", key="1")))


@pytest.mark.parametrize("row", [{"name": "a"}, {"index": "x", "name": "a"}, "a", None])
def test_damaged_rows_are_refused(row: object) -> None:
    with pytest.raises(LabelError):
        ClassTable.from_dicts([row])


def test_masks_are_checked_against_the_classes() -> None:
    table = ClassTable.from_names(["a", "b"])
    mask = np.array([[0, 2]], np.uint8)
    assert table.check_mask(mask) is mask
    with pytest.raises(LabelError, match="holds the value 3"):
        table.check_mask(mask + 1)
    with pytest.raises(LabelError, match="int64"):
        table.check_mask(mask.astype(np.int64))
    with pytest.raises(LabelError, match=r"shape \(2,\)"):
        table.check_mask(mask[0])
