"""Every test that docs/reliability.md names is there."""

import re

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_tests_that_the_page_names_exist():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+|Test\w+)`", PAGE))
    assert len(named) > 25
    assert {name for name in named if not re.search(rf"(def|class) {name}\b", text)} == set()
    folders = re.findall(r"`(tests/\S+\.py)`", PAGE)
    assert [path for path in folders if not (REPOSITORY / path).is_file()] == []
