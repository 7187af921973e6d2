"""Walks a pickle without unpickling it: plain values are kept, names become words, nothing is imported or called.

Knows the opcodes that data needs, an allow-list of names, and the raw arrays that joblib writes between opcodes. For
`joblib_numbers`, in a process with limits; imports the standard library only.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, Final

MOST_STEPS: Final = 100_000
MOST_NUMBERS: Final = 10_000

NAMES: Final[dict[str, str]] = {
    "sklearn.pipeline Pipeline": "Pipeline",
    "sklearn.preprocessing._data StandardScaler": "StandardScaler",
    "sklearn.preprocessing.data StandardScaler": "StandardScaler",
    "sklearn.preprocessing._function_transformer FunctionTransformer": "FunctionTransformer",
    "sklearn.linear_model._logistic LogisticRegression": "LogisticRegression",
    "sklearn.linear_model.logistic LogisticRegression": "LogisticRegression",
    "joblib.numpy_pickle NumpyArrayWrapper": "NumpyArrayWrapper",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "numpy clip": "clip",
    "numpy.core.multiarray _reconstruct": "_reconstruct",
    "numpy._core.multiarray _reconstruct": "_reconstruct",
    "numpy.core.multiarray scalar": "scalar",
    "numpy._core.multiarray scalar": "scalar",
    "scipy.special._ufuncs logit": "logit",
    "scipy.special._special_ufuncs logit": "logit",
    "copy_reg _reconstructor": "_reconstructor",
    "copyreg _reconstructor": "_reconstructor",
    "__builtin__ object": "object",
    "builtins object": "object",
    "_codecs encode": "encode",
}
"""What a file may name, and the word it becomes."""

NUMBERS: Final = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "b1": "?"}


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The file holds something other than numbers in the expected layout; the message says what."""


@dataclass(slots=True)
class Word:
    """A name on the allow-list. Nothing stands behind it."""

    name: str


@dataclass(slots=True)
class Thing:
    """What would have been an object: its class's word, what it was made from, and its state."""

    name: str
    made_from: tuple[Any, ...] = ()
    state: Any = None


class Mark:
    """Where a collection starts on the stack."""


