"""One step of the training: forward and backward pass on a batch of each model, and the optimiser's update."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from asrkd.nnet.inputs import Batch, BatchObjective, Objective
from asrkd.nnet.optimizer import set_learning_rate
from asrkd.nnet.sharded_data import Shard
from asrkd.nnet.stacked import Model, StackedEnsemble
from asrkd.nnet.training_state import TrainingState


def run_step(state: TrainingState, shard: Shard, ids: Sequence[Tensor], rate: float) -> Tensor:
    """Train on one batch with this learning rate; the mean loss over the batch of all processes, detached.

    ids [b] of each model are this process's part of its batch.
    """
    set_learning_rate(state.optimizer, rate)
    step = partial(_update, state, shard)
    return step(ids) if state.cuda_graph is None else state.cuda_graph(step, ids)


def _update(state: TrainingState, shard: Shard, ids: Sequence[Tensor]) -> Tensor:
    ranks = state.batch_shard.ranks
    batches = [
        state.batch_shard.load(shard.inputs, batch, one.augmentation, shard.augment).to(state.device)
        for batch, one in zip(ids, state.generators, strict=True)
    ]
    # Every weight is used once per step, so autocast need not cache its bfloat16 copy.
    use_bfloat16 = state.precision == "bfloat16"
    with torch.autocast(state.device.type, torch.bfloat16, enabled=use_bfloat16, cache_enabled=False):
        logits = _forward(state, [batch.inputs for batch in batches])
    loss = _shard_loss(state, shard, logits, batches)
    state.optimizer.zero_grad(set_to_none=True)
    # The loss is a mean over all M models, so that each model's gradient is 1/M of its own: M times makes it whole.
    # The processes' gradients are averaged too, whereas the sum of their weighted losses is the batch's mean.
    loss.backward(torch.full_like(loss, len(ids) * ranks.size))
    if state.options.clip_norm is not None:
        _clip_gradients(state.model, state.options.clip_norm)
    state.optimizer.step()
    state.model.apply_max_norm_()
    if state.average is not None:
        _update_average(state.average, state.model, state.options.average_decay)
    return ranks.all_reduce(loss.detach())


def _forward(state: TrainingState, inputs: Sequence[Tensor]) -> Tensor:
    """Logits [M b, S] of all models, one model after the other, for the inputs [b, D] of each."""
    dropout = [one.dropout for one in state.generators]
    if isinstance(state.model, StackedEnsemble):
        return state.network(torch.stack(tuple(inputs)), dropout).flatten(0, 1)
    return state.network(inputs[0], dropout[0])


def _shard_loss(state: TrainingState, shard: Shard, logits: Tensor, batches: Sequence[Batch]) -> Tensor:
    """The mean loss of this process's examples, weighted by their fraction of the batch."""
    if state.batch_shard.ranks.size == 1:
        return _loss(shard.objective, logits, batches)
    if len(logits) == 0:  # none of the batch is here: a zero gradient, because the other processes wait for one
        return 0.0 * logits.sum(dtype=torch.float32)
    fraction = len(logits) / (state.frames_per_step * len(state.generators))
    return _loss(shard.objective, logits, batches) * fraction


def _loss(objective: Objective, logits: Tensor, batches: Sequence[Batch]) -> Tensor:
    """The objective's mean loss; only an objective that needs them gets inputs and mixtures."""
    if isinstance(objective, BatchObjective) and (objective.reads_inputs or batches[0].mixed_ids is not None):
        return objective.batch_loss(logits, Batch.concatenated(batches))
    return objective(logits, torch.cat([batch.ids for batch in batches]))


def _clip_gradients(model: Model, limit: float) -> None:
    if isinstance(model, StackedEnsemble):
        model.clip_gradients_(limit)
    else:
        nn.utils.clip_grad_norm_(model.parameters(), limit)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for averaged, current in zip(average.parameters(), model.parameters(), strict=True):
        averaged.lerp_(current, 1.0 - decay)
    for buffer, current_buffer in zip(average.buffers(), model.buffers(), strict=True):
        buffer.copy_(current_buffer)  # the statistics of batch normalisation are averages already
