"""What a researcher may say: composition, checks, and the identity of an arm."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from harness import composition, sweep
from harness.config import Arm, Config, ConfigError, block_ids, resolve
from harness.streams import Block

pytestmark = pytest.mark.usefixtures("slots")

CONF = composition.config_folder()
GROUPS = {
    group.name: sorted(file.stem for file in group.glob("*.yaml"))
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name != "hydra"
}
Compose = Callable[..., tuple[Arm, ...]]
ConfigOf = Callable[..., Config]
INIT_SCHEMES = ["normal", "small_normal", "truncated_normal", "glorot", "he", "lecun", "orthogonal", "he_glorot"]


@cache
def composed() -> DictConfig:
    """The default arm as Hydra composes it; from here on a change of a value takes a millisecond."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("config")


def changed(override: str) -> Config:
    """The default arm with one value changed, resolved and checked."""
    key, _, value = override.partition("=")
    config = composed().copy()
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, key, yaml.safe_load(value))
    return resolve(config)


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    """The one line with which a command line is refused."""
    with pytest.raises(ValueError) as error:
        sweep.Plan(composition.compose(overrides, config_dir and str(config_dir)).arms)
    message = str(error.value)
    assert "\n" not in message
    return message


# Composition


def test_the_groups_are_those_of_the_documentation() -> None:
    assert {group: GROUPS[group] for group in ("arch", "initializer", "optimizer", "learning_rate", "augment")} == {
        "arch": [
            *("alexnet", "cnt", "cnt_regularized", "convnet", "lenet5", "lenet5_relu", "mlp"),
            *("resnet20", "softmax", "vgg16", "vgg19", "vgg_mnist"),
        ],
        "initializer": sorted(INIT_SCHEMES),
        "optimizer": ["adagrad", "adam", "adamw", "momentum", "nesterov", "rmsprop", "sgd"],
        "learning_rate": ["constant", "cosine", "exponential", "step"],
        "augment": ["cnt", "color", "crop", "flip", "none", "rotate", "shift"],
    }
    assert {group: GROUPS[group] for group in ("preprocess", "regularizer", "data")} == {
        "preprocess": ["mean_image", "scale", "standardize"],
        "regularizer": ["batch_norm", "dropout", "early_stopping", "l2", "label_smoothing", "none"],
        "data": [
            "cifar10",
            "cifar100",
            "digits",
            "fashion_mnist",
            "flowers17",
            "image_folder",
            "mnist",
            "npz",
            "spiral",
        ],
    }


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names if group != "sweep"]
)
def test_every_file_of_every_group_composes(
    group: str, name: str, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    needed = {"npz": ["data.path=some.npz"], "image_folder": ["data.path=some"]}.get(name, [])
    plus = "+" if group == "debug" else ""
    arms = compose(f"{plus}{group}={name}", *needed)
    assert sweep.Plan(arms).arms == arms
    if not plus:
        assert arms[0].choices.get(group, name) == name


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_file_is_short_and_opens_with_what_it_is(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert 2 <= len(lines) <= (25 if file.parent.name == "sweep" else 15)
    assert any(line.startswith("# ") and not line.startswith("# @package") for line in lines[:2])


def test_one_command_line_without_a_sweep_is_one_arm(compose: Compose) -> None:
    (arm,) = compose()
    assert arm.name == "default"
    assert arm.config.sweep.name == "adhoc"
    assert (arm.choices["arch"], arm.choices["optimizer"], arm.choices["data"]) == ("convnet", "adam", "digits")


def test_a_sweep_needs_no_multirun_flag(compose: Compose) -> None:
    arms = compose("+sweep=init_schemes")
    assert [arm.name for arm in arms] == [f"initializer={name}" for name in INIT_SCHEMES]
    assert {arm.config.sweep.baseline for arm in arms} == {"initializer=glorot"}
    assert {arm.config.sweep.name for arm in arms} == {"init_schemes"}
    assert [arm.choices["initializer"] for arm in arms] == INIT_SCHEMES


@pytest.mark.parametrize(
    "words",
    [
        ["arch=mlp", "arch.widths=[3]", "sweep.question=why"],
        ["optimizer=sgd,adam", "learning_rate.value=0.1,0.2", "initializer=he", "+debug=smoke"],
        ["+sweep=depth", "seeds=3"],
    ],
)
def test_what_is_shared_between_jobs_changes_nothing_of_what_hydra_composes_for_each(words: list[str]) -> None:
    jobs = [list(job) for job in composition.compose(words).jobs]
    with composition.loaded([composition.as_hydra(word) for word in words], None) as (loader, master):
        shared = list(composition.jobs_composed(loader, master, jobs))
        alone = [loader.load_sweep_config(master, job) for job in jobs]
    assert len(shared) == len(alone) > 0
    for (one, choices), other in zip(shared, alone, strict=True):
        by_hydra = {group: str(choice) for group, choice in other.hydra.runtime.choices.items() if choice}
        assert choices == {group: choice for group, choice in by_hydra.items() if not group.startswith("hydra/")}
        ours = [key for key in one if key != "hydra"]
        assert OmegaConf.masked_copy(one, ours) == OmegaConf.masked_copy(other, ours)


def test_two_swept_keys_make_their_product_named_by_both(compose: Compose) -> None:
    arms = compose("initializer=he,glorot", "learning_rate.value=0.1,0.01")
    assert [arm.name for arm in arms] == [
        "initializer=he,learning_rate.value=0.1",
        "initializer=he,learning_rate.value=0.01",
        "initializer=glorot,learning_rate.value=0.1",
        "initializer=glorot,learning_rate.value=0.01",
    ]
    assert [arm.config.learning_rate.value for arm in arms] == [0.1, 0.01, 0.1, 0.01]


def test_what_is_not_swept_is_in_no_name(compose: Compose) -> None:
    assert [arm.name for arm in compose("optimizer=sgd", "initializer=he,glorot")] == [
        "initializer=he",
        "initializer=glorot",
    ]


def test_the_command_line_narrows_a_swept_key(compose: Compose) -> None:
    arms = compose("+sweep=init_schemes", "initializer=he,glorot")
    assert [arm.name for arm in arms] == ["initializer=he", "initializer=glorot"]


def test_the_command_line_replaces_a_swept_key(compose: Compose) -> None:
    (arm,) = compose("+sweep=init_schemes", "initializer=he", "sweep.baseline=null")
    assert arm.name == "initializer=he"


def test_a_swept_key_can_be_dropped(compose: Compose) -> None:
    (arm,) = compose("+sweep=init_schemes", "~hydra.sweeper.params.initializer", "sweep.baseline=null")
    assert (arm.name, arm.choices["initializer"], arm.choices["optimizer"]) == ("default", "he_glorot", "sgd")


def test_the_command_line_goes_before_the_sweep_file(compose: Compose) -> None:
    arms = compose("+sweep=init_schemes", "optimizer=adam", "seeds=10")
    assert {arm.config.optimizer["_target_"] for arm in arms} == {"keras.optimizers.Adam"}
    assert {arm.config.seeds for arm in arms} == {10}


@pytest.mark.parametrize("written", ["sweep.baseline=initializer=he", "sweep.baseline='initializer=he'"])
def test_a_baseline_with_an_equals_sign_needs_no_quotes(written: str, compose: Compose) -> None:
    arms = compose("initializer=he,glorot", written)
    assert sweep.Plan(arms).config.sweep.baseline == "initializer=he"


def test_a_question_can_be_any_text(config_of: ConfigOf) -> None:
    question = "Is 'he' better, or = <b>lécun</b>?"
    assert config_of(f"sweep.question={question}").sweep.question == question


def test_a_baseline_of_two_keys_needs_no_quotes(compose: Compose) -> None:
    name = "initializer=he,optimizer=sgd"
    arms = compose("initializer=he,glorot", "optimizer=sgd,adam", f"sweep.baseline={name}")
    assert sweep.Plan(arms).config.sweep.baseline == name == arms[0].name


@pytest.mark.parametrize("plus", ["", "+"])
def test_an_argument_that_a_file_does_not_name_can_be_given_with_or_without_plus(
    plus: str, config_of: ConfigOf
) -> None:
    assert config_of(f"{plus}optimizer.beta_1=0.5").optimizer["beta_1"] == 0.5
    assert config_of(f"{plus}arch.dropout=0.5").arch["dropout"] == 0.5
    assert config_of(f"{plus}preprocess.eps=0.5").preprocess["eps"] == 0.5


def test_such_an_argument_can_be_swept(compose: Compose) -> None:
    arms = compose("optimizer.beta_1=0.5,0.9")
    assert [(arm.name, arm.config.optimizer["beta_1"]) for arm in arms] == [
        ("optimizer.beta_1=0.5", 0.5),
        ("optimizer.beta_1=0.9", 0.9),
    ]


def test_a_schedule_and_an_output_scheme_can_be_named_where_the_file_has_none(config_of: ConfigOf) -> None:
    config = config_of(
        "initializer=he",
        "initializer.output._target_=keras.initializers.Zeros",
        "learning_rate.schedule._target_=keras.optimizers.schedules.PolynomialDecay",
        "learning_rate.schedule.decay_steps=10",
    )
    assert config.initializer.output == {"_target_": "keras.initializers.Zeros"}
    assert config.learning_rate.schedule == {
        "_target_": "keras.optimizers.schedules.PolynomialDecay",
        "decay_steps": 10,
    }


def test_a_schedule_can_be_taken_away(compose: Compose) -> None:
    (plain,) = compose("learning_rate=constant")
    (without,) = compose("learning_rate=exponential", "learning_rate.schedule=null")
    assert without.config.learning_rate.schedule is None
    assert without.key == plain.key


def test_the_learning_rate_is_the_optimizers_unless_it_is_given(config_of: ConfigOf) -> None:
    assert config_of("optimizer=sgd").learning_rate.value == 0.01
    assert config_of("optimizer=adam", "learning_rate.value=0.5").learning_rate.value == 0.5


def test_defaults_of_our_own_functions_are_filled_in(config_of: ConfigOf) -> None:
    assert config_of("preprocess=standardize").preprocess["eps"] == 1e-3
    assert config_of("arch=mlp").arch["dropout"] == 0.0


# A user's own files


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a sweep and an initializer of the user's, the latter by `_target_`."""
    for group in ("sweep", "initializer"):
        (tmp_path / group).mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "# @package _global_\nsweep: {name: mine, question: 'Does it?'}\n"
        "hydra: {sweeper: {params: {initializer: 'uniform,he', optimizer.beta_1: '0.5,0.9'}}}\nseeds: [3, 0]\n"
    )
    (tmp_path / "initializer" / "uniform.yaml").write_text(
        "default: {_target_: keras.initializers.RandomUniform, minval: -0.5, maxval: 0.5}\n"
    )
    return tmp_path


def test_a_folder_of_the_users_adds_a_sweep_and_an_initializer(own: Path, compose: Compose) -> None:
    arms = compose("+sweep=mine", config_dir=str(own))
    assert [arm.name for arm in arms][:2] == [
        "initializer=uniform,optimizer.beta_1=0.5",
        "initializer=uniform,optimizer.beta_1=0.9",
    ]
    assert arms[0].config.initializer.default["maxval"] == 0.5
    assert arms[0].config.seeds == [3, 0]


def test_the_users_files_are_checked_like_ours(own: Path) -> None:
    (own / "initializer" / "uniform.yaml").write_text("defualt: {_target_: keras.initializers.RandomUniform}\n")
    assert "defualt" in refusal("initializer=uniform", config_dir=own)


def test_a_file_that_is_no_yaml_is_refused_with_its_place(own: Path) -> None:
    (own / "initializer" / "uniform.yaml").write_text("default: {_target_: [\n")
    message = refusal("initializer=uniform", config_dir=own)
    assert "uniform.yaml" in message
    assert "line 2" in message


def test_a_folder_that_is_not_there_is_refused() -> None:
    assert refusal(config_dir=Path("nowhere")) == "--config-dir=nowhere: no such folder"


# What is refused


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("epocs", "did you mean train.epochs"),
        ("train.epocs", "did you mean train.epochs"),
        ("swep", "did you mean sweep"),
        ("seed", "did you mean seeds"),
        ("train.checkpoint.evry", "did you mean train.checkpoint.every"),
        ("train.probe.exmples", "did you mean train.probe.examples"),
        (
            "arch.widht",
            "(convnet takes blocks, kernel_size, padding, stride, pooling, dense, activation, batch_norm, dropout)",
        ),
        ("initializer.ouput", "did you mean initializer.output"),
        ("learning_rate.vlaue", "did you mean learning_rate.value"),
        ("augment.layer", "did you mean augment.layers"),
        ("preprocess.pre", "did you mean per"),
        ("regularizer.l1", "did you mean regularizer.l2"),
        ("data.test_shar", "did you mean test_share"),
        ("runtime.thread", "did you mean runtime.threads"),
        ("tracking.url", "did you mean tracking.uri"),
        ("sweep.nam", "did you mean sweep.name"),
        ("qqqqq", "allowed here: arch, initializer, optimizer,"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_names(key: str, nearest: str) -> None:
    message = refusal(f"+{key}=3")
    assert message.startswith(f"{key}: unknown key")
    assert nearest in message


@pytest.mark.parametrize("key", ["epocs", "train.epocs", "arch.widht", "data.test_shar", "sweep.nam"])
def test_a_plus_makes_no_difference_to_an_unknown_key(key: str) -> None:
    assert refusal(f"{key}=3") == refusal(f"+{key}=3") == refusal(f"++{key}=3")


def test_an_unknown_group_is_refused() -> None:
    assert "did you mean sweep" in refusal("+swep=init_schemes")


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in ("sweep", "debug")])
def test_an_unknown_file_is_refused_with_those_there_are(group: str) -> None:
    message = refusal(f"{group}=nosuch")
    assert f"Could not find '{group}/nosuch'" in message
    assert " ".join(GROUPS[group]) in message


