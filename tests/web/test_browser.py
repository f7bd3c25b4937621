"""The pages in a real browser, on a real daemon: what a reader does with mouse, finger and keyboard."""

import io
import re
import shutil
import threading
from collections import Counter

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from werkzeug.serving import make_server

from demo.screenshots import FLAGS
from fracture_watch.pipeline import Pipeline
from fracture_watch.web.access import Access
from fracture_watch.web.app import create_app
from tests.conftest import needs, png, write_config
from tests.dicoms import dicom
from tests.test_end_to_end import Process
from tests.test_pipeline import CountingClassifier, TableDecoder, prepared
from tests.web.conftest import Live
from tests.web.test_app import site_of

SHAPE = np.add.outer(np.arange(300), np.arange(200))
EVIL = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def own(tmp_path_factory, weights):
    """A daemon with a study of two images, a picture, a hostile one, and two files that came to nothing."""
    folder = tmp_path_factory.mktemp("browser")
    write_config(folder, weights)
    process = Process(folder)
    try:
        process.ready()
        running = Live(process.page(), process)
        study = {"PatientID": "PAT-1", "StudyInstanceUID": "1.2.3.4"}
        running.drop("ap.dcm", dicom((SHAPE * 8 % 4096).astype(np.uint16), seed=1, ViewPosition="AP", **study))
        running.drop("ll.dcm", dicom((SHAPE * 5 % 4096).astype(np.uint16), seed=2, ViewPosition="LL", **study))
        foot = {"PatientID": EVIL, "BodyPartExamined": "FOOT"}
        running.drop("foot.dcm", dicom((SHAPE * 3 % 4096).astype(np.uint16), seed=3, **foot))
        running.drop("picture.png", png(1))
        running.drop("notes.txt", b"no radiograph")
        yield running
    finally:
        process.kill()


@pytest.fixture(scope="module")
def browser():
    needs("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, own):
    """A page whose console is to stay silent."""
    context = browser.new_context(base_url=own.url, viewport={"width": 1440, "height": 900})
    context.set_default_timeout(15_000)
    page = context.new_page()
    said = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text) if is_fault(message) else None)
    yield page
    context.close()
    assert said == []


def is_fault(message):
    """What the browser says of an answer that is no 200 is expected where a test asks for one."""
    return message.type == "error" and "Failed to load resource" not in message.text


def shown(page):
    return np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def ready(page):
    page.wait_for_function(
        "() => [...document.images].every(i => i.loading == 'lazy' || (i.complete && i.naturalWidth))"
    )


def patient(page, name):
    return page.get_by_role("row").filter(has_text=name)


def test_what_is_dropped_appears_by_itself_and_does_not_move_what_is_read(page, own):
    page.goto("/")
    expect(page.get_by_role("row")).to_have_count(4)
    own.drop("new.dcm", dicom((SHAPE * 7 % 4096).astype(np.uint16), seed=10, PatientID="PAT-10"))
    expect(patient(page, "PAT-10")).to_be_visible()
    page.get_by_role("link", name="PAT-1", exact=True).focus()
    own.drop("newer.dcm", dicom((SHAPE * 9 % 4096).astype(np.uint16), seed=11, PatientID="PAT-11"))
    news = page.get_by_role("button", name="1 new")
    expect(news).to_be_visible()
    assert patient(page, "PAT-11").count() == 0
    news.click()
    expect(patient(page, "PAT-11")).to_be_visible()
    expect(page.locator("[data-live=tabs]").get_by_role("link", name="All 5")).to_be_visible()


def test_a_result_opens_and_the_slider_moves_the_heat_map(page):
    page.goto("/")
    page.get_by_role("link", name="PAT-1", exact=True).click()
    expect(page.get_by_role("heading", name="PAT-1")).to_be_visible()
    ready(page)
    slider, button = page.get_by_label("Opacity of the heat map"), page.get_by_role("button", name="Heat map")
    slider.fill("0")
    none = shown(page)
    slider.fill("100")
    full = shown(page)
    assert np.abs(full - none).max() > 60
    assert np.ptp(none, axis=2).max() < 12  # the radiograph alone is grey, in a frame that is almost
    button.click()
    assert (shown(page) == none).all()
    button.click()
    assert (shown(page) == full).all()


