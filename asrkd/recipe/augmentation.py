"""The distortions of students' inputs, with the recordings of noise and rooms that stage 2 has read. No Lhotse here."""

from __future__ import annotations

from asrkd.features.joined import JoinedFrames
from asrkd.features.options import FeatureOptions
from asrkd.features.store import FrameStore
from asrkd.nnet.acoustics import Noise, Reverberation, SpeechStatistics
from asrkd.nnet.augment import Augmentation, MelAxis
from asrkd.nnet.augment_options import AugmentOptions
from asrkd.recipe.folders import TRANSFER, RunFolders


def history_frames(augment: AugmentOptions, folders: RunFolders) -> int:
    """Frames that the distortions read in front of each window."""
    return _reverberation(folders).history if augment.reverb else 0


def augmentation(
    augment: AugmentOptions, features: FeatureOptions, frames: FrameStore | JoinedFrames, folders: RunFolders
) -> Augmentation | None:
    """The distortions of windows of these frames; None where there are none."""
    if not augment.changes_inputs:
        return None
    axis = MelAxis(features.num_mel_bins, features.low_freq_hz, features.high_freq_hz, features.sampling_rate)
    return Augmentation(
        augment,
        features.num_mel_bins,
        axis,
        speech=_speech(frames, features, folders) if augment.reads_recordings else None,
        noise=Noise.of_store(FrameStore.open(folders.noise)) if augment.noise else None,
        reverberation=_reverberation(folders) if augment.reverb else None,
    )


def _reverberation(folders: RunFolders) -> Reverberation:
    return Reverberation.of_store(FrameStore.open(folders.impulse_responses))


def _speech(frames: FrameStore | JoinedFrames, features: FeatureOptions, folders: RunFolders) -> SpeechStatistics:
    splits = ("train", TRANSFER) if isinstance(frames, JoinedFrames) else ("train",)
    measured = [FrameStore.open(folders.speech_statistics(split)) for split in splits]
    return SpeechStatistics.of_stores(frames, measured, is_normalised=features.cmvn != "none")
