"""Read the data in a pickle without running anything that it asks for.

Python's own unpickler calls whatever a file names. The interpreter here knows no calls: a name in the file is
looked up in a table of constructors of plain records (`pickle_records`), and any other name ends the reading.
Nothing is imported, and no method of a foreign object is ever run, since there are none.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from napari_histogan.errors import CheckpointError
from napari_histogan.models.pickle_records import (
    CONSTRUCTORS,
    MENTIONED,
    STATEFUL,
    ArrayRecord,
    DtypeRecord,
    Global,
    Name,
    StateRecord,
    numpy_values,
    plain_key,
    refuse,
)

MAX_OPERATIONS = 20_000_000
MAX_NUMBER_BYTES = 16


def read_pickle(
    data: bytes,
    *,
    extra: Mapping[Name, Callable[..., Any]] | None = None,
    mentioned: frozenset[Name] = frozenset(),
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Read one pickle of protocol 2 to 5.

    Parameters
    ----------
    data
        The pickle; more may follow.
    extra
        Further names and what to call instead of them.
    mentioned
        Further names that may be passed on as `Global`.
    persistent
        Answers persistent ids; None refuses them.

    Returns
    -------
    tuple[Any, int]
        Plain containers, numbers, text, tensors, and the records above; and the bytes that were read.

    Raises
    ------
    CheckpointError
        If the file asks for any other name or operation, or is cut off.
    """
    machine = _Machine({**CONSTRUCTORS, **(extra or {})}, MENTIONED | mentioned, persistent)
    stream = io.BytesIO(data)
    try:
        for count, (operation, argument, _position) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPERATIONS:
                raise refuse("it has more operations than any checkpoint")
            if operation.name == "STOP":
                return machine.pop(), stream.tell()
            machine.run(operation.name, argument)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        # UnicodeError is a ValueError; genops reports cut off files as ValueError.
        raise CheckpointError(
            f"the pickle is damaged or hostile ({type(error).__name__}: {error!s:.80})",
            "a complete checkpoint",
            "copy or download the file again",
        ) from error
    raise refuse("it has no end")


class _Machine:
    """The stack machine that a pickle is a program for, without its calls."""

    def __init__(
        self,
        constructors: Mapping[Name, Callable[..., Any]],
        mentioned: frozenset[Name],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self._constructors, self._mentioned, self._persistent = constructors, mentioned, persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def run(self, name: str, argument: Any) -> None:
        """Run one operation; refuse those that checkpoints do not use."""
        if name in _LITERALS:
            if name.startswith("LONG") and argument.bit_length() > 8 * MAX_NUMBER_BYTES:
                raise refuse("it holds a number of absurd size")
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        else:
            step = _STEPS.get(name)
            if step is None:
                raise refuse(f"it uses the operation {name}")
            step(self, argument)

    # Stack and memo

    def mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def drop(self, _: Any) -> None:
        self._stack.pop()

    def drop_marked(self, _: Any) -> None:
        self._since_mark()

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def nothing(self, _: Any) -> None:
        """Skip protocol numbers and frame sizes."""

    # Containers

    def append(self, _: Any) -> None:
        item = self._stack.pop()
        _container(self._stack[-1], list).append(item)

    def appends(self, _: Any) -> None:
        items = self._since_mark()
        _container(self._stack[-1], list).extend(items)

    def setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _container(self._stack[-1], dict)[plain_key(key)] = value

    def setitems(self, _: Any) -> None:
        items = self._since_mark()
        target = _container(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value

    def additems(self, _: Any) -> None:
        items = self._since_mark()
        _container(self._stack[-1], set).update(map(plain_key, items))

    def tuple_since_mark(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    # Names, and what would be calls

    def name_in_line(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._refer(module, name)

    def name_on_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._refer(module, name)

    def _refer(self, module: Any, name: Any) -> None:
        key = (module, name)
        known = isinstance(module, str) and isinstance(name, str)
        if not known or not (key in self._constructors or key in STATEFUL or key in self._mentioned):
            raise refuse(f"it asks for {module!s:.60}.{name!s:.60}, which no checkpoint needs")
        self._stack.append(Global(module, name))

    def construct(self, _: Any) -> None:
        arguments, target = self._stack.pop(), self._stack.pop()
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise refuse("it calls something that is not a name")
        if target in STATEFUL:
            self._stack.append(StateRecord(target))
        elif target in self._constructors:
            self._stack.append(self._constructors[target](*arguments))
        else:
            raise refuse(f"it calls {target.module}.{target.name}")

    def restore(self, _: Any) -> None:
        """Give a record its state."""
        state, target = self._stack.pop(), self._stack[-1]
        match target:
            case StateRecord():
                target.state = _container(state, dict)
            case DtypeRecord() if (
                isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=")
            ):
                target.order = "<" if state[1] == "=" else state[1]
            case ArrayRecord() if isinstance(state, tuple) and len(state) == 5:
                _version, shape, dtype, fortran, content = state
                values = numpy_values(dtype, content)
                target.value = values.reshape(shape, order="F" if fortran else "C")
            case _:
                raise refuse(f"it changes the inside of a {type(target).__name__}")

    def look_up(self, _: Any) -> None:
        if self._persistent is None:
            raise refuse("it refers to data outside")
        self._stack.append(self._persistent(self._stack.pop()))


_LITERALS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}) | {
    short + kind
    for kind in ("BINUNICODE", "BINUNICODE8", "BINSTRING", "BINBYTES", "BINBYTES8")
    for short in ("", "SHORT_")
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_marked,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "ADDITEMS": _Machine.additems,
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "GLOBAL": _Machine.name_in_line,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "REDUCE": _Machine.construct,
    "NEWOBJ": _Machine.construct,
    "BUILD": _Machine.restore,
    "BINPERSID": _Machine.look_up,
}


def _container(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise refuse(f"it fills a {type(value).__name__} as if it were a {kind.__name__}")
    return value
