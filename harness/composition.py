"""Where Hydra meets the harness: from the words of a command line to arms."""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config import FREE, Arm, Config, ConfigError, flat, known_keys, resolve, unknown_key
from harness.targets import TargetError

PACKAGE = Path(__file__).resolve().parent
FREE_TEXT = ("sweep.baseline", "sweep.question", "sweep.name")
FREE_PATHS = ("tracking.folder", "tracking.uri", "reports", "data.path")  # may be swept where Hydra can read them
PLACE_OF_HYDRA = "place_of_hydra"
"""A config with an empty node for what our files say of Hydra."""
ConfigStore.instance().store(name=PLACE_OF_HYDRA, node={"hydra": {}})


def config_folder() -> Path:
    """The project's conf/ beside the package in a checkout, or the copy inside an installed package."""
    beside = PACKAGE.parent / "conf"
    return beside if (beside / "config.yaml").exists() else PACKAGE / "conf"


@dataclass(frozen=True)
class Composition:
    """The arms of a command line, and the launcher it asks for, with the overrides that make each arm's job."""

    arms: tuple[Arm, ...]
    launcher: str = "basic"
    jobs: tuple[tuple[str, ...], ...] = ()
    overrides: tuple[str, ...] = ()
    config_dir: str | None = None
    given: tuple[str, ...] = ()  # what the command line names: groups, then keys


def compose(overrides: Sequence[str], config_dir: str | None = None) -> Composition:
    """The arms that a command line means: what a sweep file and the command line sweep, as a product.

    Raises:
        ConfigError: Hydra or the schema refuses something.
    """
    overrides = [as_hydra(override) for override in overrides]
    parsed = _parsed(OverridesParser.create(), overrides)
    try:
        with loaded(overrides, config_dir) as (loader, master):
            given = _named(loader, parsed)
            if master.hydra.runtime.choices.get("hydra/sweeper") != "basic":
                raise ConfigError(
                    "hydra/sweeper: only basic is supported: arms must be known before any of them trains"
                )
            swept = dict(master.hydra.sweeper.params or {})
            listed = [as_hydra(f"{key}={value}") for key, value in swept.items()] + list(master.hydra.overrides.task)
            (jobs,) = BasicSweeper.split_arguments(OverridesParser.create(loader).parse_overrides(listed), None)
            varying = {str(key) for key in swept} | {
                job[i].partition("=")[0].lstrip("+") for job in jobs for i in range(len(job)) if job[i] != jobs[0][i]
            }
            rows = [
                (name, job, (*job, *together))
                for name, together in named_arms(OmegaConf.to_container(master.sweep.arms))
                for job in jobs
            ]
            composed = jobs_composed(loader, master, [whole for _, _, whole in rows])
            arms = tuple(
                arm(config, choices, job, varying, name)
                for (config, choices), (name, job, _) in zip(composed, rows, strict=True)
            )
    except (ConfigError, TargetError):
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explained(error, overrides)) from None
    except (ValueError, YAMLError) as error:
        if "Config group override" in str(error):
            raise ConfigError(_explained(error, overrides)) from None
        raise ConfigError(" ".join(f"{' '.join(overrides)}: {error}".split())) from None
    launcher = master.hydra.runtime.choices.get("hydra/launcher", "basic")
    return Composition(arms, launcher, tuple(whole for _, _, whole in rows), tuple(overrides), config_dir, given)


def jobs_composed(
    loader: ConfigLoader, master: DictConfig, jobs: Sequence[Sequence[str]]
) -> Iterator[tuple[DictConfig, dict[str, str]]]:
    """What Hydra composes of each job, and group -> choice; jobs with the same choices share what is slow of it."""
    assert isinstance(loader, ConfigLoaderImpl)
    parser, chosen = OverridesParser.create(loader), dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]]()
    already, files = list(master.hydra.overrides.task), None
    for job in jobs:
        parsed = _parsed(parser, job)
        _refuse_lists(loader, parsed)
        loader.validate_sweep_overrides_legal(parsed, run_mode=RunMode.RUN, from_shell=True)
        if [*job] == already:
            yield master.copy(), _texts(master.hydra.runtime.choices)
            continue
        groups, values = [], []
        for override in parsed:
            if loader.repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict):
                groups.append(override)
            else:
                values.append(override)
        choice = tuple(str(override.input_line) for override in groups)
        if choice not in chosen:
            if files is None:
                files = _files(loader, list(master.hydra.overrides.hydra))  # may hold hydra.searchpath
            chosen[choice] = _of_files(loader, master, groups, files)
        config, choices = chosen[choice]
        composed = config.copy()
        loader._apply_overrides_to_config(values, composed)
        yield composed, choices