@pytest.mark.parametrize("group", ["sweep", "debug"])
def test_a_group_that_wants_a_plus_says_so(group: str) -> None:
    assert f"use +{group}={GROUPS[group][0]}" in refusal(f"{group}={GROUPS[group][0]}")


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=1.5",
        "train.steps=abc",
        "train.batch_size=ten",
        "learning_rate.value=high",
        "learning_rate.value=null",
        "regularizer.l2=abc",
        "arch.kernel_size=3.5",
        "arch.blocks=3",
        "data.test_share=abc",
        "runtime.xla=maybe",
        "dry_run=perhaps",
        "root_seed=abc",
        "trust=os",
        "train.evaluate.at=5",
        "train=null",
        "augment.layers=3",
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_key(override: str) -> None:
    assert override.partition("=")[0] in refusal(override)


@pytest.mark.parametrize(
    ("override", "seen"),
    [
        ("train.steps=0", "0"),
        ("train.steps=-1", "-1"),
        ("train.epochs=0", "0.0"),
        ("train.epochs=nan", "nan"),
        ("train.epochs=inf", "inf"),
        ("train.batch_size=0", "0"),
        ("train.val_share=1", "1.0"),
        ("train.val_share=-0.1", "-0.1"),
        ("train.val_share=nan", "nan"),
        ("train.eval_examples=0", "0"),
        ("train.probe.examples=0", "0"),
        ("train.checkpoint.keep=0", "0"),
        ("train.checkpoint.seconds=0", "0.0"),
        ("train.evaluate.every=0", "0"),
        ("train.evaluate.every=0 %", "'0 %'"),
        ("train.evaluate.every=5 parsecs", "'5 parsecs'"),
        ("train.probe.at=[-1]", "-1"),
        ("train.checkpoint.every=-1", "-1"),
        ("learning_rate.value=-0.1", "-0.1"),
        ("learning_rate.value=nan", "nan"),
        ("learning_rate.value=inf", "inf"),
        ("learning_rate.warmup=-3", "-3"),
        ("regularizer.l2=-1", "-1.0"),
        ("regularizer.l2=inf", "inf"),
        ("regularizer.dropout=1", "1.0"),
        ("regularizer.dropout=-0.5", "-0.5"),
        ("runtime.device=tpu", "'tpu'"),
        ("runtime.precision=float16", "'float16'"),
        ("runtime.replicas=0", "0"),
        ("runtime.threads=0", "0"),
        ("runtime.slots_per_gpu=0", "0"),
        ("seeds=0", "0"),
        ("seeds=-1", "-1"),
        ("seeds=[]", "[]"),
        ("seeds=[1,1]", "[1, 1]"),
        ("seeds=[-1]", "[-1]"),
        ("seeds=1.5", "1.5"),
        ("seeds=true", "True"),
        ("seeds=null", "None"),
        ("seeds=abc", "'abc'"),
        ("sweep.name=a/b", "'a/b'"),
        ("sweep.search=bayes", "'bayes'"),
        ("sweep.name=..", "'..'"),
        ("sweep.name=''", "''"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(override: str, seen: str) -> None:
    with pytest.raises(ConfigError, match="allowed: ") as error:
        changed(override)
    assert str(error.value).startswith(f"{override.partition('=')[0]}: got {seen}")
    assert "\n" not in str(error.value)


def test_a_value_out_of_range_on_the_command_line_is_refused() -> None:
    assert refusal("train.val_share=1") == "train.val_share: got 1.0; allowed: 0 <= share < 1"


def test_a_negative_rate_of_the_optimizers_is_refused() -> None:
    assert refusal("optimizer.learning_rate=-1").startswith("learning_rate.value: got -1.0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer=[sgd,adam]"], "optimizer: got [sgd,adam]; allowed: one name, or names without brackets"),
        (["sweep.arms=[['regularizer=[l2,dropout]']]"], "regularizer: got [l2,dropout]; allowed: one name"),
        (
            ["learning_rate=0.1"],
            "learning_rate: got 0.1; allowed: constant, cosine, exponential, step; a number is learn",
        ),
        (
            ["optimizer=sgd,", "adam"],
            "optimizer=sgd,: cannot be read; allowed: optimizer=VALUE, values of several arms with",
        ),
        (["adam"], "adam: cannot be read; allowed: adam=VALUE"),
        (["arch.widths=[1,2"], "arch.widths=[1,2: cannot be read; allowed: "),
        (["sweep.arms=[['optimizer=,']]"], "optimizer=,: cannot be read; allowed: "),
        (["vary=init"], "vary: got init; allowed: a list: vary=[init]"),
        (["train.steps=50", "train.epochs=3"], "train.epochs: got 3, but train.steps=50 goes before it; add train.st"),
        (["+debug=smoke", "train.epochs=3"], "train.epochs: got 3, but train.steps=8 goes before it; add train.steps="),
        (
            ["learning_rate.value=0.01", "optimizer.learning_rate=0.5"],
            "optimizer.learning_rate: got 0.5 beside learning_rate.value=0.01; give the second alone",
        ),
    ],
)
def test_what_would_be_ignored_or_is_often_mistyped_is_refused_with_what_to_write(words: list[str], said: str) -> None:
    assert refusal(*words).startswith(said)


