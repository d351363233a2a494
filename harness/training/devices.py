"""The device slots of this process: set up once, before TensorFlow's first operation."""

import os

import tensorflow as tf


class DeviceError(RuntimeError):
    """A device that is not there."""


def slots(
    device: str,
    replicas: int | None,
    slots_per_gpu: int,
    threads: int,
    deterministic: bool,
    cores: int | None = None,
) -> list[str]:
    """Configure TensorFlow and name the device of each slot that a replica may take.

    On CPUs every operation runs on `threads` threads, one by default, so that results do not depend on how many
    replicas there are; GPUs get memory growth.

    Args:
        device: auto (GPUs when there are any) | cpu | gpu.
        replicas: how many slots; None: one a core divided by `threads`, or `slots_per_gpu` on each GPU.
        slots_per_gpu: replicas on one GPU.
        threads: threads of one operation.
        deterministic: refuse kernels that give other bits from run to run.
        cores: how many this process may take; None: all it is allowed to run on.

    Raises:
        DeviceError: `gpu` without one.
    """
    gpus = [] if device == "cpu" else tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise DeviceError("runtime.device=gpu: TensorFlow sees no GPU; install the extra [gpu], or runtime=cpu")
    cores = cores or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    count = replicas or (len(gpus) * slots_per_gpu if gpus else max(1, cores // threads))
    if not tf.executing_eagerly() or not _initialized():
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(count, cores))
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    elif tf.config.threading.get_intra_op_parallelism_threads() != threads:
        raise DeviceError(
            f"runtime.threads={threads}: TensorFlow already runs in this process with "
            f"{tf.config.threading.get_intra_op_parallelism_threads()} threads; start a new process"
        )
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    names = [f"/GPU:{number}" for number in range(len(gpus))] or ["/CPU:0"]
    return [names[slot % len(names)] for slot in range(count)]


def _initialized() -> bool:
    from tensorflow.python.eager import context

    return bool(context.context()._initialized)
