"""Signs a request with botocore and prints the signature: {"secret", "id", "method", "url", "date", "body"} on stdin."""

import json
import sys

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

said = json.load(sys.stdin)
request = AWSRequest(method=said["method"], url=said["url"], data=said["body"].encode())
request.headers["X-Amz-Date"] = said["date"]
request.context["timestamp"] = said["date"]
signer = SigV4Auth(Credentials(said["id"], said["secret"]), "bedrock", "us-east-1")
text = signer.string_to_sign(request, signer.canonical_request(request))
print(json.dumps({"signature": signer.signature(text, request)}))
