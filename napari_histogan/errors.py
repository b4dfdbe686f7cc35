"""Every error that the package raises on purpose.

::

    HistoganError
    ├── ProjectError
    │   ├── ProjectNotFound     (also FileNotFoundError)
    │   ├── ProjectTooNew       (also RuntimeError)
    │   ├── ProjectLocked       (also RuntimeError)
    │   ├── ProjectDamaged      (also RuntimeError)
    │   └── ArtifactMissing     (also LookupError)
    ├── ConfigError             (also ValueError)
    ├── SlideError              (also OSError)
    │   ├── SlideNotFound       (also FileNotFoundError)
    │   ├── SlideUnreadable
    │   ├── SlideHasNoMpp       (also ValueError)
    │   ├── SlideTooSmall       (also ValueError)
    │   └── NoTissue            (also ValueError)
    ├── LabelError              (also ValueError)
    ├── ModelError              (also ValueError)
    │   └── CheckpointError
    ├── TrainingError           (also RuntimeError)
    │   └── TrainingDiverged
    ├── StorageError            (also OSError)
    ├── JobError                (also RuntimeError)
    └── DisplayError            (also RuntimeError)

    Stopped                     a person asked a stage to stop; not a failure

A message says what was found, what was expected, and what to do.  Each error
derives from the builtin that a caller would expect, so ``except OSError``
keeps working around slide reading.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib


class HistoganError(Exception):
    """Base of all errors that this package raises on purpose.

    Parameters
    ----------
    found
        What was found, as a sentence without a full stop.
    expected
        What was expected instead; may be empty.
    remedy
        What the user can do; may be empty.
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(found, expected, remedy)

    def __str__(self) -> str:
        """Return the message in one paragraph."""
        parts = [self.found.rstrip(".") + "."]
        if self.expected:
            parts.append(f"Expected: {self.expected.rstrip('.')}.")
        if self.remedy:
            parts.append(f"What to do: {self.remedy.rstrip('.')}.")
        return " ".join(parts)


class ProjectError(HistoganError):
    """A project folder cannot be used as asked."""


class ProjectNotFound(ProjectError, FileNotFoundError):
    """There is no project in the folder."""


class ProjectTooNew(ProjectError, RuntimeError):
    """The project was written by a newer version of the program."""


class ProjectLocked(ProjectError, RuntimeError):
    """Another process is writing to the project."""


class ProjectDamaged(ProjectError, RuntimeError):
    """A file of the project is missing or does not match its recorded hash."""


class ArtifactMissing(ProjectError, LookupError):
    """A stage needs the result of an earlier stage that is not there."""


class ConfigError(HistoganError, ValueError):
    """A configuration has an unknown field or a value out of range."""


class SlideError(HistoganError, OSError):
    """A slide cannot be used."""


class SlideNotFound(SlideError, FileNotFoundError):
    """The slide's file does not exist."""


class SlideUnreadable(SlideError):
    """The file is not a slide, is damaged, or is cut off."""


class SlideHasNoMpp(SlideError, ValueError):
    """The slide does not say how many microns a pixel spans."""


class SlideTooSmall(SlideError, ValueError):
    """The slide is smaller than the patch or window asked for."""


class NoTissue(SlideError, ValueError):
    """No tissue was found on the slide."""


class LabelError(HistoganError, ValueError):
    """Annotations, masks, or classes are not usable."""


class ModelError(HistoganError, ValueError):
    """A network and its input, weights, or features do not fit together."""


class CheckpointError(ModelError):
    """A checkpoint is damaged, unsafe, or of another architecture."""


class TrainingError(HistoganError, RuntimeError):
    """A training stage cannot start or go on."""


class TrainingDiverged(TrainingError):
    """A loss or gradient became NaN or infinite; the last good state is kept."""


class StorageError(HistoganError, OSError):
    """The disk is full, read-only, or lacks permission."""


class JobError(HistoganError, RuntimeError):
    """A background job could not be started, reached, or finished."""


class DisplayError(HistoganError, RuntimeError):
    """The display cannot show what was asked for."""


class Stopped(Exception):
    """A person asked the stage to stop; its state was saved and it can resume."""


DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,  # headers of npy files are parsed as Python
    zipfile.BadZipFile,
    zlib.error,
)
"""What libraries raise when the file that they parse is damaged or made to harm.

A reader of foreign files turns these into an error of its own where it calls the library.
"""
