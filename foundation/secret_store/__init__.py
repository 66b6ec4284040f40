"""Secrets, encrypted in an envelope: values by a data key of their tenant, data keys by the
installation's master key, which is in a file or in AWS KMS and never in the database.
"""

from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from foundation.errors import Fault, Invalid
from foundation.secret_store.base import MasterKeyAway, MasterKeyFault, MasterKeys, Wrapped
from foundation.secret_store.data_keys import SecretUnreadable
from foundation.secret_store.reader import SecretReader
from foundation.secret_store.store import SecretInfo, SecretStore
from foundation.secret_store.values import SecretsUnavailable
from foundation.secret_store.wrapping import Rotation, rotate
from foundation.settings import Settings

__all__ = [
    "MasterKeyAway",
    "MasterKeyFault",
    "MasterKeys",
    "Rotation",
    "SecretInfo",
    "SecretReader",
    "SecretStore",
    "SecretUnreadable",
    "SecretsUnavailable",
    "Wrapped",
    "master_keys",
    "rotate",
]

_KMS = "awskms"


def master_keys(settings: Settings) -> MasterKeys:
    """The master keys that the setting names; nothing is opened or made before they are used.

    Raises Invalid where it names none.
    """
    given = settings.master_key_file
    if not given.startswith(f"{_KMS}:"):
        from foundation.secret_store.key_file import KeyFile

        path = Path(given).expanduser() if given else settings.state / "master.key"
        return KeyFile(path.absolute())
    from foundation.secret_store.aws_kms import AwsKms  # boto3 takes 0.2 s

    parts = urlsplit(given)
    options = parse_qs(parts.query, keep_blank_values=True)
    if why := _fault(parts, options):
        raise Invalid(
            "The settings have faults.",
            [Fault("", "bad_setting", f"GRAPHWRIGHT_MASTER_KEY_FILE: {why}")],
        )
    return AwsKms(
        f"{parts.netloc}{parts.path}",
        endpoint=options.get("endpoint", [None])[0],
        region=options.get("region", [None])[0],
    )


def _fault(parts: SplitResult, options: dict[str, list[str]]) -> str:
    """What is wrong with the URL of a key; it does not repeat what may be a secret."""
    if "@" in parts.netloc or any("@" in text for text in options.get("endpoint", [])):
        return "credentials come from boto3's own chain, never from the URL"
    if not parts.netloc or parts.fragment:
        return "a key is named as `awskms://ARN` or `awskms://alias/NAME`"
    if unknown := options.keys() - {"endpoint", "region"}:
        return f"a URL of KMS takes `endpoint` and `region`, not {sorted(unknown)}"
    if any(len(texts) > 1 or not texts[0] for texts in options.values()):
        return "`endpoint` and `region` are given once, and not empty"
    if not options.get("endpoint", ["https://"])[0].startswith(("http://", "https://")):
        return "`endpoint` begins with http:// or https://"
    return ""
