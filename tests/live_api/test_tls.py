"""HTTPS by the API and the webhook receiver themselves, and what keeps them from it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from foundation.settings import Limits, Settings
from live_api import hooks, server
from live_api.serving import NotConfigured
from tests.certificates import Certified, certified
from tests.live_api.test_hooks_process import hooks_process, says
from tests.live_api.test_server import api_process, started
from tests.services import free_port


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("tls"))


def test_the_api_serves_https(
    settings: Settings, files: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_them(files, monkeypatch)
    port = free_port()
    with api_process(settings, port) as process:
        assert started(process)
        reaches_by_tls(port, files)


def test_the_webhook_receiver_serves_https(
    settings: Settings, files: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_them(files, monkeypatch)
    port = free_port()
    with hooks_process(settings, port) as process:
        assert says(process, f"The webhook receiver listens on https://127.0.0.1:{port}")
        reaches_by_tls(port, files)


def name_them(files: Certified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_TLS_CERTIFICATE_FILE", str(files.certificate))
    monkeypatch.setenv("GRAPHWRIGHT_TLS_KEY_FILE", str(files.key))


def reaches_by_tls(port: int, files: Certified) -> None:
    """By HTTPS, for whoever trusts the authority, and not by HTTP."""
    url = f"https://127.0.0.1:{port}/healthz"
    assert httpx.get(url, verify=files.client(), timeout=60).status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(url, timeout=60)
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https:", "http:"), timeout=60)


@pytest.mark.parametrize("given", ["tls_certificate_file", "tls_key_file"])
def test_a_certificate_and_its_key_need_each_other(given: str) -> None:
    values: Mapping[str, str] = {given: "/some/file"}
    with pytest.raises(ValidationError, match="need each other"):
        Settings.model_validate(values)


@pytest.mark.parametrize("run", [server.run, hooks.run], ids=["api", "hooks"])
@pytest.mark.parametrize("key", ["absent", "not PEM", "another's", "with a password"])
def test_files_that_are_no_good_are_told_at_once(
    settings: Settings,
    files: Certified,
    tmp_path: Path,
    run: Callable[[Settings, Limits], None],
    key: str,
) -> None:
    path = tmp_path / "tls.key"
    if key == "not PEM":
        path.write_text("key")
    elif key == "another's":
        path = certified(tmp_path).key
    elif key == "with a password":
        plain = load_pem_private_key(files.key.read_bytes(), None)
        locked = BestAvailableEncryption(b"password")
        path.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    update = {"tls_certificate_file": str(files.certificate), "tls_key_file": str(path)}
    with pytest.raises(NotConfigured, match=str(path)):
        run(settings.model_copy(update=update), Limits())