def _files(loader: ConfigLoaderImpl, hydras: list[str]) -> CachingConfigRepository:
    """All config files, each of which is read once, and handed out as a copy: Hydra changes what it loads."""
    _, files = loader._parse_overrides_and_create_caching_repo("config", hydras)
    load, read = files.delegate.load_config, dict[str, ConfigResult | None]()

    def copied(config_path: str) -> ConfigResult | None:
        if config_path not in read:
            read[config_path] = load(config_path)
        return copy.deepcopy(read[config_path])

    files.delegate.load_config = copied  # type: ignore[method-assign]
    return files


def _of_files(
    loader: ConfigLoaderImpl, master: DictConfig, groups: Sequence[Override], files: CachingConfigRepository
) -> tuple[DictConfig, dict[str, str]]:
    """What `load_sweep_config` composes of the choices of groups, without the files of Hydra's own settings.

    Those are two thirds of all files, and the same for every job.
    """
    repository = copy.copy(files)
    repository.cache = {}
    ours = [override for override in groups if not override.is_hydra_override()]
    listed = create_defaults_list(repository, "config", ours, prepend_hydra=False, skip_missing=False)
    place = ResultDefault(config_path=PLACE_OF_HYDRA, package="")
    config = loader._compose_config_from_defaults_list([place, *listed.defaults], repository)
    OmegaConf.set_struct(config, True)
    OmegaConf.copy_cache(from_config=master, to_config=config)
    return config, _texts(listed.overrides.known_choices)


def _texts(choices: Mapping[str, object]) -> dict[str, str]:
    """Group -> what is chosen of it, without Hydra's own groups and those of which nothing is."""
    return {str(group): str(choice) for group, choice in choices.items() if choice and not group.startswith("hydra/")}


@contextlib.contextmanager
def loaded(overrides: Sequence[str], config_dir: str | None) -> Iterator[tuple[ConfigLoader, DictConfig]]:
    """Hydra's loader, and the config that the sweep's jobs start from.

    Raises:
        ConfigError: no such folder.
    """
    search_path = create_config_search_path(str(config_folder()))
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir={config_dir}: no such folder")
        search_path.prepend("command-line", f"file://{Path(config_dir).resolve()}", None)
    GlobalHydra.instance().clear()
    version.setbase("1.3")
    try:
        loader = Hydra.create_main_hydra2("harness", search_path).config_loader
        launchers = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
        for ours in (config_folder() / "hydra" / "launcher").glob("*.yaml"):
            launchers.pop(ours.name, None)  # the plugin's own, which Hydra would merge, and warn
        yield loader, loader.load_configuration("config", list(overrides), run_mode=RunMode.MULTIRUN)
    finally:
        GlobalHydra.instance().clear()


def as_hydra(override: str) -> str:
    """The override as Hydra takes it: an argument that a file does not name needs no `+`, a text no quotes."""
    key, sign, value = override.partition("=")
    text = key.lstrip("+") in FREE_TEXT or (key.lstrip("+") in FREE_PATHS and not value.isascii())
    if text and value[:1] not in ("'", '"') and not (value.isidentifier() and value.isascii()):
        escaped = value.replace("'", "\\'")
        return f"{key}='{escaped}'"
    if key == "+resume_from":  # its key is there, though no file gives it a value
        return f"+{override}"
    free = "." in key and f"{key}.".startswith(tuple(f"{each}." for each in FREE))
    return f"++{override}" if sign and free else override


def named_arms(arms: object) -> list[tuple[str, list[str]]]:
    """`sweep.arms` as (name, overrides) pairs; one pair of nothing when there are none.

    Raises:
        ConfigError: an item that is neither a list of overrides nor {name: such a list}.
    """
    pairs: list[tuple[str, list[str]]] = []
    for item in arms if isinstance(arms, list) else []:
        name, overrides = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (None, item)
        if not isinstance(overrides, list) or not all(isinstance(each, str) and "=" in each for each in overrides):
            raise ConfigError(f"sweep.arms: got {item!r}; allowed: a list of overrides, or {{name: [overrides]}}")
        pairs.append((str(name or ",".join(overrides)), overrides))
    return pairs or [("", [])]


