"""`python -m harness.verify [OVERRIDES]`: does one cell of a config end in the same weights whatever runs around it?"""

import sys
import threading
from collections.abc import Sequence

from harness.quiet import set_levels


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the first arm's first block alone, again on the same replica, and beside other runs; compare the weights.

    Returns:
        0 if all digests are equal, 1 if they differ, 2 if the config is refused.
    """
    set_levels()
    from harness import composition, sweep
    from harness.__main__ import one_line_errors

    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    try:
        plan = sweep.Plan(composition.compose(given).arms[:1])
        slots = sweep.open_slots(plan.config)
        (prepared,) = sweep.prepare(plan.arms)
        prepared.check(prepared.check_net())
    except Exception as error:
        if not isinstance(error, one_line_errors()):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    from harness.prepared import Prepared
    from harness.streams import Block
    from harness.training import loop
    from harness.training.feeds import feed
    from harness.training.recorder import MemoryRecorder
    from harness.training.replica import Replica

    stream_above = plan.config.runtime.stream_above_gib
    on_device = {device: feed(prepared.data, device, stream_above) for device in {*slots, slots[0]}}

    def digest(replica: Replica, ready: Prepared, block: Block) -> str:
        recorder = MemoryRecorder()
        outcome = loop.train(replica, ready.recipe, ready.draw(block), block, recorder)
        return str(recorder.facts.get("weights.final", f"{outcome.kind} at step {outcome.step}"))

    block, other = plan.blocks[0], Block.of(plan.blocks[0].id + 1, plan.config.root_seed)
    first = Replica(prepared.spec, on_device[slots[0]])
    found = {"alone, 1 replica": digest(first, prepared, block)}
    digest(first, prepared, other)
    found["again, after another run"] = digest(first, prepared, block)
    several = [
        Replica(prepared.spec, on_device[device], like=first if device == slots[0] else None)
        for device in (slots if len(slots) > 1 else slots * 2)
    ]
    beside = [threading.Thread(target=digest, args=(replica, prepared, other)) for replica in several[1:]]
    for thread in beside:
        thread.start()
    found[f"beside others, {len(several)} replicas"] = digest(several[0], prepared, block)
    for thread in beside:
        thread.join()
    for how, weights in found.items():
        print(f"{weights}  {plan.arms[0].name} {block.name}, {prepared.steps} steps, {how}")
    same = len(set(found.values())) == 1
    print("the same weights to the bit" if same else "the weights DIFFER: on GPUs, set runtime.deterministic=true")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
