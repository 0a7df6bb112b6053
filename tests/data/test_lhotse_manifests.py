"""Lhotse manifests: values of the wrong type, channels, cuts, and files that are no manifest."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lhotse import AudioSource, CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.cut import Cut
from lhotse.utils import fastcopy

from asrkd import files
from asrkd.commands.doctor import release
from asrkd.data import manifest_items
from asrkd.data.lhotse_manifests import read_lhotse
from asrkd.data.segments import Segment
from asrkd.errors import InputError

RATE = 16000
STEREO = Recording("call", [AudioSource("file", [0, 1], "call.wav")], RATE, 2 * RATE, 2.0)
MONO = Recording("tape", [AudioSource("file", [0], "tape.wav")], RATE, 2 * RATE, 2.0)
SPOKEN = [
    SupervisionSegment("a", "call", 0.0, 1.5, channel=0, text="go", speaker="ann"),
    SupervisionSegment("b", "call", 0.5, 1.0, channel=1, text="stop", speaker="bob"),
]
RECORDING = MONO.to_dict()
SUPERVISION = SupervisionSegment("u", "tape", 0.0, 2.0, text="go", speaker="ann").to_dict()
FORMATS: dict[str, Callable[[list[Any]], bytes]] = {
    "m.jsonl": lambda items: "".join(json.dumps(item) + "\n" for item in items).encode(),
    "m.jsonl.gz": lambda items: gzip.compress(FORMATS["m.jsonl"](items)),
    "m.json": lambda items: json.dumps(items, indent=2).encode(),
    "dos.jsonl": lambda items: b"\xef\xbb\xbf" + "\r\n\r\n".join(json.dumps(item) for item in items).encode(),
}


def read(folder: Path, recordings: list[Any] | bytes, supervisions: list[Any] | bytes, name: str = "m.jsonl") -> Any:
    """The segments of manifests with these items or bytes."""
    paths = []
    for kind, items in (("r", recordings), ("s", supervisions)):
        path = folder / f"{kind}.{name.partition('.')[2]}"
        path.write_bytes(items if isinstance(items, bytes) else FORMATS[name](items))
        paths.append(path)
    return read_lhotse(*paths)


def test_windows_of_times_that_are_not_rounded_share_utterances(tmp_path: Path) -> None:
    """A supervision across windows is in each of them, with times that differ in rounding."""
    spoken = [
        SupervisionSegment(f"u{number}", "tape", number * 0.7 + 1e-7 / 3, 0.69, 0, text="go", speaker="ann")
        for number in range(2)
    ]
    windows = CutSet.from_manifests(RecordingSet.from_recordings([MONO]), SupervisionSet.from_segments(spoken))
    windows.cut_into_windows(0.5).to_file(tmp_path / "cuts.jsonl")
    segments = read_lhotse(tmp_path / "cuts.jsonl", None)
    assert [one.utt_id for one in segments if one.text] == ["u0", "u1"]
    lines = (tmp_path / "cuts.jsonl").read_text().splitlines()
    cut = json.loads(lines[0])
    cut["supervisions"][0]["start"] += 1e-3
    (tmp_path / "cuts.jsonl").write_text("\n".join([*lines, json.dumps(cut)]))
    assert [one.utt_id for one in read_lhotse(tmp_path / "cuts.jsonl", None) if one.text] == ["u0", "u0", "u1"]


def changed(item: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The item with another value of a field, which may be in its first source."""
    item = copy.deepcopy(item)
    fields = item["sources"][0] if name.startswith("source.") else item
    fields[name.removeprefix("source.")] = value
    return item


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_of_lhotse_is_read(tmp_path: Path, name: str) -> None:
    segments = read(tmp_path, [RECORDING], [SUPERVISION], name)
    assert segments == [Segment("u", Path("tape.wav"), 0.0, 2.0, "ann", "go")]


@pytest.mark.parametrize("name", ["r.yaml", "r.yaml.gz", "r.json.gz", "r.jsonl"])
def test_what_lhotse_writes_is_read(tmp_path: Path, name: str) -> None:
    recordings, supervisions = tmp_path / name, tmp_path / f"s{name}"
    RecordingSet.from_recordings([STEREO]).to_file(recordings)
    SupervisionSet.from_segments(SPOKEN).to_file(supervisions)
    assert read_lhotse(recordings, supervisions) == [
        Segment("a", Path("call.wav"), 0.0, 1.5, "ann", "go", 0),
        Segment("b", Path("call.wav"), 0.5, 1.5, "bob", "stop", 1),
    ]