def test_epochs_count_where_steps_are_taken_back(compose: Compose) -> None:
    (arm,) = compose("+debug=smoke", "train.epochs=3", "train.steps=null")
    assert (arm.config.train.steps, arm.config.train.epochs) == (None, 3)


def test_a_missing_value_is_asked_for() -> None:
    assert refusal("data=npz") == "data.path: needs a value; give data.path=…"


def test_a_server_without_an_address_is_refused_with_the_variable() -> None:
    assert "MLFLOW_TRACKING_URI" in refusal("tracking=server")


@pytest.mark.parametrize("override", ["arch=null", "=3", "foo", "train..steps=3", "hydra/sweeper=nosuch"])
def test_what_hydra_cannot_read_is_refused_in_one_line(override: str) -> None:
    assert refusal(override)


@pytest.mark.parametrize("key", ["arch", "optimizer", "initializer.default", "preprocess", "data"])
def test_code_from_anywhere_is_refused(key: str) -> None:
    assert refusal(f"{key}._target_=os.system") == (
        f"{key}._target_: got 'os.system'; allowed: keras.…, harness.…, or name its module in trust=[…]"
    )


def test_code_nested_in_lists_is_refused_too() -> None:
    assert "augment.layers.0._target_: got 'os.system'" in refusal("augment.layers=[{_target_:os.system}]")


