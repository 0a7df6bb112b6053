"""The memory of each part of a run: what its largest process allocates at its peak. Mapped files do not count.

The constants are measured (`local/bench/memory.py`). The counts follow from the shapes: weights, activations, and the
frames that are in memory, which are all of them or two shards. What is in memory of every utterance is its name and
words: a small part of its frames, but the part that grows with the corpus.
"""

from __future__ import annotations

from asrkd.nnet.evaluate import CHUNK
from asrkd.nnet.options import TrainOptions
from asrkd.recipe.network_cost import FLOAT_BYTES, Network
from asrkd.workflow.memory import SHARD_FRAMES

# Of a process that has loaded torch and the recipe; of k2's search.
PROCESS_BYTES = 162e6
SEARCH_BYTES = 80e6
# Of each frame in memory: its row among the spliced frames, its label, its index in the order of the epoch; and in
# shards, for two of which these are made again and again.
ID_BYTES, ID_BYTES_IN_SHARDS = 36, 60
# Of each utterance of the corpus: name, speaker, words and where its frames lie, in a training; while alignments are
# made; while posteriors are made, which opens the stores twice.
UTTERANCE_BYTES, ALIGNED_UTTERANCE_BYTES, SCORED_UTTERANCE_BYTES = 650, 1000, 1450
# Weights, gradients, AdamW's two moments and the best epoch's weights, in float32.
BYTES_PER_TRAINED_PARAMETER = 5 * FLOAT_BYTES
# Cepstra and the triphones of SHARD_FRAMES frames while they are counted, for each frame.
COUNTED_BYTES = 700
# Of a chunk's logits, with their softmax, where losses and disagreements are measured.
LOGIT_COPIES = 6
# Scores of the utterances that are aligned at once (ViterbiOptions): eight of 12 seconds, or half a gigabyte.
BATCH_FRAMES = 8 * 1200
BATCH_BYTES = 0.5e9


def loaded_frames(frames: int, train: TrainOptions) -> int:
    """Frames in memory while a network trains."""
    return frames if train.shard_frames is None else min(frames, 2 * train.shard_frames)


def training_bytes(
    network: Network, train: TrainOptions, frames: int, features: int, utterances: int, row_bytes: int = 0
) -> int:
    """Of a training; row_bytes: of a frame's soft targets, which only shards have in memory."""
    process = PROCESS_BYTES + UTTERANCE_BYTES * utterances
    of_ids = ID_BYTES if train.shard_frames is None else ID_BYTES_IN_SHARDS + row_bytes
    per_frame = FLOAT_BYTES * features + of_ids
    weights = network.parameters * BYTES_PER_TRAINED_PARAMETER
    batch = max(network.activations(train.batch_size), scoring_bytes(network))
    return int(process + weights + batch + per_frame * loaded_frames(frames, train))


def scoring_bytes(network: Network, models: int = 1) -> int:
    """Of a forward pass of a chunk of frames: inputs, two layers, and copies of the logits."""
    of_model = 2 * network.widest + LOGIT_COPIES * network.outputs
    return FLOAT_BYTES * CHUNK * (network.input_dim + models * of_model)


def alignment_bytes(network: Network, train: TrainOptions, frames: int, features: int, utterances: int) -> int:
    """Of stage 4: networks train, and then batches of utterances are aligned.

    A network that is hardly trained makes the search wider, up to some more `BATCH_BYTES`.
    """
    of_utterances = ALIGNED_UTTERANCE_BYTES * utterances
    training = training_bytes(network, train, frames, features, 0) + of_utterances
    batch = min(BATCH_BYTES, FLOAT_BYTES * network.outputs * BATCH_FRAMES)
    return int(max(training, PROCESS_BYTES + of_utterances + SEARCH_BYTES + batch))


def tree_bytes(network: Network, train: TrainOptions, frames: int, features: int, utterances: int) -> int:
    """Of stage 5: as stage 4, and triphones are counted before it."""
    counting = PROCESS_BYTES + COUNTED_BYTES * min(frames, SHARD_FRAMES) + ALIGNED_UTTERANCE_BYTES * utterances
    return int(max(alignment_bytes(network, train, frames, features, utterances), counting))


def posterior_bytes(network: Network, models: int, utterances: int) -> int:
    """Of a process that makes posteriors: the teachers' weights, and one chunk of frames at a time."""
    process = PROCESS_BYTES + SCORED_UTTERANCE_BYTES * utterances
    return int(process + FLOAT_BYTES * models * network.parameters + scoring_bytes(network, models))
