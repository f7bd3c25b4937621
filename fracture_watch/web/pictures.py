"""Pictures of what was filed, drawn anew from the originals."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from fracture_watch import __version__
from fracture_watch.errors import FileFailed, FileRejected, OutOfMemory, Unreadable
from fracture_watch.records import Filed
from fracture_watch.results import queries
from fracture_watch.results.rows import as_path
from fracture_watch.web.answering import PRIVATE, Answer
from fracture_watch.web.asking import HeatmapQuestion, ImageQuestion, asked
from fracture_watch.web.lists import no_result
from fracture_watch.web.predictions import refused
from fracture_watch.web.site import Site, problem
from fracture_watch.web.slots import Slots

_AT_ONCE = 6  # with the predictions two less than the server has threads: there is always one for the probes
_HEATMAP = 2048  # longest side, unless somebody asks for more: there is little to see in it, and much to paint
_KEPT = 64 << 20  # bytes of pictures that are kept in memory


@dataclass(frozen=True, slots=True)
class Wish:
    """A picture that can be drawn: from what, how, and the name of exactly this picture."""

    path: Path
    draw: Callable[[], bytes | None]
    tag: str


class Kept:
    """The pictures that were asked for last, up to a number of bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tag: str) -> bytes | None:
        """A picture that is kept."""
        with self._lock:
            if tag in self._pictures:
                self._pictures.move_to_end(tag)
            return self._pictures.get(tag)

    def put(self, tag: str, picture: bytes) -> None:
        """Keep a picture; the ones that nobody asked for longest make room."""
        if len(picture) > self._capacity:
            return
        with self._lock:
            self._size += len(picture) - len(self._pictures.pop(tag, b""))
            self._pictures[tag] = picture
            while self._size > self._capacity:
                self._size -= len(self._pictures.popitem(last=False)[1])


def add_pictures(blueprint: Blueprint, site: Site) -> None:
    """``image.png`` and ``heatmap.png`` of every result whose file is still there."""
    blueprint.register_error_handler(FileFailed, _refused)
    blueprint.register_error_handler(FileRejected, _refused)
    slots, kept = Slots(_AT_ONCE, "pictures"), Kept(_KEPT)

    def shown(number: int, wish: Callable[[Site, dict[str, Any]], Wish]) -> Answer:
        asked(HeatmapQuestion if wish is _heatmap else ImageQuestion)
        row = queries.one(site.database, number)
        if row is None:
            return no_result(number)
        wanted = wish(site, row)
        if not wanted.path.is_file():
            return _gone(number)
        if request.if_none_match.contains(wanted.tag):
            return _tagged(Response(status=304), wanted)
        picture = kept.get(wanted.tag)
        if picture is None:
            try:
                with slots.taken():
                    picture = wanted.draw()
            except Unreadable:
                if wanted.path.is_file():
                    raise
            if picture is None:
                return _gone(number)
            kept.put(wanted.tag, picture)
        return _tagged(Response(picture, mimetype="image/png"), wanted)

    rule = "/api/files/<int:id>"
    # `id` is the name in the route.
    blueprint.add_url_rule(f"{rule}/image.png", "image", lambda **route: shown(route["id"], _image))
    blueprint.add_url_rule(f"{rule}/heatmap.png", "heatmap", lambda **route: shown(route["id"], _heatmap))


def _image(site: Site, row: dict[str, Any]) -> Wish:
    wanted = asked(ImageQuestion)
    filed, side = replace(_filed(row), greys=wanted.greys), wanted.size
    return Wish(filed.path, lambda: site.viewer.image(filed, side), _tag("image", filed, None, side))


def _heatmap(site: Site, row: dict[str, Any]) -> Wish:
    """Of the model that gave the result: the one in force draws anew, of another there is what it drew then."""
    wanted = asked(HeatmapQuestion)
    filed, model, side = _filed(row), row["model_id"], wanted.size or _HEATMAP
    tag = _tag("layer" if wanted.layer else "heatmap", filed, model, side)
    if model == site.model.id:
        return Wish(filed.path, lambda: site.viewer.heatmap(filed, side, alone=wanted.layer), tag)
    if model is None:
        raise NotFound(f"result {row['id']} is {row['status']} and has no prediction, so there is no heat map")
    if row["heatmap_path"] is None:
        raise NotFound(
            f"result {row['id']} is of the model {row['model_name']} {row['model_version']}, which is not in force and "
            "left no heat map; `fracture-watch scan --reclassify` asks the one in force"
        )
    if wanted.layer:
        raise NotFound(
            f"result {row['id']} is of a model that is not in force; of its heat map there is no layer alone"
        )
    drawn = Filed(as_path(row["heatmap_path"]), None)
    return Wish(drawn.path, lambda: site.viewer.image(drawn, side), tag)


def _filed(row: dict[str, Any]) -> Filed:
    """Where the file is. Until it is filed, which is a moment, it is still where it was found."""
    places = [as_path(row[name]) for name in ("filed_path", "source_path") if row[name]]
    if row["sha256"] is None or row["filed_path"] is None:
        raise NotFound(f"of result {row['id']} ({row['status']}) no file was kept, so there is no picture")
    path = next((place for place in places if place.is_file()), places[0])
    return Filed(path, row["sha256"], row["frame"] or 0)


def _tag(kind: str, filed: Filed, model: str | None, side: int | None) -> str:
    """Everything that decides what the picture looks like."""
    decisive = (__version__, kind, filed.sha256, filed.frame, filed.greys, model, side)
    return hashlib.sha256(repr(decisive).encode()).hexdigest()[:32]


def _tagged(response: Response, wanted: Wish) -> Response:
    response.set_etag(wanted.tag)
    response.headers["Cache-Control"] = PRIVATE
    return response


def _refused(error: FileFailed | FileRejected) -> Answer:
    smaller = "; or ask for a smaller picture with size" if isinstance(error, OutOfMemory) else ""
    return refused(error.code, error.detail + smaller)


def _gone(number: int) -> Answer:
    detail = (
        f"the file of result {number} is not at its place any more, or another one is; put it back to where filed_path "
        f"of /api/results/{number} says (privacy.identifiers may withhold it), or drop it into the inbox again"
    )
    return problem(410, "file_gone", detail)