WRONG = [None, True, [], {}, ["x"], {"a": 1}]
TIMES = [*WRONG, "1", float("nan"), float("inf"), float("-inf"), 10**400, "x" * 100_000]


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("r", "id", [*WRONG, 7, 7.5, "", "a\nb", "a\0b", "\ud800"]),
        ("r", "sources", [None, True, [], {}, ["x"], {"a": 1}, "x", 1]),
        ("r", "source.source", [*WRONG, 1, "", "a\0b", "x" * 5000]),
        ("r", "source.type", [*WRONG, 1]),
        ("r", "source.channels", [None, True, [], {}, ["0"], [-1], [0, 0], "0", 0.5, [None]]),
        ("r", "sampling_rate", [*WRONG, "16000", -1, 0.5]),
        ("r", "num_samples", [*WRONG, "5", -1, 0.5, 10**30]),
        ("r", "duration", TIMES),
        ("s", "id", [*WRONG, 7, "", "a\0b"]),
        ("s", "recording_id", [*WRONG, 7, ""]),
        ("s", "start", TIMES),
        ("s", "duration", TIMES),
        ("s", "channel", [True, [], {}, ["0"], [0, 1], -1, 0.0, "0", 1, 99]),
        ("s", "text", [True, 0, ["YES"], {}, 1.5, "a\0b", "\udcff"]),
        ("s", "speaker", [True, 1, ["x"], {}, "a\nb"]),
    ],
)
@pytest.mark.parametrize("name", ["m.jsonl", "m.json"])
def test_a_value_of_the_wrong_type_is_one_line(
    tmp_path: Path, kind: str, field: str, values: list[Any], name: str
) -> None:
    good = {"r": changed(RECORDING, "id", "good"), "s": changed(SUPERVISION, "id", "good")}
    for value in values:
        items = {"r": RECORDING, "s": SUPERVISION}
        items[kind] = changed(items[kind], field, value)
        with pytest.raises(InputError) as caught:
            read(tmp_path, [good["r"], items["r"]], [good["s"], items["s"]], name)
        message = str(caught.value)
        assert f"{kind}.{name.partition('.')[2]}:" in message and len(message) < 400 + len(str(tmp_path)), message
        if f"{value!r}" not in ("nan", "inf", "-inf"):  # no JSON at all
            assert f"`{field.removeprefix('source.')}`" in message or "each channel once" in message, message


@pytest.mark.parametrize("field", ["id", "sources", "sampling_rate", "num_samples", "duration"])
def test_a_field_that_is_missing_is_named(tmp_path: Path, field: str) -> None:
    item = {key: value for key, value in RECORDING.items() if key != field}
    with pytest.raises(InputError, match=rf"r.jsonl:1: .*as `{field}`, found none"):
        read(tmp_path, [item], [SUPERVISION])


def test_a_number_as_an_id_is_named_with_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'r.jsonl:2: expected a text as `id`, found the number 7: write "7"'):
        read(tmp_path, [RECORDING, changed(RECORDING, "id", 7)], [SUPERVISION])


def test_empty_values_are_left_to_the_check_of_utterances(tmp_path: Path) -> None:
    item = {**SUPERVISION, "text": None, "speaker": None, "channel": None, "language": 5, "custom": {"a": [1]}}
    assert read(tmp_path, [RECORDING], [item]) == [Segment("u", Path("tape.wav"), 0.0, 2.0, "", "")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "s.jsonl|r.jsonl: expected a Lhotse RecordingSet, found an empty file"),
        (b"null\n", "r.jsonl:1: expected an item of a Lhotse RecordingSet, found null"),
        (b"\n\n[1, 2]\n", "r.jsonl:3: expected an item of a Lhotse RecordingSet, found the number 1"),
        (b"{}\n", "r.jsonl:1: expected a text as `id`, found none"),
        (b'{"id": "a", "id": "b"}\n', "r.jsonl:1: .*the key id twice"),
        (b'{"a": ' * 100_000 + b"\n", "r.jsonl:1: expected a JSON object, found one that is nested too deep"),
        (b"[" * 100_000, "r.jsonl:1: expected a JSON object, found one that is nested too deep"),
        (b'{"id": "a", "duration": NaN}\n', "r.jsonl:1: .*NaN, which is no number of JSON"),
        (b'{"id": "caf\xe9"}\n', "r.jsonl:1: expected UTF-8, found byte 0xe9"),
        ('{"id": "a"}'.encode("utf-16"), "r.jsonl:1: expected UTF-8, found byte 0xff"),
        (b'\0\0\0\0{"id": "a"}\n', "r.jsonl:1: expected a JSON object"),
        (b'{"id": "a"\n', "r.jsonl:1: expected a JSON object"),
        (b"id,path\n1,a.wav\n", "r.jsonl:1: expected a JSON object"),
        (b"\x1f\x8b\x08 damaged", "r.jsonl: expected a Lhotse RecordingSet, found something else"),
    ],
)
def test_a_file_that_is_no_manifest_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, data, [] if not data else [SUPERVISION])


