"""Tables of the run: corpus, excluded and rejected utterances, alignment, time, environment, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asrkd.report.systems import role
from asrkd.report.tables import MISSING, Row, Table, count, duration, keyed_table, number

BOUNDARY_LIMITS_MS = (10, 20, 30)
SCORING = "scoring"
SHOWN_OOV_WORDS = 10
SHOWN_REJECTS = 5
MINUTES_OF_A_DATE = len("2015-03-09 12:00")


def corpus_table(results: Row) -> Table | None:
    """Utterances, speakers, hours, words, copies (at other speeds) and frames, one row per split."""
    corpus = results.get("corpus")
    if not corpus:
        return None
    columns = list(dict.fromkeys(key for split in corpus.values() for key in split))
    rows = tuple((name, *(_corpus_cell(split.get(key)) for key in columns)) for name, split in corpus.items())
    return Table("Corpus", ("split", *columns), rows, "l" + "r" * len(columns))


def transfer_table(results: Row) -> Table | None:
    """Untranscribed speech that distilled students learn from, and what was dropped of it."""
    transfer = results.get("transfer")
    if not transfer:
        return None
    of_corpus = "untranscribed" in transfer
    shown = {"speakers of the training set": count(transfer["speakers"])} if of_corpus else {}
    shown |= {
        "recordings": count(transfer["recordings"]),
        "utterances" if of_corpus else "pieces of at most 30 s": count(transfer["pieces"]),
        "hours": number(transfer["hours"], 2),
        "frames": count(transfer["frames"]),
        "silent pieces, excluded": count(transfer["silent"]),
        "bad pieces, dropped": count(len(transfer["rejected"])),
        "share of a distilled student's frames, %": number(transfer["share"], 0, 100),
    }
    if "transcribed" in transfer:
        shown["utterances with words of another recogniser"] = count(transfer["transcribed"])
        shown["of these, with frame labels"] = count(transfer["labelled"])
    note = "Its transcripts are not read." if of_corpus else "Nobody transcribed it."
    note += " The teachers' posteriors of its frames are what students learn from it."
    shown_rejects = [f"{utt_id}: {reason}" for utt_id, reason in transfer["rejected"][:SHOWN_REJECTS]]
    if shown_rejects:
        note += f" Dropped: {'; '.join(shown_rejects)}."
    return Table("Transfer set", ("untranscribed speech", "value"), tuple(shown.items()), "lr", note=note)


def _corpus_cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 2)
    return count(value) if isinstance(value, int) else str(value if value is not None else MISSING)


def oov_text(results: Row) -> str | None:
    """One sentence on words outside the language model."""
    rate = results.get("oov_rate")
    if rate is None:
        return None
    rates = rate if isinstance(rate, Mapping) else {"test": rate}
    shown = ", ".join(f"{name} {number(value, 2, 100)}%" for name, value in rates.items())
    words = [f"{word} ({count(times)})" for word, times in results.get("oov_words") or ()]
    more = int(results.get("oov_types") or 0) - SHOWN_OOV_WORDS
    named = f": {', '.join(words[:SHOWN_OOV_WORDS])}{f' and {count(more)} more' if more > 0 else ''}" if words else ""
    return f"Running words outside the language model: {shown}{named}."


def boundary_table(results: Row) -> Table | None:
    """How far the alignment's boundaries are from those that people marked, one row per split."""
    splits = results.get("boundaries")
    if not splits:
        return None
    rows = tuple(
        (
            name,
            count(errors["boundaries"]),
            *(number(errors[key], 1) for key in ("mean_ms", "median_ms")),
            number(errors["median_late_ms"], 1, signed=True),
            *(number(errors[f"within_{limit}_ms"], 1, 100) for limit in BOUNDARY_LIMITS_MS),
        )
        for name, errors in splits.items()
    )
    return Table(
        "Boundaries against marks by hand",
        (
            *("split", "boundaries", "mean error, ms", "median error, ms", "median lateness, ms"),
            *(f"within {limit} ms, %" for limit in BOUNDARY_LIMITS_MS),
        ),
        rows,
        "l" + "r" * (4 + len(BOUNDARY_LIMITS_MS)),
        note="Starts of phones, and ends before a pause; errors without their sign.",
    )


