"""What a receiver gets, and which addresses and secrets are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest

from faprompt.errors import ConfigError
from faprompt.watching.webhook import DeliveryError, Webhook, read_secret, sign
from tests.watching.receiver import Receiver

SECRET = b"0123456789abcdef"


def test_the_signature_is_that_of_the_specification():
    """The example of the Standard Webhooks specification."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    key, timestamp = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
    wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert hmac.compare_digest(sign(secret, key, timestamp, body), wanted)


def test_a_delivery_is_signed_and_carries_its_key():
    with Receiver().serving() as receiver:
        Webhook(receiver.url, SECRET).post("key-1", b'{"a": 1}')
    ((headers, body),) = receiver.got
    assert body == b'{"a": 1}' and headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "key-1"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    signed = f"key-1.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert hmac.compare_digest(headers["webhook-signature"], f"v1,{wanted}")
    assert SECRET.decode() not in str(headers)


@pytest.mark.parametrize(
    ("answer", "refused", "retry_after"),
    [
        (500, False, 0),
        ((503, {"Retry-After": "7"}), False, 7),
        ((429, {"Retry-After": "99999"}), False, 300),
        ((503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), False, 0),
        (400, True, 0),
        (410, True, 0),
        (408, False, 0),
        (0, False, 0),
    ],
)
def test_what_is_not_taken_is_an_error(answer, refused, retry_after):
    with Receiver(answer).serving() as receiver, pytest.raises(DeliveryError) as caught:
        Webhook(receiver.url, SECRET).post("key", b"{}")
    assert caught.value.refused is refused and caught.value.retry_after == retry_after


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(code):
    with (
        Receiver().serving() as other,
        Receiver((code, {"Location": other.url})).serving() as receiver,
        pytest.raises(DeliveryError, match=f"answered {code}"),
    ):
        Webhook(receiver.url, SECRET).post("key", b"{}")
    assert len(receiver.got) == 1 and not other.got


def test_a_receiver_that_does_not_answer_in_time_is_given_up():
    with Receiver(pause_s=1.0).serving() as receiver:
        begin = time.monotonic()
        with pytest.raises(DeliveryError, match="could not be reached"):
            Webhook(receiver.url, SECRET, timeout_s=0.1).post("key", b"{}")
        assert time.monotonic() - begin < 0.9


def test_an_error_shows_no_query_and_no_secret():
    webhook = Webhook("http://127.0.0.1:9/hook?token=hidden#part", SECRET, timeout_s=0.5)
    with pytest.raises(DeliveryError) as caught:
        webhook.post("key", b"{}")
    assert "http://127.0.0.1:9/hook" in str(caught.value) and "hidden" not in str(caught.value)
    assert SECRET.decode() not in repr(webhook)


@pytest.mark.parametrize(
    "url",
    ["", "hook", "/hook", "file:///etc/passwd", "ftp://host/a", "http://", "https:///a",
     "http://host:99999/", "http://user:word@host/", "http://host/a b", "http://[::1/",
     "http://host/\r\nX: 1", "javascript:alert(1)", "http://host/\u00e4"],
)  # fmt: skip
def test_other_addresses_are_refused(url):
    with pytest.raises(ConfigError, match="--post should"):
        Webhook(url, SECRET)


def test_secrets_are_read_as_text_or_base64(tmp_path):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef\n")
    assert read_secret(path) == SECRET
    path.write_text("whsec_" + base64.b64encode(bytes(range(24))).decode() + "\n")
    assert read_secret(path) == bytes(range(24))


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"short", "5 bytes"), (b"", "0 bytes"), (b"whsec_???", "no base64"),
     (b"\xff" * 20, "no text")],
)  # fmt: skip
def test_other_secrets_are_refused_and_not_shown(tmp_path, content, told):
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        read_secret(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "none")
