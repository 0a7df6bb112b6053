"""What a run shows: a terminal table, RESULTS.md, and one self-contained report.html.

Everything is made from `results.json` (docs/file_formats.md); nothing is typed by hand. The report also takes `extras`,
a mapping with what JSON cannot hold (audio, feature matrices). An optional key may be in either; without it, its
section does not appear. Rates are fractions (0.75) except WER, in percent as there; log is natural.

Required: recipe, command, git_sha, config_sha, seed (an int or a list of them), device, systems.

Of a system (its name starts with baseline, distilled, ensemble or teacher, or `role` names its role):
    parameters      count
    macs_per_frame  count
    frame_accuracy, frame_accuracy_ci95  on the test set; ci95 is [low, high], bootstrap over utterances
    cross_entropy, cross_entropy_ci95    on the test set, nats per frame
    wer             {percent, ins, del, sub, words, ci95}, or {test set: such} for several sets
    cer             {percent, ins, del, sub, characters, ci95}, or {test set: such}; shown if `unspaced`
    rtf             a number, or {test set: number}
    description     a few words, such as "4x512, no dropout"
    git_sha, code, device, finished  of its training: revision, digest of the sources, device, UTC date in ISO 8601;
                    of an ensemble, values that differ are joined by commas
    history         rows, one per epoch: train_loss, dev_loss, dev_accuracy, lr, seconds, frames_per_sec
    best_epoch      from 1; default: the epoch of highest dev_accuracy

Of the run, all optional:
    variant         names the run where RESULTS.md shows several, such as "phones" and "subword"
    unit            what wer counts: "word" (default), or "phone", and it is called PER
    unspaced        whether the texts are of a script without spaces: tables then show `cer` with `wer`
    comparisons     rows {a, b, metric, delta, ci95, p, test_set?}; delta = a - b, of wer in percent points
    gap_recovered   {metric: value}; a value is a number, null, or {value, ci95, reason}; without ci95, the gap is
                    shown as not determined
    strongest_baseline  {system, measure, gap_recovered as above, against that system}
    baselines       rows {system or None, dropout, augmented: bool, dev_frame_accuracy, dev_cross_entropy, chosen: bool}
    seeds           rows {seed, system, frame_accuracy?, cross_entropy?, wer?}
    sweep           rows {temperature, alpha, dropout?, dev_frame_accuracy, dev_cross_entropy, dev_wer?,
                    configured?: bool, chosen?: bool};
                    alpha 0 (hard labels, any temperature or null) is drawn as the level to beat
    subset          {fraction, seed, rows {system, speech: subset or all, targets: hard or soft, utterances, frames,
                    train_frame_accuracy, train_cross_entropy}}; students of a part of the training utterances
    disagreement    {pairwise: [M][M] share of frames whose best senone differs, members?: [M] names,
                    mean_kl: nats per frame from a member to the ensemble (one or [M]), accuracy?: [M],
                    ensemble_accuracy?, num_frames?}
    store           rows {top_k, temperature, bytes_per_frame, kl_to_dense (nats per frame), kl_lumped?, tail?,
                    chosen?: bool}
    alignment_rounds  rows {round (a number or name), log_like_per_frame, kind?, wider_beam?};
                    one kind is one model family, one plot
    alignment_plot  {utt_id, feats [T, F], phones: [(phone, start_frame, end_frame)], pdf_ids [T],
                    frame_shift_ms, words?: [(word, start_frame, end_frame)]}; end frames are exclusive
    boundaries      {split: {boundaries, mean_ms, median_ms, median_late_ms, within_10_ms, within_20_ms,
                    within_30_ms}}: the alignment against phones marked by hand; shares are fractions
    confusions      rows (ref, hyp, count), None for an inserted or deleted word; or {system: such rows}
    worst_utterances  rows {utt_id, system, alignment: [(ref, hyp)] with None for no word, errors, words?, audio?,
                    speaker?, oov?: words outside the vocabulary}; audio: what libsndfile reads, bytes or a path; an
                    utt_id has one card
    tuning          rows {acoustic_scale, insertion_score, lm_scale?, wer, chosen?: bool, system?}
    scales_at_grid_end  names of chosen scales at an end of their grid; default: derived from `tuning`
    scales_added    {scale: values added to its grid, because the best one was at an end}
    scales_flat     whether all rows of `tuning` have equally many errors
    resampled       what the bootstrap behind all intervals draws: "utterances" (default) or "speakers"
    folds           of a cross-validation, rows {fold, test_speakers, dev_speakers, train_speakers, utterances, words,
                    train_hours, scales: {name: value}, systems: {name: {wer, frame_accuracy, cross_entropy}}}
    speakers        of a cross-validation, rows {speaker, fold, words, errors: {system: count}}
    corpus          {split: {utterances, speakers, hours, words, copies, frames, ...}}
    oov_rate        share of running test words outside the language model, or {split: share}
    oov_words       rows (word, times) of reference words that no system can recognise, the most frequent first; of
                    `oov_types` such words
    excluded        {rule: count}: what the corpus preparation excluded by rule
    rejected        rows (utt_id, reason): what validation rejected
    unaligned       rows {split, utt_id, reason}: utterances without frame labels
    doubtful        rows {split, utt_id, words, log_like_per_frame, median, deviations_below, excluded: bool, audio?,
                    speaker?}, worst first: transcripts that fit their frames badly
    timing          {stage: seconds}
    environment     {name: version or description}

Another recipe builds Sections of Tables and Figures (modules page, tables, plots) and calls `render_page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asrkd.report.markdown import results_markdown, terminal_text
from asrkd.report.output import report_packages, write_text

__all__ = ["print_table", "write_report", "write_results_md"]

Results = Mapping[str, Any]


def print_table(results: Results) -> str:
    """The systems table, gap recovered, caveats and verdict, as text for a terminal (about 110 columns)."""
    return terminal_text(results)


def write_results_md(results: Results | Sequence[Results], path: Path | str) -> None:
    """Write RESULTS.md: the command that regenerates it, the verdict, tables; several runs follow by `variant`."""
    runs = [results] if isinstance(results, Mapping) else list(results)
    write_text(Path(path), results_markdown(runs))


def write_report(results: Results, extras: Results, path: Path | str) -> None:
    """Write report.html: one file, no network, light and dark. `extras` win over `results` key by key.

    InputError names the utt_id whose audio is missing or unreadable, or the package of the extra `report`
    that is not installed.
    """
    with report_packages(Path(path)):
        from asrkd.report.sections import speech_page
    write_text(Path(path), speech_page({**results, **extras}))
