"""Whether a journal of crossings says that every source was safe elsewhere before it went."""

import os

from tests.crash.tap import START


def unsafe(entries, inbox, deletes=False):
    """What was done in the wrong order, in words; ``deletes``: processed files need no other place."""
    seen = _Seen(str(inbox) + os.sep, deletes)
    for entry in entries:
        side, call = entry["crossing"].split(" ")[:2]
        if entry["crossing"] == START:
            seen.begin()
        elif side == "before":
            seen.expect(call, entry["paths"])
        elif side == "after":
            seen.take(call, entry["paths"])
    return seen.complaints


class _Seen:
    def __init__(self, inbox, deletes):
        self._inbox = inbox
        self._deletes = deletes
        self._committed, self._linked = set(), set()
        self._copies = {}  # source -> the steps of its copy that are done
        self._begun = {}  # call -> paths: what a life began and did not tell the end of, in any of its threads
        self.complaints = []

    def begin(self):
        """Another life. A death between a step and its entry here leaves the step done, and the next life sees that."""
        begun, self._begun = self._begun, {}
        for call in ("commit", "link"):
            if call in begun:
                self.take(call, begun[call])

    def expect(self, call, paths):
        self._begun[call] = paths
        if call == "unlink":
            self._removed(paths[0])

    def take(self, call, paths):
        self._begun.pop(call, None)
        if call == "commit":
            self._committed.update(paths)
        elif call == "link":
            self._renamed(*paths[:2])
            self._linked.add(paths[0])
        elif call == "copy":
            self._require_committed(paths[0])
            self._copies[paths[0]] = {"temporary": paths[1], "steps": ["copy"]}
        elif call in ("replace", "rename"):
            self._renamed(*paths[:2])
        elif call == "fsync":
            self._synced(paths[0])
        elif call == "unlink":
            self._copies.pop(paths[0], None)

    def _renamed(self, source, target):
        if source.startswith(self._inbox):
            self._require_committed(source)
        for copy in self._copies.values():
            if copy["temporary"] == source:
                copy["steps"].append("rename")
                copy["folder"] = os.path.dirname(target)  # noqa: PTH120  paths are text here

    def _synced(self, path):
        for copy in self._copies.values():
            if path == copy["temporary"]:
                copy["steps"].append("fsync file")
            elif path == copy.get("folder"):
                copy["steps"].append("fsync folder")

    def _removed(self, source):
        if not source.startswith(self._inbox):
            return
        self._require_committed(source)
        steps = self._copies.get(source, {"steps": None})["steps"]
        if steps is None:
            if source not in self._linked and not self._deletes:
                self.complaints.append(f"{source} was removed and is nowhere else")
        elif steps[:4] != ["copy", "fsync file", "rename", "fsync folder"]:
            self.complaints.append(f"{source} was removed after {', '.join(steps)}")

    def _require_committed(self, source):
        if source not in self._committed:
            self.complaints.append(f"{source} was touched before its result was committed")
