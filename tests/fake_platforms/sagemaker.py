"""A fake of Amazon SageMaker's endpoints: four operations, their state machine and their traps.

Requests are judged by the service model that botocore ships (types, required members, ranges) and
by its name patterns; signatures are computed anew from the specification; every call must be
allowed by `deploy/iam/sagemaker.json` for its resource. That botocore's own client can read every
answer is a test. What it does not show: how long the real service takes, its alarms, its quotas.
"""

import copy
import fnmatch
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
from aiohttp import web

from tests.fake_platforms.serving import FakePlatform, role_file

REGION, ACCOUNT, ENDPOINT = "eu-central-1", "123456789012", "fraud"
KEY_ID, SECRET_KEY = "AKIACANARYCANARY", "canary-canary-secret-key"
NAME = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"

MODEL = botocore.model.ServiceModel(
    botocore.loaders.Loader().load_service_model("sagemaker", "service-2"), "sagemaker"
)


class FakeSageMaker(FakePlatform):
    """One endpoint with a variant per version."""

    mutating = frozenset({"UpdateEndpoint", "UpdateEndpointWeightsAndCapacities"})

    def __init__(self, now_s: Callable[[], float], weights: dict[str, float]) -> None:
        super().__init__(now_s)
        self.takes_s = 20.0
        """How long an update takes."""
        self.lag_s = 3.0
        """How long after it the old state is still shown."""
        self.reverting = False
        """The next update ends `InService` with the old state, as an alarm makes it."""
        self.fails_rolling_back = False
        self.configs = {"CONFIG-v41", "CONFIG-v42", "CONFIG-v43"}
        self.policy = role_file("sagemaker")["Statement"]
        self.keys = {KEY_ID: SECRET_KEY}
        self.state = {
            "config": "CONFIG-v42",
            "status": "InService",
            "modified": now_s(),
            "variants": {
                f"variant-{version}": {
                    "CurrentWeight": weight,
                    "DesiredWeight": weight,
                    "CurrentInstanceCount": 2,
                    "DesiredInstanceCount": 2,
                }
                for version, weight in weights.items()
            },
            "until": 0.0,
            "then": None,
            "shown": None,
            "shown_until": 0.0,
        }

    def action_of(self, request: web.Request, body: Any) -> str:
        return request.headers.get("X-Amz-Target", "").removeprefix("SageMaker.")

    def allows(self, action: str, request: web.Request, body: Any) -> bool:
        name = body.get("EndpointName") or body.get("EndpointConfigName")
        kind = "endpoint-config" if action == "DescribeEndpointConfig" else "endpoint"
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"
        allowed = False
        for statement in self.policy:
            listed = [statement["Action"]], [statement["Resource"]]
            actions, resources = (x[0] if isinstance(x[0], list) else x for x in listed)
            real = [
                text.replace("REGION", REGION).replace("ACCOUNT", ACCOUNT)
                .replace("ENDPOINT", ENDPOINT) for text in resources
            ]  # fmt: skip
            hit = any(fnmatch.fnmatchcase(f"sagemaker:{action}", one) for one in actions)
            if hit and any(fnmatch.fnmatchcase(arn, one) for one in real):
                if statement["Effect"] == "Deny":
                    return False
                allowed = True
        return allowed

    def proves(self, request: web.Request, body: bytes) -> bool:
        return signature_holds(request, body, self.keys)

    def refuse(self, status: int, text: str) -> web.Response:
        code = {
            401: "UnrecognizedClientException", 403: "AccessDeniedException",
            429: "ThrottlingException", 503: "ServiceUnavailable", 500: "InternalFailure",
        }.get(status, "ValidationException")  # fmt: skip
        # Throttled and unproven calls are answered 400 by this protocol.
        status = 400 if status in (401, 429) else status
        return web.json_response({"__type": code, "message": text}, status=status)

    def answer(self, action: str, request: web.Request, body: Any) -> web.Response:
        self.advance()
        shape = MODEL.operation_model(action).input_shape
        report = botocore.validate.ParamValidator().validate(body, shape)
        if report.has_errors():
            return self.refuse(400, report.generate_report())
        names = [value for key, value in body.items() if key.endswith("Name")]
        if not all(re.fullmatch(NAME, name) for name in names):
            return self.refuse(400, "a name does not satisfy its pattern")
        answer: web.Response = getattr(self, f"do_{action}")(body)
        return answer

    def advance(self) -> None:
        """Let time pass: an update ends."""
        state = self.state
        if state["then"] is None or self.now_s() < state["until"]:
            return
        old = self.seen()
        after, state["then"] = state["then"], None
        state |= after
        state["modified"] = state["until"]
        state["shown"] = {**old, "EndpointStatus": "InService"}
        state["shown_until"] = state["until"] + self.lag_s

    def seen(self) -> dict[str, Any]:
        """Describe the endpoint as it is."""
        state = self.state
        found = {
            "EndpointName": ENDPOINT,
            "EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{ENDPOINT}",
            "EndpointConfigName": state["config"],
            "EndpointStatus": state["status"],
            "CreationTime": 1.7e9,
            "LastModifiedTime": state["modified"],
            "ProductionVariants": [
                {"VariantName": name, **entry} for name, entry in state["variants"].items()
            ],
        }
        if state["then"] is not None and "config" in state["then"]:
            found["PendingDeploymentSummary"] = {"EndpointConfigName": state["then"]["config"]}
        return copy.deepcopy(found)

    def do_DescribeEndpoint(self, body: Any) -> web.Response:
        if body["EndpointName"] != ENDPOINT:
            return self.refuse(400, f"Could not find endpoint {body['EndpointName']!r}.")
        late = self.state["shown"] is not None and self.now_s() < self.state["shown_until"]
        return web.json_response(self.state["shown"] if late else self.seen())

    def do_DescribeEndpointConfig(self, body: Any) -> web.Response:
        name = body["EndpointConfigName"]
        if name not in self.configs:
            return self.refuse(400, f"Could not find endpoint configuration {name!r}.")
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint-config/{name}"
        found = {"EndpointConfigName": name, "EndpointConfigArn": arn, "CreationTime": 1.7e9}
        variant = {"VariantName": "all", "ModelName": name}
        return web.json_response({**found, "ProductionVariants": [variant]})

    def do_UpdateEndpointWeightsAndCapacities(self, body: Any) -> web.Response:
        if self.state["status"] != "InService":
            return self._busy()
        after = copy.deepcopy(self.state["variants"])
        for one in body["DesiredWeightsAndCapacities"]:
            if one["VariantName"] not in after:
                return self.refuse(400, f"Could not find variant {one['VariantName']}")
            variant = after[one["VariantName"]]
            for name, kind in [("Weight", "DesiredWeight"), ("Count", "DesiredInstanceCount")]:
                if kind in one:
                    current = "CurrentWeight" if name == "Weight" else "CurrentInstanceCount"
                    variant |= {kind: one[kind], current: one[kind]}
        return self._begin({"variants": after})

    def do_UpdateEndpoint(self, body: Any) -> web.Response:
        if self.state["status"] != "InService":
            return self._busy()
        if body["EndpointConfigName"] not in self.configs:
            return self.refuse(400, "Could not find endpoint configuration")
        after = copy.deepcopy(self.state["variants"])
        if not body.get("RetainAllVariantProperties", False):
            for variant in after.values():
                variant |= {"CurrentInstanceCount": 1, "DesiredInstanceCount": 1}
        return self._begin({"variants": after, "config": body["EndpointConfigName"]})

    def _busy(self) -> web.Response:
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{ENDPOINT}"
        return self.refuse(400, f'Cannot update in-progress endpoint "{arn}".')

    def _begin(self, after: dict[str, Any]) -> web.Response:
        if self.reverting:
            after = {}
        status = "UpdateRollbackFailed" if self.fails_rolling_back else "InService"
        self.state |= {"status": "Updating", "until": self.now_s() + self.takes_s}
        self.state["then"] = {**after, "status": status}
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{ENDPOINT}"
        return web.json_response({"EndpointArn": arn})

    def move(self, **shares: int) -> None:
        """Let somebody else set weights."""
        for version in ("v41", "v42", "v43"):
            weight = float(shares.get(version, 0))
            variant = self.state["variants"][f"variant-{version}"]
            variant |= {"CurrentWeight": weight, "DesiredWeight": weight}
        self.state |= {"modified": self.now_s() + 0.001, "shown": None}

    def shares(self) -> dict[str, float]:
        self.advance()
        weights = {
            name.removeprefix("variant-"): entry["CurrentWeight"]
            for name, entry in self.state["variants"].items()
        }
        total = sum(weights.values())
        return {version: 100 * w / total for version, w in weights.items() if w}


def signature_holds(request: web.Request, body: bytes, keys: dict[str, str]) -> bool:
    """Compute a Signature Version 4 anew, from its specification."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/(\w+)/aws4_request, "
        r"SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})",
        request.headers.get("Authorization", ""),
    )
    if found is None or found[1] not in keys or (found[3], found[4]) != (REGION, "sagemaker"):
        return False
    signed = found[5].split(";")
    if not {"host", "x-amz-date", "x-amz-target"} <= set(signed):
        return False
    lines = "".join(f"{name}:{request.headers[name].strip()}\n" for name in signed)
    canonical = "\n".join(
        [request.method, request.path, "", lines, found[5], hashlib.sha256(body).hexdigest()]
    )
    scope = f"{found[2]}/{REGION}/sagemaker/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{scope}\n{digest}"
    key = b"AWS4" + keys[found[1]].encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, found[6])


def error(code: str, text: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
    """Script an error of this service."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return 400, named, json.dumps({"__type": code, "message": text})
