"""The worst mistakes are listed, whatever becomes of their pictures."""

import pytest

from fracture_watch import assembly
from fracture_watch.config import load_settings
from fracture_watch.training.assess import assess, worst_mistakes
from fracture_watch.training.cases import read_cases
from tests.conftest import png


@pytest.fixture
def judged(tmp_path, config):
    """A pipeline, with its answers for the same pictures once as fractured and once as not: two of four are wrong."""
    lines = ["path,label"]
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(number // 2))
        lines.append(f"{number}.png,{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with assembly.runtime(load_settings(config)) as running:
        cases = read_cases(tmp_path / "labels.csv", tmp_path)
        answers, _ = assess(running.pipeline, cases, 4, lambda items, _: items)
        yield running.pipeline, answers


def test_a_mistake_without_a_heat_map_is_listed(judged):
    pipeline, answers = judged

    def broken(*_):
        raise RuntimeError("no map today")

    found = worst_mistakes(pipeline, answers, 6, broken)
    assert len(found) == 2
    assert all(mistake.picture.startswith("data:image/png") and mistake.heatmap is None for mistake in found)


def test_a_mistake_whose_file_is_gone_is_listed(judged):
    pipeline, answers = judged
    wrong = next(answer for answer in answers if answer.mistaken)
    wrong.case.path.unlink()
    found = {
        mistake.answer.case.name: mistake.picture for mistake in worst_mistakes(pipeline, answers, 6, lambda *_: None)
    }
    assert found[wrong.case.name] is None
    assert len(found) == 2
