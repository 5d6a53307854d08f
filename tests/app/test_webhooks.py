"""Receivers of events: signed, at least once, on a schedule, never at an address that is not public (R30, F37, B69)."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from pydantic import ValidationError
from sqlalchemy import update

from app.platform import session_scope
from app.settings import Settings
from app.webhooks import courier
from app.webhooks.courier import DELAYS, Courier
from app.webhooks.outbound import Outbound, Refused
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tests.app.conftest import SECRETS, Api, client_of, make_settings, serve
from tests.app.jobs_world import Worker, pretrain_body, ready_dataset

MISSED = [
    "http://127.0.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://localhost/", "http://a.localhost./",
    "http://169.254.169.254/latest/meta-data", "http://10.0.0.8/", "http://192.168.1.1/", "http://172.16.0.1/",
    "http://100.64.0.1/", "http://0.0.0.0/", "http://224.0.0.1/", "http://255.255.255.255/", "http://[fe80::1]/",
    "http://[fc00::1]/", "http://[2002:7f00:1::]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b:1::7f00:1]/",
    "http://[::127.0.0.1]/", "http://[2001:0:7f00:1::1]/", "http://[::]/", "http://192.88.99.1/",
    "http://198.18.0.1/", "http://example.com:22/", "http://example.com:6379/", "https://user:pass@example.com/",
    "https://user@example.com/", "file:///etc/passwd", "gopher://example.com/", "unix:/run/x.sock",
    "ftp://example.com/", "example.com", "http:///nohost", "http://exa_mple..com/", "http://example.com/#part",
    "http://ex\u0430mple.com/", "http://example.com\\@127.0.0.1/", "http://example.com:99999/", "http://[::1",
]  # fmt: skip


@dataclass
class Receiver:
    """A server that notes what it is sent and answers as told."""

    url: str
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers; 200 after them."""
    behave: Callable[[BaseHTTPRequestHandler], None] | None = None

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if made.behave is not None:
                made.behave(self)
                return
            status = made.answers.pop(0) if made.answers else 200
            self.send_response(status)
            if status in (301, 307):
                self.send_header("Location", made.url + "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def allowing(receiver: Receiver, **more: Any) -> dict[str, Any]:
    """Settings under which the receiver of the tests may be sent to."""
    ports = [443, 80, int(receiver.url.rpartition(":")[2])]
    return {"outbound": True, "outbound_networks": ["127.0.0.0/8"], "outbound_ports": ports, **more}


@pytest.fixture
def hooked(sqlite_url: str, tmp_path: Path, receiver: Receiver) -> Iterator[Api]:
    yield from serve(make_settings(sqlite_url, tmp_path, **allowing(receiver)))


@pytest.fixture
def hooked_everywhere(database_url: str, tmp_path: Path, receiver: Receiver) -> Iterator[Api]:
    yield from serve(make_settings(database_url, tmp_path, **allowing(receiver)))


def add(api: Api, receiver: Receiver, *events: str) -> dict[str, Any]:
    body = {"url": receiver.url + "/hook?a=1", "events": list(events or ("job.succeeded",))}
    made = api.client.post("/v1/webhook_endpoints", json=body)
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


def eventually(look: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def deliveries(api: Api, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.client.get(f"/v1/webhook_endpoints/{endpoint['id']}/deliveries").json()["data"]
    return found


def ended(api: Api, endpoint: dict[str, Any], status: str) -> dict[str, Any]:
    def look() -> Any:
        return next((each for each in deliveries(api, endpoint) if each["status"] == status), None)

    found: dict[str, Any] = eventually(look)
    return found


def tried(api: Api, endpoint: dict[str, Any], attempts: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = eventually(
        lambda: [one for one in deliveries(api, endpoint) if one["attempts"] == attempts]
    )
    return found


def hurry(api: Api, **values: Any) -> None:
    """Let the time of every delivery come now."""
    with session_scope(api.platform) as session:
        session.execute(update(WebhookDelivery).values(due_ms=0, **values))


def unwrap(secret: str, headers: dict[str, str], body: bytes) -> Any:
    return OpenAI(api_key="none", webhook_secret=secret).webhooks.unwrap(body, headers)


def test_the_official_client_reads_what_a_job_sends_when_it_ends(hooked_everywhere: Api, receiver: Receiver) -> None:
    api = hooked_everywhere
    events = ("job.succeeded", "fine_tuning.job.succeeded", "dataset.ready", "job.cancelled")
    endpoint = add(api, receiver, *events)
    dataset = ready_dataset(api.platform, api.project_id)
    worker = Worker(api.anonymous)
    ticket = worker.claim(api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"])
    assert ticket is not None and worker.complete(ticket).status_code == 200
    cancelled = api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
    api.client.post(f"/v1/jobs/{cancelled}/cancel")
    eventually(lambda: len(receiver.got) == 4)
    told = {event.type: event for event in (unwrap(endpoint["secret"], *each) for each in receiver.got)}
    assert set(told) == set(events)
    assert told["fine_tuning.job.succeeded"].data.id == ticket["job_id"] == told["job.succeeded"].data.id
    assert told["dataset.ready"].data.id == dataset and told["job.cancelled"].data.id == cancelled
    assert told["job.succeeded"].object == "event" and abs(told["job.succeeded"].created_at - time.time()) < 120
    headers, body = receiver.got[0]
    assert headers["webhook-id"] == json.loads(body)["id"] and headers["host"] == receiver.url.removeprefix("http://")
    other = "whsec_" + "A" * 32
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(other, headers, body)
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(endpoint["secret"], headers, body + b" ")
    old = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 600)}
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(endpoint["secret"], old, body)
    shown = eventually(lambda: [one for one in deliveries(api, endpoint) if one["status"] == "delivered"][3:4])[0]
    assert shown["attempts"] == 1 and shown["answer_status"] == 200 and shown["error"] is None


def test_events_of_another_project_and_those_not_asked_for_stay_away(hooked: Api, receiver: Receiver) -> None:
    endpoint = add(hooked, receiver, "dataset.invalid")
    ready_dataset(hooked.platform, hooked.project_id)
    ready_dataset(hooked.platform, hooked.stranger_project_id)
    assert deliveries(hooked, endpoint) == []


def test_a_failing_receiver_is_tried_again_with_the_same_id(hooked: Api, receiver: Receiver) -> None:
    receiver.answers = [500, 301, 204]
    endpoint = add(hooked, receiver)
    sent = hooked.client.post(f"/v1/webhook_endpoints/{endpoint['id']}/test").json()
    assert sent["event"] == "webhook.test" and sent["status"] == "pending"
    for attempt, status in ((1, 500), (2, 301)):
        shown = tried(hooked, endpoint, attempt)
        assert (shown[0]["answer_status"], shown[0]["status"]) == (status, "pending")
        assert shown[0]["error"] == f"answered {status}"
        wait = shown[0]["next_attempt_at"] - time.time()
        assert DELAYS[attempt - 1] - 5 < wait < DELAYS[attempt - 1] + 5
        hurry(hooked)
    done = ended(hooked, endpoint, "delivered")
    assert (done["attempts"], done["answer_status"], done["next_attempt_at"]) == (3, 204, None)
    assert receiver.ids() == [sent["id"]] * 3, "and no redirect was followed"


def test_a_receiver_that_is_gone_is_disabled_and_may_be_taken_back(hooked: Api, receiver: Receiver) -> None:
    receiver.answers = [410]
    endpoint = add(hooked, receiver)
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    hooked.client.post(path + "/test")
    ended(hooked, endpoint, "failed")
    shown = hooked.client.get(path).json()
    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "it answered 410 Gone")
    hooked.client.post(path + "/test")
    time.sleep(1.5)
    assert len(receiver.got) == 1, "nothing is sent to a disabled receiver"
    assert hooked.client.patch(path, json={"status": "enabled"}).json()["disabled_reason"] is None
    ended(hooked, endpoint, "delivered")


def test_days_of_failure_disable_a_receiver(hooked: Api, receiver: Receiver) -> None:
    assert 3 * 86_400 < sum(DELAYS) < 5 * 86_400
    receiver.answers = [503] * 3
    endpoint = add(hooked, receiver)
    hooked.client.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
    eventually(lambda: deliveries(hooked, endpoint)[0]["attempts"] == 1)
    hurry(hooked, attempts=len(DELAYS))
    assert ended(hooked, endpoint, "failed")["attempts"] == len(DELAYS) + 1
    shown = hooked.client.get(f"/v1/webhook_endpoints/{endpoint['id']}").json()
    assert shown["status"] == "disabled" and "attempts to deliver" in shown["disabled_reason"]


def test_a_receiver_that_hangs_or_never_ends_holds_up_nobody(
    sqlite_url: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "TIMEOUT_SECONDS", 1)
    quiet = socket.create_server(("127.0.0.1", 0))  # takes the connection and says nothing
    port = quiet.getsockname()[1]

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10 * 2**30))
        handler.end_headers()
        try:
            for _ in range(1000):
                handler.wfile.write(b"x" * 2**16)
        except OSError:
            stopped.set()

    stopped = threading.Event()
    receiver.behave = endless
    ports = [int(receiver.url.rpartition(":")[2]), port]
    for api in serve(make_settings(sqlite_url, tmp_path, **allowing(receiver, outbound_ports=ports))):
        slow = add(api, Receiver(f"http://127.0.0.1:{port}"))
        endless_one = add(api, receiver)
        for each in (slow, endless_one):
            api.client.post(f"/v1/webhook_endpoints/{each['id']}/test")
        ended(api, endless_one, "delivered")
        assert stopped.wait(10), "its reply was not read to the end"
        shown = tried(api, slow, 1)
        assert shown[0]["error"] == "no answer within 1 s"
    quiet.close()


