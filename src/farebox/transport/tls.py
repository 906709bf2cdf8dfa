"""TLS settings turned into an `ssl` context."""

import ssl

from .origin import Tls

ALPN = "http/1.1"


def make_context(tls: Tls) -> ssl.SSLContext:
    """A client context for `tls`: TLS 1.2 or later, ALPN `http/1.1`. Reads files (10 ms and more); not for the event loop.

    Raises `OSError` or `ssl.SSLError` when a file cannot be read or is no certificate or key.
    """
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.client_cert_file is not None:
        context.load_cert_chain(tls.client_cert_file, tls.client_key_file)
    return context
