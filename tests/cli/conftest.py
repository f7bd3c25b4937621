"""The command line, run in this process."""

import sys

import pytest

from fracture_watch.cli import main


@pytest.fixture
def fw(config, capsys, monkeypatch):
    """Run a command as the shell would: (exit status, standard output, standard error)."""
    monkeypatch.chdir(config.parent)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fracture-watch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
