"""A folder and what is below it: which files count, and as what they stand now."""

import fnmatch
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fracture_watch.errors import StorageUnavailable
from fracture_watch.intake.settling import stamp_of
from fracture_watch.records import SourceFile
from fracture_watch.times import now

log = logging.getLogger(__name__)
Naming: TypeAlias = Callable[[SourceFile], SourceFile]
_ALWAYS_IGNORED = (".*", "*.part", "*.tmp", "*.crdownload", "@eaDir")


@dataclass(frozen=True, slots=True)
class Tree:
    """Which files below a folder count.

    Parameters
    ----------
    root : Path
    recursive : bool
    ignore : tuple of str
        Globs for names, beside dotfiles and the usual names of unfinished copies.
    named : function
        Gives a file the alias under which it is recorded, shown and logged; ``None``: it goes by its path.
    """

    root: Path
    recursive: bool = True
    ignore: tuple[str, ...] = ()
    named: Naming | None = None

    def ignores(self, name: str) -> bool:
        """Whether a file or folder of this name is left alone."""
        return any(fnmatch.fnmatch(name, glob) for glob in _ALWAYS_IGNORED + self.ignore)

    def counts(self, path: Path) -> bool:
        """Whether ``path``, below the root, is looked at, by the names on its way alone."""
        parts = path.relative_to(self.root).parts
        return (self.recursive or len(parts) == 1) and not any(map(self.ignores, parts))

    def walk(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every regular file that counts, lazily. Symlinks are not followed; FIFOs and devices are not opened.

        Raises
        ------
        StorageUnavailable
            If the root cannot be listed.
        """
        folders = [self.root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = list(listing)  # a share may fail in the middle of it
            except OSError as error:
                if folder == self.root:
                    raise StorageUnavailable(
                        f"the folder {folder} cannot be listed: {error.strerror}; see that it is there, mounted and "
                        "open to this user"
                    ) from error
                log.warning("%s cannot be listed: %s", self._shown(folder), error.strerror)
                continue
            for entry in entries:
                if self.ignores(entry.name):
                    continue
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # gone between listing and looking
                except OSError as error:
                    log.warning("%s cannot be looked at: %s", self._shown(entry.path), error.strerror)
                    continue
                if stat.S_ISREG(facts.st_mode):
                    yield Path(entry.path), facts
                elif stat.S_ISDIR(facts.st_mode) and self.recursive:
                    folders.append(Path(entry.path))

    def source(self, path: Path, facts: os.stat_result) -> SourceFile:
        """A file as it stands now."""
        return self.known(SourceFile(path, *stamp_of(facts), now()))

    def known(self, source: SourceFile) -> SourceFile:
        """A file with the alias under which it goes."""
        return self.named(source) if self.named else source

    def _shown(self, path: str | Path) -> str:
        return f"something in {self.root}" if self.named else str(path)


def scan(tree: Tree) -> Iterator[SourceFile]:
    """Every file of a tree as it stands, without waiting for writers."""
    if tree.root.is_file():
        yield tree.source(tree.root, tree.root.stat())
        return
    for path, facts in tree.walk():
        yield tree.source(path, facts)
