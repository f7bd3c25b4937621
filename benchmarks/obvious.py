"""The obvious script, as people write it first, one file at a time: the other side of ``make bench``.

It has the same weights and, because plain pydicom decodes nearly nothing compressed, the same codecs as this project.
"""

import argparse
import sqlite3
from pathlib import Path

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from fracture_watch.imaging import codecs
from fracture_watch.model.card import Card
from fracture_watch.model.torchvision_ops import import_torchvision
from fracture_watch.model.weights import load_network


def picture(path: Path) -> Image.Image:
    """A file as an 8-bit RGB picture."""
    if path.suffix != ".dcm":
        return Image.open(path).convert("RGB")
    ds = pydicom.dcmread(path)
    pixels = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(np.float64)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def main() -> None:
    """Classify every file of a folder into an SQLite file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--database", type=Path, required=True)
    options = parser.parse_args()
    import_torchvision()
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    codecs.register()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = Card.load(options.weights)
    model = load_network(options.weights, card).to(device)
    to_tensor = Compose([Resize([card.input.size] * 2), ToTensor(), Normalize(card.input.mean, card.input.std)])
    database = sqlite3.connect(options.database)
    database.execute("CREATE TABLE results (file TEXT, prediction TEXT, probability REAL)")
    for path in sorted(options.folder.iterdir()):
        x = to_tensor(picture(path)).unsqueeze(0).to(device)
        with torch.no_grad():
            probability = torch.softmax(model(x).logits, dim=1)[0, 0].item()
        row = (str(path), card.classes[0 if probability >= 0.5 else 1], probability)
        database.execute("INSERT INTO results VALUES (?, ?, ?)", row)
        database.commit()


if __name__ == "__main__":
    main()
