"""The calibration table: from estimates, from files, and refused where it cannot be right."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import LabelError
from napari_histogan.labels.calibration import CalibrationTable, few, read_calibration, table_of

CLASSES = ("tumor", "other")


def write(tmp_path, text):
    path = tmp_path / "calibration.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_estimates_give_mean_and_unbiased_deviation():
    shares = {"low": [[0.1, 0.9], [0.3, 0.7]], "high": [[0.8, 0.2], [1.0, 0.0], [0.9, 0.1]]}
    table = table_of(shares, ("low", "high"), CLASSES)
    assert np.allclose(table.eta, [[0.2, 0.8], [0.9, 0.1]])
    assert np.allclose(table.rho[0], np.std([0.1, 0.3], ddof=1))
    assert table.blocks.tolist() == [2, 3]
    assert few(table, 3) == ["low"]


@pytest.mark.parametrize(("given", "have"), [([], "no block"), ([[0.5, 0.5]], "one block")])
def test_a_value_without_a_spread_is_named(given, have):
    with pytest.raises(LabelError, match=f"{have} of the label value 'high'.*at least 2"):
        table_of({"high": given}, ("high",), CLASSES)


def test_both_forms_of_a_file(tmp_path):
    rows = write(tmp_path, "label,tumor,other\nlow,0.1,0.9\nlow,0.3,0.7\n")
    first = read_calibration(rows, ("low",), CLASSES)
    numbers = write(tmp_path, "label,class,mean,sd\nlow,tumor,0.2,0.141421356\nlow,other,0.8,0.141421356\n")
    second = read_calibration(numbers, ("low",), CLASSES)
    assert np.allclose(first.eta, second.eta)
    assert np.allclose(first.rho, second.rho)
    assert second.blocks.tolist() == [0]
    assert few(second) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("label,tumor,other\nlow,0.1,0.9\nlow,0.3,0.3\n", r"calibration.csv, line 3: 0.3 \+ 0.3 is 0.6.*sum"),
        ("label,tumor,other\nlow,1.4,-0.4\n", r"line 2: 1.4 \+ -0.4"),
        ("label,tumor,other\nlow,0.1,0.9\n", r"calibration.csv has one block of the label value 'low'"),
        ("label,tumor,other\nlo,0.1,0.9\n", r"line 2: there is no label value 'lo'.*low"),
        ("label,tumor,other\nlow,x,0.9\n", r"line 2: 'x' is no number"),
        ("label,tumor\nlow,0.1\n", r"line 1: the columns are label, tumor"),
        ("label,class,mean,sd\nlow,tumor,0.2,0.1\n", r"does not say the label value 'low' for 'other'"),
        ("label,class,mean,sd\nlow,tumor,0.2,0.1\nlow,other,0.2,0.1\n", r"value 'low': 0.2 \+ 0.2 is 0.4"),
        ("label,class,mean,sd\nlow,tumor,0.2,7\nlow,other,0.8,0.1\n", r"standard deviation.*'low'.*0 to 1"),
    ],
)
def test_wrong_files_are_refused_by_line_and_value(tmp_path, text, told):
    with pytest.raises(LabelError, match=told):
        read_calibration(write(tmp_path, text), ("low",), CLASSES)


def test_a_table_survives_the_disk(tmp_path):
    table = table_of({"low": [[0.1, 0.9], [0.3, 0.7]]}, ("low",), CLASSES)
    table.save(tmp_path / "calibration.json")
    again = CalibrationTable.load(tmp_path / "calibration.json")
    assert np.array_equal(again.eta, table.eta)
    assert np.array_equal(again.rho, table.rho)
    (tmp_path / "calibration.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LabelError, match="no calibration table"):
        CalibrationTable.load(tmp_path / "calibration.json")