def arm(composed: DictConfig, choices: Mapping[str, str], job: Sequence[str], swept: set[str], first: str = "") -> Arm:
    """One composed job as an arm, named by `first` and the swept overrides: `initializer=he`."""
    left_out = ("sweep", "debug", "tracking", "runtime")
    groups = {group: choice for group, choice in choices.items() if not group.startswith(left_out)}
    names = [first] if first else []
    names += [override.lstrip("+") for override in job if override.partition("=")[0].lstrip("+") in swept]
    config = resolve(composed)
    _refuse_twice_said(job, config)
    config.sweep.swept = sorted(swept)
    return Arm(",".join(names) or "default", config, groups)


def _parsed(parser: OverridesParser, overrides: Sequence[str]) -> list[Override]:
    """What Hydra reads.

    Raises:
        ConfigError: an override that it cannot read.
    """
    parsed = []
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except HydraException:
            text = override.lstrip("+")
            key = text.partition("=")[0]
            raise ConfigError(
                f"{text}: cannot be read; allowed: {key}=VALUE, values of several arms with a comma and no blank "
                f"between them ({key}=FIRST,SECOND), and a text with signs in quotes of its own ('{key}=\"A, B\"')"
            ) from None
    return parsed


def _named(loader: ConfigLoader, overrides: Sequence[Override]) -> tuple[str, ...]:
    """The groups that overrides choose a file of, then the keys that they give a value, `~` before what they delete."""
    assert isinstance(loader, ConfigLoaderImpl)
    groups, keys = [], list[str]()
    for override in overrides:
        name = override.key_or_group
        if override.is_delete():
            keys.append(f"~{name}")
        elif not override.is_sweep_override() and isinstance(value := override.value(), dict):
            keys += flat(value, name)
        elif loader.repository.group_exists(name):
            groups.append(name)
        else:
            keys.append(name)
    return (*groups, *keys)


def _refuse_lists(loader: ConfigLoaderImpl, overrides: Sequence[Override]) -> None:
    """Refuse several files of a group for one arm, of which Hydra would let the last go before the others."""
    for override in overrides:
        group, names = override.key_or_group, override.value()
        if isinstance(names, list) and group != "augment" and loader.repository.group_exists(group):
            several = ",".join(map(str, names))
            raise ConfigError(
                f"{group}: got [{several}]; allowed: one name, or names without brackets, each of which is an arm: "
                f"{group}={several} (only augment takes a list)"
            )


def _given(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> text of what was given, the last of several."""
    return {override.partition("=")[0].lstrip("+"): override.partition("=")[2] for override in overrides}


def _refuse_twice_said(job: Sequence[str], config: Config) -> None:
    """Refuse what was asked for, but another key goes before it."""
    given = _given(job)
    if given.get("train.epochs", "null") != "null" and config.train.steps is not None:
        raise ConfigError(
            f"train.epochs: got {given['train.epochs']}, but train.steps={config.train.steps} goes before it; "
            "add train.steps=null"
        )
    if "optimizer.learning_rate" in given and "learning_rate.value" in given:
        raise ConfigError(
            f"optimizer.learning_rate: got {given['optimizer.learning_rate']} beside learning_rate.value="
            f"{given['learning_rate.value']}; give the second alone"
        )


def _explained(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message in one line; for a key that does not exist, the nearest ones."""
    cause = error.__cause__
    text = " ".join(f"{error} {cause if cause is not None else ''}".split())
    given = _given(overrides)
    place = re.search(r"full_key: (\S+)", text)
    if "is not a ListConfig" in text and place is not None and place[1] in given:
        return f"{place[1]}: got {given[place[1]]}; allowed: a list: {place[1]}=[{given[place[1]]}]"
    if "Config group override must be a string" in text:
        for group in (key for key in given if (config_folder() / key).is_dir()):
            names = sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))
            if not set(given[group].split(",")) & set(names):
                number = f"; a number is {group}.value={given[group]}" if group == "learning_rate" else ""
                return f"{group}: got {given[group]}; allowed: {', '.join(names)}{number}"
    for aside in (" full_key:", " Config search path:", " See https://hydra.cc/docs/1.2/"):
        text = text.partition(aside)[0]
    if "defaults list" not in text and ("Could not override" in text or "not in struct" in text):
        known = set(known_keys())
        for override in overrides:
            key = override.partition("=")[0].lstrip("+~")
            if key not in known and "'" + key + "'" in text:
                return unknown_key(key)
    return text
