"""What a researcher may say: the typed schema, its checks, and the identity of an arm and of a run."""

import dataclasses
import difflib
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import durations
from harness.streams import Block
from harness.targets import TARGET, first_line, hint, locate

Spec = dict[str, Any]
TRUSTED = ("keras.", "harness.")


class ConfigError(ValueError):
    """A config that cannot be run, in one line: the key, the value seen, what is allowed."""


@dataclass
class Schedule:
    """Moments of a training: at these, and every so often. Durations as in `harness.durations`."""

    at: list[Any] = field(default_factory=list)
    every: Any = None


@dataclass
class Evaluate(Schedule):
    """When loss and accuracy are measured; before the last time, on at most `examples` of each part (fixed, spread)."""

    at: list[Any] = field(default_factory=lambda: [0, "5 %"])
    every: Any = "25 %"
    examples: int = 1000


@dataclass
class Probe(Schedule):
    """When per-layer statistics are taken, and on how many fixed training examples."""

    at: list[Any] = field(default_factory=lambda: [0, durations.DENSE_EARLY, "100 %"])
    examples: int = 64


@dataclass
class Checkpoint(Schedule):
    """When the state of a run is saved; `seconds` adds one whenever that long has passed since the last."""

    at: list[Any] = field(default_factory=lambda: ["100 %"])
    seconds: float | None = 60.0
    keep: int = 2


@dataclass
class Train:
    """The training of one run. `steps`, where given, goes before `epochs`.

    `eval_examples` of the training examples measure the fit; null: as many as there are test examples, 2,000 at most.
    """

    steps: int | None = None
    epochs: float = 20.0
    batch_size: int = 100
    val_share: float = 0.1
    eval_examples: int | None = None
    evaluate: Evaluate = field(default_factory=Evaluate)
    probe: Probe = field(default_factory=Probe)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)


@dataclass
class Draw:
    """Which training examples a block sees: all, or `examples` of them (see `harness.data.draws.draw`).

    scheme: all | disjoint | subsample | bootstrap; null: all without `draws`, disjoint with it.
    """

    scheme: str | None = None
    examples: int | None = None


@dataclass
class Initializer:
    """Schemes of the initial weights: `output` before `conv`/`dense` before `default`; `bias` for all biases."""

    default: Spec = field(default_factory=dict)
    conv: Spec | None = field(default_factory=dict)
    dense: Spec | None = field(default_factory=dict)
    output: Spec | None = field(default_factory=dict)
    bias: Spec = field(default_factory=lambda: {TARGET: "keras.initializers.Zeros"})


@dataclass
class LearningRate:
    """The base rate, a linear warm-up to it, and what Keras schedule follows (its durations as in `durations`)."""

    value: float = 0.001
    warmup: Any = 0
    schedule: Spec | None = field(default_factory=dict)


@dataclass
class Augment:
    """Keras layers applied in order to training images in [0, 1]."""

    layers: list[Any] = field(default_factory=list)


@dataclass
class Regularizer:
    """`l2` times the sum of the squared kernels is added to the loss; `dropout` goes where a net has a place."""

    l2: float = 0.0
    dropout: float = 0.0


@dataclass
class Runtime:
    """Where and how fast; of these only `precision` is part of an arm's identity."""

    device: str = "auto"
    replicas: int | None = None
    slots_per_gpu: int = 1
    threads: int = 1
    precision: str = "float32"
    xla: bool = False
    deterministic: bool = False


@dataclass
class Tracking:
    """Where runs are logged: an MLflow URI, or null for sqlite below `folder`."""

    uri: str | None = None
    folder: str = "mlruns"
    run_figures: bool = False


@dataclass
class Sweep:
    """A named comparison. `baseline` is an arm's name; `swept` is filled in while the sweep is expanded.

    Each item of `arms` is a list of overrides that belong together, or {name: such a list}; they multiply with what is
    swept by `hydra.sweeper.params`. `family`: each arm against the baseline, or all_pairs. `margin`: differences of the
    test accuracy up to this count as equivalent. `correction`: of the family's p values, holm | max_t. `tune`: swept
    keys that are chosen for each arm by validation, before arms are compared on the test set.
    """

    name: str = "adhoc"
    question: str = ""
    baseline: str | None = None
    arms: list[Any] = field(default_factory=list)
    family: str = "baseline"
    margin: float | None = None
    correction: str = "holm"
    tune: list[str] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)