def test_what_follows_a_whole_manifest_and_what_is_cut_off_is_seen(tmp_path: Path) -> None:
    array, lines = (
        FORMATS["m.json"]([RECORDING]),
        FORMATS["m.jsonl"]([changed(RECORDING, "id", str(n)) for n in range(99)]),
    )
    for data, message in (
        (array + array, r"r.jsonl:\d+: expected one JSON array, found more after it"),
        (array.rstrip(b"]\n"), r"r.jsonl:\d+: expected (`,` or `\]`|a JSON object)"),
        (array.replace(b"]", b"", 1), r"r.jsonl:\d+: expected a JSON object"),
        (gzip.compress(lines)[:-12], "r.jsonl: expected a Lhotse RecordingSet, found something else"),
        (gzip.compress(lines) + b"more", "r.jsonl: expected a Lhotse RecordingSet, found something else"),
        (lines + lines, "r.jsonl: expected one recording 0, found two"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, data, [SUPERVISION])


def test_a_gzip_that_expands_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FREE_EXPANSION", 1 << 20)
    monkeypatch.setattr(manifest_items, "LONGEST_LINE", 1 << 20)
    for bomb, message in ((b"\n", "expands at most 250 times"), (b" ", r"r.jsonl:1: expected lines of at most 1 MiB")):
        with pytest.raises(InputError, match=message):
            read(tmp_path, gzip.compress(bomb * (8 << 20)), [SUPERVISION])
    with pytest.raises(InputError, match="expands at most 250 times"):
        read(tmp_path, gzip.compress(b"[" + b" " * (8 << 20)), [SUPERVISION])


def test_yaml_makes_plain_values_only(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    layers = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12))
    for text, message in (
        (f"- !!python/object/apply:os.system ['touch {ran}']\n", "could not determine a constructor"),
        (layers, "expected a Lhotse RecordingSet, found an object"),
        ("- id: a\n  id: b\n", "the key id twice"),
        ("- id: 7\n", 'expected a text as `id`, found the number 7: write "7"'),
        ("- id: 2001-01-01\n", "expected a text as `id`, found a date"),
        ("- id: [a\n", "expected a Lhotse RecordingSet, found something else"),
        ("[" * 5000, "expected a Lhotse RecordingSet, found something else"),
        ("- 1: 2\n", "expected an item of a Lhotse RecordingSet, found an object"),
    ):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_lhotse(tmp_path / "r.yaml", tmp_path / "r.yaml")
    assert not ran.exists()


