"""As whom a step calls AWS: by its tenant's keys, or by a role that the operator allows."""

import re
from typing import Any, Final, cast

import boto3
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.session import Session as BotocoreSession

from dynamic_jobs.platforms.base import PlatformAway, Step, StepNotAllowed, StepNotStarted
from foundation.errors import GraphwrightError
from node_types.support.steps import AwsAccess

ONCE: Final = Config(retries={"max_attempts": 0}, read_timeout=920, connect_timeout=10)
"""For what must not be done twice by the library: Lambda runs for up to 15 minutes."""

_PASSING: Final = re.compile("Throttl|TooManyRequests|ServiceUnavailable|ServiceException|Internal")


def aws_session(given: AwsAccess, step: Step) -> boto3.Session:
    """A session in the region that the step names. Raises StepNotAllowed, and what botocore does.

    The worker's own credentials never do a step's work. Where the operator has them do so, they
    assume a role of the tenant's list, with the tenant as its external id.
    """
    policy = step.policy.aws
    if policy is None:
        raise StepNotAllowed("the operator does not allow AWS to this tenant")
    if given.region not in policy.regions:
        raise StepNotAllowed(
            f"the operator does not allow the region {given.region} to this tenant",
            hint=f"Allowed are: {', '.join(policy.regions) or 'none'}.",
        )
    if given.role is not None and given.role not in policy.roles:
        raise StepNotAllowed(f"the operator does not allow the role {given.role} to this tenant")
    if given.access_key_id is not None and given.secret_access_key is not None:
        own = boto3.Session(
            aws_access_key_id=given.access_key_id,
            aws_secret_access_key=given.secret_access_key,
            aws_session_token=given.session_token,
            region_name=given.region,
        )
        return own if given.role is None else _assumed(own, given.role, step)
    if given.role is not None and step.limits.aws_worker_credentials:
        return _assumed(boto3.Session(region_name=given.region), given.role, step)
    raise StepNotAllowed(
        "the node has no AWS credentials of its own",
        hint="Set `access_key_id` and `secret_access_key`, usually from secrets; or, where the "
        "operator has set GRAPHWRIGHT_AWS_WORKER_CREDENTIALS, a `role`.",
    )


def passes(error: ClientError | BotoCoreError) -> bool:
    """Whether AWS, or the way to it, may answer later."""
    if isinstance(error, BotoCoreError):
        return True
    answer = cast("dict[str, Any]", error.response).get("Error", {})
    return _PASSING.search(str(answer.get("Code", ""))) is not None


def refused(error: ClientError | BotoCoreError) -> GraphwrightError:
    """What AWS, or the way to it, says no by."""
    if isinstance(error, ClientError):
        answer = cast("dict[str, Any]", error.response).get("Error", {})
        code, message = str(answer.get("Code", "")), str(answer.get("Message", ""))
        if passes(error):
            return PlatformAway(f"AWS does not take the step now: {code}", hint=message[:500])
        return StepNotStarted(f"AWS refused the step: {code}", hint=message[:500])
    return PlatformAway(f"AWS cannot be reached: {type(error).__name__}")


class _AssumedRole(CredentialProvider):
    """The only source of a session's credentials: the worker's own are not among them."""

    METHOD = "assume-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> Any:
        return DeferredRefreshableCredentials(self._fetcher.fetch_credentials, self.METHOD)


def _assumed(session: Any, role: str, step: Step) -> boto3.Session:
    """A session of the role, which is assumed before its first request, and again each time that
    its credentials are about to expire: a job may last longer than these.

    Raises NoCredentialsError. Requests of the session raise what STS refuses.
    """
    own = session.get_credentials()
    if own is None:
        raise NoCredentialsError
    name = re.sub(r"[^A-Za-z0-9_=,.@-]", "-", f"graphwright-{step.context.run_id}")[:64]
    tenant = step.labels["graphwright.dev/tenant"]
    extra = {"RoleSessionName": name, "ExternalId": tenant}
    fetcher = AssumeRoleCredentialFetcher(session.client, own, role, extra_args=extra)
    assumed: Any = BotocoreSession()
    assumed.register_component("credential_provider", CredentialResolver([_AssumedRole(fetcher)]))
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)
