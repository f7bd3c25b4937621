"""The section ``engine``: where batches are computed."""

from typing import Literal, Self

from pydantic import model_validator

from fracture_watch.config.base import Section


class EngineSettings(Section):
    """Here, or for ``scan`` on the workers of the Dask scheduler at ``address``."""

    kind: Literal["local", "dask"] = "local"
    address: str | None = None

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if self.kind == "dask" and not (self.address or "").strip():
            raise ValueError("kind dask needs engine.address, the scheduler's, such as tcp://scheduler:8786")
        return self
