"""What a config's values may be: ranges, choices, and the arguments of what `_target_` names."""

import dataclasses
import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import durations
from harness.streams import STREAMS
from harness.targets import TARGET, first_line, hint, locate, parameters

if TYPE_CHECKING:
    from harness.config import Config

Spec = dict[str, Any]
TRUSTED = ("keras.", "harness.")
ROOMS = {
    "keras": ("activations", "constraints", "initializers", "layers", "losses", "optimizers", "regularizers"),
    "harness": ("data", "layers", "models"),
}
"""Where what a config may name lies: elsewhere in these packages are functions that load code, or write files."""
MOST_BLOCKS = 100_000


class ConfigError(ValueError):
    """A config that cannot be run, in one line: the key, the value seen, what is allowed."""


def block_ids(seeds: object) -> list[int]:
    """`seeds` as a list: 5 means 0 to 4; a list is taken as it is.

    Raises:
        ConfigError: neither a count of at least 1 nor distinct whole numbers from 0 up.
    """
    ids = list(range(min(seeds, MOST_BLOCKS + 1))) if type(seeds) is int else seeds
    listed = isinstance(ids, list) and len(ids) > 0
    if (
        not isinstance(ids, list)
        or not listed
        or not all(type(i) is int and i >= 0 for i in ids)
        or len(set(ids)) < len(ids)
        or len(ids) > MOST_BLOCKS
    ):
        raise ConfigError(
            f"seeds: got {seeds!r}; allowed: a count from 1 to {MOST_BLOCKS:,}, or a list of different numbers >= 0"
        )
    return ids


