"""The OpenAPI document is true: schemathesis asks the running daemon whatever it allows, and what it does not."""

import re
from collections import Counter

import requests
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineEvent, NonFatalError, ScenarioFinished

from fracture_watch.pipeline import Pipeline
from fracture_watch.results.queries import COLUMNS, STUDY_COLUMNS
from fracture_watch.web.probes import description
from tests.web.test_app import client

# What is drawn at random is next to never a radiograph: of posts, refusals are all that can be asked for. Of several
# files not even these: what is no picture is an entry of the answer.
CONFIG = """
base-url = "{url}"
phases.coverage.generate-duplicate-query-parameters = true
phases.stateful.enabled = false
phases.fuzzing.generation.max-examples = 5

[[operations]]
include-method = "POST"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/api/predictions"
checks.negative_data_rejection.enabled = false
"""


def test_the_service_does_what_its_document_says(live, capsys):
    document = requests.get(f"{live.url}/openapi.json", timeout=10).json()
    for path in ("/api/results", "/api/studies"):  # a made-up cursor is refused, however well-formed it is
        document["paths"][path]["get"]["parameters"].remove({"$ref": "#/components/parameters/cursor"})
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_str(CONFIG.format(url=live.url)))
    done, found = Counter(), []
    for event in from_schema(schema).execute():
        found += findings(event)
        if isinstance(event, ScenarioFinished):
            done["requests"] += len(event.recorder.interactions)
            done["checks"] += sum(map(len, event.recorder.checks.values()))
    assert found == []
    assert done["checks"] > done["requests"] > 100
    with capsys.disabled():
        print(f"\nschemathesis: {done['requests']} requests, {done['checks']} checks, nothing found", end=" ")
    assert "Traceback" not in live.process.said()


def findings(event: EngineEvent) -> list[str]:
    if isinstance(event, NonFatalError):
        return [f"{event.label}: {event.info.format()}"]
    if not isinstance(event, ScenarioFinished):
        return []
    return [
        f"{event.recorder.label}: {check.name}: {check.failure_info.failure.message}\n{check.failure_info.code_sample}"
        for checks in event.recorder.checks.values()
        for check in checks
        if check.failure_info
    ]


def test_the_document_has_exactly_the_routes_that_there_are(tmp_path):
    rules = client(tmp_path, Pipeline(None, None)).application.url_map.iter_rules()
    there = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in rules
        if rule.endpoint.startswith("api.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    written = {(path, method) for path, item in description()["paths"].items() for method in item}
    assert written == there


def test_the_document_has_exactly_the_columns_that_there_are():
    schemas = description()["components"]["schemas"]
    for name, columns in (("Result", COLUMNS), ("Study", STUDY_COLUMNS)):
        assert list(schemas[name]["properties"]) == schemas[name]["required"] == columns