@dataclass
class Config:
    """One arm of a comparison and how to run it."""

    arch: Spec = field(default_factory=dict)
    initializer: Initializer = field(default_factory=Initializer)
    optimizer: Spec = field(default_factory=dict)
    learning_rate: LearningRate = field(default_factory=LearningRate)
    augment: Augment = field(default_factory=Augment)
    preprocess: Spec = field(default_factory=dict)
    regularizer: Regularizer = field(default_factory=Regularizer)
    data: Spec = field(default_factory=dict)
    draw: Draw = field(default_factory=Draw)
    train: Train = field(default_factory=Train)
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Tracking = field(default_factory=Tracking)
    sweep: Sweep = field(default_factory=Sweep)
    seeds: Any = 5
    draws: int | None = None
    root_seed: int = 0
    reports: str = "reports"
    dry_run: bool = False
    rerun: bool = False
    fail_fast: bool = False
    trust: list[str] = field(default_factory=list)


ConfigStore.instance().store(name="schema", node=Config)

# Below these, the keys are the arguments of what `_target_` names.
FREE = (
    *("arch", "optimizer", "data", "preprocess", "learning_rate.schedule"),
    *(f"initializer.{role}" for role in ("default", "conv", "dense", "output", "bias")),
)
# What says where, when or how much to run and log, but not what is trained.
NOT_IDENTITY = (
    *(
        "runtime",
        "tracking",
        "sweep",
        "seeds",
        "draws",
        "root_seed",
        "reports",
        "dry_run",
        "rerun",
        "fail_fast",
        "trust",
    ),
    *("data.path", "train.checkpoint"),
)


@dataclass(frozen=True)
class Arm:
    """One row of a comparison: a checked config, named by what the sweep changes."""

    name: str
    config: Config
    choices: dict[str, str] = field(default_factory=dict)  # config group -> the file chosen

    @cached_property
    def key(self) -> str:
        """sha256 (16 hex characters) of the resolved config without what `NOT_IDENTITY` names."""
        content = dataclasses.asdict(self.config)
        content["precision"] = self.config.runtime.precision
        for path in NOT_IDENTITY:
            node, _, leaf = path.rpartition(".")
            (content[node] if node else content).pop(leaf, None)
        return _digest(content)

    def run_key(self, block: Block, data_digest: str) -> str:
        """The identity of the arm's run on a block: (arm, seeds of the streams, digest of the arrays)."""
        return _digest([self.key, block.seeds, data_digest])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def resolve(composed: DictConfig) -> Config:
    """A composed config as checked dataclasses.

    Raises:
        ConfigError: an unknown key, a missing value, a value of the wrong type or out of range.
    """
    composed = composed.copy()
    OmegaConf.set_struct(composed, False)
    composed.pop("hydra", None)
    try:
        _refuse_unknown(composed, Config, "")
        if missing := sorted(OmegaConf.missing_keys(composed)):
            raise ConfigError(f"{missing[0]}: needs a value; give {missing[0]}=…")
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {first_line(error)}") from None
    assert isinstance(config, Config)
    # OmegaConf adds keys to an empty mapping, not to null; both mean that nothing is named.
    config.learning_rate.schedule = config.learning_rate.schedule or None
    for kind in ("conv", "dense", "output"):
        setattr(config.initializer, kind, getattr(config.initializer, kind) or None)
    if config.draw.scheme is None:
        config.draw.scheme = "all" if config.draws is None else "disjoint"
    _check_values(config)
    _check_targets(config)
    return config


def block_ids(seeds: object) -> list[int]:
    """`seeds` as a list: 5 means 0 to 4; a list is taken as it is.

    Raises:
        ConfigError: neither a count of at least 1 nor distinct whole numbers from 0 up.
    """
    ids = list(range(seeds)) if type(seeds) is int else seeds
    listed = isinstance(ids, list) and len(ids) > 0
    if (
        not isinstance(ids, list)
        or not listed
        or not all(type(i) is int and i >= 0 for i in ids)
        or len(set(ids)) < len(ids)
    ):
        raise ConfigError(f"seeds: got {seeds!r}; allowed: a count from 1 up, or a list of different numbers >= 0")
    return ids


