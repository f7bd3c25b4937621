"""``config show`` and ``config schema``."""

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, Config, Json, say, say_json

app = typer.Typer(help="The settings.", no_args_is_help=True)


@app.command()
def show(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Print the effective settings, and where each that is not a default came from."""
    from fracture_watch.config import load_settings, origins

    values = load_settings(config).model_dump(mode="json")
    if as_json:
        say_json(values)
        return
    sources = origins(config)
    for section, keys in values.items():
        say(f"{section}:")
        for key, value in keys.items():
            say(f"  {key}: {value}  # {sources.get((section, key), 'default')}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    from fracture_watch.config import Settings

    say_json(Settings.model_json_schema())
