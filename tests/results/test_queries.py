from pathlib import Path

import pytest

from fracture_watch.records import Classified, Facts, Failed, Label, ModelFacts, Prediction, SourceFile
from fracture_watch.results.database import Database
from fracture_watch.results.queries import COLUMNS, Filter, results
from fracture_watch.results.store import Store

MODEL = ModelFacts("m", "1", "x")


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    store = Store(database, MODEL)
    for number, probability in enumerate((0.2, 0.6, 0.9)):
        label = Label.FRACTURED if probability >= 0.5 else Label.NOT_FRACTURED
        facts = Facts(patient_id=f"P{number}", study_uid=f"1.{number}")
        outcome = Classified(str(number), facts, Prediction(label, probability, 0.5, MODEL))
        store.record([(SourceFile(Path(f"/in/{number}"), 0, 0, 0, "2026"), outcome, None)])
    store.record([(SourceFile(Path("/in/bad"), 0, 0, 0, "2026"), Failed("corrupt", "x"), None)])
    return database


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), [4, 3, 2, 1]),
        (Filter(limit=2), [4, 3]),
        (Filter(prediction="fractured"), [3, 2]),
        (Filter(prediction="not fractured"), [1]),
        (Filter(min_probability=0.6), [3, 2]),
        (Filter(status="failed"), [4]),
        (Filter(study="1.1"), [2]),
        (Filter(study="sha256:1"), [2]),
        (Filter(patient="P2"), [3]),
        (Filter(since="2999"), []),
        (Filter(until="2000"), []),
        (Filter(since="2000", until="2999", prediction="fractured", limit=1), [3]),
    ],
)
def test_filters(database, wanted, ids):
    assert [row["id"] for row in results(database, wanted)] == ids


def test_rows_have_the_views_columns_in_order(database):
    assert list(next(results(database, Filter()))) == COLUMNS