def check_values(config: "Config") -> None:
    """Refuse values out of range, key by key.

    Raises:
        ConfigError: the first one that is.
    """
    train, rate, runtime = config.train, config.learning_rate, config.runtime
    block_ids(config.seeds)
    for key, value, ok, allowed in (
        (
            "train.steps",
            train.steps,
            train.steps is None or train.steps >= 1,
            "a whole number from 1 up, or null",
        ),
        ("train.epochs", train.epochs, 0 < train.epochs < float("inf"), "a number above 0"),
        ("train.batch_size", train.batch_size, train.batch_size >= 1, "a whole number from 1 up"),
        ("train.val_share", train.val_share, 0 <= train.val_share < 1, "0 <= share < 1"),
        (
            "train.eval_examples",
            train.eval_examples,
            train.eval_examples is None or train.eval_examples >= 1,
            "a whole number from 1 up, or null",
        ),
        ("train.evaluate.examples", train.evaluate.examples, train.evaluate.examples >= 1, "a whole number from 1 up"),
        ("train.probe.examples", train.probe.examples, train.probe.examples >= 1, "a whole number from 1 up"),
        (
            "train.checkpoint.keep",
            train.checkpoint.keep,
            train.checkpoint.keep in ("best", "all", "none")
            or (type(train.checkpoint.keep) is int and train.checkpoint.keep >= 1),
            "a whole number from 1 up, best, all, none",
        ),
        (
            "train.checkpoint.keep",
            train.checkpoint.keep,
            train.checkpoint.keep != "best" or train.val_share > 0,
            "a number, all, none, as there are no validation examples (train.val_share=0)",
        ),
        (
            "train.checkpoint.seconds",
            train.checkpoint.seconds,
            train.checkpoint.seconds is None or train.checkpoint.seconds > 0,
            "a number above 0, or null",
        ),
        (
            "draws",
            config.draws,
            config.draws is None or 1 <= config.draws <= MOST_BLOCKS // len(block_ids(config.seeds)),
            f"a whole number from 1 up, {MOST_BLOCKS:,} blocks in all at most, or null",
        ),
        (
            "draw.scheme",
            config.draw.scheme,
            config.draw.scheme in ("all", "disjoint", "subsample", "bootstrap"),
            "all, disjoint, subsample, bootstrap",
        ),
        (
            "draw.scheme",
            config.draw.scheme,
            config.draws is None or config.draw.scheme != "all",
            "not all with draws=K",
        ),
        ("vary", config.vary, set(config.vary or ()) <= set(STREAMS), f"a list of {', '.join(STREAMS)}, or null"),
        ("vary", config.vary, config.vary is None or config.draws is None, "null with draws=K, where draws meet seeds"),
        (
            "vary",
            config.vary,
            config.vary is None or "draw" in config.vary or config.draw.scheme != "disjoint",
            "a list with draw, or draw.scheme=bootstrap: disjoint parts belong to blocks",
        ),
        (
            "draw.examples",
            config.draw.examples,
            config.draw.examples is None or config.draw.examples >= 1,
            "1 up, or null",
        ),
        ("sweep.family", config.sweep.family, config.sweep.family in ("baseline", "all_pairs"), "baseline, all_pairs"),
        ("sweep.search", config.sweep.search, config.sweep.search in ("grid", "random"), "grid, random"),
        ("sweep.correction", config.sweep.correction, config.sweep.correction in ("holm", "max_t"), "holm, max_t"),
        (
            "sweep.margin",
            config.sweep.margin,
            config.sweep.margin is None or 0 < config.sweep.margin < 1,
            "0 < margin < 1",
        ),
        ("learning_rate.value", rate.value, 0 <= rate.value < float("inf"), "a number from 0 up"),
        (
            "regularizer.l2",
            config.regularizer.l2,
            0 <= config.regularizer.l2 < float("inf"),
            "a number from 0 up",
        ),
        (
            "regularizer.dropout",
            config.regularizer.dropout,
            0 <= config.regularizer.dropout < 1,
            "0 <= rate < 1",
        ),
        (
            "regularizer.label_smoothing",
            config.regularizer.label_smoothing,
            0 <= config.regularizer.label_smoothing < 1,
            "0 <= share < 1",
        ),
        (
            "regularizer.patience",
            config.regularizer.patience,
            config.regularizer.patience is None or config.regularizer.patience >= 1,
            "a whole number of evaluations from 1 up, or null",
        ),
        (
            "regularizer.patience",
            config.regularizer.patience,
            config.regularizer.patience is None or train.val_share > 0,
            "null without validation examples: set train.val_share above 0",
        ),
        ("runtime.device", runtime.device, runtime.device in ("auto", "cpu", "gpu"), "auto, cpu, gpu"),
        (
            "runtime.precision",
            runtime.precision,
            runtime.precision in ("float32", "mixed_bfloat16", "mixed_float16"),
            "float32, mixed_bfloat16, mixed_float16",
        ),
        (
            "runtime.replicas",
            runtime.replicas,
            runtime.replicas is None or runtime.replicas >= 1,
            "1 up, or null",
        ),
        ("runtime.threads", runtime.threads, runtime.threads >= 1, "a whole number from 1 up"),
        (
            "runtime.slots_per_gpu",
            runtime.slots_per_gpu,
            runtime.slots_per_gpu >= 1,
            "a whole number from 1 up",
        ),
        ("runtime.stream_above_gib", runtime.stream_above_gib, runtime.stream_above_gib >= 0, "a number from 0 up"),
        ("tracking.patience", config.tracking.patience, config.tracking.patience >= 0, "seconds, from 0 up"),
        ("tracking.uri", config.tracking.uri, config.tracking.uri != "", "an MLflow URI, or null"),
        (
            "tracking.log_model",
            config.tracking.log_model,
            config.tracking.log_model in ("best", "all", "none"),
            "best, all, none",
        ),
        (
            "tracking.log_model",
            config.tracking.log_model,
            config.tracking.log_model != "best" or train.val_share > 0,
            "all, none, as there are no validation examples (train.val_share=0)",
        ),
        (
            "sweep.name",
            config.sweep.name,
            _is_plain_name(config.sweep.name),
            "letters of any alphabet, digits, _ . -",
        ),
    ):
        if not ok:
            raise ConfigError(f"{key}: got {value!r}; allowed: {allowed}")
    moments = {"learning_rate.warmup": [rate.warmup]}
    for name in ("evaluate", "probe", "checkpoint"):
        schedule = getattr(train, name)
        every = [] if schedule.every is None else [schedule.every]
        moments |= {f"train.{name}.at": schedule.at, f"train.{name}.every": every}
    for key, listed in moments.items():
        for duration in listed:
            try:
                if key.endswith((".every", "warmup")) and duration == durations.DENSE_EARLY:
                    raise ValueError(f"got {duration!r}; allowed: {durations.ALLOWED} (1-2-5 goes into a list, at=[…])")
                durations.check(duration)
                if key.endswith("every") and str(duration).split()[0].strip("%") in ("0", "0.0"):
                    raise ValueError(f"got {duration!r}; allowed: a duration above 0, or null for never")
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from None


def _is_plain_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and all(c.isalnum() or c in "_.-" for c in name)