def test_a_delivery_that_a_killed_process_had_taken_is_another_ones_a_minute_later(
    sqlite_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    settings = make_settings(sqlite_url, tmp_path, **allowing(receiver))
    for api in serve(settings):
        endpoint = add(api, receiver)
        far = int(time.time() * 1000) + 3_600_000
        with session_scope(api.platform) as session:
            session.execute(update(WebhookEndpoint).values(status="disabled"))
        api.client.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
        hurry(api, claimed_until_ms=far)
        with session_scope(api.platform) as session:
            session.execute(update(WebhookEndpoint).values(status="enabled"))
        assert Courier(api.platform).round() == 0 and receiver.got == []
        hurry(api, claimed_until_ms=1)
        ended(api, endpoint, "delivered")
        assert len(receiver.got) == 1


def test_while_a_secret_is_rotated_both_sign(hooked: Api, receiver: Receiver) -> None:
    old = add(hooked, receiver)
    path = f"/v1/webhook_endpoints/{old['id']}"
    new = hooked.client.post(path + "/rotate_secret", json={"overlap_seconds": 3600}).json()
    assert new["secret"] != old["secret"]
    hooked.client.post(path + "/test")
    eventually(lambda: receiver.got)
    for secret in (old["secret"], new["secret"]):
        assert unwrap(secret, *receiver.got[0]).type == "webhook.test"
    last = hooked.client.post(path + "/rotate_secret", json={"overlap_seconds": 0}).json()
    hooked.client.post(path + "/test")
    eventually(lambda: len(receiver.got) == 2)
    assert unwrap(last["secret"], *receiver.got[1]).type == "webhook.test"
    for secret in (old["secret"], new["secret"]):
        with pytest.raises(InvalidWebhookSignatureError):
            unwrap(secret, *receiver.got[1])


def test_the_secret_is_shown_once_and_kept_sealed(hooked: Api, receiver: Receiver) -> None:
    body = {"url": receiver.url, "events": ["job.failed"]}
    headers = {"Idempotency-Key": "one"}
    first = hooked.client.post("/v1/webhook_endpoints", json=body, headers=headers).json()
    assert first["secret"].startswith("whsec_")
    again = hooked.client.post("/v1/webhook_endpoints", json=body, headers=headers).json()
    assert again == {**first, "secret": None, "signing_secret": None}
    assert hooked.client.get(f"/v1/webhook_endpoints/{first['id']}").json()["secret"] is None
    hooked.platform.engine.dispose()
    hidden = first["secret"].removeprefix("whsec_").encode()
    found = [path.read_bytes() for path in hooked.platform.settings.data_dir.glob("groundwork.db*")]
    assert found and all(hidden not in each for each in found)


@pytest.mark.parametrize("url", MISSED)
def test_an_address_that_is_not_public_is_refused_when_it_is_set(url: str, missed: Api) -> None:
    answer = missed.client.post("/v1/webhook_endpoints", json={"url": url, "events": ["job.failed"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "url_not_allowed"), answer.text
    assert answer.json()["error"]["param"] == "url"


@pytest.fixture(scope="module")
def missed(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("missed")
    (folder / "groundwork.db").write_bytes(sqlite_template.read_bytes())
    yield from serve(make_settings("", folder, outbound=True))


@pytest.mark.parametrize("url", ["https://example.com/hook?x=1", "http://93.184.216.34/", "https://[2606:2800:220:1::1]/"])
def test_public_addresses_may_be_set(url: str, missed: Api) -> None:
    made = missed.client.post("/v1/webhook_endpoints", json={"url": url, "events": ["job.failed"]})
    assert made.status_code == 201, made.text
    assert missed.client.delete(f"/v1/webhook_endpoints/{made.json()['id']}").json()["deleted"] is True


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["fe80::1%eth0"], ["64:ff9b::7f00:1"]]
)
def test_a_name_that_has_a_private_address_at_delivery_reaches_nothing(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443)) for each in addresses]

    async def resolve() -> Any:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer, raising=False)
        return await Outbound(frozenset([443]), ()).resolve("https://hooks.example.com/")

    with pytest.raises(Refused, match="not a public one"):
        asyncio.run(resolve())


