from fracture_watch.delivery.metrics import Metrics
from fracture_watch.outcomes import Classified, Failed
from fracture_watch.records import Facts, Label, ModelFacts, Prediction


def test_what_the_watcher_does_is_prometheus_text():
    metrics, waiting = Metrics(), [3]
    metrics.count(Failed("corrupt", "broken"))
    metrics.count(Classified("aa", Facts(), Prediction(Label.FRACTURED, 0.9, 0.5, ModelFacts("m", "1", "x"))))
    metrics.put_off()
    metrics.spent({"decode": 0.03, "record": 0.002})
    metrics.watch("waiting_files", "Files that wait.", lambda: waiting[0])
    codes = ["storage_unavailable", "database_unavailable"]
    metrics.watch_reasons("paused", "Paused.", codes, lambda: "storage_unavailable: full")
    lines = metrics.text().decode().splitlines()
    assert 'fracture_watch_files_total{code="corrupt",status="failed"} 1.0' in lines
    assert 'fracture_watch_files_total{code="",status="classified"} 1.0' in lines
    assert "fracture_watch_put_off_total 1.0" in lines
    assert 'fracture_watch_stage_seconds_bucket{le="0.025",stage="decode"} 0.0' in lines
    assert 'fracture_watch_stage_seconds_bucket{le="0.05",stage="decode"} 1.0' in lines
    assert 'fracture_watch_stage_seconds_sum{stage="record"} 0.002' in lines
    assert "fracture_watch_waiting_files 3.0" in lines
    assert 'fracture_watch_paused{reason="storage_unavailable"} 1.0' in lines
    assert 'fracture_watch_paused{reason="database_unavailable"} 0.0' in lines
    waiting[0] = 0
    assert b"fracture_watch_waiting_files 0.0" in metrics.text()


def test_deliveries_are_counted_by_destination_and_what_waits_is_read_when_asked():
    metrics, waiting = Metrics(), {"webhook:a": 0.0}
    metrics.delivered("webhook:a")
    metrics.not_delivered("webhook:b")
    metrics.watch_by("outbox_waiting", "Deliveries that wait.", "destination", lambda: waiting)
    lines = metrics.text().decode().splitlines()
    assert 'fracture_watch_outbox_delivered_total{destination="webhook:a"} 1.0' in lines
    assert 'fracture_watch_outbox_failed_total{destination="webhook:b"} 1.0' in lines
    assert 'fracture_watch_outbox_waiting{destination="webhook:a"} 0.0' in lines
    waiting["webhook:old"] = 2.0
    assert b'fracture_watch_outbox_waiting{destination="webhook:old"} 2.0' in metrics.text()


def test_two_processes_worth_of_metrics_do_not_meet():
    one, other = Metrics(), Metrics()
    one.put_off()
    assert b"fracture_watch_put_off_total 0.0" in other.text()
