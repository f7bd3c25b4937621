"""``model evaluate``: the model in force on labelled files of the user's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, Config, Json, say, say_json, settings_from, track
from fracture_watch.texts import how_to_install

if TYPE_CHECKING:
    from fracture_watch.config import ModelSettings
    from fracture_watch.model.card import Threshold
    from fracture_watch.training.report import Report

_MISTAKES = 6  # of each kind, shown with their pictures


def evaluate(
    csv_file: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS.csv",
            exists=True,
            dir_okay=False,
            help="Columns: path or sop_instance_uid; label (fractured, not fractured); group; any more for subgroups.",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="The folder of the files; by default the CSV's.", exists=True, file_okay=False)
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder to write the report to.")] = Path("evaluation"),
    set_threshold: Annotated[
        str | None, typer.Option(help="Write this operating point into the card: 0.31, or 'sensitivity>=0.90'.")
    ] = None,
    because: Annotated[str | None, typer.Option(help="Why that threshold; the card keeps it.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the bootstrap that gives the intervals.")] = 20,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Measure the model in force on labelled files: writes report.html, figures.json and answers.csv."""
    settings = settings_from(config)
    from fracture_watch import assembly, golden
    from fracture_watch.errors import WrongUse
    from fracture_watch.model.heatmap import DataUrl, Illustrator

    try:
        from fracture_watch.training.assess import assess, sample_of, worst_mistakes
        from fracture_watch.training.cases import read_cases
        from fracture_watch.training.figures import Bootstrap, choose_threshold, parse_wish
        from fracture_watch.training.report import report_on, write_report
    except ModuleNotFoundError as error:
        raise WrongUse(f"evaluation needs the package {error.name}: {how_to_install('evaluate')}") from error
    wish = parse_wish(set_threshold, because) if set_threshold else None
    cases = read_cases(csv_file, data or csv_file.parent)
    with assembly.runtime(settings) as running:
        card = running.classifier.card
        doubt = golden.complaint(running.classifier, golden.compare(running.classifier))
        answers, without = assess(running.pipeline, cases, settings.model.batch_size, track)
        report = report_on(csv_file, card, answers, without, Bootstrap(seed), doubt)
        illustrate = DataUrl(Illustrator(card.preprocessor))
        mistakes = worst_mistakes(running.pipeline, answers, _MISTAKES, illustrate)
    page = write_report(output, report, answers, mistakes)
    if as_json:
        say_json(report.as_dict())
    else:
        _tell(report, page)
    if wish is not None:
        _set_threshold(
            settings.model, choose_threshold(wish, because, sample_of(answers), csv_file.name), quiet=as_json
        )
    if without:
        raise typer.Exit(1)


def _tell(report: "Report", page: Path) -> None:
    figures = report.overall
    say(f"{figures.images} images, {figures.fractured} fractured, in {figures.groups} groups; with 95 % intervals")
    for name in ("auroc", "average_precision", "sensitivity", "specificity", "brier", "ece"):
        figure = getattr(figures, name)
        say(f"{name.replace('_', ' ')}: {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})")
    for note in report.notes:
        say(f"note: {note}")
    say(f"wrote {page}. {report.disclaimer}")


def _set_threshold(model: "ModelSettings", threshold: "Threshold", quiet: bool) -> None:
    from fracture_watch.model.card import Card

    card = Card.load(model.weights).with_chosen(threshold, model.one_view)
    card.save(model.weights)
    if quiet:
        return
    card = card.in_force(None, model.one_view)
    say(f"the card's threshold is now {threshold.value:g} ({threshold.chosen}); the model's id is now {card.facts.id}")
    if model.threshold is not None:
        say(f"note: model.threshold in the settings is {model.threshold:g}, and wins over the card's")
