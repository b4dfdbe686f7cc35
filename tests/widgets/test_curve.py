"""The chart keeps what it is given and draws it."""

import numpy as np

from napari_histogan.widgets.curve import MAX_POINTS, CurveWidget


def picture(widget) -> np.ndarray:
    image = widget.grab().toImage().convertToFormat(widget.grab().toImage().Format.Format_RGB32)
    data = image.constBits().asstring(image.sizeInBytes())
    return np.frombuffer(data, np.uint8).reshape(image.height(), image.width(), 4)[..., :3]


def test_line_appears_and_numbers_that_are_not_finite_do_not(qtbot):
    curve = CurveWidget()
    qtbot.addWidget(curve)
    curve.resize(300, 120)
    empty = picture(curve)
    for step in range(50):
        curve.add(step, "loss", 1 / (1 + step))
    curve.add(50, "loss", float("nan"))
    curve.add(float("inf"), "loss", 1.0)
    assert len(curve.points("loss")) == 50
    drawn = picture(curve)
    blue = (drawn[..., 0] > 180) & (drawn[..., 2] < 140)  # stored as blue, green, red
    assert blue.sum() > 60
    assert not ((empty[..., 0] > 180) & (empty[..., 2] < 140)).any()


def test_long_lines_are_thinned_but_keep_both_ends(qtbot):
    curve = CurveWidget()
    qtbot.addWidget(curve)
    for step in range(3 * MAX_POINTS):
        curve.add(step, "loss", step)
    points = curve.points("loss")
    assert len(points) <= MAX_POINTS
    assert points[0] == (0, 0)
    assert points[-1] == (3 * MAX_POINTS - 1, 3 * MAX_POINTS - 1)
    assert points == sorted(points)


def test_clear_forgets(qtbot):
    curve = CurveWidget()
    qtbot.addWidget(curve)
    curve.add(0, "a", 1)
    curve.clear()
    assert curve.names == ()


def test_words_about_many_lines_do_not_overlap(qtbot):
    curve = CurveWidget()
    qtbot.addWidget(curve)
    curve.resize(300, 140)
    names = [f"loss of part {k}" for k in range(5)]
    for name in names:
        curve.add(0, name, 1.0)
        curve.add(1, name, 0.5)
    boxes = curve.legend([f"{name} 0.5" for name in names])
    assert not any(a.intersects(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])
    assert all(box.right() <= 300 for box in boxes)
    assert len({box.top() for box in boxes}) > 1
    curve.show()
    picture = curve.grab()
    assert not picture.isNull()
    assert curve.minimumHeight() > max(box.bottom() for box in boxes) + 50