def test_what_was_allowed_when_it_was_set_is_checked_again_at_delivery(
    sqlite_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, **allowing(receiver))):
        endpoint = add(api, receiver)
        with session_scope(api.platform) as session:
            session.execute(update(WebhookEndpoint).values(url=receiver.url.replace("127.0.0.1", "[::1]")))
        api.client.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
        shown = tried(api, endpoint, 1)
        assert shown[0]["error"] == "blocked_address: its address is not a public one"
        assert receiver.got == []


def test_no_webhooks_unless_the_operator_allows_them(api: Api) -> None:
    body = {"url": "https://example.com/", "events": ["job.failed"]}
    answer = api.client.post("/v1/webhook_endpoints", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "outbound_off")
    assert "GROUNDWORK_OUTBOUND" in answer.json()["error"]["message"]


def test_a_project_has_only_so_many_and_bad_fields_are_named(missed: Api) -> None:
    client = client_of(missed.app, missed.stranger.headers["authorization"].removeprefix("Bearer "))
    body = {"url": "https://example.com/", "events": ["job.failed"]}
    for _ in range(20):
        assert client.post("/v1/webhook_endpoints", json=body).status_code == 201
    answer = client.post("/v1/webhook_endpoints", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "quota_exceeded")
    for wrong, param in (
        ({"events": []}, "events"), ({"events": ["job.exploded"]}, "events"), ({"url": ""}, "url"), ({"x": 1}, "x"),
    ):  # fmt: skip
        answer = client.post("/v1/webhook_endpoints", json={**body, **wrong})
        assert answer.status_code == 422 and answer.json()["error"]["param"].startswith(param), answer.text
    listed = client.get("/v1/webhook_endpoints", params={"limit": 5}).json()
    assert len(listed["data"]) == 5 and listed["has_more"] is True
    assert missed.with_scopes("read", "write").get("/v1/webhook_endpoints").status_code == 403


