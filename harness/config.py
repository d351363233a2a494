"""What a researcher may say: the typed schema, its checks, and the identity of an arm and of a run."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import checks, durations
from harness.checks import ConfigError as ConfigError
from harness.checks import Spec
from harness.checks import block_ids as block_ids
from harness.streams import Block
from harness.targets import TARGET, first_line, hint


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
    """When the state of a run is saved; `seconds` adds one whenever that long has passed since the last.

    `keep`: how many of the last ones stay | best: the last one, and that of the highest validation accuracy of all
    evaluations | all | none: not even those from which an interrupted run would go on.
    """

    at: list[Any] = field(default_factory=lambda: ["100 %"])
    seconds: float | None = 60.0
    keep: Any = 2


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
    """Keras layers applied in order to training images in [0, 1].

    In the files of the group they have names, so that several files add up; `resolve` makes them a plain list.
    """

    layers: Any = None


@dataclass
class Regularizer:
    """What keeps a net from learning its training examples by heart.

    l2: times the sum of the squared kernels is added to the loss.
    dropout, batch_norm: go where a net has a place; a net's own dropout stays where this is 0.
    label_smoothing: the share of the label that is spread over all classes, in training only (Szegedy et al. 2016).
    patience: evaluations without a smaller validation loss after which a run stops; it ends with the weights of the
        smallest, also when it never stops. null: the last step's weights.
    """

    l2: float = 0.0
    dropout: float = 0.0
    batch_norm: bool = False
    label_smoothing: float = 0.0
    patience: int | None = None


@dataclass
class Runtime:
    """Where and how fast; of these only `precision` is part of an arm's identity.

    `winograd`: on CPUs, 3x3 convolutions of small maps by fewer multiplications, in float32 and without XLA.
    Data sets of more than `stream_above_gib` stay on the host and are streamed to the device; 0: all of them.
    """

    device: str = "auto"
    replicas: int | None = None
    slots_per_gpu: int = 1
    threads: int = 1
    precision: str = "float32"
    xla: bool = False
    winograd: bool = True
    deterministic: bool = False
    stream_above_gib: float = 4.0


@dataclass
class Tracking:
    """Where runs are logged: an MLflow URI, or null for sqlite below `folder`.

    A store that is away is tried for `patience` seconds, while what happens is kept in `folder`/unwritten.
    `log_model`: of which runs the net is also logged as an MLflow model: best (of each arm, by the final validation
    accuracy) | all | none.
    """

    uri: str | None = None
    folder: str = "mlruns"
    patience: float = 300.0
    run_figures: bool = False
    log_model: str = "none"


@dataclass
class Sweep:
    """A named comparison. `baseline` is an arm's name; `swept` is filled in while the sweep is expanded.

    Each item of `arms` is a list of overrides that belong together, or {name: such a list}; they multiply with what is
    swept by `hydra.sweeper.params`. `family`: each arm against the baseline, or all_pairs. `margin`: differences of the
    test accuracy up to this count as equivalent. `correction`: of the family's p values, holm | max_t. `tune`: swept
    keys that are chosen for each arm by validation, before arms are compared on the test set. `search`: random where
    the values of the tuned keys were drawn independently from one distribution, grid otherwise.
    """

    name: str = "adhoc"
    question: str = ""
    baseline: str | None = None
    arms: list[Any] = field(default_factory=list)
    family: str = "baseline"
    margin: float | None = None
    correction: str = "holm"
    tune: list[str] = field(default_factory=list)
    search: str = "grid"
    swept: list[str] = field(default_factory=list)


@dataclass
class Config:
    """One arm of a comparison and how to run it.

    `vary`: the random streams that differ between blocks, the others being held at block 0's seeds; null: all.
    `confirm`: after the sweep, train what validation chose and the baseline once more on fresh blocks.
    """

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
    vary: list[str] | None = None
    root_seed: int = 0
    reports: str | None = "reports"
    confirm: bool = False
    dry_run: bool = False
    rerun: bool = False
    fail_fast: bool = False
    resume_from: str | None = None
    trust: list[str] = field(default_factory=list)


ConfigStore.instance().store(name="schema", node=Config)
# Hydra copies its config sources, and with them the one store, at each composition and for each group that it lists;
# the copies only read it. Copying it took more than half of the time of --help.
ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]

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
        "confirm",
        "dry_run",
        "rerun",
        "fail_fast",
        "resume_from",
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
    confirms: bool = False  # on fresh blocks, after the sweep: never taken for one of the sweep's own
    path_counts: bool = False  # in a sweep over files of data, which nothing else tells apart before they are read

    @cached_property
    def key(self) -> str:
        """sha256 (16 hex characters) of the resolved config without what `NOT_IDENTITY` names."""
        content = dataclasses.asdict(self.config)
        content["precision"] = self.config.runtime.precision
        for path in NOT_IDENTITY:
            if path == "data.path" and self.path_counts:
                continue
            node, _, leaf = path.rpartition(".")
            (content[node] if node else content).pop(leaf, None)
        if self.config.vary is None:
            del content["vary"]
        if self.confirms:
            content["confirms"] = True
        return _digest(content)

    def on(self, block: Block) -> Block:
        """The block as this arm runs it: streams that it does not vary have block 0's seeds."""
        held = Block.of(0, self.config.root_seed)
        return block if self.config.vary is None else block.varying(self.config.vary, held)

    def run_key(self, block: Block, data_digest: str) -> str:
        """The identity of the arm's run on a block: (arm, seeds of the streams, digest of the arrays).

        With `vary` also the block's number, as blocks may then have the same seeds: what differs is the numerics. Where
        the number of draws says how many examples one of them has, and which, also that.
        """
        number = [] if self.config.vary is None else [block.id]
        draw = self.config.draw
        shared_out = draw.scheme == "disjoint" or (draw.scheme == "subsample" and draw.examples is None)
        parts = [f"{number_of_draws(self.config)} draws"] if shared_out else []
        return _digest([self.key, self.on(block).seeds, data_digest, *number, *parts])


def number_of_draws(config: Config) -> int:
    """How many different draws of the training data the blocks of a config make."""
    return config.draws if config.draws is not None else max(block_ids(config.seeds)) + 1


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def resolve(composed: DictConfig) -> Config:
    """A composed config, which is used up, as checked dataclasses.

    Raises:
        ConfigError: an unknown key, a missing value, a value of the wrong type or out of range.
    """
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
    layers = config.augment.layers or []
    config.augment.layers = list(layers.values()) if isinstance(layers, Mapping) else layers
    if not isinstance(config.augment.layers, list):
        raise ConfigError(f"augment.layers: got {config.augment.layers!r}; allowed: a list, or names with layers")
    # OmegaConf adds keys to an empty mapping, not to null; both mean that nothing is named.
    config.learning_rate.schedule = config.learning_rate.schedule or None
    for kind in ("conv", "dense", "output"):
        setattr(config.initializer, kind, getattr(config.initializer, kind) or None)
    if config.draw.scheme is None:
        config.draw.scheme = "all" if config.draws is None else "disjoint"
    checks.check_values(config)
    checks.check_targets(config)
    return config


def stored(text: str) -> Config:
    """The config that a run keeps as YAML.

    Raises:
        ConfigError: it is not of this version.
    """
    return resolve(OmegaConf.merge(OmegaConf.structured(Config), yaml.safe_load(text)))  # type: ignore[arg-type]


def flat(node: Any, prefix: str = "") -> dict[str, object]:
    """Nested mappings as dotted keys; lists stay whole."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    leaves: dict[str, object] = {}
    for name, value in node.items():
        leaves |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return leaves


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