def test_zoom_and_window_change_the_picture_and_reset_brings_it_back(page):
    page.goto("/files/1")
    ready(page)
    page.get_by_role("button", name="Heat map").click()
    before = shown(page)
    box = page.locator("#stage").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(100)
    zoomed = shown(page)
    assert np.abs(zoomed - before).max() > 60
    page.get_by_role("button", name="Window").click()
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 90, middle[1] + 40)
    page.mouse.up()
    filtered = shown(page)
    assert np.abs(filtered - zoomed).max() > 20
    expect(page.locator("#picture")).to_have_attribute(
        "src", re.compile("center=.*width=")
    )  # drawn by the server by now
    assert np.abs(shown(page) - filtered).max() <= 4  # the same window, from the stored values
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#picture")).not_to_have_attribute("src", re.compile("center="))
    assert (shown(page) == before).all()


def test_pixels_that_are_not_square_are_shown_in_their_proportions(page, own):
    high = dicom((SHAPE * 8 % 4096).astype(np.uint16), seed=20, PixelSpacing=[0.4, 0.1], PatientID="PAT-20")
    page.goto(f"/files/{own.drop('high.dcm', high)}")
    ready(page)
    for part in ("#sheet", "#picture", "#heat"):
        box = page.locator(part).bounding_box()
        assert box["height"] / box["width"] == pytest.approx(6, rel=0.01)  # 300 rows of 0.4 mm, 200 columns of 0.1 mm
    stage = page.locator("#stage").bounding_box()
    assert box["height"] == pytest.approx(stage["height"], abs=2)  # it fits
    page.goto("/files/1")
    ready(page)
    box = page.locator("#sheet").bounding_box()
    assert box["height"] / box["width"] == pytest.approx(1.5, rel=0.01)


def test_a_verdict_is_appended_and_becomes_a_label(page, own):
    page.goto("/files/1")
    page.get_by_role("button", name="Disagree", exact=True).click()
    expect(page.locator("#said")).to_have_text("Recorded: disagree")
    page.get_by_role("button", name="Agree", exact=True).click()
    expect(page.locator("#said")).to_have_text("Recorded: agree")
    page.reload()
    expect(page.get_by_role("button", name="Agree", exact=True)).to_have_attribute("aria-pressed", "true")
    assert own.process.rows("SELECT verdict FROM verdict WHERE file_id = 1 ORDER BY id") == [("disagree",), ("agree",)]
    [(prediction, path)] = own.process.rows("SELECT prediction, filed_path FROM results WHERE id = 1")
    head, line = page.request.get("/verdicts.csv").text().splitlines()
    assert head.startswith("path,label,group")
    assert line.startswith(f"{path},{prediction},PAT-1")
    page.goto("/accuracy")
    expect(page.get_by_role("row").filter(has_text="HAND")).to_contain_text("1 of 1")


def test_truths_are_imported_and_counted(page, own, tmp_path):
    [(uid, prediction)] = own.process.rows("SELECT sop_instance_uid, prediction FROM results WHERE id = 3")
    other = "not fractured" if prediction == "fractured" else "fractured"
    (tmp_path / "truth.csv").write_text(f"sop_instance_uid,label\n{uid},{other}\n1.2.3,fractured\n", encoding="utf-8")
    page.goto("/accuracy")
    page.get_by_label("CSV file with label").set_input_files(tmp_path / "truth.csv")
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_role("status")).to_contain_text("1 truths recorded, 1 without a result here")
    page.get_by_text("Lines without a result").click()
    expect(page.get_by_text("line 3: 1.2.3")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="FOOT")).to_contain_text("0 of 1")
    page.goto("/files/3")
    expect(page.locator("#said")).to_contain_text("from truth.csv")
    (tmp_path / "truth.csv").write_text("sop_instance_uid,label\n1.2.3,perhaps\n", encoding="utf-8")
    page.goto("/accuracy")
    page.get_by_label("CSV file with label").set_input_files(tmp_path / "truth.csv")
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text("truth.csv, line 2: needs a sop_instance_uid, and a label")).to_be_visible()


