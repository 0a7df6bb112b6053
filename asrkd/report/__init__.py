"""The run's findings for people: a terminal table, RESULTS.md, and one self-contained report.html.

Everything is made from `results.json` (DESIGN §5); nothing is typed by hand. The report also takes `extras`, a mapping
with what JSON cannot hold (audio, feature matrices). An optional key may stand in either; a missing one leaves its
section out. Rates are fractions (0.75) except WER, which is in percent as DESIGN §5 has it; log is natural.

Required: recipe, command, git_sha, config_sha, seed (an int or a list of them), device, systems.

Of a system (`systems[name]`; names start with baseline, distilled, ensemble or teacher; `role` says otherwise):
    parameters, macs_per_frame     counts
    frame_accuracy, cross_entropy  on the test set; cross-entropy in nats a frame
    wer, rtf                       {percent, ins, del, sub, words, ci95} and a number; or {test set: such} for several sets
    description                    a few words, say "4x512, no dropout"
    history                        one dict an epoch: train_loss, dev_loss, dev_accuracy, lr, seconds, frames_per_sec
    best_epoch                     from 1; default: the epoch of highest dev_accuracy

Of the run, all optional:
    variant         str, names the run where RESULTS.md shows several (say "phones", "subword")
    comparisons     rows {a, b, metric, delta, ci95, p, test_set?}; delta = a - b, of wer in percent points
    gap_recovered   {metric: value}; a value is a number, null, or {value, ci95, reason}
    seeds           rows {seed, system, frame_accuracy?, cross_entropy?, wer?}; wer in percent
    sweep           rows {temperature, alpha, dev_frame_accuracy, dev_cross_entropy, dev_wer?, chosen?: bool}
    disagreement    {pairwise: [M][M] share of frames whose best senone differs, members?: [M] names,
                    mean_kl: nats a frame from a member to the ensemble (a number or one a member), other scalars}
    store           rows {top_k, temperature, bytes_per_frame, kl_to_dense (nats a frame), chosen?: bool}
    alignment_rounds rows {round, log_like_per_frame, kind?}; rounds of one kind share a model family and one plot
    alignment_plot  {utt_id, feats [T, F], phones: [(phone, start_frame, end_frame)], pdf_ids [T], frame_shift_ms,
                    words?: [(word, start_frame, end_frame)]}; end frames are exclusive
    confusions      rows (ref, hyp, count), None for an inserted or deleted word; or {system: such rows}
    worst_utterances rows {utt_id, system, alignment: [(ref or None, hyp or None)], errors, audio?, speaker?};
                    audio: WAV, FLAC or Ogg as bytes or a path; rows of one utt_id share a card and its first audio
    tuning          rows {acoustic_scale, insertion_score, lm_scale?, wer, chosen?: bool, system?}; wer in percent
    corpus          {split: {utterances, speakers, hours, frames, words, ...}}
    oov_rate        share of running test words outside the language model, or {split: share}
    left_out        {rule: count}: what the corpus preparation left out by rule
    dropped         rows (utt_id, reason): what validation or alignment dropped
    timing          {stage: seconds}
    environment     {name: version or description}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asrkd.files import atomic_file
from asrkd.report.markdown import results_markdown, terminal_text
from asrkd.report.page import Figure, Section, render_page
from asrkd.report.sections import speech_page
from asrkd.report.tables import Table

__all__ = ["Figure", "Section", "Table", "print_table", "render_page", "write_report", "write_results_md"]

Results = Mapping[str, Any]


def print_table(results: Results) -> str:
    """The systems table with the gap recovered below it, as text for a terminal (about 100 columns)."""
    return terminal_text(results)


def write_results_md(results: Results | Sequence[Results], path: Path | str) -> None:
    """Write RESULTS.md, opening with the command that regenerates it; several runs follow one another by `variant`."""
    runs = [results] if isinstance(results, Mapping) else list(results)
    _write_text(Path(path), results_markdown(runs))


def write_report(results: Results, extras: Results, path: Path | str) -> None:
    """Write report.html: one file, no network, light and dark. `extras` win over `results` key by key.

    InputError names the utt_id whose audio is missing or in a format that browsers do not play.
    """
    _write_text(Path(path), speech_page({**results, **extras}))


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")
