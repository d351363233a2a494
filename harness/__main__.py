"""`python -m harness +sweep=init_schemes`: train a sweep, log it, report it."""

import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from harness.quiet import set_levels

HYDRA_ONLY = (
    "--help",
    "-h",
    "--hydra-help",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
    "--version",
)


def job(composed: Any) -> None:
    """One arm in a job of a Hydra launcher."""
    from hydra.core.hydra_config import HydraConfig

    from harness import composition, sweep

    hydra = HydraConfig.get()
    task = [*hydra.overrides.task]
    swept = set(composed.sweep.swept)
    with_hydra = composed.copy()
    from omegaconf import OmegaConf, open_dict

    OmegaConf.set_struct(with_hydra, False)
    with open_dict(with_hydra):
        with_hydra.hydra = {"runtime": {"choices": dict(hydra.runtime.choices)}}
    plan = sweep.Plan((composition.arm(with_hydra, task, swept),))
    slots = sweep.open_slots(plan.config)
    sweep.train(plan, sweep.prepare(plan.arms), slots)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    set_levels()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(word.partition("=")[0] in HYDRA_ONLY for word in given):
        return _hydra(given)
    from hydra._internal.utils import get_args_parser

    from harness import composition, sweep

    words = get_args_parser().parse_intermixed_args(given)
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C: the runs in flight are saved and end as KILLED, and the report so far is written.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        composed = composition.compose(words.overrides, words.config_dir)
        if composed.launcher == "basic":
            return sweep.run(composed.arms)
        swept = ",".join(composed.arms[0].config.sweep.swept)
        return sweep.run(composed.arms, relaunch=["--multirun", *given, f"sweep.swept=[{swept}]"])
    except Exception as error:
        if not isinstance(error, one_line_errors()):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before any training", file=sys.stderr)
        return 130


def one_line_errors() -> tuple[type[Exception], ...]:
    """Errors whose message says all, of those modules that were imported so far."""
    named = {
        "harness.config": "ConfigError",
        "harness.data.datasets": "DataError",
        "harness.targets": "TargetError",
        "harness.tracking.store": "StoreError",
        "harness.tracking.tracker": "TrackingError",
        "harness.training.devices": "DeviceError",
    }
    return tuple(getattr(sys.modules[module], name) for module, name in named.items() if module in sys.modules)


def _hydra(given: list[str]) -> int:
    import hydra

    from harness import composition, config

    assert config  # registers the schema
    sys.argv = [sys.argv[0], *given]
    hydra.main(version_base="1.3", config_path=str(composition.config_folder()), config_name="config")(lambda _: None)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
