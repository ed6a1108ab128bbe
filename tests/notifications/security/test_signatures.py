"""Signatures of API v2 postbacks."""

import base64
import pickle

import pytest

from callfire_async.notifications.security.signatures import SigningSecrets

# The published test vector: one space, after the comma.
BODY = b'{"name":"test webhook", "callback":"sms:callfire"}'
SIGNATURE = "v14pF7d5C1+CHNIEWlg+sw9v0Xg="
CURRENT = "current-secret-0123456789"
PREVIOUS = "previous-secret-0123456789"


@pytest.mark.filterwarnings("ignore:a signing secret of fewer")
def test_the_published_test_vector_is_verified():
    """As CallFire's samples sign it."""
    secrets = SigningSecrets("mysecrets")

    assert (secrets.sign(BODY), secrets.verify(BODY, SIGNATURE)) == (SIGNATURE, True)


@pytest.mark.parametrize("secret", [CURRENT, PREVIOUS, "ümlaut-secret-0123456789"])
def test_any_of_the_secrets_verifies(secret):
    """While a secret is rotated, CallFire signs some postbacks with the old one and some with the new one."""
    signature = SigningSecrets(secret).sign(BODY)

    assert SigningSecrets(CURRENT, PREVIOUS, "ümlaut-secret-0123456789").verify(BODY, signature)


def test_the_current_secret_signs():
    """Tests and tools sign as CallFire does after a rotation."""
    assert SigningSecrets(CURRENT, PREVIOUS).sign(BODY) == SigningSecrets(CURRENT).sign(BODY)


@pytest.mark.parametrize(
    "change",
    [
        lambda signature: None,
        lambda signature: "",
        lambda signature: signature[:-1],
        lambda signature: signature.lower(),
        lambda signature: f"{signature}, {signature}",
        lambda signature: f"sha1={signature}",
        lambda signature: signature + "é",
        lambda signature: signature + "\ud800",
        lambda signature: base64.b64decode(signature).hex(),
    ],
)
def test_any_other_signature_is_refused(change):
    """None, part of one, hexadecimal, repeated, or text that is not ASCII."""
    secrets = SigningSecrets(CURRENT)

    assert not secrets.verify(BODY, change(secrets.sign(BODY)))


def test_a_changed_byte_or_another_secret_is_refused():
    """The signature covers the raw bytes."""
    secrets = SigningSecrets(CURRENT)
    signature = secrets.sign(BODY)

    assert not secrets.verify(BODY.replace(b", ", b","), signature)
    assert not SigningSecrets(PREVIOUS).verify(BODY, signature)


@pytest.mark.parametrize("secret", ["", "fifteen letters"])
def test_a_short_secret_causes_a_warning(secret):
    """It can be guessed."""
    with pytest.warns(UserWarning, match="16"):
        SigningSecrets(secret)


@pytest.mark.parametrize("secret", [None, b"current-secret-0123456789", 1])
def test_a_secret_is_a_string(secret):
    """Anything else would be signed as its repr, or fail later."""
    with pytest.raises(TypeError, match="signing secrets must be strings"):
        SigningSecrets(secret)


@pytest.mark.parametrize(("body", "signature"), [(BODY, SIGNATURE.encode()), (BODY, 7), (BODY.decode(), SIGNATURE)])
def test_a_body_is_bytes_and_a_signature_a_string(body, signature):
    """Anything else is a mistake of the caller."""
    with pytest.raises(TypeError):
        SigningSecrets(CURRENT).verify(body, signature)


def test_a_generated_secret_is_long_and_random():
    """Two of them serve as the current and the previous secret."""
    first, second = SigningSecrets.generate(), SigningSecrets.generate()

    assert (first != second, len(first)) == (True, 43)


def test_no_secret_is_shown():
    """Neither in the repr, nor in the attributes, nor in a pickle: HMAC objects cannot be pickled."""
    secrets = SigningSecrets(CURRENT, PREVIOUS)

    assert repr(secrets) == "<SigningSecrets: 2>"
    assert CURRENT not in str(vars(secrets))
    with pytest.raises(TypeError):
        pickle.dumps(secrets)
