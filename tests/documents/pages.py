"""A headless Chromium that opens many pages in one session, spoken to through its debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Browser", "Opened", "browser"]

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
# Elements that stick out of the window without a scrolling parent; what screen readers only see does not count.
MEASURE = """(() => {
  const scrolls = e => e && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
  const out = [...document.querySelectorAll('article *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && box.right > innerWidth + 1 && !scrolls(e.parentElement) && !e.closest('svg');
  });
  return JSON.stringify({content: document.documentElement.scrollWidth, window: innerWidth,
    outside: out.slice(0, 3).map(e => e.outerHTML.slice(0, 90)), title: document.title});
})()"""


@dataclass(frozen=True)
class Opened:
    """What was seen of one page at one width."""

    title: str
    content: int
    window: int
    outside: list[str]
    errors: list[str]
    requests: list[str]  # addresses outside the files of the site

    @property
    def faults(self) -> list[str]:
        """Say in words what is wrong with the page."""
        wide = [f"content {self.content} px wide in {self.window} px"] if self.content > self.window else []
        return [*wide, *(f"sticks out: {e}" for e in self.outside), *self.errors, *(f"asks {r}" for r in self.requests)]


@dataclass
class Browser:
    """One tab of a running browser."""

    write: int
    read: int
    session: str = ""
    number: int = 0
    rest: bytes = b""
    seen: list[dict[str, Any]] = field(default_factory=list)

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.rest:
            if not select.select([self.read], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("The browser did not answer in time.")
            self.rest += os.read(self.read, 1 << 20)
        line, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _until(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + 60
        while True:
            message = self._receive(end)
            self.seen.append(message)
            if fits(message):
                return message

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self.number += 1
        number = self.number
        session = {"sessionId": self.session} if self.session else {}
        order = {"id": number, "method": method, "params": parameters, **session}
        os.write(self.write, json.dumps(order).encode() + b"\0")
        answer = self._until(lambda message: message.get("id") == number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        found: dict[str, Any] = answer["result"]
        return found

    def evaluate(self, script: str) -> Any:
        """Return what an expression is worth on the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def goto(self, address: str, width: int, height: int = 900) -> None:
        """Open a page in a window of that size and wait until it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.seen.clear()
        self.call("Page.navigate", url=address)
        if not any(message.get("method") == "Page.loadEventFired" for message in self.seen):
            self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def open(self, address: str, width: int) -> Opened:
        """Open a page and return what was seen of it."""
        self.goto(address, width)
        measured = json.loads(self.evaluate(MEASURE))
        return Opened(**measured, errors=list(self._errors()), requests=list(self._requests()))

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a picture of the page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def _errors(self) -> Iterator[str]:
        for message in self.seen:
            method, said = message.get("method"), message.get("params", {})
            if method == "Runtime.exceptionThrown":
                yield f"exception: {said['exceptionDetails'].get('exception', said)}"
            elif method == "Runtime.consoleAPICalled" and said["type"] == "error":
                yield f"console: {said['args']}"
            elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
                yield f"log: {said['entry']['text']} {said['entry'].get('url', '')}"

    def _requests(self) -> Iterator[str]:
        for message in self.seen:
            if message.get("method") == "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                if not address.startswith(("file:", "data:", "blob:")):
                    yield address


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it afterwards."""
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    words = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    command = f"exec {shlex.join(words)} 3<&{to_read} 4>&{to_write}"
    process = subprocess.Popen(
        ["bash", "-c", command], pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(to_write)
    try:
        tab = Browser(write, read)
        target = tab.call("Target.createTarget", url="about:blank")["targetId"]
        tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        yield tab
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(read)
        os.close(write)