def test_a_module_is_allowed_by_trust(config_of: ConfigOf) -> None:
    config = config_of("optimizer._target_=collections.OrderedDict", "trust=[collections]")
    assert config.optimizer["_target_"] == "collections.OrderedDict"


def test_trust_in_a_module_is_no_trust_in_one_whose_name_it_begins() -> None:
    assert "allowed" in refusal("optimizer._target_=osx.system", "trust=[os]")


def test_dropout_where_a_net_has_no_place_is_refused() -> None:
    assert refusal("arch=softmax", "regularizer=dropout") == (
        "regularizer.dropout: got 0.5, but harness.models.architectures.softmax has no place for it"
    )


# The plan


def test_a_baseline_that_is_no_arm_is_refused_with_the_arms() -> None:
    message = refusal("initializer=he,glorot", "sweep.baseline=initializer=lecun")
    assert message.startswith("sweep.baseline: got 'initializer=lecun', no arm of the sweep; allowed: initializer=he, ")


def test_narrowing_a_sweep_below_its_baseline_is_refused() -> None:
    assert "sweep.baseline=null" in refusal("+sweep=init_schemes", "initializer=he,lecun")


@pytest.mark.parametrize(
    "override", ["initializer=he,he", "runtime.threads=1,2", "runtime.replicas=1,2", "train.checkpoint.keep=1,2"]
)
def test_arms_that_are_the_same_config_are_refused(override: str) -> None:
    assert "are the same config" in refusal(override)


