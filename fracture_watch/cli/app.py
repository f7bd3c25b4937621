"""Every command, by name."""

import typer

from fracture_watch.cli import doctor, export, files, model, query, serving, settings, upkeep

app = typer.Typer(
    help="Watch a folder of bone radiographs and classify each as fractured or not. "
    "Research use only. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serving.run)
app.command()(serving.watch)
app.command()(serving.serve)
app.command()(serving.receive)
app.command()(files.scan)
app.command()(files.predict)
app.command()(files.render)
app.command()(query.results)
app.command()(export.export)
app.command()(upkeep.trace)
app.command()(upkeep.retry)
app.command()(upkeep.prune)
app.command()(doctor.doctor)
app.add_typer(settings.app, name="config")
app.add_typer(model.app, name="model")