def excluded_table(results: Row) -> Table | None:
    """Utterances that the corpus preparation excluded, by rule."""
    rules = results.get("excluded")
    if not rules:
        return None
    return keyed_table("Excluded by rule", {rule: count(n) for rule, n in rules.items()}, ("rule", "utterances"))


def rejected_table(results: Row) -> Table | None:
    """Utterances rejected as bad or impossible to align, with the reason."""
    rejected = results.get("rejected")
    if not rejected:
        return None
    return Table("Rejected utterances", ("utt_id", "reason"), tuple((str(u), str(r)) for u, r in rejected), "ll")


def timing_table(results: Row) -> Table | None:
    """Wall-clock time by stage, and their sum."""
    timing = results.get("timing")
    if not timing:
        return None
    pairs = {stage: duration(seconds) for stage, seconds in timing.items()}
    pairs["all"] = duration(sum(float(seconds) for seconds in timing.values()))
    return keyed_table("Time by stage", pairs, ("stage", "time"))


def environment_table(results: Row) -> Table | None:
    """Versions, also of the environment that trained and scored the networks, where it was another one."""
    environment = results.get("environment")
    if not environment:
        return None
    networks = results.get("training_environment") or {}
    if not networks:
        pairs = {str(name): str(value) for name, value in environment.items()}
        return keyed_table("Environment", pairs, ("name", "version"), "ll")
    names = dict.fromkeys([*environment, *networks])
    rows = tuple((str(name), *(str(one.get(name) or MISSING) for one in (environment, networks))) for name in names)
    return Table("Environment", ("name", "version", "of the networks (--train.python)"), rows, "lll")


def provenance_pairs(results: Row) -> dict[str, str]:
    """What identifies the run: recipe, configuration hash, git SHA, seeds, device."""
    seed = results["seed"]
    seeds = ", ".join(map(str, seed)) if isinstance(seed, (list, tuple)) else str(seed)
    shown = {
        "recipe": results["recipe"],
        "variant": results.get("variant"),
        "configuration": results["config_sha"],
        "git": results["git_sha"],
        "seed": seeds,
        "device": results["device"],
    }
    return {key: str(value) for key, value in shown.items() if value is not None}


def provenance_table(results: Row) -> Table | None:
    """Revision, source digest, device and date of every system's training, and of the scoring; None where no system
    has them."""
    rows = [(name, *_provenance_cells(system)) for name, system in results["systems"].items()]
    if all(set(row[1:]) == {MISSING} for row in rows):
        return None
    rows.append((SCORING, *_provenance_cells(results)))
    headers = ("system", "revision", "digest of the sources", "device", "finished (UTC)")
    return Table("Provenance of each system", headers, tuple(rows), "lllll").without_empty_columns()


def _provenance_cells(made: Row) -> tuple[str, str, str, str]:
    """Of a system or of the whole run; an ensemble's values may be several, joined by commas."""
    revision, code, device = (str(made.get(key) or MISSING) for key in ("git_sha", "code", "device"))
    finished = str(made.get("finished") or MISSING)
    return revision, code, device, finished.replace("T", " ")[:MINUTES_OF_A_DATE]


def revisions_text(results: Row) -> str | None:
    """A warning where systems were trained, or scored, with different code; None where with the same."""
    # An ensemble is made of its teachers, which are systems themselves.
    systems = {name: system for name, system in results["systems"].items() if role(name, system) != "ensemble"}
    made = {name: system for name, system in systems.items() if system.get("git_sha")}
    if not made:
        return None
    made_by: dict[str, list[str]] = {}
    several_digests = len({system.get("code") for system in made.values()}) > 1
    for name, one in [*made.items(), (SCORING, results)]:
        digest = f", sources {one['code']}" if several_digests and one.get("code") else ""
        made_by.setdefault(f"{one['git_sha']}{digest}", []).append(name)
    revisions = {str(one["git_sha"]) for one in [*made.values(), results]}
    if len(revisions) < 2 and not several_digests:
        return None
    shown = "; ".join(f"{code} ({', '.join(names)})" for code, names in made_by.items())
    return f"Not all systems come from one revision of the code: {shown}."
