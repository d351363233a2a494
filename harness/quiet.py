"""TensorFlow's and MLflow's chatter kept off the screen, unless the user has asked for it."""

import os
import sys
import tempfile


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
        import tensorflow  # noqa: F401

        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
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
