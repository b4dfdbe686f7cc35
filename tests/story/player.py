"""One sitting at napari, played in a process of its own so that it can be killed.

Usage: python player.py ACT FOLDER PICTURES

Prints a line when something that the other process waits for is so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari
from hands import Hands, say
from qtpy.QtCore import QCoreApplication, Qt
from qtpy.QtTest import QTest

from napari_histogan.demo import GENERATOR, SLIDE
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.widgets.gallery import GalleryDock
from napari_histogan.widgets.launch import open_dock

SETTINGS = {
    "train_pixel_classifier": {"members": "2", "epochs": "20"},
    "synthesize_dataset": {"count": "48"},
    "train_segmenter": {"steps": "120", "width": "8", "batch": "8", "validate_every": "60"},
}
STROKES = {1: (10, 18, 26), 2: (38, 46, 54)}
"""Rows that are painted of each class, on pictures of 64 px."""


class Sitting:
    """A window, from its opening to its end."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.root, self.folder = folder / "project", folder
        self.viewer = napari.Viewer(title="HistoGAN")
        self.viewer.window.resize(1366, 768)
        self.dock = open_dock(self.viewer)
        self.hands = Hands(self.viewer, pictures)
        self.hands.until(lambda: self.dock.session is not None)
        self.session = self.dock.session
        self.session.told.connect(lambda text, level: say(f"{level}: {text}"))
        self.hands.activate()

    def tab(self, number: int) -> None:
        """Bring a tab to the front by its key."""
        self.hands.key(f"Alt+{number}")
        assert self.dock.tabs.currentIndex() == number - 1

    def reopen(self) -> None:
        """Open the project from the list of recent ones."""
        recent = self.dock.start_page.recent
        place = recent.visualItemRect(recent.item(0)).center()
        self.hands.click(recent.viewport(), place, twice=True)
        self.hands.until(lambda: self.session.project is not None)
        assert self.session.project.root == self.root
        assert not self.session.read_only

    # First sitting

    def begin(self) -> None:
        """From nothing to painted samples; the last stroke is on disk when it is told."""
        hands, dock = self.hands, self.dock
        hands.picture("01-start")
        hands.click_and_choose(dock.start_page.new_button, self.root)
        hands.until(lambda: self.session.project is not None)
        hands.until(lambda: dock.header.next_button.text() == "Add slides ...")
        hands.picture("02-new-project")
        hands.click_and_choose(dock.header.next_button, SLIDE)
        hands.until(lambda: dock.slides.list.count() == 1)
        hands.picture("03-slide-added")
        self.tab(1)
        hands.click_and_choose(dock.samples.import_button, GENERATOR / "generator.safetensors")
        hands.until(lambda: self.session.project.artifacts("generator"))
        hands.until(lambda: not dock.samples.look.pixmap().isNull())
        hands.picture("04-generator")
        hands.put(dock.samples.count, "24")
        hands.click(dock.samples.draw_button)
        hands.until(lambda: self.session.samples is not None)
        hands.picture("05-samples")
        self._name_classes("epidermis", "other")
        gallery = dock.window().findChild(GalleryDock)
        for number, sample in enumerate((0, 1, 2)):
            self._open(gallery, sample)
            self._paint(last=number == 2)
        raise AssertionError("this process should have been killed")

    def _name_classes(self, *names: str) -> None:
        """Add classes and type their names into the table."""
        classes = self.dock.paint.classes
        self.tab(2)
        for row, name in enumerate(names):
            self.hands.click(classes.add_button)
            place = classes.table.visualItemRect(classes.table.item(row, 1)).center()
            self.hands.click(classes.table.viewport(), place, twice=True)
            editor = classes.table.viewport().focusWidget() or self.dock.window().focusWidget()
            QTest.keySequence(editor, "Ctrl+A")
            QTest.keyClicks(editor, name)
            QTest.keyClick(editor, Qt.Key.Key_Return)
            self.hands.let_qt_work()
        assert self.session.project.classes.names == names

    def _open(self, gallery: GalleryDock, sample: int) -> None:
        """Double-click a sample."""
        index = gallery.model.index(gallery.model.row_of(sample))
        gallery.view.scrollTo(index)
        self.hands.let_qt_work()
        self.hands.click(gallery.view.viewport(), gallery.view.visualRect(index).center(), twice=True)
        self.hands.until(lambda: self.session.painting.index == sample)

    def _paint(self, last: bool) -> None:
        """Paint both classes; say so after the very last stroke."""
        painting, hands = self.session.painting, self.hands
        number = painting.index
        for value, rows in STROKES.items():
            hands.key(str(value))
            for row in rows:
                hands.stroke(painting.mask, [(row, 8), (row, 30), (row, 55)])
                if last and value == 2 and row == rows[-1]:
                    say("PAINTED")
                    hands.let_qt_work(30)
        hands.until(lambda: painting.prediction.data.any())
        hands.picture(f"06-painted-{number}")

    # Second sitting

    def train(self) -> None:
        """Find the paint again, see a prediction, and start to train."""
        hands, dock = self.hands, self.dock
        hands.picture("07-start-again")
        self.reopen()
        gallery = dock.window().findChild(GalleryDock)
        hands.until(lambda: gallery is not None and gallery.status.text() == "24 samples, 3 painted")
        self._open(gallery, 2)
        mask = self.session.painting.mask.data
        for value, rows in STROKES.items():
            assert all((mask[row, 12:50] == value).all() for row in rows), "a stroke was lost"
        hands.until(lambda: self.session.painting.prediction.data.any())
        hands.picture("08-paint-is-there")
        self.tab(3)
        self._make_small()
        hands.picture("09-settings")
        hands.key("Ctrl+Return")
        jobs = self.session.jobs
        hands.until(
            lambda: (r := jobs.newest("train_segmenter")) is not None and r.progress.get("done", 0) > 9
        )
        hands.picture("10-training")
        say("TRAINING")
        hands.let_qt_work(30)
        raise AssertionError("this process should have been killed")

    def _make_small(self) -> None:
        """Type small numbers into the forms of the three steps."""
        panel = self.dock.train
        self.hands.click(panel.single_steps.toggleButton())
        for stage, fields in SETTINGS.items():
            title = panel.steps.itemText(panel.steps.findData(stage))
            self.hands.put(panel.steps, title)
            form = panel.form(stage)
            for name, value in fields.items():
                if not form.editor(name).isVisible():
                    self.hands.click(form.advanced.toggleButton())
                self.hands.until(form.editor(name).isVisible)
                panel.area.ensureWidgetVisible(form.editor(name))
                self.hands.put(form.editor(name).control, value)
                assert str(form.editor(name).value()) == value
        panel.area.ensureWidgetVisible(panel.train_button)

    # Third sitting

    def finish(self) -> None:
        """Find the job again; run over the slide, correct, retrain, and export."""
        hands, dock, session = self.hands, self.dock, self.session
        self.reopen()
        self.tab(3)
        hands.until(lambda: session.jobs.newest("train_segmenter") is not None)
        hands.picture("11-job-found-again")
        hands.until(lambda: session.project.artifacts("segmenter"))
        hands.until(lambda: dock.header.next_button.text() == "Run on slide")
        self._run_on_slide()
        self._correct()
        self._retrain()
        self.tab(4)
        hands.key_and_choose("E", self.folder / "outlines.geojson")
        hands.until((self.folder / "outlines.geojson").is_file)
        hands.picture("19-exported")
        say("FINISHED")
        self.viewer.close()

    def _run_on_slide(self) -> None:
        """See the heatmap growing, then whole."""
        view, hands = self.session.slide_view, self.hands
        self.tab(4)
        hands.until(lambda: view.slide is not None)
        hands.picture("12-slide")
        hands.key("R")
        hands.until(lambda: self.dock.slides.versions.currentText() == "growing ...")
        seen = [int((view._top > 0).sum())]
        hands.picture("13-heatmap-growing")
        seen.append(int((view._top > 0).sum()))
        hands.until(lambda: view.heatmap is not None)
        seen.append(int((view._top > 0).sum()))
        assert 0 < seen[0] < seen[-1], f"the map did not grow: {seen}"
        hands.picture("14-heatmap")

    def _correct(self) -> None:
        """Fix a place: a frame, a stroke, Enter."""
        hands, correcting = self.hands, self.session.correcting
        self.tab(5)
        hands.put(self.dock.correct.side, "128")
        hands.key("C")
        hands.until(lambda: correcting.active)
        hands.key("2")
        hands.stroke(correcting.layer, [(40, 20), (40, 100)])
        hands.key("1")
        hands.stroke(correcting.layer, [(80, 20), (80, 100)])
        hands.picture("15-correcting")
        hands.key("Return")
        hands.until(lambda: self.session.project.corrections())
        hands.picture("16-corrected")

    def _retrain(self) -> None:
        """Train the next version by the one next button, and read what the round brought."""
        hands, header, correct = self.hands, self.dock.header, self.dock.correct
        hands.until(lambda: header.next_button.text() == "Retrain with 1 correction")
        hands.click(header.next_button)
        hands.until(lambda: self.session.jobs.waiting() or self.session.jobs.active())
        hands.picture("17-retraining")
        hands.until(lambda: len(self.session.project.artifacts("heatmap")) == 2)
        self.tab(5)
        hands.until(lambda: "The last round: 1 corrected place" in correct.round.text())
        assert correct.versions.rowCount() == 2
        hands.picture("18-what-the-round-brought")
        if correct.back_button.isVisible():  # a net of 120 steps and one correction is often worse
            hands.click(correct.back_button)
            assert net_in_use(self.session.project) == self.session.project.artifacts("segmenter")[0].id


def main() -> None:
    """Play one act."""
    QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_DontUseNativeDialogs)
    act, folder, pictures = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    getattr(Sitting(folder, pictures), act)()


if __name__ == "__main__":
    main()
