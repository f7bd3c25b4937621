"""The routes that programs use; ``openapi.yaml`` describes them."""

from flask import Blueprint

from fracture_watch.web.lists import add_lists
from fracture_watch.web.pictures import add_pictures
from fracture_watch.web.predictions import add_predictions
from fracture_watch.web.probes import add_probes
from fracture_watch.web.site import Site


def api(site: Site) -> Blueprint:
    """Predictions, what was recorded, pictures of it, and the probes."""
    blueprint = Blueprint("api", __name__)
    for add in (add_predictions, add_lists, add_pictures, add_probes):
        add(blueprint, site)
    return blueprint
