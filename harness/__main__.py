"""`python -m harness +sweep=init_schemes`: train a sweep, log it, report it."""

import dataclasses
import sys
from collections.abc import Sequence

from harness.interrupts import twice
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    set_levels()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(word.partition("=")[0] in HYDRA_ONLY for word in given):
        return _hydra(given)
    from hydra._internal.utils import get_args_parser

    words = get_args_parser().parse_intermixed_args(given)
    with twice():
        return _run(words.overrides, words.config_dir)


def _run(overrides: Sequence[str], config_dir: str | None) -> int:
    from harness import composition, sweep

    try:
        composed = composition.compose(overrides, config_dir)
        if composed.arms[0].config.resume_from is not None:
            from harness.quiet import import_tensorflow

            import_tensorflow()  # before others import it, who would let it talk
            from harness import continuation

            arms = tuple(continuation.as_begun(arm, composed.given) for arm in composed.arms)
            composed = dataclasses.replace(composed, arms=arms)
        if composed.launcher == "basic":
            return sweep.run(composed.arms)
        from harness import launching

        launching.check(composed.launcher)
        return sweep.run(composed.arms, lambda arms: launching.launch(composed, arms))
    except Exception as error:
        if not isinstance(error, one_line_errors()):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def one_line_errors() -> tuple[type[Exception], ...]:
    """Errors whose message says all, of those modules that were imported so far."""
    named = {
        "harness.checks": "ConfigError",
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
