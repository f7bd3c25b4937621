"""``model show``, ``check``, ``import`` and ``train``."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, Config, Json, say, say_json, settings_from, track
from fracture_watch.cli.evaluate import evaluate
from fracture_watch.texts import how_to_install

app = typer.Typer(help="The model.", no_args_is_help=True)
app.command()(evaluate)


class Resize(StrEnum):
    """How a picture becomes square."""

    STRETCH = "stretch"
    LETTERBOX = "letterbox"


@app.command()
def show(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Print the card of the model in force."""
    import yaml

    from fracture_watch import assembly
    from fracture_watch.config import load_settings
    from fracture_watch.records import DISCLAIMER

    card = assembly.card_in_force(load_settings(config))
    values = {"id": card.facts.id} | card.model_dump(mode="json")
    if as_json:
        say_json(values)
    else:
        say(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110) + DISCLAIMER)


@app.command()
def check(
    write: Annotated[
        bool, typer.Option("--write", help="Store today's answers in the card, as the ones to expect from now on.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Run the golden images and compare with the card: 1 if the model answers otherwise."""
    settings = settings_from(config)
    from fracture_watch import assembly, golden

    if write:
        golden.write(settings.model.weights)
    model = assembly.load_model(settings)
    compared = golden.compare(model)
    wrong = golden.complaint(model, compared)
    if as_json:
        say_json({"ok": wrong is None, "model": asdict(model.card.facts), "golden": [asdict(c) for c in compared]})
    else:
        for c in compared:
            say(f"{c.name}: {c.found:.4f}, the card says {'nothing' if c.expected is None else f'{c.expected:.4f}'}")
        known = all(c.expected is not None for c in compared)
        agreed = (
            "the model answers as its card says" if known else "nothing to compare with; --write stores the answers"
        )
        say(wrong or agreed)
    if wrong:
        raise typer.Exit(1)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="OLD.pth", help="A state_dict, a checkpoint or a pickled model.")],
    architecture: Annotated[str, typer.Option(help="timm:NAME or torchvision:NAME, such as torchvision:resnet18.")],
    output: Annotated[Path, typer.Option(metavar="NEW.pth", help="Its card is written beside it.")],
    classes: Annotated[
        str | None,
        typer.Option(help="The outputs in their order: 'fractured,not fractured'; one name for a single output."),
    ] = None,
    resize: Annotated[Resize, typer.Option(help="How its training made pictures square.")] = Resize.STRETCH,
    version: Annotated[str, typer.Option(help="Of the new card.")] = "1.0.0",
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Let code in the file run, in a process of its own.")
    ] = False,
) -> None:
    """Bring weights from elsewhere: writes a plain state_dict, its card and its golden values."""
    _check_suffix(output)
    from fracture_watch import golden
    from fracture_watch.model.foreign import import_weights

    import_weights(source, output, architecture, classes, resize.value, version, trust_pickle=trust_pickle)
    facts = golden.write(output).facts
    say(f"wrote {output} and its card: {facts.name} {facts.version} ({facts.id})")
    say(
        f"pictures are made square by {resize.value}, as --resize says; the card is neither calibrated nor measured: "
        "set model.weights to it, and run `fracture-watch model evaluate` on labelled radiographs"
    )


@app.command()
def train(  # noqa: PLR0913, PLR0917  one parameter an option
    data: Annotated[Path, typer.Option(help="The folder of pictures.", exists=True, file_okay=False)],
    labels: Annotated[
        Path, typer.Option(help="CSV: image, label (0 fractured, 1 not), split (train, tune, val), group.", exists=True)
    ],
    output: Annotated[Path, typer.Option(help="The .pth to write; its card is written beside it.")],
    boxes: Annotated[
        Path | None,
        typer.Option(help="CSV: image, x_min, y_min, x_max, y_max as fractions. Adds crops, and tiles.", exists=True),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Calibrate and measure by cross-validation, then fit everything, val too."),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(metavar="WEIGHTS.pth", help="Go on from weights with a card, not from ImageNet's.", exists=True),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(min=1, help="With --folds: networks to fit at once, each in a process; for a GPU, or many cores."),
    ] = 1,
    version: Annotated[str, typer.Option(help="Of the new model.")] = "0.0.1",
    architecture: Annotated[
        str,
        typer.Option(
            help="timm:NAME or torchvision:NAME; timm:NAME+NAME, both side by side. ImageNet weights are there for "
            "lite0, lite1 and lite2."
        ),
    ] = "timm:tf_efficientnet_lite0",
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 20,
) -> None:
    """Fine-tune an ImageNet backbone, or weights with a card, on labelled radiographs.

    Repeat the command to go on after a stop.
    """
    from fracture_watch.errors import WrongUse

    try:
        from fracture_watch.training.data import Sources
        from fracture_watch.training.fit import Recipe
        from fracture_watch.training.train import train as fit
    except ModuleNotFoundError as error:
        raise WrongUse(f"training needs the package {error.name}: {how_to_install('train')}") from error
    _check_suffix(output)
    recipe = Recipe(architecture=architecture, epochs=epochs, seed=seed)
    sources = Sources(labels, data, boxes)
    card = fit(sources, output, recipe, version=version, folds=folds, initial=initial, jobs=jobs, track=track, say=say)
    measured, figures = next(iter(card.metrics.items()))
    auroc = figures["all"]["auroc"]
    say(f"{measured} AUROC {auroc['value']} (95 % interval {auroc['low']} to {auroc['high']})")


def _check_suffix(output: Path) -> None:
    from fracture_watch.errors import WrongUse

    if output.suffix != ".pth":
        raise WrongUse(f"--output {output}: must end in .pth")
