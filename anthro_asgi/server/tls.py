"""The server certificate, which can be replaced while the service runs."""

import ssl

from ..settings.loader import check_readable
from ..settings.options import ResourceUnavailable


class Certificate:
    """`context` uses the PEM certificate in the file `cert` and the unencrypted PEM key in the file `key`.

    The oldest TLS version is 1.2. Raises ResourceUnavailable, with one line of text, if the files cannot be used.
    """

    def __init__(self, cert: str, key: str) -> None:
        self._cert = cert
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.reload()

    def reload(self) -> None:
        """Read the files again and use their contents for new connections.

        Raises ResourceUnavailable; the previous certificate then stays in use.
        """
        check_readable("--tls-cert", self._cert)
        check_readable("--tls-key", self._key)
        try:
            # Loading into a context is not atomic: a wrong key leaves the new certificate with the old key. So the
            # files are first loaded into another context.
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
                context.load_cert_chain(self._cert, self._key, password="")
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError; ValueError for a key with a passphrase
            reason = (exc.reason if isinstance(exc, ssl.SSLError) else None) or exc
            files = f"{self._cert} and {self._key}"
            raise ResourceUnavailable(f"{files} are not a PEM certificate and its unencrypted key: {reason}") from exc
