"""The list of projects holds those that still exist, newest first."""

from napari_histogan.project.store import Project
from napari_histogan.widgets.recent_projects import recent_file, recent_projects, remember_project
from napari_histogan.widgets.start_page import StartPage


def test_newest_first_without_twins_and_without_the_deleted(tmp_path, qtbot):
    recent_file().unlink(missing_ok=True)
    roots = [Project.create(tmp_path / name).root for name in "abc"]
    for root in [*roots, roots[0]]:
        remember_project(root)
    assert recent_projects() == [roots[0], roots[2], roots[1]]
    (roots[2] / "project.toml").unlink()
    assert recent_projects() == [roots[0], roots[1]]
    page = StartPage()
    qtbot.addWidget(page)
    assert page.recent.count() == 2
    with qtbot.waitSignal(page.open_wanted) as wanted:
        page.recent.itemActivated.emit(page.recent.item(1))
    assert wanted.args == [roots[1]]


def test_damaged_list_is_an_empty_list():
    recent_file().parent.mkdir(parents=True, exist_ok=True)
    recent_file().write_text("{not json")
    assert recent_projects() == []
