"""What of a webhook's call is kept."""

import pytest

from live_api.hook_call import kept_headers, kept_query
from sensors.signatures import Call
from tests.sensors.signing import trigger

SECRET = """
    authorization proxy-authorization cookie set-cookie x-api-key x-apikey x-shared-secret x-auth
    x-auth-key x-access-key x-authentication x-credentials x-amz-credential x-pass
    x-hub-signature-256 x-gitlab-token auth key sig code jwt pwd pass passwd access_key
    apikey api_key
    client_secret
    apiKey accessKey Key x.key ACCESS_KEY keys
"""
HARMLESS = """
    x-github-event x-github-delivery x-github-hook-id user-agent content-type idempotency-key
    x-keyboard keyboard keyword monkey x-author author design assign postcode country_code
    status-code encode bypass passenger compass code-review
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_left_out_by_its_name(name: str) -> None:
    assert _kept(name) == ({}, {})


@pytest.mark.parametrize("name", HARMLESS.split())
def test_kept(name: str) -> None:
    assert _kept(name) == ({name: "v"}, {name: "v"})


def _kept(name: str) -> tuple[object, object]:
    call = Call({name: "v"}, f"{name}=v", b"", 0)
    return kept_headers(trigger("none"), call, ()), kept_query(call, ())


def test_left_out_by_its_value() -> None:
    headers = {"x-a": "s3cret", "x-b": "other, older", "x-c": "not s3cret itself", "x-d": ""}
    call = Call(headers, "a=s3cret&b=1&b=older&c=s3%63ret&d=s3cretive&older", b"", 0)
    secrets = ("s3cret", "older")
    assert list(kept_headers(trigger("github"), call, secrets)) == ["x-c", "x-d"]
    assert kept_query(call, secrets) == {"d": "s3cretive"}
