"""TensorFlow imported quickly, its and MLflow's chatter kept off the screen, unless the user has asked for it."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_OF_NO_USE = ("sklearn", "matplotlib")
"""What Keras imports where it is there, for its wrappers and galleries: a third of the time to import TensorFlow."""


def set_levels() -> None:
    """Ask for errors only, through the environment: before either library is imported, and for workers too."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run on a server
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def import_tensorflow() -> None:
    """Import TensorFlow without the lines that it writes whatever the log level says (tensorflow issue 100442).

    What it writes is shown when the import fails, or when TF_CPP_MIN_LOG_LEVEL is set below 3.
    """
    set_levels()
    if "tensorflow" in sys.modules or os.environ["TF_CPP_MIN_LOG_LEVEL"] < "3":
        with _taken_for_missing(*_OF_NO_USE):
            import tensorflow  # noqa: F401

        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            with _taken_for_missing(*_OF_NO_USE):
                import tensorflow as tf

            tf.get_logger().setLevel("ERROR")  # several nets in one process are meant
            tf.config.list_physical_devices()  # looks for a GPU, and says so when it finds none
        except BaseException:
            file.seek(0)
            os.write(kept, file.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _taken_for_missing(*packages: str) -> Iterator[None]:
    """Packages that were not imported so far cannot be, for a while."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not to be found
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
