"""Who may speak with a run? Those who hold the certificate that was made for it.

Every run has a certificate of its own, which is its own authority. Both sides present it and accept no other, so a
connection proves that the peer could read the run's connection file. TLS 1.3 only. The name in the certificate is
that of the run, not of a host: workers may reach the driver under any address.
"""

from __future__ import annotations

import datetime
import ssl

from blockflow.secret import Secret
from blockflow.trusted_files import opened_file, path_of_descriptor

_BACKDATED = datetime.timedelta(days=1)
"""Clocks of a cluster's nodes differ."""

_VALID = datetime.timedelta(days=90)
"""Longer than any run; the run's end removes the file that holds the key."""


def server_name(run: str) -> str:
    """The name that the certificate of a run carries."""
    return f"blockflow-{run}"


def make_certificate(run: str, now: datetime.datetime) -> Secret:
    """A new key and its certificate, as PEM text.

    Args:
        run: Id of the run.
        now: The time, with a time zone.
    """
    # Imported here: 20 ms that workers, who only use certificates, need not spend.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server_name(run))])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name(run))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Secret((private + certificate.public_bytes(serialization.Encoding.PEM)).decode())


def server_context(connection_file: str) -> ssl.SSLContext:
    """What the driver listens with.

    Args:
        connection_file: Holds key and certificate in PEM, besides other text.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _strict(context, connection_file)


def client_context(connection_file: str) -> ssl.SSLContext:
    """What a worker connects with; checks the name that :func:`server_name` gives."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = True
    return _strict(context, connection_file)


def _strict(context: ssl.SSLContext, connection_file: str) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    with opened_file(connection_file, private=True) as descriptor:
        path = path_of_descriptor(descriptor)
        context.load_cert_chain(path)
        context.load_verify_locations(path)
    return context
