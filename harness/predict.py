"""`python -m harness.predict RUN_ID FILES…`: what a stored net says of pictures, or of the arrays in an npz file.

Loads the run's model.keras, without the code that built the net: it takes raw examples, and does its own preprocessing.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from harness.data.pictures import PictureError, decode
from harness.quiet import import_tensorflow, set_levels
from harness.targets import first_line

if TYPE_CHECKING:
    import keras

LAYERS = ("harness.layers",)
"""Modules that register layers which Keras does not have: imported, where they are there, before a net is loaded."""

Floats = npt.NDArray[np.float32]


class PredictError(ValueError):
    """Something that cannot be classified; the message is one line."""


@dataclass(frozen=True)
class Classifier:
    """A stored net: raw examples to probabilities.

    Attributes:
        model: from raw examples to logits.
        class_names: one for each output.
        value_range: raw values that stand for black and white.
    """

    model: "keras.Model"
    class_names: tuple[str, ...]
    value_range: tuple[float, float]

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of an image, (d,) of a vector."""
        return tuple(self.model.input_shape[1:])

    def picture(self, file: Path) -> Floats:
        """A JPEG or PNG file as the net takes it, scaled and cropped as `data=image_folder` does.

        Raises:
            PredictError: no such file, no picture, or a net that takes none.
        """
        shape = self.example_shape
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise PredictError(f"{file}: the net takes {_shape(shape)}, not pictures; give --npz FILE")
        try:
            pixels = decode(file.read_bytes(), *shape)
        except OSError as error:
            raise PredictError(f"{file}: {error.strerror or error}") from None
        except PictureError as error:
            raise PredictError(f"{file}: {error}") from None
        low, high = self.value_range
        return (pixels.astype(np.float32) / 255 * (high - low) + low).astype(np.float32)

    def arrays(self, file: Path) -> Floats:
        """The raw examples of an npz file: its array x, else x_test, else the only one.

        Raises:
            PredictError: no such file or array, or examples of another shape.
        """
        try:
            if file.exists() and not zipfile.is_zipfile(file):
                raise PredictError(f"{file}: no .npz file; save one with numpy.savez(FILE, x=examples)")
            with np.load(file, allow_pickle=False) as archive:
                keys = [key for key in ("x", "x_test") if key in archive.files] or archive.files
                if not keys or (len(archive.files) > 1 and keys[0] not in ("x", "x_test")):
                    raise PredictError(f"{file}: no array x (found {', '.join(archive.files) or 'nothing'})")
                x = archive[keys[0]]
        except OSError as error:
            raise PredictError(f"{file}: {error.strerror or error}") from None
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, PredictError):
                raise
            raise PredictError(f"{file}: cannot be read: {first_line(error)}") from None
        shape = self.example_shape
        if x.dtype.kind not in "buif":
            raise PredictError(f"{file}: {keys[0]} has dtype {x.dtype}; only numbers are allowed")
        if x.ndim == len(shape) and len(shape) == 3 and shape[2] == 1:
            x = x[..., None]
        if x.shape[1:] != shape or len(x) == 0:
            raise PredictError(
                f"{file}: {keys[0]} has shape {x.shape}; the net takes (N, {', '.join(map(str, shape))})"
            )
        examples: Floats = x.astype(np.float32)
        if not np.isfinite(examples).all():
            raise PredictError(f"{file}: {keys[0]} holds values that are not finite")
        return examples

    def probabilities(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Raw examples (n, …) to (n, classes), each row of sum 1."""
        found: npt.NDArray[np.float64] = softmax(self.model.predict(x, verbose=0).astype(np.float64), axis=1)
        return found


def load(run_id: str, uri: str | None = None, folder: str | Path = "mlruns") -> Classifier:
    """The net of a finished run in an MLflow store.

    Raises:
        StoreError: no such store.
        PredictError: no such run, or one without a net.
    """
    from harness.tracking import artifacts
    from harness.tracking.store import find_run, open_store

    client = open_store(uri, Path(folder), create=False)
    run = find_run(client, run_id)
    content = artifacts.read(client, run, "model.keras")
    if content is None:
        outcome = run.data.tags.get("outcome") or run.info.status.lower()
        raise PredictError(f"run {run_id} has no model.keras ({run.data.tags.get('kind', 'run')}, {outcome})")
    model = load_model(content)
    about = json.loads(artifacts.read(client, run, "provenance.json") or b"{}").get("data", {})
    names = about.get("class_names") or map(str, range(model.output_shape[-1]))
    low, high = about.get("value_range") or (0, 255)
    return Classifier(model, tuple(names), (low, high))


def load_model(content: bytes) -> "keras.Model":
    """The net in the bytes of a .keras file.

    Raises:
        PredictError: damaged, or with layers of a code that is not there.
    """
    import_tensorflow()
    import keras

    for module in LAYERS:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.keras"
        path.write_bytes(content)
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:  # Keras raises what it meets in the file
            raise PredictError(f"model.keras cannot be loaded: {first_line(error)}") from None


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) + (" numbers" if len(shape) == 1 else " values")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    set_levels()
    parser = argparse.ArgumentParser(prog="python -m harness.predict", description=__doc__)
    parser.add_argument("run", metavar="RUN_ID", help="an MLflow run that has finished")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILES", help="JPEG or PNG files of any size")
    parser.add_argument("--npz", type=Path, metavar="FILE", help="raw examples: the array x (or x_test) of this file")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="how many classes to print (default: 3)")
    parser.add_argument("--uri", help="an MLflow tracking URI (default: sqlite below --folder)")
    parser.add_argument("--folder", default="mlruns", help="folder of the local store (default: mlruns)")
    given = parser.parse_args(arguments)
    from harness.tracking.store import StoreError

    try:
        if given.top < 1:
            raise PredictError(f"--top: got {given.top}; allowed: 1 up")
        if not given.files and given.npz is None:
            raise PredictError("nothing to classify; give FILES or --npz FILE")
        classifier = load(given.run, given.uri, given.folder)
        examples = [classifier.picture(file)[None] for file in given.files]
        names = [str(file) for file in given.files]
        if given.npz is not None:
            examples.append(classifier.arrays(given.npz))
            names += [f"{given.npz}[{number}]" for number in range(len(examples[-1]))]
        probabilities = classifier.probabilities(np.concatenate(examples))
    except (PredictError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, row in zip(names, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[: given.top]
        print("  ".join([name, *(f"{classifier.class_names[place]} {row[place]:.4f}" for place in best)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
