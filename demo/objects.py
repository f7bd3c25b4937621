"""``python -m demo.objects``: a result as DICOM objects, photographed for the documentation; of a drawn phantom.

The report is shown as DCMTK's dsr2html renders it, the picture as it is. Needs DCMTK, the extra `pacs`, Playwright and
a Chromium (``make test`` installs them all on Debian): ``--chromium`` names that.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from playwright.sync_api import sync_playwright
from pydicom import dcmread

from demo import phantoms
from demo.run import WEIGHTS
from demo.screenshots import BROKEN, FLAGS

_WIDTH = 900  # pixels of both pictures


def main() -> int:
    """Draw, classify, export and photograph."""
    parser = argparse.ArgumentParser(prog="python -m demo.objects", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fw-objects-") as name:
        folder = Path(name)
        report, picture = _exported(folder, options.weights.absolute())
        page = folder / "report.html"
        subprocess.run(["dsr2html", str(report), str(page)], check=True, capture_output=True)
        _photograph(page, options.chromium, options.folder / "dicom-report.png")
        _save(Image.fromarray(dcmread(picture).pixel_array), options.folder / "dicom-picture.png")
    return 0


def _exported(folder: Path, weights: Path) -> tuple[Path, Path]:
    """The objects of the view that is called fractured most surely."""
    settings = {"model": {"weights": str(weights), "heatmaps": "all"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for seed in BROKEN:
        phantoms.study(seed, True, folder / "drawn")
    _run(folder, "scan", str(folder / "drawn"))
    rows: list[dict[str, Any]] = json.loads(_run(folder, "results", "--format", "json"))
    number = str(max(rows, key=lambda row: row["probability"])["id"])
    made = [_run(folder, "export", kind, number, "--output", str(folder)).strip() for kind in ("sr", "sc")]
    return Path(made[0]), Path(made[1])


def _run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "fracture_watch", *arguments, "--config", str(folder / "config.yaml")]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _photograph(page: Path, chromium: str, out: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        shown = browser.new_page(viewport={"width": _WIDTH, "height": 400})
        shown.goto(page.as_uri())
        shown.screenshot(path=out, full_page=True)
        browser.close()
    with Image.open(out) as picture:
        _save(picture.convert("RGB"), out)


def _save(picture: Image.Image, path: Path) -> None:
    """256 colours are enough for a page, and a fraction of the size."""
    picture.thumbnail((_WIDTH, 4 * _WIDTH))
    picture.quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
