"""The certificate that clients see, which may be renewed while we serve."""

import ssl

from ..settings.loader import check_readable
from ..settings.options import ResourceUnavailable


class Certificate:
    """`context` presents the certificate in the file `cert` with the key in the file `key`. TLS 1.2 is the least.

    Raises ResourceUnavailable, in one line, for files that hold no such thing.
    """

    def __init__(self, cert: str, key: str) -> None:
        self._cert = cert
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.reload()

    def reload(self) -> None:
        """Present what the files hold now to who connects from now on.

        Raises ResourceUnavailable, and then nothing changes.
        """
        check_readable("--tls-cert", self._cert)
        check_readable("--tls-key", self._key)
        try:
            # a context that fails half-way has the new certificate and the old key: so it is tried on another one
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
                context.load_cert_chain(self._cert, self._key, password="")
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError; ValueError for a key with a passphrase
            reason = getattr(exc, "reason", None) or exc
            files = f"{self._cert} and {self._key}"
            raise ResourceUnavailable(f"{files} are no PEM certificate and its unencrypted key: {reason}") from exc