class Machine:
    """Walks one pickle. `stream` also holds the raw arrays that joblib writes between the opcodes."""

    def __init__(self, stream: BytesIO, nested: bool = False) -> None:
        self._stream, self._nested = stream, nested
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for step, (op, arg, _) in enumerate(pickletools.genops(self._stream)):
            if step >= MOST_STEPS:
                raise Refused("it takes too many steps to read")
            if op.name == "STOP":
                return self._stack.pop()
            self._step(op.name, arg)
        raise Refused("it is cut off")

    def _step(self, name: str, arg: Any) -> None:
        if name in VALUES:
            self._stack.append(arg)
        elif name in NEW:
            self._stack.append(NEW[name]())
        elif name in TUPLES:
            self._tuple(TUPLES[name])
        elif name in TAKING:
            TAKING[name](self, arg)
        elif name in DOING:
            DOING[name](self)
        elif name not in IDLE:
            raise Refused(f"it uses the pickle operation {name}")

    def fetch(self, arg: Any) -> None:
        if int(arg) not in self._memo:
            raise Refused(f"it is malformed: it refers to {arg}, which it never stored")
        self._stack.append(self._memo[int(arg)])

    def store(self, arg: Any) -> None:
        self._memo[len(self._memo) if arg is None else int(arg)] = self._stack[-1]

    def append(self) -> None:
        self._extend([self._stack.pop()])

    def appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        of_kind(list, self._stack[-1]).extend(items)

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def set_items(self) -> None:
        self._update(self._since_mark())

    def _update(self, flat: list[Any]) -> None:
        keys = [of_kind(str, key) for key in flat[::2]]
        of_kind(dict, self._stack[-1]).update(zip(keys, flat[1::2], strict=True))

    def list_since_mark(self) -> None:
        self._stack.append(self._since_mark())

    def dict_since_mark(self) -> None:
        flat = self._since_mark()
        self._stack.append({})
        self._update(flat)

    def tuple_since_mark(self) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(top := self._stack.pop(), Mark):
            items.append(top)
        return items[::-1]

    def _tuple(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    def name(self, arg: Any) -> None:
        """GLOBAL gives "module name", STACK_GLOBAL leaves both on the stack."""
        if arg is None:
            last, module = of_kind(str, self._stack.pop()), of_kind(str, self._stack.pop())
            arg = f"{module} {last}"
        if arg not in NAMES:
            raise Refused(f"it names {arg.replace(' ', '.')}, which is not on the list of what may be in it")
        self._stack.append(Word(NAMES[arg]))

    def make(self) -> None:
        given, word = of_kind(tuple, self._stack.pop()), of_kind(Word, self._stack.pop())
        self._stack.append(_made(word.name, given))

    def build(self) -> None:
        state, thing = self._stack.pop(), of_kind(Thing, self._stack[-1])
        thing.state = state
        if thing.name == "NumpyArrayWrapper":
            self._stack[-1] = self._array(of_kind(dict, state))

    def _array(self, facts: dict[str, Any]) -> list[Any]:
        """The array that follows a joblib wrapper, flat. Its order matters to no array of more than one row here."""
        shape = [of_kind(int, n) for n in of_kind(tuple, facts["shape"])]
        kind = of_kind(Thing, facts["dtype"])
        count = _count(shape)
        if kind.made_from[0] in {"O", "O8"}:
            return self._objects(count)
        if facts.get("numpy_array_alignment_bytes") is not None:
            self._stream.read(self._stream.read(1)[0])
        letter = _format(kind)
        return list(struct.unpack(f"{letter[0]}{count}{letter[1]}", self._stream.read(count * struct.calcsize(letter))))

    def _objects(self, count: int) -> list[Any]:
        """An array of names: a pickle inside the pickle."""
        if self._nested:
            raise Refused("it nests pickles")
        inner = of_kind(Thing, Machine(self._stream, nested=True).run())
        values = of_kind(list, of_kind(tuple, inner.state)[-1])
        if inner.name != "ndarray" or len(values) != count:
            raise Refused("it holds an array of objects")
        return [of_kind(str, value) for value in values]


def _made(name: str, given: tuple[Any, ...]) -> Any:
    """What calling `name` would have given, for the few that only describe data."""
    if name == "_reconstructor":
        return Thing(of_kind(Word, given[0]).name)
    if name == "_reconstruct":
        return Thing("ndarray")
    if name == "encode":
        return of_kind(str, given[0]).encode("latin-1")
    if name == "scalar":
        return struct.unpack(_format(of_kind(Thing, given[0])), of_kind(bytes, given[1]))[0]
    if name in {
        "dtype",
        "Pipeline",
        "StandardScaler",
        "FunctionTransformer",
        "LogisticRegression",
        "NumpyArrayWrapper",
    }:
        return Thing(name, given)
    raise Refused(f"it calls {name}")


def _format(dtype: Thing) -> str:
    """The struct format of a numeric dtype, byte order first."""
    kind = of_kind(str, dtype.made_from[0])
    if dtype.name != "dtype" or kind not in NUMBERS:
        raise Refused(f"it holds numbers of kind {kind}")
    order = dtype.state[1] if isinstance(dtype.state, tuple) else "<"
    return (">" if order == ">" else "<") + NUMBERS[kind]


def _count(shape: list[int]) -> int:
    if any(n < 0 for n in shape) or (count := prod(shape)) > MOST_NUMBERS:
        raise Refused(f"it holds an array of shape {tuple(shape)}")
    return count


def of_kind(kind: type | tuple[type, ...], value: Any) -> Any:
    """The value, if it is of one of these kinds. Raises Refused."""
    if not isinstance(value, kind):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise Refused(f"it holds {type(value).__name__} where {wanted} was expected")
    return value


IDLE: Final = frozenset({"PROTO", "FRAME"})
VALUES: Final = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES"}
)
"""Opcodes whose argument is the value."""

NEW: Final[dict[str, Callable[[], Any]]] = {
    "MARK": Mark,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
TAKING: Final[dict[str, Callable[[Machine, Any], None]]] = {
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.fetch),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.store),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), Machine.name),
}
DOING: Final[dict[str, Callable[[Machine], None]]] = {
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine.make),
    "TUPLE": Machine.tuple_since_mark,
    "LIST": Machine.list_since_mark,
    "DICT": Machine.dict_since_mark,
    "APPEND": Machine.append,
    "APPENDS": Machine.appends,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    "BUILD": Machine.build,
}
