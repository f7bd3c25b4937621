"""``trace``, ``retry``, ``prune``: what an administrator asks for when something went wrong or grew old."""

import re
from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, MOST, Config, Json, open_results, say, say_json, settings_from


def trace(
    wanted: Annotated[
        str,
        typer.Argument(metavar="FILE|ID|UID", help="A path, a result's id, a SHA-256, a UID or an accession number."),
    ],
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Everything that happened to a file, in order, and what happens next; also why a file is still in the inbox."""
    settings = settings_from(config)
    from fracture_watch import assembly
    from fracture_watch.results.trail import Trail, trail
    from fracture_watch.texts import printable
    from fracture_watch.timeline import timeline

    found = Trail((), ())
    if settings.database.path is None or settings.database.path.exists():
        with closing(assembly.open_database(settings)) as database:
            found = trail(database, wanted, assembly.recorded_as(settings, wanted))
    steps = timeline(found, assembly.inbox(settings), wanted)
    if as_json:
        say_json({"wanted": wanted, "steps": [asdict(step) for step in steps]})
    for step in steps if not as_json else ():
        result = f" [{step.result}]" if step.result else ""
        say(f"{(step.at or 'now')[:23]:23}{result} {step.what}: {printable(step.detail)}")
    if not steps:
        if not as_json:
            say(f"nothing is known of {printable(wanted)}: no such path, and no result with that id, UID or digest")
        raise typer.Exit(1)


def retry(
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[ID]...", min=1, max=MOST, help="Results, as `results` numbers them."),
    ] = None,
    code: Annotated[str | None, typer.Option(help="Those that failed or were rejected with this code.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything in quarantine.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Put quarantined files back into the inbox, where they are received like new ones."""
    from fracture_watch.errors import CODES, WrongUse

    if bool(ids) + bool(code) + everything != 1:
        raise WrongUse("name the ID of at least one result, or --code CODE, or --all")
    if code and code not in CODES:
        raise WrongUse(f"--code {code}: there is no such code; there are {', '.join(sorted(CODES))}")
    settings = settings_from(config)
    from fracture_watch import assembly
    from fracture_watch.results.trail import quarantined
    from fracture_watch.service import put_back
    from fracture_watch.texts import printable

    with closing(open_results(settings)) as database:
        items = quarantined(database, settings.filing.quarantine_dir, ids or (), code, assembly.watcher_of(settings))
        missing = sorted(set(ids or ()) - {item.id for item in items})
        for done in put_back(database, assembly.filing(settings), items):
            missing += [] if done.target else [done.item.id]
            if as_json:
                target = done.target and str(done.target)
                say_json({"id": done.item.id, "file": str(done.item.filed_path), "put_back": target})
            else:
                say(f"{done.item.id}: {printable(str(done.target or 'not in quarantine any more'))}")
    _finish({"put_back": len(items) - len(set(missing) & {i.id for i in items}), "missing": missing}, as_json)


def prune(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="90d", help="What was completed before so many days (d), hours (h) or weeks (w)."),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="All of this PatientID, quarantine included: for a request to erase it.")
    ] = None,
    keep_positives: Annotated[bool, typer.Option("--keep-positives", help="Spare what was called fractured.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove it; without this it is only counted.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Remove old results, or a patient's, with the files that were filed here. Files that were only scanned stay."""
    from fracture_watch.errors import WrongUse

    if older_than is None and patient is None:
        raise WrongUse("say what is to go: --older-than 90d, --patient PATIENTID, or both")
    if patient is not None and not patient.strip():  # a variable that nobody set
        raise WrongUse("--patient is empty: say whose results are to go")
    settings = settings_from(config)
    from fracture_watch import assembly
    from fracture_watch.results.removal import Wanted
    from fracture_watch.retention import prune as remove

    hashed = assembly.privacy(settings).patient(patient)
    both = (patient, hashed) if patient is not None and hashed is not None else None  # rows may be from before the hash
    wanted = Wanted(None if older_than is None else _before(older_than), both, keep_positives)
    with closing(open_results(settings)) as database:
        counts = remove(database, wanted, assembly.places(settings, erase=patient is not None), really=yes)
    if as_json:
        names = ("rows", "files", "bytes", "in_inbox", "elsewhere", "of_other_watchers")
        say_json({"summary": {"removed": yes} | {name: counts[name] for name in names}})
        return
    say(
        f"{'removed' if yes else 'would remove'} {counts['rows']} results and {counts['files']} files, "
        f"{counts['bytes'] / 1e6:,.1f} MB"
    )
    if counts["in_inbox"]:
        say(f"{counts['in_inbox']} results stay, because their file stays in the inbox and would be received again")
    if counts["elsewhere"]:
        say(f"{counts['elsewhere']} files stay where they were scanned")
    if counts["of_other_watchers"]:
        say(
            f"{counts['of_other_watchers']} results stay, because they and their files are other watchers'; "
            "run the same on their machines"
        )
    if not yes:
        say("nothing was changed; --yes does it")


def _before(age: str) -> str:
    """The time so long ago, as the database writes it."""
    from datetime import UTC, datetime, timedelta

    from fracture_watch.errors import WrongUse
    from fracture_watch.times import as_utc

    found = re.fullmatch(r"(\d{1,6})([hdw])", age.strip())
    if not found:
        raise WrongUse(f"--older-than {age}: is no age such as 90d, 12h or 8w")
    hours = int(found[1]) * {"h": 1, "d": 24, "w": 168}[found[2]]
    try:
        return as_utc(datetime.now(UTC) - timedelta(hours=hours))
    except OverflowError as error:
        raise WrongUse(f"--older-than {age}: is before the year 1; nothing is that old") from error


def _finish(counts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json({"summary": counts})
    else:
        say(f"{counts['put_back']} put back")
        if counts["missing"]:
            say(f"not in quarantine: {', '.join(map(str, counts['missing']))}; `fracture-watch trace ID` says why")
    if counts["missing"]:
        raise typer.Exit(1)
