"""Whoever signs: tokens with a key whose public half is in a JWKS, and certificates for TLS."""

import base64
import datetime
import ipaddress
import json
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID


class Issuer:
    """Signs tokens by ES256."""

    def __init__(self, key_id: str = "one") -> None:
        self.key_id = key_id
        self._key = ec.generate_private_key(ec.SECP256R1())

    def jwk(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        x, y = (_base64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, "x": x, "y": y}

    def token(self, *, expires_in: float = 600.0, **claims: Any) -> str:
        standard = {"iss": "https://issuer.test", "aud": "slipway", "sub": "shop", "scope": "predict:tiny"}
        # A claim of None is left out.
        wanted = {**standard, "exp": time.time() + expires_in, **claims}.items()
        kept = {name: value for name, value in wanted if value is not None}
        header = {"alg": "ES256", "kid": self.key_id, "typ": "JWT"}
        text = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(kept).encode())}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def write_jwks(file: Path, *issuers: Issuer) -> None:
    file.write_text(json.dumps({"keys": [issuer.jwk() for issuer in issuers]}))


class CertificateAuthority:
    """Issues certificates for 127.0.0.1 and localhost."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._name, self._key, is_authority=True)

    def write(self, file: Path) -> Path:
        """The authority's own certificate."""
        file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        return file

    def issue(self, name: str, directory: Path) -> tuple[Path, Path]:
        """Write a certificate for `name` and its key; where they are."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, is_authority=False)
        files = directory / f"{name}.pem", directory / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
