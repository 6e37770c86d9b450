"""The provider's API on the loopback: what it offers, what is rented, what was asked of it."""

import json
import secrets
import time

from file_server import FileServer

API_KEY = f"pit_{secrets.token_hex(12)}"  # not written here: this file travels to the host
SIZES = {"step": None, "pricePerUnit": None, "additionalInfo": None, "defaultIncludedInPrice": True}


def make_offer(cloud_id: str, price: float, **changes: object) -> dict:
    """Return a machine as the provider's API offers it."""
    offer = {
        "cloudId": cloud_id,
        "gpuType": "H100_80GB",
        "socket": "SXM5",
        "provider": "lender",
        "dataCenter": "north-1",
        "country": "FI",
        "gpuCount": 1,
        "gpuMemory": 80,
        "disk": {**SIZES, "minCount": 100, "defaultCount": 200, "maxCount": 1000},
        "vcpu": {**SIZES, "minCount": 8, "defaultCount": 16, "maxCount": 32},
        "memory": {**SIZES, "minCount": 64, "defaultCount": 128, "maxCount": 256},
        "internetSpeed": None,
        "interconnect": None,
        "interconnectType": None,
        "provisioningTime": None,
        "stockStatus": "Available",
        "security": "secure_cloud",
        "prices": {"onDemand": price, "communityPrice": None, "isVariable": False, "currency": "USD"},
        "images": ["ubuntu_22_cuda_12", "cuda_12_1_pytorch_2_2"],
        "isSpot": False,
        "prepaidTime": None,
    }
    return {**offer, **changes}


class Provider(FileServer):
    """The provider's API: what it offers, what is rented, what was asked of it."""

    def __init__(self, address: str):
        self.address = address
        self.pods: dict[str, dict] = {}
        self.created: list[dict] = []
        self.ssh_after = 0
        """How many questions about a pod's state are answered with: not yet."""
        self.offers = [
            make_offer("dear", 3.5),
            make_offer("cheap", 2.25),
            make_offer("spot", 1.0, isSpot=True),
            make_offer("gone", 0.5, stockStatus="Unavailable"),
        ]
        super().__init__(
            dynamic={
                "/api/v1/availability/gpus": self._answer_offers,
                "/api/v1/availability/multi-node": lambda *_: self._send_json({"items": [], "totalCount": 0}),
                "/api/v1/pods": self._answer_pods,
                "/api/v1/pods/status": self._answer_status,
            }
        )

    def _send_json(self, value: object, status: int = 200) -> tuple[int, dict[str, str], bytes]:
        return status, {"Content-Type": "application/json"}, json.dumps(value).encode()

    def _answer_offers(self, request, _body):
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return self._send_json({"detail": "no"}, 401)
        return self._send_json({"items": self.offers, "totalCount": len(self.offers)})

    def _answer_pods(self, request, body):
        if request.method == "POST":
            asked = json.loads(body)
            self.created.append(asked)
            return self._send_json(self.add_pod(f"pod{len(self.created)}", asked["pod"]["name"]))
        return self._send_json(
            {"total_count": len(self.pods), "offset": 0, "limit": 100, "data": [*self.pods.values()]}
        )

    def add_pod(self, pod: str, name: str) -> dict:
        """Rent one out, since an hour and a half."""
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 5400))
        common = {"providerType": "lender", "status": "ACTIVE", "priceHr": 2.25, "ip": "127.0.0.1"}
        self.pods[pod] = {
            **common,
            "id": pod,
            "name": name,
            "gpuName": "H100_80GB",
            "gpuCount": 1,
            "type": "HOSTED",
            "createdAt": began,
            "installationStatus": "FINISHED",
            "resources": None,
            "socket": None,
        }

        def answer(request, _body):
            if request.method == "DELETE":
                del self.pods[pod]
                return self._send_json({})
            return self._send_json(self.pods[pod])

        self.dynamic[f"/api/v1/pods/{pod}"] = answer
        return self.pods[pod]

    def _answer_status(self, _request, _body):
        self.ssh_after -= 1
        address = None if self.ssh_after >= 0 else self.address
        states = [
            {
                "podId": pod,
                "providerType": "lender",
                "status": "PROVISIONING" if address is None else "ACTIVE",
                "sshConnection": address,
                "priceHr": 2.25,
                "ip": "127.0.0.1",
            }
            for pod in self.pods
        ]
        return self._send_json({"data": states})
