"""The page of `asrkd serve` in a browser: a microphone, files, two models, a narrow screen."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from browser import Browser, find_browser, wait_for
from server_process import ServerProcess
from test_server import noise, wav
from toy_model import write_toy_model

pytestmark = [
    pytest.mark.needs("onnx", "starlette", "uvicorn", "python_multipart"),
    pytest.mark.skipif(find_browser() is None, reason="no Chromium here"),
]

PANELS = "[...document.querySelectorAll('#panels > *')].map(one => one.innerText)"
STATUS = "document.getElementById('status').textContent"
# Of each panel: the words that are final, or else those that can still change.
WORDS = """[...document.querySelectorAll('#panels > *')].map(panel =>
    [...panel.querySelectorAll('.word')].map(one => one.textContent).join(' ')
    || panel.querySelector('.partial').textContent)"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    models = [write_toy_model(folder / name, cmvn="online") for name in ("student", "teacher")]
    (folder / "talk.wav").write_bytes(wav(noise(6.0)))
    program = find_browser()
    assert program is not None
    with (
        ServerProcess(*models, "--num-workers", "1") as server,
        Browser(program, folder / "browser", folder / "talk.wav") as browser,
    ):
        browser.open(f"http://127.0.0.1:{server.port}/")
        wait_for(lambda: browser.run("document.getElementById('model1').options.length"))
        yield browser


def finish(page: Browser) -> None:
    wait_for(lambda: page.run("session === null"))


def test_speech_of_the_microphone_becomes_words_of_both_models(page: Browser) -> None:
    page.run("document.getElementById('speak').click()")
    wait_for(lambda: (words := page.run(WORDS)) and all(words))
    page.run("document.getElementById('speak').click()")
    finish(page)
    first, second = page.run(WORDS)
    assert first and first == second  # the two have the same random weights
    assert page.run("document.getElementById('agreement').textContent") == "100.0%"
    assert "not in the other model's words" in page.run("document.querySelector('.legend').innerText")
    names = page.run(f"{PANELS}.map(text => text.split('\\n')[0])")
    assert names[0].startswith("student (") and names[1].startswith("teacher (")


def test_speech_that_is_stopped_at_once_ends(page: Browser) -> None:
    page.run("document.getElementById('speak').click()")
    wait_for(lambda: page.run("session !== null"))
    page.run("document.getElementById('speak').click()")
    finish(page)
    assert page.run(STATUS).startswith("Done.")


def test_a_file_gives_the_same_words_again_and_one_without_audio_is_named(page: Browser) -> None:
    content = base64.b64encode(wav(noise(4.0, seed=3))).decode()
    file = f"new File([Uint8Array.from(atob('{content}'), c => c.charCodeAt(0))], 'talk.wav')"
    found = []
    for _ in range(2):
        page.run(f"attempt(() => transcribe({file}))")
        finish(page)
        found.append(page.run(WORDS))
    assert found[0] == found[1] and all(found[0])
    page.run("attempt(() => transcribe(new File(['no audio'], 'text.wav')))")
    wait_for(lambda: page.run(STATUS).startswith("text.wav: expected audio"))


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(page: Browser, width: int) -> None:
    page.resize(width, 800)
    assert page.run("document.documentElement.scrollWidth") <= width
