"""Objects named in a config: `{_target_: keras.optimizers.SGD, momentum: 0.9}` -> the object itself."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from harness.quiet import import_tensorflow

TARGET = "_target_"
_ON_TENSORFLOW = ("harness.data.augment", "harness.layers")


class TargetError(ValueError):
    """A `_target_` that cannot be found, or that does not take what it is given."""


def locate(path: str) -> Callable[..., Any]:
    """The callable at a dotted path.

    Raises:
        TargetError: no such module or attribute; the message names the nearest attribute.
    """
    module_name, _, name = path.rpartition(".")
    if module_name.partition(".")[0] == "keras" or module_name in _ON_TENSORFLOW:
        import_tensorflow()
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise TargetError(f"_target_={path}: no module {module_name!r} ({error})") from None
    found = getattr(module, name, None)
    if not callable(found):
        near = difflib.get_close_matches(name, dir(module), 3)
        raise TargetError(f"_target_={path}: {module_name} has no {name!r}" + hint(near))
    return found  # type: ignore[no-any-return]


def hint(near: list[str]) -> str:
    """`; did you mean a, b?`, or nothing."""
    return f"; did you mean {', '.join(near)}?" if near else ""


def check_arguments(spec: Mapping[str, Any], key: str) -> None:
    """Refuse arguments that the target does not name.

    Raises:
        TargetError: with `key`, the argument, the nearest names and all names.
    """
    known = [n for n, p in parameters(spec[TARGET]).items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in spec:
        if name != TARGET and name not in known:
            near = difflib.get_close_matches(name, known, 3)
            target = spec[TARGET].rpartition(".")[2]
            raise TargetError(
                f"{key}.{name}: {target} takes no such argument{hint(near)} (it takes {', '.join(known)})"
            )


@cache
def parameters(path: str) -> Mapping[str, inspect.Parameter]:
    """What the callable at a dotted path takes, by name.

    Raises:
        TargetError: no such callable.
    """
    return inspect.signature(locate(path)).parameters


def build(spec: Any, **more: Any) -> Any:
    """Call what a spec names, its nested specs first; plain values are returned as they are.

    Arguments in `more` that the target does not take are left out: a seed goes to the initializers that use one.
    """
    if isinstance(spec, Mapping) and TARGET in spec:
        target = locate(spec[TARGET])
        arguments = {name: build(value) for name, value in spec.items() if name != TARGET}
        names = parameters(spec[TARGET]) if more else {}
        try:
            return target(**{**arguments, **{name: value for name, value in more.items() if name in names}})
        except (TypeError, ValueError) as error:
            if type(error).__module__.startswith("harness."):
                raise  # its message says all
            raise TargetError(f"{spec[TARGET]}({arguments}): {first_line(error)}") from error
    if isinstance(spec, Mapping):
        return {name: build(value) for name, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [build(value) for value in spec]
    return spec


def first_line(error: BaseException) -> str:
    """The line of an error's message that says what is wrong, mostly the first, or its type where it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    node = next((i for i, line in enumerate(lines) if line.lstrip().startswith("[[{{node ")), 0)
    if node and lines[0] == "Graph execution error:":  # TensorFlow's: then where, then what is wrong, then the node
        return lines[node - 1]
    return lines[0]