@pytest.mark.parametrize("override", ["seeds=2,3", "root_seed=1,2", "tracking.folder=a,b", "reports=a,b"])
def test_arms_that_disagree_on_blocks_or_store_are_refused(override: str) -> None:
    assert refusal(override).startswith(f"{override.partition('=')[0].partition('.')[0]}: differs between arms")


def test_a_plan_knows_its_blocks(compose: Compose) -> None:
    plan = sweep.Plan(compose("seeds=[4,0]", "root_seed=9"))
    assert plan.blocks == (Block.of(4, 9), Block.of(0, 9))


def test_files_of_data_that_are_compared_are_part_of_their_arms(compose: Compose) -> None:
    both = sweep.Plan(compose("data=npz", "data.path=a.npz,b.npz")).arms
    alone = sweep.Plan(compose("data=npz", "data.path=a.npz")).arms
    assert len({each.key for each in both}) == 2
    assert alone[0].key not in {each.key for each in both}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arch.blocks=[4,4]", "arch.blocks: got [4, 4]; "),
        ("seeds=1000000000", "seeds: got 1000000000; allowed: a count from 1 to 100,000"),
        ("draws=100000000", "draws: got 100000000; allowed: a whole number from 1 up, 100,000 blocks in all"),
        ("train.evaluate.every=1-2-5", "train.evaluate.every: got '1-2-5'; allowed: "),
        ("learning_rate.warmup=1-2-5", "learning_rate.warmup: got '1-2-5'; allowed: "),
        ("sweep.name=a b", "sweep.name: got 'a b'; allowed: letters of any alphabet, digits, _ . -"),
        ("sweep.name=a,b", "sweep.name: got 'a,b'; "),
        ("sweep.name=../a", "sweep.name: got '../a'; "),
    ],
)
def test_a_refusal_names_the_key_and_the_value(override: str, said: str) -> None:
    assert refusal(override).startswith(said)