def check_targets(config: "Config") -> None:
    """Refuse a `_target_` that is not trusted; check the arguments of functions of ours, and fill in their defaults.

    Raises:
        ConfigError: the first one that cannot be.
    """
    trusted = (*TRUSTED, *(f"{module}." for module in config.trust))
    for key, spec in specs(dataclasses.asdict(config), ""):
        target = spec[TARGET]
        if not isinstance(target, str) or not target.startswith(trusted):
            allowed = ", ".join(f"{prefix}…" for prefix in trusted)
            raise ConfigError(f"{key}._target_: got {target!r}; allowed: {allowed}, or name its module in trust=[…]")
        if not target.startswith(trusted[len(TRUSTED) :] or ("\0",)) and not _is_part_of_nets(target):
            package = target.partition(".")[0]
            rooms = ", ".join(f"{package}.{room}.…" for room in ROOMS[package])
            raise ConfigError(
                f"{key}._target_: got {target!r}, which makes no part of a net; allowed: {rooms}, or trust=[…]"
            )
    for key, spec in (
        ("arch", config.arch),
        ("optimizer", config.optimizer),
        ("data", config.data),
        ("preprocess", config.preprocess),
        ("initializer.default", config.initializer.default),
    ):
        if TARGET not in spec:
            raise ConfigError(f"{key}._target_: names nothing to build; choose a file of conf/{key.split('.')[0]}/")
    for key, spec, filled in (
        ("arch", config.arch, 2),
        ("data", config.data, 0),
        ("preprocess", config.preprocess, 2),
    ):
        if spec[TARGET].startswith("harness."):
            spec.update(_typed_arguments(key, spec, filled))
    for name in ("dropout", "batch_norm"):
        if (value := getattr(config.regularizer, name)) and not has_place(config.arch, name):
            raise ConfigError(f"regularizer.{name}: got {value}, but {config.arch[TARGET]} has no place for it")


def _is_part_of_nets(target: str) -> bool:
    """Whether it lies where layers, initializers and the like do; what it names in ours must be ours."""
    package, *path = target.split(".")
    *rooms, name = path or [""]
    if not rooms or rooms[0] not in ROOMS[package] or any(part.startswith("_") for part in path):
        return False
    if package == "keras":
        return name not in ("deserialize", "serialize", "get")
    return str(getattr(locate(target), "__module__", "")).startswith("harness.")


def specs(node: Any, key: str) -> Iterator[tuple[str, Spec]]:
    """Every mapping with a `_target_` below `node`, with its dotted key."""
    if isinstance(node, Mapping):
        if TARGET in node:
            yield key, dict(node)
        for name, child in node.items():
            yield from specs(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for position, child in enumerate(node):
            yield from specs(child, f"{key}.{position}")


def has_place(spec: Spec, argument: str) -> bool:
    """Whether what the spec names takes this argument."""
    return argument in parameters(spec[TARGET])


def _typed_arguments(key: str, spec: Spec, filled: int) -> Spec:
    """The spec's arguments checked against the annotations of a function of ours, its defaults filled in.

    The first `filled` parameters are the harness's to fill, not the config's.
    """
    schema = _schema(spec[TARGET], filled)
    known = [each.name for each in dataclasses.fields(schema)]
    for name in spec:
        if name != TARGET and name not in known:
            listed = f" ({spec[TARGET].rpartition('.')[2]} takes {', '.join(known) or 'nothing'})"
            raise ConfigError(f"{key}.{name}: unknown key{hint(difflib.get_close_matches(name, known, 3))}{listed}")
    given = {name: value for name, value in spec.items() if name != TARGET}
    try:
        typed = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), given), throw_on_missing=True)
    except OmegaConfBaseException as error:
        path = str(error.full_key)
        if path.partition(".")[0].partition("[")[0] not in known:  # of a list in a list OmegaConf names the place only
            path = next((name for name, value in given.items() if not _takes(schema, name, value)), path)
            raise ConfigError(f"{key}.{path}: got {given.get(path)!r}; {first_line(error)}") from None
        raise ConfigError(f"{key}.{path}: {first_line(error)}") from None
    assert isinstance(typed, dict)
    return {TARGET: spec[TARGET]} | {str(name): value for name, value in typed.items()}


@cache
def _schema(target: str, filled: int) -> type:
    """The parameters of a function of ours but the first, as a dataclass: the arms of a sweep mostly share them."""
    ours = list(parameters(target).values())[filled:]
    return dataclasses.make_dataclass(
        "Arguments", [(p.name, _annotation(p.annotation), _default(p.default)) for p in ours]
    )


def _takes(schema: type, name: str, value: Any) -> bool:
    try:
        OmegaConf.merge(OmegaConf.structured(schema), {name: value})
    except OmegaConfBaseException:
        return False
    return True


def _annotation(annotation: Any) -> Any:
    """The annotation as OmegaConf can check it: a Literal's own check is left to the function."""
    if get_origin(annotation) is Literal:
        return str
    if get_origin(annotation) is Sequence:
        return list[get_args(annotation)[0]]  # type: ignore[misc]
    if get_origin(annotation) is UnionType:
        return Union[tuple(map(_annotation, get_args(annotation)))]  # noqa: UP007 (made at run time)
    return annotation


def _default(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return dataclasses.field(default="???")
    if isinstance(value, list | tuple):
        return dataclasses.field(default_factory=lambda: list(value))
    return dataclasses.field(default=value)
