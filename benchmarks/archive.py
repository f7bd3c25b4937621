"""Two drawn years of results in the project's own tables; the same on every run."""

import hashlib
import itertools
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from fracture_watch.records import Label, ModelFacts, Status
from fracture_watch.results.database import Database
from fracture_watch.results.schema import FileRow, ModelRow, StudyRow
from fracture_watch.results.studies import count_studies
from fracture_watch.times import as_utc

OLD = ModelFacts("fracture-lite0", "0.3.0", "0a1b2c3d4e5f6a7b")
NEW = ModelFacts("fracture-lite0", "0.4.0", "1b2c3d4e5f6a7b8c")
THRESHOLDS = {OLD: 0.2, NEW: 0.1469}
FIRST, DAYS = datetime(2025, 1, 1, tzinfo=UTC), 730
CHANGE = DAYS * 2 // 5  # the day from which NEW is in force
FILES_OF_A_STUDY = (1, 2, 2, 3, 4)
ROOMS = (("er", "Acme"), ("er", "Acme"), ("ward", "Bcme"), ("clinic", "Ccme"), ("trauma", "Dcme"))
PARTS = ("HAND", "WRIST", "ANKLE", "FOOT", "KNEE", "HIP", "SHOULDER", "ELBOW")
NOT_CLASSIFIED = (
    (Status.REJECTED, "out_of_scope", "Modality is CT, which scope.modalities leaves out"),
    (Status.REJECTED, "not_an_image", "no image format that is known here"),
    (Status.FAILED, "truncated", "the file ends before its pixel data do"),
    (Status.FAILED, "timeout", "decoding took longer than imaging.timeout_seconds"),
)
CHUNK = 20_000
Row = dict[str, Any]


def build(database: Database, rows: int, seed: int = 1) -> None:
    """Fill an empty database with so many results."""
    made, known = itertools.islice(Archive(rows, seed).rows(), rows), set[str]()
    with database.writing() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA cache_size = -1000000")  # the indexes of a million random digests
        connection.execute(insert(ModelRow), [asdict(m) | {"first_used_at": as_utc(FIRST)} for m in (OLD, NEW)])
        while chunk := list(itertools.islice(made, CHUNK)):
            fresh = {row["study_key"]: row for row in chunk if row["study_key"] not in known}
            fresh.pop(None, None)
            if fresh:
                connection.execute(insert(StudyRow), [_study(row) for row in fresh.values()])
            connection.execute(insert(FileRow), chunk)
            known |= fresh.keys()
        count_studies(connection, NEW.id, None)
        if connection.dialect.name == "postgresql":  # the rows brought their numbers along
            connection.exec_driver_sql("SELECT setval('file_id_seq', (SELECT max(id) FROM file))")


