"""``python -m demo.screenshots``: pictures of the pages for the documentation, of drawn phantoms in a real daemon.

Needs Playwright and a Chromium (``make test`` installs both on Debian): ``--chromium`` names it.
"""

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import yaml
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from demo import phantoms
from demo.run import WEIGHTS

FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
)
BROKEN, WHOLE = (9, 10, 11, 17, 23, 36), (1, 4, 14, 20, 31)  # seeds
STUDIES = dict.fromkeys(BROKEN, True) | dict.fromkeys(WHOLE, False)
SIZES = {"1440": (1440, 900), "390": (390, 844)}
PAGES = ("worklist", "detail", "accuracy")


def main() -> int:
    """Draw, classify, read and photograph."""
    parser = argparse.ArgumentParser(prog="python -m demo.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fw-shots-") as name:
        folder = Path(name)
        process = _start(folder, options.weights.absolute())
        try:
            url = _filled(folder)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS.split())
                _read(browser, folder, url)
                for theme in ("light", "dark"):
                    for size in SIZES:
                        _photograph(browser, folder, url, options.folder, theme, size)
                browser.close()
        finally:
            process.terminate()
            process.wait(60)
    return 0


def _start(folder: Path, weights: Path) -> "subprocess.Popen[bytes]":
    settings = {
        "inbox": {"settle_seconds": 0.5},
        "model": {"weights": str(weights)},
        "web": {"port": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [sys.executable, "-m", "fracture_watch", "run", "--config", str(folder / "config.yaml")]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def _filled(folder: Path) -> str:
    """Drop the phantoms and wait until all have results; where the pages are."""
    for seed, fractured in STUDIES.items():
        phantoms.study(seed, fractured, folder / "drawn" / str(seed))
    while "http://" not in (log := (folder / "log").read_text(encoding="utf-8")):
        time.sleep(0.2)
    for drawn in sorted((folder / "drawn").iterdir()):
        drawn.rename(folder / "inbox" / drawn.name)
    (folder / "inbox" / "readme.txt").write_text("no radiograph\n", encoding="utf-8")
    while _rows(folder, "SELECT count(*) FROM results")[0][0] <= 2 * len(STUDIES):
        time.sleep(0.5)
    return next(word for word in log.split() if word.startswith("http://")).rstrip("/")


def _rows(folder: Path, sql: str) -> list[tuple[int, ...]]:
    path = folder / "fracture_watch.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def _read(browser: Browser, folder: Path, url: str) -> None:
    """Give verdicts as somebody would who knows what was drawn."""
    page = browser.new_page()
    sql = "SELECT id, prediction, accession_number FROM results WHERE status = 'classified' ORDER BY id"
    for number, prediction, accession in _rows(folder, sql):
        drawn = STUDIES[int(str(accession).removeprefix("DRAWN"))]
        right = (str(prediction) == "fractured") == drawn
        page.request.post(f"{url}/files/{number}/verdict", form={"verdict": "agree" if right else "disagree"})
    page.close()


def _photograph(browser: Browser, folder: Path, url: str, out: Path, theme: str, size: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    [(first,)] = _rows(folder, "SELECT id FROM results ORDER BY probability DESC LIMIT 1")
    for name, path in zip(PAGES, ("/", f"/files/{first}", "/accuracy"), strict=True):
        page.goto(f"{url}{path}")
        _settle(page)
        _save(page, out / f"{name}-{theme}-{size}.png")
    context.close()


def _settle(page: Page) -> None:
    """All pictures there; those below the fold are lazy and not waited for."""
    page.wait_for_load_state("networkidle")
    script = "() => [...document.images].every(i => i.loading === 'lazy' || (i.complete && i.naturalWidth))"
    page.wait_for_function(script, timeout=30_000)
    page.wait_for_timeout(500)


def _save(page: Page, path: Path) -> None:
    """256 colours are enough for a page, and a fraction of the size."""
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
