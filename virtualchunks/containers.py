"""What a registry grants, as Icechunk says it: virtual chunk containers, and the credentials that authorise them.

A container is kept in a repository's own configuration, for everybody who opens it; so nothing secret goes into one.
Credentials are handed over whenever a repository is opened, and are not kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from virtualchunks.errors import MissingDependencyError, UnsupportedFeatureError
from virtualchunks.objectstores import is_kind
from virtualchunks.urls import local_path

if TYPE_CHECKING:
    import icechunk

#: Options that say which object is meant, or how patiently it is asked for: Icechunk has its own.
_INDIFFERENT = frozenset(
    {
        "bucket",
        "container_name",
        "timeout",
        "connect_timeout",
        "read_timeout",
        "user_agent",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "http1_only",
        "http2_only",
        "randomize_addresses",
    }
)


@dataclass(frozen=True)
class _Access:
    """How a prefix is reached: its URL, and the options of its store, in their shortest spelling."""

    url: str
    options: Mapping[str, Any]
    provider: Callable[[], Any] | None

    def says(self, name: str) -> bool:
        """Whether a switch is on."""
        return str(self.options.get(name, "")).lower() in ("true", "1")

    def require_known(self, *names: str) -> None:
        """Raise for an option that the container would leave out."""
        unknown = sorted(self.options.keys() - _INDIFFERENT - set(names))
        if unknown:
            raise UnsupportedFeatureError(
                f"the store of {self.url} has the options {', '.join(unknown)}, which a container of Icechunk has not, "
                "or would keep in the repository for everybody to read: make the VirtualChunkContainer yourself",
                url=self.url,
            )


class IcechunkAccess:
    """What a registry hands to Icechunk, so that nobody has to say twice what may be read."""

    def _by_prefix(self) -> Mapping[str, Any]:
        """Return the store of each granted prefix, or raise :func:`no_prefixes`."""
        raise NotImplementedError

    def icechunk_containers(self) -> list[icechunk.VirtualChunkContainer]:
        """Return the granted prefixes as virtual chunk containers, for the configuration of a repository.

        Returns
        -------
        list of icechunk.VirtualChunkContainer
            One for each prefix; there is no secret in them.

        Raises
        ------
        UnsupportedFeatureError
            If Icechunk has no such store, a store has options that it lacks, or single objects are granted.
        """
        return containers(self._by_prefix())

    def icechunk_credentials(self) -> dict[str, Any]:
        """Return what authorises these containers, for ``Repository.open(authorize_virtual_chunk_access=…)``.

        Returns
        -------
        dict
            Icechunk's credentials, by prefix.

        Raises
        ------
        UnsupportedFeatureError
            As :meth:`icechunk_containers`; also if credentials cannot be handed over.
        """
        return credentials(self._by_prefix())


def containers(stores: Mapping[str, Any]) -> list[icechunk.VirtualChunkContainer]:
    """Return the virtual chunk container of each prefix.

    Parameters
    ----------
    stores
        The object store of each prefix, which ends in ``/``.

    Raises
    ------
    UnsupportedFeatureError
        If Icechunk has no such store, or a store has options that it lacks; the message names them.
    """
    module = _icechunk()
    return [
        module.VirtualChunkContainer(spelling(url), _kind(url, store)[0](_access(url, store)))
        for url, store in stores.items()
    ]


def credentials(stores: Mapping[str, Any]) -> dict[str, Any]:
    """Return what authorises each prefix, for ``authorize_virtual_chunk_access``.

    Parameters
    ----------
    stores
        The object store of each prefix, which ends in ``/``.

    Raises
    ------
    UnsupportedFeatureError
        If credentials of a store cannot be handed over.
    """
    module = _icechunk()
    made = {spelling(url): _kind(url, store)[1](_access(url, store)) for url, store in stores.items()}
    given: dict[str, Any] = module.containers_credentials(made)
    return given


def spelling(url: str) -> str:
    """Return a canonical prefix as Icechunk compares it: when it reads, with locations whose escapes are decoded.

    Examples
    --------
    >>> spelling("s3://bucket/a%20b/")
    's3://bucket/a b/'
    """
    return unquote(url)


def no_prefixes(what: str) -> UnsupportedFeatureError:
    """Return the error for a registry that grants something else than prefixes."""
    return UnsupportedFeatureError(
        f"the registry grants {what} without a prefix, and Icechunk authorises prefixes: register the folder, as in "
        'ObjectStoreRegistry({"s3://bucket/folder/": store})'
    )


def _icechunk() -> Any:
    try:
        import icechunk
    except ImportError as error:
        raise MissingDependencyError(
            "Icechunk's containers need icechunk: pip install 'virtualchunks[icechunk]'"
        ) from (error)
    return icechunk


def _kind(url: str, store: Any) -> tuple[Callable[[_Access], Any], Callable[[_Access], Any]]:
    for name, pair in _KINDS.items():
        if is_kind(name, url, store):
            return pair
    raise UnsupportedFeatureError(
        f"Icechunk has no store like the {type(store).__name__} of {url}: it reads local files, HTTP servers, S3, GCS "
        "and Azure",
        url=url,
    )


def _access(url: str, store: Any) -> _Access:
    options: dict[str, Any] = {}
    for part in ("config", "client_options"):
        for name, value in (getattr(store, part, None) or {}).items():
            plain = str(name).lower()
            for start in ("aws_", "google_", "azure_storage_", "azure_"):
                plain = plain.removeprefix(start)
            options[plain] = value
    return _Access(url, options, getattr(store, "credential_provider", None))


def _local(access: _Access) -> Any:
    return _icechunk().local_filesystem_store(local_path(access.url))


def _http(access: _Access) -> Any:
    access.require_known("allow_http")
    plain = access.url.startswith("http:") or access.says("allow_http")
    return _icechunk().http_store({"allow_http": "true"} if plain else None)


_S3_KEYS = ("access_key_id", "secret_access_key", "session_token", "token", "skip_signature")


def _s3(access: _Access) -> Any:
    access.require_known(
        *_S3_KEYS, "region", "default_region", "endpoint", "endpoint_url", "allow_http", "virtual_hosted_style_request",
        "request_payer",
    )  # fmt: skip
    endpoint = access.options.get("endpoint") or access.options.get("endpoint_url")
    return _icechunk().s3_store(
        region=access.options.get("region") or access.options.get("default_region"),
        endpoint_url=endpoint,
        allow_http=access.says("allow_http"),
        anonymous=access.says("skip_signature"),
        s3_compatible=endpoint is not None,
        force_path_style=endpoint is not None and not access.says("virtual_hosted_style_request"),
        requester_pays=access.says("request_payer"),
    )


def _s3_credentials(access: _Access) -> Any:
    module, options = _icechunk(), access.options
    if access.says("skip_signature"):
        return module.s3_credentials(anonymous=True)
    if access.provider is not None:
        return module.s3_credentials(get_credentials=_ProvidedS3(_plain(access)))
    if not options.get("access_key_id"):
        return module.s3_credentials(from_env=True)
    token = options.get("session_token") or options.get("token")
    return module.s3_credentials(
        access_key_id=options["access_key_id"],
        secret_access_key=options.get("secret_access_key") or "",
        session_token=token,
    )


_GCS_KEYS = (
    "service_account", "service_account_path", "service_account_key", "application_credentials", "skip_signature",
)  # fmt: skip


def _gcs(access: _Access) -> Any:
    access.require_known(*_GCS_KEYS)
    return _icechunk().gcs_store()


def _gcs_credentials(access: _Access) -> Any:
    module, options = _icechunk(), access.options
    if access.says("skip_signature"):
        return module.gcs_credentials(anonymous=True)
    if access.provider is not None:
        return module.gcs_credentials(get_credentials=_ProvidedGCS(_plain(access)))
    path = options.get("service_account") or options.get("service_account_path")
    given = {
        "service_account_file": path,
        "service_account_key": options.get("service_account_key"),
        "application_credentials": options.get("application_credentials"),
    }
    known = {name: value for name, value in given.items() if value is not None}
    return module.gcs_credentials(**known) if known else module.gcs_credentials(from_env=True)


_AZURE_KEYS = (
    "account_key", "access_key", "sas_key", "sas_token", "bearer_token", "token", "skip_signature",
)  # fmt: skip


def _azure(access: _Access) -> Any:
    access.require_known(*_AZURE_KEYS, "account_name")
    return _icechunk().ObjectStoreConfig.Azure({"account": str(access.options.get("account_name", ""))})


def _azure_credentials(access: _Access) -> Any:
    module, options = _icechunk(), access.options
    if access.provider is not None:
        raise UnsupportedFeatureError(
            f"the credential provider of the store of {access.url} cannot be handed to Icechunk: pass "
            "icechunk.azure_credentials(…) for it",
            url=access.url,
        )
    if access.says("skip_signature"):
        return module.azure_credentials(anonymous=True)
    names = {
        "access_key": ("account_key", "access_key"),
        "sas_token": ("sas_key", "sas_token"),
        "bearer_token": ("bearer_token", "token"),
    }
    for argument, spellings in names.items():
        for spelling in spellings:
            if options.get(spelling):
                return module.azure_credentials(**{argument: options[spelling]})
    return module.azure_credentials(from_env=True)


def _plain(access: _Access) -> Callable[[], Any]:
    """Return a provider of credentials that can be called without an event loop."""
    assert access.provider is not None
    if inspect.iscoroutinefunction(access.provider) or inspect.iscoroutinefunction(type(access.provider).__call__):
        raise UnsupportedFeatureError(
            f"the credential provider of the store of {access.url} is asynchronous, and Icechunk calls plain functions",
            url=access.url,
        )
    return access.provider


@dataclass(frozen=True)
class _ProvidedS3:
    """obstore's provider of credentials, as Icechunk calls one."""

    provider: Callable[[], Any]

    def __call__(self) -> Any:
        found = self.provider()
        return _icechunk().S3StaticCredentials(
            access_key_id=found["access_key_id"],
            secret_access_key=found["secret_access_key"],
            session_token=found.get("token") or found.get("session_token"),
            expires_after=found.get("expires_at"),
        )


@dataclass(frozen=True)
class _ProvidedGCS:
    """The same for Google's tokens."""

    provider: Callable[[], Any]

    def __call__(self) -> Any:
        found = self.provider()
        return _icechunk().GcsBearerCredential(found["token"], expires_after=found.get("expires_at"))


#: The container's store and the credentials, by the class of the object store.
_KINDS: dict[str, tuple[Callable[[_Access], Any], Callable[[_Access], Any]]] = {
    "LocalStore": (_local, lambda access: _icechunk().Credentials.LocalFileSystemAccess()),
    "HTTPStore": (_http, lambda access: _icechunk().Credentials.HttpAccess()),
    "S3Store": (_s3, _s3_credentials),
    "GCSStore": (_gcs, _gcs_credentials),
    "AzureStore": (_azure, _azure_credentials),
}
