"""The loss that two sliders choose, and the curves that it makes."""

import numpy as np
import pytest

from napari_histogan.labels.beta import toy_loss

pytestmark = pytest.mark.gui


@pytest.fixture
def calculator(qapp):
    from napari_histogan.widgets.beta_calculator import BetaCalculator

    calculator = BetaCalculator()
    calculator.resize(330, 320)
    calculator.show()
    yield calculator
    calculator.close()


def test_the_example_of_the_paper(calculator):
    assert calculator.beta.beta_1 == pytest.approx(0.61, abs=0.005)
    assert "0.61" in calculator.words.text()
    _, _, toy = calculator.chart.curves()
    q = np.linspace(0.004, 0.996, len(toy))
    assert q[toy.argmin()] == pytest.approx(0.05, abs=0.004), "the loss is least at the accepted share"
    assert calculator.values() == {"gamma": 0.33, "accepted": 0.05, "beta_0": 0.0}


def test_sliders_change_loss_and_picture(calculator):
    before = calculator.chart.grab().toImage()
    calculator.gamma.setValue(60)
    calculator.theta.setValue(10)
    assert calculator.chart.grab().toImage() != before
    _, benign, toy = calculator.chart.curves()
    both = 0.0, calculator.beta.beta_1
    np.testing.assert_allclose(toy, toy_loss(np.linspace(0.004, 0.996, len(toy)), 0.6, both))
    assert benign[0] < benign[-1]
    assert calculator.values()["gamma"] == 0.6


def test_beta_beyond_one_is_cut_and_said(calculator):
    calculator.gamma.setValue(95)
    calculator.theta.setValue(1)
    assert calculator.beta.beta_1 <= 1
    if calculator.beta.beta_1 == 1:
        assert "as far as it goes" in calculator.words.text()
    calculator.use.setChecked(False)
    assert calculator.values() == {"gamma": None}
    assert not calculator.gamma.isEnabled()
