"""The suite's own count, at the end of its output."""

import pytest

_TALLY = []


@pytest.fixture
def crash_tally():
    return _TALLY


def pytest_terminal_summary(terminalreporter):
    if not _TALLY:
        return
    kills, files = sum(v.kills for v in _TALLY), sum(v.files for v in _TALLY)
    lost, repeated = sum(len(v.lost) for v in _TALLY), sum(len(v.repeated) for v in _TALLY)
    places = sum((v.places for v in _TALLY), start=type(_TALLY[0].places)())
    terminalreporter.write_line(f"crash suite: {kills} kills, {files} files, lost {lost}, repeated {repeated}")
    terminalreporter.write_line(", ".join(f"{count} {place}" for place, count in sorted(places.items())))