@pytest.mark.parametrize("override", ["sweep.name=bücher", "sweep.name=数字", "reports=/ä ö", "tracking.folder=é"])
def test_names_and_folders_in_any_alphabet_need_no_quotes(override: str, config_of: Callable[..., Config]) -> None:
    key, _, value = override.partition("=")
    config = config_of(override)
    assert {"sweep.name": config.sweep.name, "reports": config.reports, "tracking.folder": config.tracking.folder}[
        key
    ] == value


def test_block_ids_of_a_count_and_of_a_list() -> None:
    assert block_ids(3) == [0, 1, 2]
    assert block_ids([7, 0]) == [7, 0]
    with pytest.raises(ConfigError):
        block_ids((1, 2))


# Identity


def key_of(*overrides: str) -> str:
    (arm,) = composition.compose(overrides).arms
    return arm.key


@pytest.mark.parametrize(
    "override",
    [
        "runtime.device=cpu",
        "runtime.replicas=1",
        "runtime.threads=2",
        "runtime.xla=true",
        "runtime.winograd=false",
        "runtime.deterministic=true",
        "tracking.folder=elsewhere",
        "tracking.uri=sqlite:///x.db",
        "tracking.run_figures=true",
        "sweep.name=other",
        "sweep.question=why",
        "sweep.margin=0.01",
        "sweep.family=all_pairs",
        "seeds=9",
        "root_seed=1",
        "reports=there",
        "dry_run=true",
        "rerun=true",
        "fail_fast=true",
        "trust=[mine]",
        "train.checkpoint.every=10",
        "train.checkpoint.keep=5",
        "train.checkpoint.seconds=1",
    ],
)
def test_where_when_and_how_often_are_no_part_of_an_arm(override: str) -> None:
    assert Arm("any", changed(override)).key == Arm("any", changed("seeds=5")).key


def test_how_many_draws_there_are_is_no_part_of_an_arm_but_how_they_are_drawn_is() -> None:
    crossed = [key_of("draw.scheme=disjoint", "draw.examples=100", f"draws={draws}") for draws in (3, 4)]
    assert crossed[0] == crossed[1] != key_of()


