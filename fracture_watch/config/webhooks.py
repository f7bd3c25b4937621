"""The section ``webhooks``: who is told of results over HTTP."""

import re
from collections import Counter
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from fracture_watch.config.base import Float, Section

_SHORTEST_SECRET = 16  # characters


class HookSettings(Section):
    """One receiver, of which events it is told, and of which predictions; an empty list of those accepts any.

    ``name`` tells receivers apart, in the log and the database too, where the URL is not shown.
    """

    url: str
    name: str | None = Field(None, pattern=r"^[\w.:-]{1,64}$")
    events: tuple[Literal["result", "study"], ...] = Field(("result", "study"), min_length=1)
    predictions: tuple[Literal["fractured", "not fractured"], ...] = ()
    secret: SecretStr | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        try:
            parts = urlsplit(self.url)
            host = (parts.hostname or "").encode("idna") if parts.port != 0 else b""
        except ValueError:
            host = b""
        if not host or parts.scheme not in ("http", "https") or not re.fullmatch(r"[!-~]+", self.url):
            raise ValueError("url must be an http:// or https:// address, with other characters than ASCII escaped")
        if "@" in parts.netloc:
            raise ValueError("url must hold no user and no password; the receiver knows us by the signature")
        if parts.fragment:
            raise ValueError("url must have no #fragment")
        return self

    @property
    def known_as(self) -> str:
        """Its name; by default the host and port of its URL."""
        return self.name or urlsplit(self.url).netloc.lower()


class WebhookSettings(Section):
    """Receivers, and how patient we are with them. ``secret`` is for every hook without one of its own."""

    hooks: tuple[HookSettings, ...] = ()
    secret: SecretStr | None = None
    study_quiet_seconds: Float = Field(300.0, ge=1, le=86_400)
    give_up_days: Float = Field(3.0, gt=0, le=365)

    @model_validator(mode="after")
    def _told_apart_and_signed(self) -> Self:
        for name, count in Counter(hook.known_as for hook in self.hooks).items():
            if count > 1:
                raise ValueError(f"{count} hooks are called {name}; give each a name of its own")
        for hook in self.hooks:
            if len(self.secret_of(hook)) < _SHORTEST_SECRET:
                raise ValueError(
                    f"the hook {hook.known_as} has no secret of at least {_SHORTEST_SECRET} characters to sign with; "
                    "set FRACTURE_WATCH__WEBHOOKS__SECRET to what `openssl rand -hex 32` says, at the receiver too"
                )
        return self

    def secret_of(self, hook: HookSettings) -> str:
        """What a hook's deliveries are signed with; empty where there is nothing."""
        secret = hook.secret or self.secret
        return secret.get_secret_value() if secret else ""
