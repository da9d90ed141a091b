"""A headless Chromium through its own protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome")
_WORDS = (
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--hide-scrollbars",
    "--force-device-scale-factor=1", "--window-size=1100,900",
)  # fmt: skip


def program():
    """The browser's path, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def opened(folder):
    """A `Tab` of a browser whose profile lies in *folder*."""
    from websockets.sync.client import connect

    words = [program(), *_WORDS, f"--user-data-dir={folder}/profile", *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with open(folder / "chromium.log", "w+b") as log:
        process = subprocess.Popen(
            [*words, "about:blank"], stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)}
        )
        try:
            with connect(_address(process, folder / "chromium.log"), max_size=None, proxy=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(20)


def _address(process, log, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"DevTools listening on (ws://\S+)", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the browser did not start: {log.read_text(errors='replace')[-2000:]}")


class Tab:
    """One page: what it asks for, what it complains of, and what it looks like."""

    def __init__(self, socket):
        self._socket = socket
        self._number, self._session = 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params, **session}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._number:
                assert "error" not in message, (method, message)
                return message["result"]
            if "method" in message:
                self.events.append(message)

    def open(self, path):
        """Open the file at *path* and wait until its charts are drawn."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete'")

    def until(self, condition, seconds=30):
        until = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < until, f"{condition} did not come true; {self.complaints()}"
            time.sleep(0.05)

    def evaluate(self, expression):
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key, **more):
        """*key* down and up, as from a keyboard."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_CODES.get(key, 0), **more
            )

    def media(self, scheme="light", kind=""):
        self.call(
            "Emulation.setEmulatedMedia", media=kind, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def size(self, width, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self):
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def complaints(self):
        """Errors and warnings in the console, exceptions, and what the page's policy stopped."""
        bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event["params"] for event in self.events if event["method"] in bad]

    def requests(self):
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]


_CODES = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Enter": 13}