def known_keys(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema."""
    for each in dataclasses.fields(schema):
        yield prefix + each.name
        if isinstance(each.type, type) and dataclasses.is_dataclass(each.type):
            yield from known_keys(each.type, f"{prefix}{each.name}.")


def unknown_key(key: str) -> str:
    """The one line for a key that does not exist: with the nearest names, or all the names beside it."""
    node, _, leaf = key.rpartition(".")
    everywhere = list(known_keys())

    def closeness(known: str) -> float:
        pairs = ((key, known), (leaf, known.rpartition(".")[2]))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    near = [known for known in sorted(everywhere, key=closeness, reverse=True) if closeness(known) > 0.6]
    beside = [known for known in everywhere if known.rpartition(".")[0] == node]
    listed = f" (allowed here: {', '.join(beside)})" if beside and not near else ""
    return f"{key}: unknown key{hint(near[:3])}{listed}"


def _refuse_unknown(node: DictConfig, schema: type, prefix: str) -> None:
    fields = {each.name: each.type for each in dataclasses.fields(schema)}
    for name in map(str, node):
        kind = fields.get(name)
        if name not in fields:
            raise ConfigError(unknown_key(f"{prefix}{name}"))
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not OmegaConf.is_missing(node, name):
            _refuse_unknown(node[name], kind, f"{prefix}{name}.")


def _check_values(config: Config) -> None:
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
            train.checkpoint.keep >= 1,
            "a whole number from 1 up",
        ),
        (
            "train.checkpoint.seconds",
            train.checkpoint.seconds,
            train.checkpoint.seconds is None or train.checkpoint.seconds > 0,
            "a number above 0, or null",
        ),
        ("draws", config.draws, config.draws is None or config.draws >= 1, "a whole number from 1 up, or null"),
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
        (
            "draw.examples",
            config.draw.examples,
            config.draw.examples is None or config.draw.examples >= 1,
            "1 up, or null",
        ),
        ("sweep.family", config.sweep.family, config.sweep.family in ("baseline", "all_pairs"), "baseline, all_pairs"),
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
        ("tracking.uri", config.tracking.uri, config.tracking.uri != "", "an MLflow URI, or null"),
        ("sweep.name", config.sweep.name, _is_plain_name(config.sweep.name), "letters, digits, _ . and -"),
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
                durations.check(duration)
                if key.endswith("every") and str(duration).split()[0].strip("%") in ("0", "0.0"):
                    raise ValueError(f"got {duration!r}; allowed: a duration above 0, or null for never")
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from None


def _is_plain_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and all(c.isalnum() or c in "_.-" for c in name)


def _check_targets(config: Config) -> None:
    trusted = (*TRUSTED, *(f"{module}." for module in config.trust))
    for key, spec in specs(dataclasses.asdict(config), ""):
        target = spec[TARGET]
        if not isinstance(target, str) or not target.startswith(trusted):
            allowed = ", ".join(f"{prefix}…" for prefix in trusted)
            raise ConfigError(f"{key}._target_: got {target!r}; allowed: {allowed}, or name its module in trust=[…]")
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
    if config.regularizer.dropout and not has_place(config.arch, "dropout"):
        raise ConfigError(
            f"regularizer.dropout: got {config.regularizer.dropout}, but {config.arch[TARGET]} has no place for it"
        )


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
    return argument in inspect.signature(locate(spec[TARGET])).parameters


def _typed_arguments(key: str, spec: Spec, filled: int) -> Spec:
    """The spec's arguments checked against the annotations of a function of ours, its defaults filled in.

    The first `filled` parameters are the harness's to fill, not the config's.
    """
    parameters = list(inspect.signature(locate(spec[TARGET])).parameters.values())[filled:]
    known = [p.name for p in parameters]
    for name in spec:
        if name != TARGET and name not in known:
            listed = f" ({spec[TARGET].rpartition('.')[2]} takes {', '.join(known) or 'nothing'})"
            raise ConfigError(f"{key}.{name}: unknown key{hint(difflib.get_close_matches(name, known, 3))}{listed}")
    schema = dataclasses.make_dataclass(
        "Arguments", [(p.name, _annotation(p.annotation), _default(p.default)) for p in parameters]
    )
    given = {name: value for name, value in spec.items() if name != TARGET}
    try:
        typed = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), given), throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}.{error.full_key}: {first_line(error)}") from None
    assert isinstance(typed, dict)
    return {TARGET: spec[TARGET]} | {str(name): value for name, value in typed.items()}


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
