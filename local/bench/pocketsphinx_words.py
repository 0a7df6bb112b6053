"""The words of raw 16 kHz files by pocketsphinx. It runs in .venv-peers, so it imports nothing of asrkd.

Reads a JSON object from stdin: "files" {utt_id: file of 16-bit samples}, and "options" of the decoder, such as "lm" and
"dict". Writes {"words": {utt_id: text}, "seconds": processor seconds of decoding}.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from pocketsphinx import Decoder

VARIANT = re.compile(r"\(\d+\)")  # of a word's pronunciations: "the(2)"


def main() -> None:
    """Decode whole utterances with pocketsphinx's defaults, but for the given options."""
    given = json.load(sys.stdin)
    decoder = Decoder(loglevel="FATAL", **given["options"])
    words, seconds = {}, 0.0
    for utt_id, path in given["files"].items():
        samples = Path(path).read_bytes()
        start = time.process_time()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        seconds += time.process_time() - start
        words[utt_id] = VARIANT.sub("", hypothesis.hypstr) if hypothesis else ""
    print(json.dumps({"words": words, "seconds": seconds}))


if __name__ == "__main__":
    main()
