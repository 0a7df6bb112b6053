"""Log-mel energies by kaldi-native-fbank, equal to those that Lhotse made for the run within 0.002 nats.

Windows are centred (`snip_edges` false), the edges are mirrored, samples are in ±1, there is no dither. Energies below
float32's epsilon are raised to it, as in Lhotse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from asrkd.runtime.package import FrontEnd

Samples = NDArray[np.float32]
Frames = NDArray[np.float32]


def log_mel(samples: Samples, front_end: FrontEnd) -> Frames:
    """Log-mel energies [T, F] of samples [N] in ±1, at the front end's sampling rate. T is N / shift, rounded."""
    online = OnlineLogMel(front_end)
    return np.concatenate([online.accept(samples), online.finish()])


@dataclass
class OnlineLogMel:
    """The same of samples that come in parts of any size: the frames are equal to the bit."""

    front_end: FrontEnd
    num_frames: int = 0
    """Frames given so far."""
    _fbank: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._fbank = kaldi_native_fbank.OnlineFbank(_options(self.front_end))

    def accept(self, samples: Samples) -> Frames:
        """The frames [T, F] that these samples [N] complete; T may be 0."""
        if len(samples):
            self._fbank.accept_waveform(self.front_end.sampling_rate, np.ascontiguousarray(samples, dtype=np.float32))
        return self._ready()

    def finish(self) -> Frames:
        """The last frames [T, F]: their windows reach past the end, which is mirrored."""
        self._fbank.input_finished()
        return self._ready()

    def _ready(self) -> Frames:
        first, self.num_frames = self.num_frames, self._fbank.num_frames_ready
        frames = np.empty((self.num_frames - first, self.front_end.num_mel_bins), dtype=np.float32)
        for row, number in enumerate(range(first, self.num_frames)):
            frames[row] = self._fbank.get_frame(number)
        if len(frames):
            self._fbank.pop(len(frames))
        return frames


def _options(front_end: FrontEnd) -> Any:
    options = kaldi_native_fbank.FbankOptions()
    frame, mel = options.frame_opts, options.mel_opts
    frame.samp_freq = front_end.sampling_rate
    frame.frame_length_ms, frame.frame_shift_ms = front_end.frame_length_ms, front_end.frame_shift_ms
    frame.dither, frame.snip_edges = 0.0, False
    mel.num_bins = front_end.num_mel_bins
    mel.low_freq, mel.high_freq = front_end.low_freq_hz, front_end.high_freq_hz
    return options
