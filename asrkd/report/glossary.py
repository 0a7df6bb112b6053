"""What the report's terms mean."""

from __future__ import annotations

from asrkd.report.systems import error_unit, metrics, resampled, shows_characters, teacher_name
from asrkd.report.tables import Row, Table, keyed_table


def glossary_table(results: Row) -> Table:
    """Terms of a speech report and their meaning."""
    teacher = teacher_name(results)
    unit, rate = error_unit(results), metrics(results)["wer"].label
    characters = "character error rate: the same in characters (Unicode code points), words joined without spaces"
    meanings = {
        rate: f"{unit} error rate: insertions, deletions and substitutions, in percent of the reference's {unit}s",
        **({"CER": characters} if shows_characters(results) else {}),
        "frame accuracy": "share of the test set's frames whose most probable senone is the aligned one",
        "CE": "cross-entropy: mean of −log p(aligned senone) over frames, in nats; lower is better",
        "CI, 95% interval": f"bootstrap interval over {resampled(results)} (Bisani and Ney 2004); "
        "of a difference: paired",
        "significant": "the 95% interval of the paired difference excludes zero",
        "gap recovered": f"(distilled − baseline) / ({teacher} − baseline), the student's share of the {teacher}'s "
        f"gain; not determined where resampling leaves the {teacher}'s gain in doubt",
        "baseline": "the student's network, trained on the aligned senones alone (hard labels)",
        "T": "temperature: logits are divided by it before the softmax that makes soft targets",
        "α": "weight of the soft targets in the training objective; 1 − α is that of the hard labels",
        "senone": "a context-dependent HMM state, tied by a decision tree; one output of the network",
        "MACs/frame": "multiply-accumulate operations that the network needs for one frame of 10 ms",
        "RTF": "real-time factor: decoding time divided by the duration of the audio",
        "OOV": "out of vocabulary: a word that the decoding lexicon does not have and no system can recognise",
    }
    return keyed_table("Glossary", meanings, ("term", "meaning"), "ll")
