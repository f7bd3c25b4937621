"""The obvious script, as people write it: one file at a time, or (``--processes``) a pool over the cores.

The other side of ``make bench``. It has the same weights, the same views and, because plain pydicom decodes nearly
nothing compressed, the same codecs as this project. ``--reader monai`` reads with MONAI's ``LoadImage`` instead.
"""

import argparse
import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
import yaml
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from fracture_watch.imaging import codecs
from fracture_watch.model.torchvision_ops import import_torchvision


def read_pydicom(path: Path) -> Image.Image:
    """A file as an 8-bit RGB picture."""
    if path.suffix != ".dcm":
        return Image.open(path).convert("RGB")
    ds = pydicom.dcmread(path)
    pixels = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(np.float64)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    return eight_bit(pixels)


def read_monai(path: Path) -> Image.Image:
    """A file as an 8-bit RGB picture, by MONAI, which applies neither windows nor MONOCHROME1."""
    from monai.transforms.io.array import LoadImage

    reader = "PydicomReader" if path.suffix == ".dcm" else "PILReader"
    pixels = LoadImage(reader=reader, image_only=True, ensure_channel_first=True)(str(path)).numpy()
    return eight_bit(pixels[0].T if pixels.shape[0] == 1 else pixels.mean(axis=0).T)


def eight_bit(pixels: np.ndarray[Any, Any]) -> Image.Image:
    """Any range of values as a picture."""
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def views(image: Image.Image, settings: dict[str, Any]) -> list[Image.Image]:
    """The whole picture on a black square, and the tiles that the card asks for."""
    size, wanted = settings["size"], settings.get("views", "whole")
    whole = Image.new("RGB", (size, size))
    fitted = scaled(image, size)
    whole.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    if wanted == "whole":
        return [whole]
    picture = scaled(image, wanted["long_side"])
    along, across = wanted["tiles"]
    columns, rows = (across, along) if picture.height >= picture.width else (along, across)
    return [whole] + [
        picture.crop((left, top, left + size, top + size))
        for top in starts(picture.height, size, rows)
        for left in starts(picture.width, size, columns)
    ]


def scaled(image: Image.Image, side: int) -> Image.Image:
    """The picture with a long side of ``side``."""
    scale = side / max(image.size)
    size = round(image.width * scale), round(image.height * scale)
    return image.resize(size, Image.Resampling.BILINEAR)


def starts(length: int, size: int, count: int) -> list[int]:
    """Where evenly spaced tiles begin."""
    room = length - size
    return [room // 2] if room <= 0 else [round(room * i / (count - 1)) for i in range(count)]


class Model:
    """The weights, and what their card says."""

    def __init__(self, weights: Path) -> None:
        import_torchvision()
        import timm
        from torchvision.transforms import Compose, Normalize, ToTensor

        self.card = yaml.safe_load(weights.with_suffix(".yaml").read_text())
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = timm.create_model(self.card["architecture"].removeprefix("timm:"), num_classes=2)
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.network.to(self.device).eval()
        self.transform = Compose([ToTensor(), Normalize(self.card["input"]["mean"], self.card["input"]["std"])])

    def probability(self, image: Image.Image) -> float:
        """Of *fractured*: one minus the product of what the views leave."""
        x = torch.stack([self.transform(view) for view in views(image, self.card["input"])]).to(self.device)
        with torch.no_grad():
            seen = torch.softmax(self.network(x), dim=1)[:, 0]
        fit = self.card["calibration"]
        logit = torch.logit((1 - (1 - seen).prod()).double(), eps=1e-9)
        return float(torch.sigmoid(fit["slope"] * logit + fit["intercept"]))


model: Model
reader: Callable[[Path], Image.Image]


def prepare(weights: Path, name: str, threads: int | None = None) -> None:
    """Load everything, once a process."""
    global model, reader  # as people write it for a pool
    if threads:
        torch.set_num_threads(threads)
    codecs.register()
    model, reader = Model(weights), read_monai if name == "monai" else read_pydicom


def classify(path: Path) -> tuple[str, str, float]:
    """One row."""
    probability = model.probability(reader(path))
    fractured = probability >= model.card["threshold"]["value"]
    return str(path), "fractured" if fractured else "not fractured", probability


def main() -> None:
    """Classify every file of a folder into an SQLite file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--reader", choices=["pydicom", "monai"], default="pydicom")
    parser.add_argument("--processes", action="store_true", help="a process for every core, with one thread each")
    options = parser.parse_args()
    database = sqlite3.connect(options.database)
    database.execute("CREATE TABLE results (file TEXT, prediction TEXT, probability REAL)")
    paths = sorted(options.folder.iterdir())
    if options.processes:
        pool = multiprocessing.get_context("spawn").Pool(os.cpu_count(), prepare, (options.weights, options.reader, 1))
        rows = pool.imap(classify, paths)
    else:
        prepare(options.weights, options.reader)
        rows = map(classify, paths)  # type: ignore[assignment]
    for row in rows:
        database.execute("INSERT INTO results VALUES (?, ?, ?)", row)
        database.commit()


if __name__ == "__main__":
    main()