def test_no_name_of_a_manifest_reaches_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lhotse runs what follows `pipe:`."""
    monkeypatch.chdir(tmp_path)
    name = Path("pipe:touch ran #.jsonl")
    name.write_text(json.dumps(RECORDING), encoding="utf-8")
    Path("s.jsonl").write_text(json.dumps(SUPERVISION), encoding="utf-8")
    assert len(read_lhotse(name, Path("s.jsonl"))) == 1
    for given in ("pipe:touch ran", "-", "s3://bucket/r.jsonl", "a\0b"):
        with pytest.raises(InputError, match="no such file"):
            read_lhotse(Path(given), Path("s.jsonl"))
    assert not Path("ran").exists()


@pytest.mark.parametrize("kind", ["command", "url", "memory", "shar"])
def test_audio_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=f"r.jsonl:1: tape: expected one unchanged file, found a {kind}"):
        read(tmp_path, [changed(RECORDING, "source.type", kind)], [SUPERVISION])
    speed = [{"name": "Speed", "kwargs": {"factor": 0.9}}]
    with pytest.raises(InputError, match="tape: expected one unchanged file, without transforms, as `transforms`"):
        read(tmp_path, [changed(RECORDING, "transforms", speed)], [SUPERVISION])


def test_manifests_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"r.jsonl: expected a Lhotse RecordingSet, found a SupervisionSegment in it"):
        read(tmp_path, [SUPERVISION], [RECORDING])
    with pytest.raises(InputError, match=r"s.jsonl: expected a Lhotse SupervisionSet, found a Recording in it"):
        read(tmp_path, [RECORDING], [SUPERVISION, RECORDING])
    with pytest.raises(InputError, match=r"s.jsonl: expected a Lhotse SupervisionSet, found an empty file"):
        read(tmp_path, [RECORDING], [])
    with pytest.raises(InputError, match=r"r.jsonl: expected a recording tapes of u, found none"):
        read(tmp_path, [RECORDING], [changed(SUPERVISION, "recording_id", "tapes")])


def test_each_channel_is_that_of_its_supervision(tmp_path: Path) -> None:
    """The channels of a recording may be in one file or in several."""
    sides = [{"type": "file", "channels": [n], "source": f"{n}.wav"} for n in (0, 1)]
    two_files = changed(STEREO.to_dict(), "sources", sides)
    supervisions = [one.to_dict() for one in SPOKEN]
    for recording, expected in (
        (STEREO.to_dict(), [("call.wav", 0), ("call.wav", 1)]),
        (two_files, [("0.wav", None), ("1.wav", None)]),
    ):
        segments = read(tmp_path, [recording], supervisions)
        assert [(str(one.path), one.channel) for one in segments] == expected
    with pytest.raises(
        InputError, match=r"s.jsonl:1: a: expected one of the channels 0, 1 of recording call as `channel`"
    ):
        read(tmp_path, [STEREO.to_dict()], [changed(supervisions[0], "channel", 2)])
    with pytest.raises(InputError, match=r"s.jsonl:1: a: expected one channel as `channel`, found a list"):
        read(tmp_path, [STEREO.to_dict()], [changed(supervisions[0], "channel", [0, 1])])


def cuts_of(recording: Recording, supervisions: list[SupervisionSegment]) -> CutSet:
    return CutSet.from_manifests(
        RecordingSet.from_recordings([recording]), SupervisionSet.from_segments(supervisions)
    ).to_eager()


def write_cuts(path: Path, *cuts: Cut) -> Path:
    CutSet.from_cuts(cuts).to_file(path)
    return path


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz", "cuts.json"])
def test_cuts_give_the_same_segments_as_their_manifests(tmp_path: Path, name: str) -> None:
    expected = read(tmp_path, [STEREO.to_dict()], [one.to_dict() for one in SPOKEN])
    cuts = cuts_of(STEREO, SPOKEN)
    assert read_lhotse(write_cuts(tmp_path / name, *cuts), None) == expected
    trimmed = list(cuts.trim_to_supervisions(keep_overlapping=False))
    assert {type(cut).__name__ for cut in trimmed} == {"MonoCut"}
    assert read_lhotse(write_cuts(tmp_path / name, *trimmed), None) == expected
    overlapping = list(cuts.trim_to_supervisions(keep_all_channels=True))
    assert sum(len(cut.supervisions) for cut in overlapping) > len(expected)
    assert read_lhotse(write_cuts(tmp_path / name, *overlapping), None) == expected


def test_a_cut_inside_a_recording_has_its_words_whole(tmp_path: Path) -> None:
    """Times of supervisions count from the cut; one that begins before it is read from its own begin."""
    supervisions = [SupervisionSegment(n, "tape", t, 0.7, text=n, speaker="ann") for n, t in (("a", 0.2), ("b", 1.1))]
    (cut,) = cuts_of(MONO, supervisions)
    segments = read_lhotse(write_cuts(tmp_path / "cuts.jsonl", cut.truncate(offset=0.3, duration=1.0)), None)
    assert [(one.utt_id, one.start_sec, one.end_sec) for one in segments] == [("a", 0.2, 0.9), ("b", 1.1, 1.8)]
    (bare,) = cuts_of(MONO, [])
    bare = bare.truncate(offset=0.5, duration=1.0)
    assert read_lhotse(write_cuts(tmp_path / "cuts.jsonl", bare), None) == [
        Segment(bare.id, Path("tape.wav"), 0.5, 1.5, "", None)
    ]


def test_cuts_whose_audio_is_in_no_file_are_refused_by_name(tmp_path: Path) -> None:
    (cut,) = cuts_of(MONO, [SupervisionSegment("u", "tape", 0.0, 2.0, text="go", speaker="ann")])
    (padding,) = [track.cut for track in cut.pad(3.0).tracks[1:]]
    for other, message in (
        (cut.pad(3.0), "expected a MonoCut, found a MixedCut, whose mixed or padded audio is in no file"),
        (padding, "expected a MonoCut, found a PaddingCut, which has no speech"),
        (cut.perturb_speed(0.9), r"recording: tape_sp0.9: expected one unchanged file, without transforms"),
        (cut.resample(8000), r"recording: tape: expected one unchanged file, without transforms"),
        (fastcopy(cut, recording=None), "features alone have no audio"),
    ):
        with pytest.raises(InputError, match=f"cuts.jsonl:2: .*{message}"):
            read_lhotse(write_cuts(tmp_path / "cuts.jsonl", cut, other), None)
    path = write_cuts(tmp_path / "cuts.jsonl", cut)
    with pytest.raises(InputError, match="found a MonoCut in it: give cuts without --supervisions"):
        read_lhotse(path, path)
    fields = cut.to_dict()
    for name, value in (("start", "0"), ("duration", None), ("channel", "x"), ("supervisions", {}), ("id", 7)):
        (tmp_path / "cuts.jsonl").write_text(json.dumps({**fields, name: value}))
        with pytest.raises(InputError, match=rf"cuts.jsonl:1: .*`{name}`"):
            read_lhotse(path, None)
    fields["supervisions"][0]["speaker"] = 1
    (tmp_path / "cuts.jsonl").write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"cuts.jsonl:1: .*: supervision: u: expected a text as `speaker`"):
        read_lhotse(path, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1" + "0" * 400, "line 2: a number of 401 characters"),
        ("0x" + "f" * 90, "expected a list of objects as `sources`, found none"),
        ("!!bool foo", "line 2: the text 'foo', which is no bool"),
        ("!!timestamp foo", "line 2: the text 'foo', which is no timestamp"),
        ("0001-01-01T00:00:00+23:59", "expected a number of seconds as `duration`, found a datetime"),
        ("2001-99-01", "line 2: the text '2001-99-01', which is no timestamp"),
        ("!!map [1, 2]", "line 2: a list or an object, which is no map"),
        ("!!set [1, 2]", "line 2: a list or an object, which is no set"),
        ('!!float ""', "line 2: the text '', which is no float"),
        ('!!int ""', "line 2: the text '', which is no int"),
        ("!!int foo", "line 2: the text 'foo', which is no int"),
        ("{[1]: 2}", "found something else"),
    ],
)
def test_values_that_do_not_fit_their_yaml_tag_are_refused(tmp_path: Path, value: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"- id: a\n  duration: {value}\n  sampling_rate: 16000\n  num_samples: 1\n")
    with pytest.raises(InputError, match=message) as error:
        read_lhotse(path, path)
    assert "\n" not in str(error.value)


def test_keys_of_yaml_that_multiply_are_refused(tmp_path: Path) -> None:
    levels = [f"  l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    (tmp_path / "r.yaml").write_text("\n".join(["- l0: &l0 {a: 1, b: 2}", *levels]))
    # PyYAML 6.0.4 and later merge each key once, so they do not multiply: then it is the item that is refused.
    merges_once = release(yaml.__version__) >= (6, 0, 4)
    with pytest.raises(InputError, match="expected a text as `id`" if merges_once else "more than 10000 fields"):
        read_lhotse(tmp_path / "r.yaml", tmp_path / "r.yaml")


def test_errors_number_the_items_of_yaml_and_the_lines_of_json(tmp_path: Path) -> None:
    import yaml

    items = [RECORDING, changed(RECORDING, "id", 5)]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(items))
    with pytest.raises(InputError, match=r"r\.yaml: item 2: expected a text as `id`"):
        read_lhotse(tmp_path / "r.yaml", tmp_path / "r.yaml")
    with pytest.raises(InputError, match=r"r\.jsonl:2: expected a text as `id`"):
        read(tmp_path, items, [SUPERVISION])


@pytest.mark.parametrize(
    "source", ["file:///x/tape.wav", "file:/x/tape.wav", "https://host/tape.wav", "s3://b/tape.wav"]
)
def test_the_url_of_a_file_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match=r"expected a path as `source`, found the text '.*', a URL: write"):
        read(tmp_path, [changed(RECORDING, "source.source", source)], [SUPERVISION])
