"""Stages 0 to 5 as steps: corpus, manifests, features, language model, alignment, tree and labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from asrkd.data.segments import COPY_FORMAT
from asrkd.lang.text_rules import TextRules
from asrkd.recipe import (
    augment_steps,
    features,
    labels,
    lang,
    loss_checks,
    transfer_steps,
)
from asrkd.recipe import corpus as corpora
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import HELD_OUT, SPLITS, TRANSFER
from asrkd.recipe.labels_source import labels_stamp
from asrkd.recipe.options import SpeechOptions, corpus_options
from asrkd.recipe.step_options import file_stamp, label_options, lexicon_options, real_path, with_real_paths
from asrkd.recipe.untranscribed import untranscribed_stamp
from asrkd.workflow.steps import Step


def corpus_step(corpus: Corpus, options: SpeechOptions) -> Step:
    """Stage 0, of the whole corpus."""
    listing, paths = corpora.list_sources(corpus, options)
    prepare = partial(corpora.prepare_corpus, corpus, listing, options, paths=paths)
    decides = {
        "files": listing,
        "corpus_dir": real_path(options.corpus_dir or Path()),
        "corpora": [with_real_paths(one) for one in corpus_options(options)],
        **({"segment_copies": COPY_FORMAT} if corpus.files else {}),  # those of earlier code are not used
        "max_bad": options.max_bad,
    }
    return Step(0, corpora.CORPUS_STEP, prepare, decides)


def split_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 1 and 2. Each split has manifests and features of its own: a change of one leaves the others."""
    steps = []
    for split in SPLITS:
        steps.append(
            Step(
                1,
                f"manifests/{split}",
                partial(corpora.make_manifests, corpus, split, options),
                {
                    "max_bad": options.max_bad,
                    "max_duration": options.max_duration,
                    "features.sampling_rate": options.features.sampling_rate,
                    "texts": TextRules.of(options.lang).options,
                    **(untranscribed_stamp(options) if split == "train" else {}),
                },
                ("corpus",),
                content=corpora.manifests_content,
            )
        )
    if options.transfer.has_speech:
        steps.append(transfer_steps.manifests_step(options))
    if features.prior_steps(options.features):
        decides = {"features": features.split_features("test", options.features)}
        steps.append(Step(2, features.PRIOR, partial(features.make_prior, options), decides, ("manifests/train",)))
    for split in splits_with_features(options):
        steps.append(
            Step(
                2,
                f"features/{split}",
                partial(features.make_features, split, options),
                {"features": features.split_features(split, options.features)},
                (f"manifests/{split}", *features.prior_steps(options.features)),
                resumable=True,
            )
        )
    return [*steps, *augment_steps.recordings_steps(options)]


def splits_with_features(options: SpeechOptions) -> tuple[str, ...]:
    return (*SPLITS, TRANSFER) if options.transfer.has_speech else SPLITS


def lang_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stage 3, from transcripts alone."""
    decides = lexicon_options(corpus, options)
    closed = {"closed_vocabulary": lang.is_vocabulary_closed(corpus, options)}
    model = {"arpa": file_stamp(options.lang.arpa, corpus.where_model)}
    if options.lang.text is not None:
        model["text"] = file_stamp(options.lang.text)
    manifests = tuple(f"manifests/{split}" for split in SPLITS)
    check = Step(3, "lang/words", partial(lang.check_words, corpus, options), decides, manifests)
    return [
        *([] if corpus.plain_words else [check]),
        Step(
            3,
            "lang/lexicon",
            partial(lang.make_lexicon, corpus, options),
            {**decides, **closed, **_labels_stamp(corpus, options)},
            ("manifests/train",),
        ),
        Step(
            3,
            "losses/words",
            partial(loss_checks.check_words, corpus, options),
            {**decides, "max_bad": options.max_bad},
            (*(f"manifests/{split}" for split in SPLITS), "lang/lexicon"),
        ),
        Step(
            3,
            "lang/lm",
            partial(lang.make_lm, corpus, options),
            {**decides, "lang": lang.lm_options(options.lang), **model},
            ("manifests/train", "lang/lexicon"),
        ),
        Step(
            3,
            "lang/coverage",
            partial(lang.measure_coverage, options),
            None,
            (*manifests, "lang/lm"),
        ),
    ]


def label_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 4 and 5: labels of the training frames, then those of each held-out split."""
    steps = [
        Step(
            4,
            "losses/frames",
            partial(loss_checks.check_frames, corpus, options),
            {**lexicon_options(corpus, options), "max_bad": options.max_bad},
            (*(f"{kind}/{split}" for kind in ("manifests", "features") for split in SPLITS), "lang/lexicon"),
        ),
        *(_own_labels(options) if options.labels_from is None else [_borrowed_labels(corpus, options)]),
    ]
    for split in HELD_OUT:
        steps.append(
            Step(
                5,
                f"labels/{split}",
                partial(labels.label_split, corpus, split, options),
                _held_out_options(corpus, options),
                (f"manifests/{split}", f"features/{split}", "lang/lexicon", "tree"),
                content=labels.labels_content,
                resumable=True,
            )
        )
    if options.transfer.has_speech and options.transfer.transcripts is not None:
        steps.append(transfer_steps.labels_step(corpus, options, lexicon_options(corpus, options)))
    for split in SPLITS:
        steps.append(
            Step(
                5,
                f"losses/{split}",
                partial(loss_checks.check_labels, split, options),
                {"doubtful": options.doubtful, "max_bad": options.max_bad},
                ("corpus", f"manifests/{split}", "tree" if split == "train" else f"labels/{split}"),
                content=loss_checks.losses_content,
            )
        )
    return steps


def _own_labels(options: SpeechOptions) -> list[Step]:
    """The alignment from a flat start, and the tree of senones."""
    return [
        Step(
            4,
            "align",
            partial(labels.make_alignment, options),
            {"align": options.align, **label_options(options, options.labels.mono_rounds)},
            ("features/train", "lang/lexicon"),
            resumable=True,
        ),
        Step(
            5,
            "tree",
            partial(labels.make_tree, options),
            {"tree": options.tree, **label_options(options, options.labels.tree_rounds)},
            ("features/train", "lang/lexicon", "align"),
            content=labels.tree_content,
            resumable=True,
        ),
    ]


def _borrowed_labels(corpus: Corpus, options: SpeechOptions) -> Step:
    """The aligner and the senones of another run, and the training split's labels by them."""
    return Step(
        5,
        "tree",
        partial(labels.label_train, options),
        {**_held_out_options(corpus, options), **_labels_stamp(corpus, options)},
        ("features/train", "lang/lexicon"),
        content=labels.tree_content,
        resumable=True,
    )


def _held_out_options(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """What decides the labels of speech that no network of the labels was trained on, apart from the aligner."""
    return {"realign": options.realign, "context": options.context, **lexicon_options(corpus, options)}


def _labels_stamp(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    return labels_stamp(_held_out_options(corpus, options), options)
