"""``model show`` and ``model train``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, Config, Json, say, say_json

app = typer.Typer(help="The model.", no_args_is_help=True)


@app.command()
def show(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Print the card of the model in force."""
    import yaml

    from fracture_watch.config import load_settings
    from fracture_watch.model.card import Card
    from fracture_watch.records import DISCLAIMER

    model = load_settings(config).model
    card = Card.load(model.weights)
    if model.threshold is not None:
        card = card.with_threshold(model.threshold)
    values = {"id": card.facts.id} | card.model_dump(mode="json")
    if as_json:
        say_json(values)
    else:
        say(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110) + DISCLAIMER)


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="The folder of pictures.", exists=True, file_okay=False)],
    labels: Annotated[
        Path, typer.Option(help="CSV: image, label (0 fractured, 1 not), split (train, val), group.", exists=True)
    ],
    output: Annotated[Path, typer.Option(help="The .pth to write; its card is written beside it.")],
    boxes: Annotated[
        Path | None,
        typer.Option(help="CSV: image, x_min, y_min, x_max, y_max as fractions. Adds crops, and tiles.", exists=True),
    ] = None,
    version: Annotated[str, typer.Option(help="Of the new model.")] = "0.0.1",
    epochs: Annotated[int, typer.Option(min=1)] = 14,
    seed: Annotated[int, typer.Option()] = 20,
) -> None:
    """Fine-tune an ImageNet backbone on labelled radiographs; repeat the command to go on after a stop."""
    from fracture_watch.errors import WrongUse

    try:
        from fracture_watch.training.data import Sources
        from fracture_watch.training.fit import Recipe
        from fracture_watch.training.train import train as fit
    except ModuleNotFoundError as error:
        raise WrongUse(f"training needs the package {error.name}: pip install 'fracture-watch[train]'") from error
    if output.suffix != ".pth":
        raise WrongUse(f"--output {output}: must end in .pth")
    recipe = Recipe(epochs=epochs, seed=seed)
    card = fit(Sources(labels, data, boxes), output, recipe, version=version, track=_track, say=say)
    figures = card.metrics["val"]["all"]
    auroc = figures["auroc"]
    say(f"val AUROC {auroc['value']} (95 % interval {auroc['low']} to {auroc['high']})")


def _track(items: Iterable[Any], description: str) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, description, console=console, transient=True, disable=not console.is_terminal)
