#!/usr/bin/env python3
"""Opens the lab's page in headless Chromium, at the widths of a phone and of a wide screen.

Usage: .ci/page.py DIR, a folder that `fastnn lab` wrote. Leaves DIR/screenshot-390.png and
DIR/screenshot-1280.png. Fails if the console shows anything, something is fetched from elsewhere,
the page has no figures or not as many as there are PNG files beside it, one is not drawn or has no
text alternative, or the page is wider than the screen.

Chromium is spoken to by its DevTools protocol over a pair of pipes: JSON messages, a null byte
after each.
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

WIDTHS = {390: 844, 1280: 800}  # of the screen, and its height
PATIENCE = 60  # seconds for an answer

FACTS = """({
  images: [...document.images].map(i => ({
    alt: i.alt, width: i.naturalWidth, shown: i.getBoundingClientRect().width,
    caption: i.closest("figure")?.querySelector("figcaption")?.innerText ?? ""})),
  width: document.documentElement.scrollWidth, screen: innerWidth,
  height: document.documentElement.scrollHeight,
  smallest: Math.min(...[...document.querySelectorAll("p, li, dd, dt, figcaption, pre, td")].map(
    e => parseFloat(getComputedStyle(e).fontSize))),
  title: document.title, language: document.documentElement.lang,
  headings: [...document.querySelectorAll("h1, h2, h3")].map(h => +h.tagName[1]),
  broken: [...document.querySelectorAll("a[href^='#']")].filter(
    a => !document.querySelector(a.getAttribute("href"))).length,
  scripts: document.scripts.length,
})"""


class Chromium:
    """One tab of one headless Chromium."""

    def __init__(self, program, profile):
        ours_out, theirs_in = os.pipe()[::-1]
        ours_in, theirs_out = os.pipe()
        # The protocol wants descriptors 3 and 4; the shell puts them there.
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', program,
             "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
             "--disable-background-networking", f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.out, self.inp = ours_out, ours_in
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    def call(self, method, **parameters):
        """The result of a method."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event):
        """Reads until that event came."""
        while not any(one.get("method") == event for one in self.events):
            self.events.append(self.read())

    def read(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self.inp], [], [], left)[0]:
                sys.exit("Chromium does not answer")
            data = os.read(self.inp, 1 << 16)
            if not data:
                sys.exit(f"Chromium has ended, status {self.process.wait()}")
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def close(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait(PATIENCE)


def look(browser, page, width, height):
    """The page's facts at that width, what the browser complained of, and a picture of it all."""
    browser.events.clear()
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
        mobile=width < 500,
    )  # fmt: skip
    browser.call("Page.navigate", url=page.as_uri())
    browser.wait_for("Page.loadEventFired")
    browser.call(
        "Runtime.evaluate", awaitPromise=True,
        expression="Promise.all([...document.images].map(i => i.decode()))",
    )  # fmt: skip
    facts = browser.call("Runtime.evaluate", expression=FACTS, returnByValue=True)
    facts = facts["result"]["value"]
    clip = {"x": 0, "y": 0, "width": width, "height": facts["height"], "scale": 1}
    shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    complaints = []
    for event in browser.events:
        method, told = event.get("method"), event.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            complaints.append(f"console: {json.dumps(told)[:300]}")
        url = told.get("request", {}).get("url", "")
        if method == "Network.requestWillBeSent" and not url.startswith("data:") and (
            url != page.as_uri()
        ):  # fmt: skip
            complaints.append(f"fetches {url[:200]}")
    return facts, complaints, base64.b64decode(shot["data"])


def judge(facts, figures):
    """What is wrong with the page."""
    images = facts["images"]
    wrong = []
    wrong += ["no figures"] * (not images)
    if len(images) != figures:
        wrong.append(f"{len(images)} figures on the page, {figures} files beside it")
    for number, image in enumerate(images, 1):
        wrong += [f"figure {number} is not drawn"] * (image["width"] == 0 or image["shown"] < 200)
        wrong += [f"figure {number} has no text alternative"] * (len(image["alt"]) < 40)
        wrong += [f"figure {number} has no caption"] * (len(image["caption"]) < 20)
    if facts["width"] > facts["screen"]:
        wrong.append(f"{facts['width']} pixels wide on a screen of {facts['screen']}")
    steps = zip(facts["headings"], facts["headings"][1:], strict=False)
    if facts["headings"][:1] != [1] or any(b > a + 1 for a, b in steps):
        wrong.append(f"headings skip a level: {facts['headings']}")
    wrong += ["no title or language"] * (not facts["title"] or not facts["language"])
    wrong += [f"{facts['broken']} links lead nowhere"] * bool(facts["broken"])
    wrong += ["scripts on the page"] * bool(facts["scripts"])
    wrong += [f"text of {facts['smallest']} pixels"] * (facts["smallest"] < 12)
    return wrong


def main(folder):
    page = (pathlib.Path(folder) / "index.html").resolve()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        sys.exit("chromium: not found (Debian's package: chromium)")
    figures = [one for one in page.parent.glob("*.png") if not one.name.startswith("screenshot-")]
    failed = False
    with tempfile.TemporaryDirectory() as profile:
        browser = Chromium(program, profile)
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")
        for width, height in WIDTHS.items():
            facts, complaints, picture = look(browser, page, width, height)
            shot = page.parent / f"screenshot-{width}.png"
            shot.write_bytes(picture)
            wrong = complaints + judge(facts, len(figures))
            failed = failed or bool(wrong)
            print(f"{width} pixels: {len(facts['images'])} figures, {facts['height']} high; {shot}")
            for one in wrong:
                print(f"  {one}")
        browser.close()
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
