"""What a picture costs, in forward passes of the transformer: one F of drawing; training one row takes three."""

from deepgen.train.rl.config import RLConfig


def forwards_per_picture(config: RLConfig) -> float:
    """Forward passes for one picture of a rollout: drawing, reference, training, and its share of the supervised loss.

    A backward pass counts two, recomputed activations one more. The published settings cost 294, with what its logging
    adds (docs/reinforcement.md). Steps that a group shares before the window are counted for the group.
    """
    steps = config.sampler.num_inference_steps
    window = config.window
    size = window.size or (window.stop or steps - 1) - window.first
    trained = window.trained or size
    # The mean place of a random window is not counted: what is shared up to its earliest place.
    shared = window.first if config.sampler.share_noise else 0
    drawing = steps - shared + shared / config.group_size
    row = 3 + config.parallel.recomputed
    updates = config.updates_per_rollout
    extra = (1 if config.loss.kl_weight else 0) + (1 if updates > 1 else 0)
    sides = 2 if config.sampler.guidance_scale > 1 else 1
    total = sides * (drawing + trained * (row + extra))
    if config.sft is not None:
        pictures = config.groups_per_rollout * config.group_size
        total += row * config.sft.global_batch_size * updates / pictures
    return total


def describe_run(config: RLConfig, world_size: int) -> list[str]:
    """Lines of the report before a run."""
    pictures = config.groups_per_rollout * config.group_size
    rollouts = config.steps // config.updates_per_rollout
    sampler, window = config.sampler, config.window
    size = window.size or (window.stop or sampler.num_inference_steps - 1) - window.first
    lines = [
        f"{config.steps} updates = {rollouts} rollouts x {config.updates_per_rollout}",
        f"a rollout draws {config.groups_per_rollout} prompts x {config.group_size} = {pictures} pictures on "
        f"{world_size} process(es), {config.rollout_batch_size} at once",
        f"{sampler.num_inference_steps} steps of {sampler.kind} (eta {sampler.eta}), {window.placement} window of "
        f"{size} with noise, {window.trained or size} trained: {forwards_per_picture(config):.0f} transformer passes "
        "a picture",
    ]
    if config.sft is not None:
        lines.append(
            f"supervised loss: weight {config.sft.weight:g}, {config.sft.global_batch_size} samples an update"
        )
    return lines
