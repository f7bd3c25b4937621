"""trace, retry and prune over what a real daemon left."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from tests.conftest import png, write_config
from tests.dicoms import dicom
from tests.test_daemon import drop, files, rows, until, working

PIXELS = np.full((40, 30), 7, np.uint16)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory, weights):
    settings = load_settings(write_config(tmp_path_factory.mktemp("runtime"), weights), {})
    with assembly.runtime(settings) as running:
        yield running


@pytest.fixture
def processed(config, runtime):
    """Let a daemon work until the inbox has nothing more that is ready; gives back its folder."""

    def run(left=(), **environment):
        settings = load_settings(config, environment)
        database = assembly.open_database(settings)
        with working(assembly.daemon(settings, runtime, database)):
            assert until(lambda: files(config.parent / "inbox") == sorted(left))
        database.close()
        return config.parent

    return run


def steps(fw, wanted):
    code, out, _ = fw("trace", wanted, "--json")
    return code, json.loads(out)["steps"]


def change(folder, sql):
    with sqlite3.connect(folder / "fracture_watch.db") as connection:
        connection.execute(sql)


class TestTrace:
    def test_a_classified_file_has_its_whole_story(self, fw, config, processed):
        drop(config.parent, "study/a.dcm", dicom(PIXELS, PatientID="P"))
        folder = processed()
        [(study,)] = rows(folder, "SELECT study_uid FROM results")
        for wanted in (folder / "inbox/study/a.dcm", folder / "processed/study/a.dcm", "1", study):
            code, told = steps(fw, wanted)
            assert code == 0
            assert [s["what"] for s in told if s["what"] != "is there"] == ["received", "classified", "next"]
            assert "by tiny 1.2.3" in told[1]["detail"]
            assert str(folder / "processed/study/a.dcm") in told[-1]["detail"]
        code, out, _ = fw("trace", "1")
        assert "next: nothing: it lies in" in out

    def test_a_duplicate_is_found_with_its_original(self, fw, config, processed):
        drop(config.parent, "a.png", png(1))
        processed()
        drop(config.parent, "b.png", png(1))
        _, told = steps(fw, processed() / "inbox/b.png")
        assert [s["what"] for s in told] == ["received", "classified", "received", "duplicate", "next", "next"]
        assert "the same bytes as result 1" in told[3]["detail"]

    def test_a_picture_is_found_by_what_stands_for_its_study_in_any_case(self, fw, config, processed):
        drop(config.parent, "a.png", png(1))
        [(digest,)] = rows(processed(), "SELECT sha256 FROM results")
        for wanted in (digest, digest.upper(), f"sha256:{digest}", f"sha256:{digest.upper()}"):
            code, told = steps(fw, wanted)
            assert (code, [s["what"] for s in told]) == (0, ["received", "classified", "next"])

    def test_a_duplicate_whose_original_was_removed_says_so(self, fw, config, processed):
        drop(config.parent, "a.png", png(1))
        processed()
        drop(config.parent, "b.png", png(1))
        change(processed(), "UPDATE file SET duplicate_of = NULL")
        _, told = steps(fw, "2")
        assert "the same bytes as a result that was removed, by tiny" in told[3]["detail"]

    def test_a_failure_says_how_to_try_it_again(self, fw, config, processed):
        drop(config.parent, "a.txt", b"text")
        _, told = steps(fw, processed() / "inbox/a.txt")
        assert told[1]["detail"].startswith("not_an_image: ")
        assert "`fracture-watch retry 1`" in told[-1]["detail"]

    @pytest.mark.parametrize(
        ("name", "environment", "reason"),
        [
            (".hidden.dcm", {}, "dotfiles"),
            ("a.dcm.part", {}, "unfinished copies"),
            ("Thumbs.db", {"FRACTURE_WATCH__INBOX__IGNORE": '["Thumbs.db"]'}, "inbox.ignore"),
            ("deep/a.png", {"FRACTURE_WATCH__INBOX__RECURSIVE": "false"}, "inbox.recursive is false"),
            ("link.png", {}, "symbolic link"),
            ("pipe", {}, "no regular file"),
        ],
    )
    def test_an_ignored_file_names_the_rule(self, fw, config, monkeypatch, name, environment, reason):
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        path = config.parent / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "pipe":
            os.mkfifo(path)
        elif name == "link.png":
            path.symlink_to("/etc/passwd")
        else:
            path.write_bytes(png(1))
        code, [step] = steps(fw, path)
        assert (code, step["what"]) == (0, "ignored")
        assert reason in step["detail"]

    def test_a_waiting_file_says_for_what(self, fw, config):
        path = drop(config.parent, "a.dcm", dicom(PIXELS)[:-10])
        _, [step] = steps(fw, path)
        assert "no watcher runs on" in step["detail"]
        with assembly.claimed(load_settings(config, {})):
            _, [step] = steps(fw, path)
            assert step["what"] == "waiting"
            assert "ends before its own declared end" in step["detail"]
            assert f"process {os.getpid()} on " in step["detail"]
            path.write_bytes(dicom(PIXELS))
            _, [step] = steps(fw, path)
            assert "unchanged for 0.3 s" in step["detail"]

    def test_what_was_never_there_is_unknown(self, fw, config):
        code, [step] = steps(fw, config.parent / "inbox" / "none.dcm")
        assert (code, step["what"]) == (0, "never seen")
        code, out, _ = fw("trace", "1.2.3.4")
        assert (code, "nothing is known of 1.2.3.4" in out) == (1, True)

    def test_it_asks_the_indexes_and_not_every_row(self, config):
        from sqlalchemy import select
        from sqlalchemy.dialects import sqlite

        from fracture_watch.results.schema import FileRow
        from fracture_watch.results.trail import _asked

        assembly.open_database(load_settings(config, {})).close()
        statement = (
            select(FileRow.id)
            .where(_asked("/a/b", ("hmac:0", "dropped:0")))
            .compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        )
        plan = rows(config.parent, f"EXPLAIN QUERY PLAN {statement}")
        assert "SCAN" not in str(plan), plan


class TestRetry:
    def test_a_quarantined_file_goes_back_and_is_received_anew(self, fw, config, processed):
        drop(config.parent, "study/a.dcm", dicom(PIXELS)[:-10])
        drop(config.parent, "b.txt", b"text")
        folder = processed()
        assert files(folder / "quarantine") == ["b.txt", "b.txt.json", "study/a.dcm", "study/a.dcm.json"]
        code, out, _ = fw("retry", "--code", "truncated", "--json")
        back, summary = map(json.loads, out.splitlines())
        assert (code, back["put_back"]) == (0, str(folder / "inbox/study/a.dcm"))
        assert summary == {"summary": {"put_back": 1, "missing": []}}
        assert files(folder / "quarantine") == ["b.txt", "b.txt.json"]
        (folder / "inbox/study/a.dcm").write_bytes(dicom(PIXELS))
        processed()
        assert sorted(rows(folder, "SELECT status FROM results")) == [("classified",), ("failed",), ("rejected",)]
        _, told = steps(fw, folder / "inbox/study/a.dcm")
        assert [s["what"] for s in told] == ["received", "failed", "put back", "received", "classified", "next"]

    def test_a_name_that_came_again_is_not_overwritten(self, fw, config, processed):
        drop(config.parent, "a.txt", b"text")
        folder = processed()
        drop(config.parent, "a.txt", b"other")
        assert fw("retry", "1")[0] == 0
        assert {(folder / "inbox" / name).read_bytes() for name in ("a.txt", "a-1.txt")} == {b"text", b"other"}

    def test_all_and_what_is_missing(self, fw, config, processed):
        for number in range(3):
            drop(config.parent, f"{number}.txt", f"text {number}".encode())
        folder = processed()
        next((folder / "quarantine").glob("*.txt")).unlink()
        code, out, _ = fw("retry", "--all")
        assert (code, "2 put back" in out, "not in quarantine" in out) == (1, True, True)
        assert len(files(folder / "inbox")) == 2
        assert fw("retry", "--all")[0] == 0
        assert fw("retry", "99")[0] == 1

    def test_wrong_use_names_the_choices(self, fw):
        for arguments in ((), ("1", "--all"), ("--all", "--code", "corrupt")):
            code, _, err = fw("retry", *arguments)
            assert (code, "--code CODE, or --all" in err) == (2, True)


class TestPrune:
    @pytest.fixture
    def folder(self, config, processed):
        """An old positive, an old negative, a new one, an old failure, and one of another patient."""
        for number, patient in enumerate(("OLD", "OLD2", "NEW", "OTHER")):
            drop(config.parent, f"{patient}.dcm", dicom(PIXELS + number, seed=number, PatientID=patient))
        drop(config.parent, "bad.dcm", dicom(PIXELS, seed=9, PatientID="OLD")[:-10])
        folder = processed()
        change(folder, "UPDATE file SET completed_at = '2020-01-01' WHERE source_path NOT LIKE '%NEW%'")
        change(folder, "UPDATE file SET prediction = 'not fractured'")
        change(folder, "UPDATE file SET prediction = 'fractured' WHERE patient_id = 'OLD2'")
        return folder

    def patients(self, folder):
        return sorted(p for (p,) in rows(folder, "SELECT patient_id FROM results"))

    def test_without_yes_nothing_changes(self, fw, folder):
        before = files(folder)
        code, out, _ = fw("prune", "--older-than", "90d")
        assert (code, "would remove 3 results" in out, "--yes does it" in out) == (0, True, True)
        assert [f for f in files(folder) if "fracture_watch.db" not in f] == [
            f for f in before if "fracture_watch.db" not in f
        ]
        assert len(self.patients(folder)) == 5

    def test_what_is_old_goes_with_its_files_and_its_study(self, fw, folder):
        code, out, _ = fw("prune", "--older-than", "90d", "--yes", "--json")
        summary = json.loads(out)["summary"]
        assert (code, summary["rows"], summary["files"]) == (0, 3, 6)  # each with its heat map
        assert self.patients(folder) == ["NEW", "OLD"]  # the failure wants somebody's attention
        assert files(folder / "processed") == ["NEW.dcm"]
        assert len(files(folder / "artefacts")) == 1
        assert files(folder / "quarantine") == ["bad.dcm", "bad.dcm.json"]
        assert rows(folder, "SELECT count(*) FROM studies WHERE patient_id <> 'OLD'") == [(1,)]
        assert rows(folder, "PRAGMA foreign_key_check") == []

    def test_positives_are_kept_on_request(self, fw, folder):
        fw("prune", "--older-than", "90d", "--keep-positives", "--yes")
        assert self.patients(folder) == ["NEW", "OLD", "OLD2"]
        assert files(folder / "processed") == ["NEW.dcm", "OLD2.dcm"]

    def test_a_patient_is_erased_wherever_he_is_filed(self, fw, folder):
        fw("prune", "--patient", "OLD", "--yes")
        assert self.patients(folder) == ["NEW", "OLD2", "OTHER"]
        assert not [f for f in files(folder) if "OLD." in f or "bad" in f]
        for path in folder.glob("fracture_watch.db*"):
            assert b"bad.dcm" not in path.read_bytes()

    def test_a_file_that_stays_in_the_inbox_keeps_its_row(self, fw, config, processed, monkeypatch):
        monkeypatch.setenv("FRACTURE_WATCH__FILING__PROCESSED", "keep")
        drop(config.parent, "a.png", png(1))
        settings = load_settings(config)
        database = assembly.open_database(settings)
        with assembly.runtime(settings) as running, working(assembly.daemon(settings, running, database)):
            assert until(lambda: rows(config.parent))
        database.close()
        change(config.parent, "UPDATE file SET completed_at = '2020'")
        _, out, _ = fw("prune", "--older-than", "1d", "--yes", "--json")
        assert json.loads(out)["summary"] | {"removed": 0} == {
            "removed": 0, "rows": 0, "files": 0, "bytes": 0, "in_inbox": 1, "elsewhere": 0, "of_other_watchers": 0,
        }  # fmt: skip

    def test_a_scanned_archive_is_never_touched(self, fw, config):
        (config.parent / "archive").mkdir()
        (config.parent / "archive/a.png").write_bytes(png(1))
        fw("scan", config.parent / "archive")
        change(config.parent, "UPDATE file SET completed_at = '2020'")
        _, out, _ = fw("prune", "--older-than", "1d", "--yes", "--json")
        summary = json.loads(out)["summary"]
        assert (summary["rows"], summary["elsewhere"]) == (1, 1)
        assert files(config.parent / "archive") == ["a.png"]
        assert rows(config.parent) == []

    def test_a_file_that_a_later_model_has_classified_stays(self, fw, folder, monkeypatch):
        monkeypatch.setenv("FRACTURE_WATCH__MODEL__THRESHOLD", "0.987")
        fw("scan", "--reclassify")
        fw("prune", "--older-than", "90d", "--yes")
        assert files(folder / "processed") == ["NEW.dcm", "OLD.dcm", "OLD2.dcm", "OTHER.dcm"]
        assert len(rows(folder, "SELECT 1 FROM results WHERE threshold = 0.987")) == 4

    def test_what_would_be_removed_is_what_is_removed(self, fw, folder, monkeypatch):
        monkeypatch.setenv("FRACTURE_WATCH__MODEL__THRESHOLD", "0.987")
        fw("scan", "--reclassify")
        change(folder, "UPDATE file SET completed_at = '2020-06-01' WHERE threshold = 0.987")
        counted, removed = (
            json.loads(fw("prune", "--older-than", "90d", *more, "--json")[1])["summary"] for more in ((), ("--yes",))
        )
        assert counted == removed | {"removed": False}
        assert removed["files"] == 3 + 7  # and a heat map for each row
        assert files(folder / "processed") == ["NEW.dcm"]

    @pytest.mark.parametrize(
        "arguments",
        [("--patient", ""), ("--patient", " "), ("--patient", "", "--older-than", "90d"), ("--older-than", "")],
    )
    def test_a_variable_that_nobody_set_removes_nothing(self, fw, folder, arguments):
        code, _, err = fw("prune", *arguments, "--yes")
        assert code == 2
        assert "--patient is empty" in err or "90d" in err
        assert len(self.patients(folder)) == 5

    @pytest.mark.parametrize("arguments", [(), ("--older-than", "soon"), ("--older-than", "-1d")])
    def test_wrong_use_says_what_is_right(self, fw, folder, arguments):
        code, _, err = fw("prune", *arguments, "--yes")
        assert (code, "90d" in err) == (2, True)
        assert len(self.patients(folder)) == 5


def test_a_second_daemon_is_refused_and_names_the_first(config):
    command = [sys.executable, "-m", "fracture_watch", "watch", "--config", config]
    assembly.open_database(load_settings(config, {})).close()
    with assembly.claimed(load_settings(config, {})):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert f"inbox.path: {config.parent / 'inbox'} is in use by process {os.getpid()}" in done.stderr


def test_a_database_that_went_missing_is_never_silently_begun_anew(fw, config):
    settings = load_settings(config, {})
    assembly.open_database(settings).close()
    with assembly.claimed(settings):
        pass
    settings.database.path.unlink()
    code, _, err = fw("results")
    assert code == 2
    drop(config.parent, "a.png", png(1))
    code, _, err = fw("scan", config.parent / "inbox")
    assert (code, "is gone, but fracture_watch.db.lock says that results were recorded in it" in err) == (2, True)
    assert not settings.database.path.exists()
    Path(f"{settings.database.path}.lock").unlink()
    assert fw("scan", config.parent / "inbox")[0] == 0
