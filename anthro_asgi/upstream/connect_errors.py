"""Why a connection could not be opened, in words for an operator."""

import os
import socket
import ssl
from typing import Final

_UNKNOWN_SIGNERS: Final = frozenset({2, 18, 19, 20, 21})
"""The codes of OpenSSL (`X509_V_ERR_…`) for a certificate that is self-signed or signed by an unknown authority."""


def is_signed_by_unknown(exc: BaseException | None) -> bool:
    """Whether the certificate would be trusted if its authority were."""
    return isinstance(exc, ssl.SSLCertVerificationError) and exc.verify_code in _UNKNOWN_SIGNERS


def connection_error(exc: Exception) -> str:
    """The reason without the address: `connection refused`, `its certificate is not trusted: …`."""
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {exc.verify_message.rstrip('.')}"
    if isinstance(exc, ssl.SSLError):
        return f"no TLS connection: {(exc.reason or str(exc)).replace('_', ' ').lower()}; is it an http:// server?"
    if isinstance(exc, socket.gaierror):
        return f"unknown host: {(exc.strerror or str(exc)).lower()}"
    number = exc.errno if isinstance(exc, OSError) else None
    return os.strerror(number).lower() if number and number > 0 else str(exc) or type(exc).__name__