def test_where_the_data_lie_is_no_part_of_an_arm() -> None:
    assert key_of("data=mnist", "data.path=a.npz") == key_of("data=mnist") != key_of("data=fashion_mnist")


@pytest.mark.parametrize(
    "override",
    [
        "arch.activation=tanh",
        "arch.blocks=[[64,64],[128,64]]",
        "initializer.default._target_=keras.initializers.Zeros",
        "initializer.output=null",
        "initializer.bias._target_=keras.initializers.Ones",
        "optimizer._target_=keras.optimizers.SGD",
        "optimizer.beta_1=0.8",
        "learning_rate.value=0.0011",
        "learning_rate.warmup=1",
        "learning_rate.schedule={_target_: keras.optimizers.schedules.CosineDecay}",
        "augment.layers=[{_target_: keras.layers.RandomFlip}]",
        "preprocess.per=pixel",
        "regularizer.l2=0.001",
        "regularizer.dropout=0.1",
        "data.test_share=0.3",
        "data.split_seed=1",
        "draw.scheme=bootstrap",
        "draw.examples=100",
        "train.steps=100",
        "train.epochs=21",
        "train.batch_size=99",
        "train.val_share=0.2",
        "train.eval_examples=10",
        "train.evaluate.every=10",
        "train.probe.examples=50",
        "runtime.precision=mixed_bfloat16",
    ],
)
def test_whatever_is_trained_or_measured_is_part_of_an_arm(override: str) -> None:
    assert Arm("any", changed(override)).key != Arm("any", changed("seeds=5")).key


def test_how_a_config_came_about_is_no_part_of_an_arm() -> None:
    in_a_sweep = {arm.name: arm.key for arm in composition.compose(["+sweep=init_schemes"]).arms}
    assert in_a_sweep["initializer=he"] == key_of("initializer=he", "optimizer=sgd")


def test_a_config_made_in_python_has_the_key_of_the_composed_one(config_of: ConfigOf) -> None:
    composed, made = config_of("~train"), config_of()
    assert Arm("a", composed).key == Arm("b", made).key


TRAINED = (
    *("arch", "initializer", "optimizer", "learning_rate", "augment"),
    *("preprocess", "regularizer", "data", "draw", "train"),
)


def test_the_key_of_an_arm_is_a_hash_of_what_is_trained_and_of_nothing_else() -> None:
    # A change of what goes in gives every stored run another identity: nothing could be resumed or skipped any more.
    everything = dataclasses.asdict(Config())
    content = {name: everything[name] for name in TRAINED} | {"precision": "float32"}
    del content["train"]["checkpoint"]
    text = json.dumps(content, sort_keys=True)
    assert Arm("any", Config()).key == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_run_is_its_arm_its_seeds_and_its_data() -> None:
    arm = Arm("any", Config())
    keys = {
        arm.run_key(Block.of(0), "abc"),
        arm.run_key(Block.of(1), "abc"),
        arm.run_key(Block.of(0, root=1), "abc"),
        arm.run_key(Block.of(0), "abd"),
        Arm("other", Config(train=Config().train.__class__(steps=3))).run_key(Block.of(0), "abc"),
    }
    assert len(keys) == 5
    assert arm.run_key(Block.of(0), "abc") == Arm("another name", Config()).run_key(Block.of(0), "abc")


@pytest.mark.parametrize(
    ("draw", "counts"),
    [
        (["draw.scheme=disjoint"], True),
        (["draw.scheme=subsample"], True),
        (["draw.scheme=subsample", "draw.examples=50"], False),
        (["draw.scheme=bootstrap"], False),
    ],
)
def test_the_number_of_draws_is_part_of_a_run_whose_examples_it_decides(
    draw: list[str], counts: bool, compose: Compose
) -> None:
    keys = {compose(*draw, f"draws={count}")[0].run_key(Block.of(0), "abc") for count in (2, 3)}
    assert len(keys) == 1 + counts


def test_the_resolved_config_is_plain_yaml(config_of: ConfigOf) -> None:
    from harness.runner import config_yaml

    written = yaml.safe_load(config_yaml(config_of("arch=mlp")))
    assert written["arch"]["widths"] == [500, 500]
    assert written["learning_rate"]["value"] == 0.001
