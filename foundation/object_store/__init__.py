"""The object store: whole values by key, too large for rows. A folder, or a bucket of S3."""

from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from foundation.object_store.base import ObjectMissing, ObjectStore, ObjectStoreAway

__all__ = ["ObjectMissing", "ObjectStore", "ObjectStoreAway", "check_url", "object_store"]

_FORMS = "`file:///folder` or `s3://bucket/prefix?endpoint=…&region=…`"


def object_store(url: str) -> ObjectStore:
    """The store of this URL; nothing is opened or made before it is used, so one may fork.

    Raises ValueError as :func:`check_url` does.
    """
    parts = check_url(url)
    if parts.scheme == "file":
        from foundation.object_store.folder import FolderStore

        return FolderStore(Path(unquote(parts.path)))
    from foundation.object_store.s3 import S3Store  # boto3 takes 0.2 s

    options = parse_qs(parts.query)
    return S3Store(
        parts.netloc,
        prefix=unquote(parts.path).strip("/"),
        endpoint=options.get("endpoint", [None])[0],
        region=options.get("region", [None])[0],
    )


def check_url(url: str) -> SplitResult:
    """The parts of a store's URL. Raises ValueError, which never repeats what may be a secret."""
    parts = urlsplit(url)
    match parts.scheme:
        case "file":
            if parts.netloc or not parts.path.startswith("/") or parts.query:
                raise ValueError("a folder is named as `file:///folder`, by its absolute path")
        case "s3":
            _check_s3(parts)
        case _:
            raise ValueError(f"an object store is named as {_FORMS}")
    if parts.fragment:
        raise ValueError("an object store's URL has no `#`")
    return parts


def _check_s3(parts: SplitResult) -> None:
    options = parse_qs(parts.query, keep_blank_values=True)
    if "@" in parts.netloc or any("@" in text for text in options.get("endpoint", [])):
        raise ValueError("credentials come from boto3's own chain, never from the URL")
    if not parts.netloc or ":" in parts.netloc:
        raise ValueError("a bucket is named as `s3://bucket/prefix`; `endpoint=` says where it is")
    if unknown := options.keys() - {"endpoint", "region"}:
        raise ValueError(f"an S3 URL takes `endpoint` and `region`, not {sorted(unknown)}")
    if any(len(given) > 1 or not given[0] for given in options.values()):
        raise ValueError("`endpoint` and `region` are given once, and not empty")
    if not options.get("endpoint", ["https://"])[0].startswith(("http://", "https://")):
        raise ValueError("`endpoint` begins with http:// or https://")
