"""The section ``database``: where results are recorded."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_serializer, field_validator

from fracture_watch.config.base import Section, from_folder

_FILE = "sqlite:///"
_SERVERS = ("postgresql", "postgresql+psycopg")
_SECRET = ("password", "sslpassword")  # options of a PostgreSQL URL that messages would show
_WRONG = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"


class DatabaseSettings(Section):
    """An SQLAlchemy URL of a file or of a PostgreSQL server; a relative SQLite path is relative to the configuration.

    A password in it is shown nowhere.
    """

    url: str = Field("sqlite:///fracture_watch.db", repr=False)

    @field_validator("url")
    @classmethod
    def _known(cls, url: str, info: ValidationInfo) -> str:
        if url.startswith(_FILE) and url != _FILE and ":memory:" not in url:
            if "?" in url:
                raise ValueError("must be sqlite:/// and a path, with nothing behind a ?")
            return _FILE + str(from_folder(Path(url.removeprefix(_FILE)), info))
        from sqlalchemy.engine import URL, make_url
        from sqlalchemy.exc import ArgumentError

        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            parsed = URL.create("unknown")
        if parsed.drivername not in _SERVERS:
            raise ValueError(_WRONG)
        if not parsed.database:
            raise ValueError(f"{_WRONG}; the database at the end is missing")
        if any(name in parsed.query for name in _SECRET):
            raise ValueError(f"must not have a password behind the ?, where it would be shown; {_WRONG}")
        return url

    @field_serializer("url")
    def _without_password(self, url: str) -> str:
        from sqlalchemy.engine import make_url

        return url if url.startswith(_FILE) else make_url(url).render_as_string()

    @property
    def path(self) -> Path | None:
        """The SQLite file; ``None`` on a server."""
        return Path(self.url.removeprefix(_FILE)) if self.url.startswith(_FILE) else None

    @property
    def shown(self) -> str:
        """Where it is, for a person: without a password."""
        return str(self.path or self._without_password(self.url))