@pytest.fixture
def guarded(tmp_path):
    """A service that wants a token, without a model."""
    pipeline = Pipeline(TableDecoder(**{"a.dcm": prepared("aa")}), CountingClassifier())
    server = make_server(
        "127.0.0.1", 0, create_app(site_of(tmp_path, pipeline), Access("127.0.0.1", "sesame", 1 << 20)), threaded=True
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_reader_logs_in_and_out(browser, guarded):
    context = browser.new_context(base_url=guarded, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto("/accuracy")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert Axe().run(page).response["violations"] == []
    page.get_by_label("Token").fill("open")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill("sesame")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Accuracy")).to_be_visible()
    page.get_by_label("CSV file with label").set_input_files(
        {"name": "t.csv", "mimeType": "text/csv", "buffer": b"path,label\na,0\n"}
    )
    page.get_by_role("button", name="Import").click()  # with the number that only the service's own pages know
    expect(page.get_by_role("status")).to_contain_text("1 without a result here")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    context.close()


def test_the_filters_narrow_the_list(page):
    page.goto("/")
    page.get_by_label("Body part").select_option("FOOT")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tr[data-study]")).to_have_count(1)
    assert EVIL in page.locator("tr[data-study]").inner_text()
    assert "owned" not in page.title()
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Find").fill("pat-1")
    page.get_by_label("Find").press("Enter")
    expect(patient(page, "PAT-1").first).to_be_visible()
    assert page.locator("tr[data-study]").filter(has_text="picture.png").count() == 0
    page.goto("/?q=nobody")
    expect(page.get_by_text("No study matches.")).to_be_visible()


def test_a_problem_says_why_and_is_put_back(page, own):
    page.goto("/problems?status=rejected")
    row = page.get_by_role("row").filter(has_text="notes.txt")
    expect(row).to_contain_text("not_an_image")
    row.get_by_role("button", name="Retry").click()
    again = "SELECT count(*) FROM results WHERE source_path LIKE '%/notes.txt'"
    own.process.until(lambda: own.process.rows(again) == [(2,)])
    first = "SELECT filed_path FROM results WHERE source_path LIKE '%/notes.txt' ORDER BY id LIMIT 1"
    assert own.process.rows(first) == [(None,)]


def test_a_file_is_tried_and_not_kept(page, own):
    before = own.process.rows("SELECT count(*) FROM results")
    page.goto("/try")
    page.get_by_label("Radiographs").set_input_files(
        [
            {"name": "a.png", "mimeType": "image/png", "buffer": png(77)},
            {"name": "b.txt", "mimeType": "", "buffer": b"x"},
        ]
    )
    answer = page.locator("#answers li").filter(has_text="a.png")
    expect(answer.get_by_role("img")).to_be_visible()
    expect(answer).to_contain_text("Not a medical device")
    expect(page.locator("#answers li").filter(has_text="b.txt")).to_contain_text("not_an_image")
    assert own.process.rows("SELECT count(*) FROM results") == before


def test_everything_works_by_keyboard(page, own):
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.get_by_role("link", name="PAT-1", exact=True).focus()
    page.keyboard.press("Enter")
    ready(page)
    page.keyboard.press("h")
    expect(page.get_by_role("button", name="Heat map")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("u")
    expect(page.locator("#said")).to_have_text("Recorded: unsure")
    here = page.url
    step, back = ("j", "k") if page.locator("#after").count() else ("k", "j")
    page.keyboard.press(step)
    page.wait_for_url(lambda url: url != here)
    page.keyboard.press(back)
    page.wait_for_url(re.compile(r"/files/\d+$"))


@pytest.mark.parametrize("path", ["/", "/files/1", "/accuracy", "/problems?status=rejected", "/try", "/files/9999"])
def test_a_telephone_shows_it_without_scrolling_sideways(browser, own, path):
    context = browser.new_context(base_url=own.url, viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_text("Not a medical device").first.is_visible()
    context.close()


def test_axe_finds_nothing(browser, own, capsys):
    rules, found = Counter(), []
    for theme in ("light", "dark"):
        context = browser.new_context(base_url=own.url, color_scheme=theme, viewport={"width": 1440, "height": 900})
        page = context.new_page()
        for path in ("/", "/files/1", "/accuracy", "/problems?status=rejected", "/try", "/files/9999"):
            page.goto(path)
            answer = Axe().run(page).response
            rules["passed"] += len(answer["passes"])
            found += [(theme, path, v["id"], [n["html"] for n in v["nodes"]][:3]) for v in answer["violations"]]
        context.close()
    assert found == []
    with capsys.disabled():
        print(f"\naxe: 12 pages, {rules['passed']} rules passed, nothing found", end=" ")
