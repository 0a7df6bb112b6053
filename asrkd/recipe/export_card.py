"""The page of a model that people read: what it was made of, how good it is, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from asrkd.recipe.export_source import Source
from asrkd.runtime.package import NETWORK, NETWORK_INT8, Description

MB = 1e6
RUN_ROW, BY_SPEAKER_ROW = "run", "by speaker"  # names in check.json, beside the networks' files
_NAMES = {
    RUN_ROW: "the run (torch)",
    BY_SPEAKER_ROW: "float32, normalised by speaker as the run",
    NETWORK: "float32",
    NETWORK_INT8: "int8",
}


def check_table(check: Mapping[str, Any], tablefmt: str = "simple") -> str:
    """The networks beside the run, a row each."""
    rate = f"{check['unit']} error rate %"
    rows = [
        {
            "": _NAMES[one["name"]],
            "MB": f"{one['bytes'] / MB:.1f}" if "bytes" in one else "",
            rate: f"{one['wer']['percent']:.2f} ({_interval(one['wer']['ci95'])})",
            "utterances as the run": f"{one['equal_utterances']} of {check['utterances']}",
            "frame accuracy %": _number(one.get("frame_accuracy"), 2, 100.0),
            "largest score difference": _number(one.get("largest_difference"), 4),
            "RTF": _number(one["rtf"], 4),
            "RTF of the network": _number(one["network_rtf"], 4),
        }
        for one in check["rows"]
    ]
    return tabulate(rows, headers="keys", tablefmt=tablefmt, disable_numparse=True)


def model_card(source: Source, description: Description, check: Mapping[str, Any], licence: str) -> str:
    """The card in Markdown."""
    parts = [
        f"# {description.name}",
        f"An acoustic model, a decoding graph and a language model for speech at "
        f"{description.front_end.sampling_rate} Hz, exported by asrkd {description.run['asrkd']}.",
        _table(_facts(source, description, check, licence)),
        "## Compared with the run",
        check_table(check, "github"),
        _explanation(source, check),
        "## Use",
        "```\npip install asrkd[runtime]\nasrkd transcribe MODEL audio.wav\n```\n\n"
        '```python\nimport asrkd\n\nprint(asrkd.load("MODEL").transcribe("audio.wav").text)\n```',
        "## Limits",
        _limits(source),
        "## Where it comes from",
        _table(_origin(description)),
        "## Files",
        tabulate(
            [(name, file.bytes, f"`{file.sha256}`") for name, file in sorted(description.files.items())],
            headers=("file", "bytes", "SHA-256"),
            tablefmt="github",
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(source: Source, description: Description, check: Mapping[str, Any], licence: str) -> list[tuple[str, str]]:
    train, test = (source.results["corpus"][split] for split in ("train", "test"))
    of_system = source.results["systems"].get(source.run.system, {})
    shipped = next(one for one in check["rows"] if one["name"] == NETWORK)
    front_end = description.front_end
    rate = f"{shipped['wer']['percent']:.2f}% (95% interval {_interval(shipped['wer']['ci95'])})"
    if check["utterances"] < test["utterances"]:
        rate += f", on {check['utterances']} of the utterances"
    return [
        ("licence", licence),
        ("system", f"{source.run.name}: {of_system.get('description', '')}".rstrip(": ")),
        ("training speech", f"{description.run['recipe']}: {_speech(train)}"),
        ("test speech", _speech(test)),
        (f"{check['unit']} error rate, float32", rate),
        ("real-time factor, one core", f"{shipped['rtf']:.4f}"),
        ("classes", f"{description.num_pdfs} senones"),
        ("parameters", f"{source.acoustics.model.num_parameters:,}"),
        ("multiply-accumulates a frame", f"{source.acoustics.model.macs_per_frame:,}"),
        ("words", _vocabulary(source.results.get("lang", {}))),
        ("features", f"{front_end.num_mel_bins} log-mel energies, every {front_end.frame_shift_ms:g} ms"),
        ("context", f"{description.left_context} frames before and {description.right_context} after"),
        ("normalisation", f"mean and variance by {description.normalisation.kind}"),
    ]


def _explanation(source: Source, check: Mapping[str, Any]) -> str:
    int8 = check["int8"]
    lines = [
        "Error rates are those of `asrkd transcribe`, without lattices. Scores and frame accuracy are compared with "
        "the normalisation of the run; scores are natural logarithms.",
        f"8-bit weights change the error rate by {int8['wer_loss']:+.2f} points."
        + ("" if int8["written"] else f" That is more than {int8['max_wer_loss']:g}: this model has float32 alone."),
    ]
    sure = next(one for one in check["rows"] if one["name"] == NETWORK)["confidences"]
    if sure["words"]:
        lines.append(
            f"Confidences: {sure['confidence']:.3f} on average, and {sure['right']:.3f} of the words are right; "
            f"calibration error {sure['calibration_error']:.3f}."
        )
    if source.options.features.cmvn == "speaker":
        lines.append(
            "The run normalised features over all that a speaker says. The model takes each file alone, with "
            "statistics of training speech as a prior: so words can differ from the run's with the same scores."
        )
    return "\n\n".join(lines)


def _limits(source: Source) -> str:
    train = source.results["corpus"]["train"]
    lines = [
        "It recognises the words of words.txt alone. Speech unlike the training speech, in language, accent, noise, "
        "room or microphone, has more errors than the table says.",
        f"It learnt from {_counted(train['speakers'], 'speaker')}.",
    ]
    return " ".join(lines)


def _origin(description: Description) -> list[tuple[str, str]]:
    run = description.run
    names = {"command": "command", "git_sha": "revision", "config_sha": "configuration", "seed": "seed"}
    return [(text, f"`{run[name]}`") for name, text in names.items() if run.get(name) is not None]


def _vocabulary(lang: Mapping[str, Any]) -> str:
    ngrams = " + ".join(map(str, lang.get("ngrams", ())))
    return f"{lang.get('decoded_words', 'unknown')}; {lang.get('order', 'n')}-gram model of {ngrams} n-grams"


def _speech(split: Mapping[str, Any]) -> str:
    counts = ((split["utterances"], "utterance"), (split["speakers"], "speaker"))
    return ", ".join([f"{split['hours']:.2f} hours", *(_counted(number, name) for number, name in counts)])


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return tabulate(rows, headers=("", ""), tablefmt="github", disable_numparse=True)


def _interval(ci95: Sequence[float]) -> str:
    return f"{ci95[0]:.2f} to {ci95[1]:.2f}"


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{factor * value:.{digits}f}"
