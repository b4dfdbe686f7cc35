"""Errors: each says what was found, expected, and to do, and is also the builtin one expects."""

from __future__ import annotations

import pickle

import pytest

from napari_histogan import errors
from napari_histogan.errors import HistoganError

OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HistoganError)]


@pytest.mark.parametrize("kind", OURS)
def test_message_has_all_three_parts(kind):
    message = str(kind("the slide has 2 pixels", "at least 64", "choose another slide"))
    assert message == ("the slide has 2 pixels. Expected: at least 64. What to do: choose another slide.")


@pytest.mark.parametrize("kind", OURS)
def test_message_without_the_optional_parts_is_one_sentence(kind):
    assert str(kind("the slide is empty")) == "the slide is empty."


@pytest.mark.parametrize("kind", OURS)
def test_errors_cross_process_borders(kind):
    error = pickle.loads(pickle.dumps(kind("a", "b", "c")))
    assert (type(error), error.found, error.remedy) == (kind, "a", "c")


@pytest.mark.parametrize("kind", OURS)
def test_errors_can_be_made_by_their_own_new(kind):
    """Some libraries that carry errors between machines make them so."""
    assert isinstance(kind.__new__(kind, "a"), kind)


@pytest.mark.parametrize("kind", OURS)
def test_every_error_stands_in_the_tree_on_top_of_the_module(kind):
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.SlideNotFound, FileNotFoundError),
        (errors.SlideUnreadable, OSError),
        (errors.ConfigError, ValueError),
        (errors.ArtifactMissing, LookupError),
        (errors.StorageError, OSError),
        (errors.ProjectNotFound, FileNotFoundError),
    ],
)
def test_errors_are_the_builtins_that_callers_expect(kind, builtin):
    with pytest.raises(builtin):
        raise kind("x")