def test_what_is_old_is_forgotten(hooked: Api, receiver: Receiver) -> None:
    endpoint = add(hooked, receiver)
    hooked.client.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
    ended(hooked, endpoint, "delivered")
    with session_scope(hooked.platform) as session:
        courier.forget(session)
    assert len(deliveries(hooked, endpoint)) == 1
    hurry(hooked, created_ms=int(time.time() * 1000) - (courier.KEPT_DAYS * 86_400_000) - 60_000)
    with session_scope(hooked.platform) as session:
        courier.forget(session)
    assert deliveries(hooked, endpoint) == []


def test_networks_and_ports_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"GROUNDWORK_{name.upper()}", value)
    monkeypatch.setenv("GROUNDWORK_OUTBOUND_NETWORKS", "10.1.0.0/16, fd00::/8")
    monkeypatch.setenv("GROUNDWORK_OUTBOUND_PORTS", "443,8443")
    allowed = Outbound.of(Settings())
    assert allowed.ports == {443, 8443}
    assert allowed.check("https://10.1.2.3:8443/x").port == 8443
    with pytest.raises(Refused):
        allowed.check("https://10.2.2.3/")
    for name, value in (("NETWORKS", "10.1.0.0/99"), ("PORTS", "0")):
        monkeypatch.setenv(f"GROUNDWORK_OUTBOUND_{name}", value)
        with pytest.raises(ValidationError):
            Settings()
        monkeypatch.delenv(f"GROUNDWORK_OUTBOUND_{name}")