class Archive:
    """Draws rows as the store writes them, in the order of their ids.

    Parameters
    ----------
    rows : int
        How many the two years are to have, at least.
    seed : int
    """

    def __init__(self, rows: int, seed: int) -> None:
        self._dice = random.Random(seed)
        self._studies_a_day = 0.92 * rows / DAYS / 2.33
        self._ids, self._studies = itertools.count(1), itertools.count(1)
        self._recent: deque[Row] = deque(maxlen=rows // 10)  # classified
        self._nothing = dict.fromkeys(FileRow.__table__.columns.keys())

    def rows(self) -> Iterator[Row]:
        """Day after day, study after study; when the model changes, the latest tenth is classified anew."""
        for day in range(DAYS):
            midnight = FIRST + timedelta(days=day)
            if day == CHANGE:
                for row in list(self._recent):
                    yield self._classified(row | {"id": next(self._ids), "completed_at": as_utc(midnight)}, NEW)
            count = int(self._studies_a_day * (0.5 if midnight.weekday() > 4 else 1.2) + self._dice.random())
            for hour in sorted(self._dice.triangular(5, 22, 11) for _ in range(count)):
                yield from self._study(midnight + timedelta(hours=hour), OLD if day < CHANGE else NEW)

    def _study(self, time: datetime, model: ModelFacts) -> Iterator[Row]:
        dice, number = self._dice, next(self._studies)
        uid, (room, manufacturer) = f"1.2.826.0.1.3680043.10.5432.{number}", dice.choice(ROOMS)
        facts: Row = {
            "patient_id": f"P{dice.randrange(400_000):06}",
            "study_uid": uid,
            "study_key": uid,
            "series_uid": f"{uid}.1",
            "accession_number": f"A{number:08}",
            "modality": dice.choice(("DX", "DX", "CR")),
            "body_part": dice.choice(PARTS),
            "laterality": dice.choice("LR"),
            "study_date": f"{time:%Y-%m-%d}",
            "manufacturer": manufacturer,
        }
        if dice.random() < 0.05:  # a PNG says nothing of itself
            yield self._row({}, f"{room}/{number}.png", time, model)
            return
        for part in range(dice.choice(FILES_OF_A_STUDY)):
            named = facts | {"sop_instance_uid": f"{uid}.1.{dice.getrandbits(32)}"}
            yield self._row(named, f"{room}/{number}-{part}.dcm", time + timedelta(seconds=7 * part), model)

    def _row(self, facts: Row, name: str, seen: datetime, model: ModelFacts) -> Row:
        dice, sha256 = self._dice, hashlib.sha256(name.encode()).hexdigest()
        taken = 2 + dice.expovariate(1) + (60 if dice.random() < 0.01 else 0)  # seconds
        arrival = {
            "id": next(self._ids),
            "received_at": as_utc(seen),
            "completed_at": as_utc(seen + timedelta(seconds=taken)),
            "source_path": f"/data/inbox/{name}",
            "source_size": 9_000_000,
            "source_modified_ns": int(seen.timestamp()) * 10**9,
            "source_inode": dice.getrandbits(32),
            "filed_path": f"/data/processed/{seen:%Y/%m/%d}/{name}",
            "filed": True,
        }
        chance = dice.random()
        if chance < 0.04 and len(self._recent) > 20:
            original = self._recent[-dice.randint(1, 20)]
            unsaid = dict.fromkeys("notes frame prediction probability threshold heatmap_path".split())
            repeated = {"status": str(Status.DUPLICATE), "duplicate_of": original["id"], "model_id": model.id}
            return original | arrival | unsaid | repeated
        row = self._nothing | {"study_key": f"sha256:{sha256}"} | facts | arrival
        row |= {"sha256": sha256, "rows": 2840, "columns": 2320}
        if chance < 0.09:
            status, code, detail = dice.choice(NOT_CLASSIFIED)
            quarantined = f"/data/quarantine/{seen:%Y/%m/%d}/{name}"
            row |= {"status": str(status), "code": code, "detail": detail, "filed_path": quarantined}
            return row | {"study_key": facts.get("study_key")}
        return self._classified(row, model)

    def _classified(self, row: Row, model: ModelFacts) -> Row:
        probability = self._dice.betavariate(0.35, 2.8)
        label = Label.FRACTURED if probability >= THRESHOLDS[model] else Label.NOT_FRACTURED
        row = row | {
            "status": str(Status.CLASSIFIED),
            "notes": '["no window: the whole range is shown"]' if self._dice.random() < 0.1 else None,
            "model_id": model.id,
            "frame": 0,
            "prediction": str(label),
            "probability": probability,
            "threshold": THRESHOLDS[model],
            "heatmap_path": f"/data/artefacts/{row['sha256']}.png" if label is Label.FRACTURED else None,
        }
        self._recent.append(row)
        return row


def _study(row: Row) -> Row:
    counts = {"files": 0, "classified": 0, "fractured": 0, "last_result_at": row["completed_at"]}
    return {"study_uid": row["study_key"], "patient_id": row["patient_id"], "study_date": row["study_date"]} | counts
