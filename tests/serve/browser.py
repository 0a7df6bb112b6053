"""Chromium without a window, driven over its DevTools protocol. Its microphone plays a WAV file once."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WAIT_SEC = 60.0


def find_browser() -> str | None:
    """The path of a browser of this kind; None where there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One tab. Use it as a context."""

    def __init__(self, program: str, folder: Path, microphone: Path) -> None:
        port_file = folder / "DevToolsActivePort"
        self._process = subprocess.Popen(
            [
                *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *(
                    "--remote-debugging-port=0",
                    f"--user-data-dir={folder}",
                    "--no-first-run",
                    "--autoplay-policy=no-user-gesture-required",
                ),
                *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
                *(f"--use-file-for-fake-audio-capture={microphone}%noloop", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0
        try:
            wait_for(lambda: port_file.is_file() and port_file.read_text().strip())
            listing = f"http://127.0.0.1:{port_file.read_text().split()[0]}/json"
            tabs = json.load(urllib.request.urlopen(listing, timeout=WAIT_SEC))
            (tab,) = [one for one in tabs if one["type"] == "page"]
            self._socket = connect(tab["webSocketDebuggerUrl"], max_size=None, open_timeout=WAIT_SEC)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.close()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(WAIT_SEC)

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command of the protocol."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(WAIT_SEC))
            if message.get("id") == self._number:
                return dict(message["result"])

    def run(self, script: str) -> Any:
        """The value of an expression on the page, as after a click."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.command("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        """Load a page, until it is there."""
        self.command("Page.navigate", url=address)
        wait_for(lambda: self.run("document.readyState") == "complete" and self.run("location.href") == address)

    def resize(self, width: int, height: int) -> None:
        """Give the window a size in pixels."""
        values = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **values)


def wait_for(is_so: Callable[[], object]) -> None:
    """Look until it is so. AssertionError after a minute."""
    end = time.monotonic() + WAIT_SEC
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
