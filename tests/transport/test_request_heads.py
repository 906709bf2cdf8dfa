"""What may go into a request: origins, targets, headers, proxies. Nothing a caller passes can break out of its place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.transport import Origin, PoolLimits, Proxy, ProxySettings, Timeouts, Tls, prepare

ORIGIN = Origin("https", "api.example", 443)


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "host_header"),
    [
        ("https://api.openai.com/v1", "https", "api.openai.com", 443, "/v1", "api.openai.com"),
        ("https://API.example", "https", "api.example", 443, "", "api.example"),
        ("http://127.0.0.1:8080/a/?b=c", "http", "127.0.0.1", 8080, "/a/?b=c", "127.0.0.1:8080"),
        ("http://[::1]/", "http", "::1", 80, "/", "[::1]"),
        ("https://[2001:db8::1]:8443/x", "https", "2001:db8::1", 8443, "/x", "[2001:db8::1]:8443"),
        ("http://example:443/", "http", "example", 443, "/", "example:443"),
        ("https://bücher.example/", "https", "xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"),
    ],
)
def test_origin_of_a_url(url, scheme, host, port, path, host_header):
    origin, rest = Origin.parse(url)
    assert (origin, rest) == (Origin(scheme, host, port), path)
    assert origin.host_header == host_header
    assert hash(origin) == hash(Origin(scheme, host, port))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/",
        "api.openai.com/v1",
        "https:///v1",
        "https://user:key@x/",
        "https://x/#f",
        "https://x y/",
        "https://x/\r\n",
        "https://x:0/",
        "https://x:65536/",
        "https://x:y/",
        "https://-_-!/",
        "https://a..b/",
        "http://[::1%eth0]/",
        "https://" + "a" * 64 + "/",
    ],
)
def test_url_refused(url):
    with pytest.raises(ValueError):
        Origin.parse(url)


def test_tls_settings_make_another_origin():
    assert Origin.parse("https://x", Tls(verify=False))[0] != Origin.parse("https://x")[0]
    with pytest.raises(ValueError):
        Tls(client_key_file="key.pem")


def test_head_is_written_once_and_completed_per_request():
    prepared = prepare(ORIGIN, "POST", "/v1/chat", [("Content-Type", "application/json")])
    expected = b"POST /v1/chat HTTP/1.1\r\nhost: api.example\r\nContent-Type: application/json\r\naccept-encoding: identity\r\n"
    assert prepared.head(12) == expected + b"content-length: 12\r\n\r\n"
    assert prepared.head(0) == expected + b"content-length: 0\r\n\r\n"
    assert prepared.head(0, [(b"x-a", b"b")]) == expected + b"x-a: b\r\ncontent-length: 0\r\n\r\n"


def test_methods_without_a_body_announce_none():
    assert prepare(ORIGIN, "GET", "/").head(0) == b"GET / HTTP/1.1\r\nhost: api.example\r\naccept-encoding: identity\r\n\r\n"
    assert b"content-length: 3\r\n" in prepare(ORIGIN, "GET", "/").head(3)


def test_accept_encoding_of_the_caller_replaces_ours():
    prepared = prepare(ORIGIN, "GET", "/", [("Accept-Encoding", "gzip")])
    assert prepared.head(0).lower().count(b"accept-encoding") == 1
    once = prepare(ORIGIN, "GET", "/").head(0, [(b"Accept-Encoding", b"gzip")])
    assert (once.lower().count(b"accept-encoding"), b"identity" in once) == (1, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\nevil: b"),
        ("x", "a\nb"),
        ("x", "a\0"),
        ("x", "a\x7f"),
        ("x", "snow ☃"),
        ("x\r\ny", "a"),
        ("x y", "a"),
        ("x:", "a"),
        ("", "a"),
        ("é", "a"),
        ("Host", "evil"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close"),
        ("Keep-Alive", "5"),
        ("Proxy-Connection", "close"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
    ],
)
def test_header_refused(name, value):
    with pytest.raises(ValueError):
        prepare(ORIGIN, "POST", "/", [(name, value)])
    if (name + value).isascii():
        with pytest.raises(ValueError):
            prepare(ORIGIN, "POST", "/").head(0, [(name.encode(), value.encode())])


@pytest.mark.parametrize("target", ["", "v1", "/a b", "/a\r\nb", "/a#b", "/é", "http://x/", "*", "/\x7f"])
def test_target_refused(target):
    with pytest.raises(ValueError):
        prepare(ORIGIN, "GET", target)


@pytest.mark.parametrize("method", ["", "GET ", "GE\r\nT", "CONNECT", "GÉT"])
def test_method_refused(method):
    with pytest.raises(ValueError):
        prepare(ORIGIN, method, "/")


def test_refused_value_is_not_quoted():
    """It may be a key with a stray line break."""
    with pytest.raises(ValueError) as caught:
        prepare(ORIGIN, "GET", "/", [("authorization", "Bearer secret\n")])
    assert "secret" not in str(caught.value)


@settings(max_examples=300)
@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_accepted_head_has_the_lines_it_should(name, value, target):
    try:
        head = prepare(ORIGIN, "GET", "/" + target, [(name, value)]).head(0)
    except ValueError:
        return
    lines = head.split(b"\r\n")
    assert lines[0] == b"GET /" + target.encode() + b" HTTP/1.1"
    assert lines[2] == name.encode() + b": " + value.encode("latin-1")
    assert len(lines) == (5 if name.lower() == "accept-encoding" else 6)
    assert head.count(b"\n") == head.count(b"\r") == len(lines) - 1


def test_absolute_form_for_a_proxy():
    prepared = prepare(Origin("http", "::1", 8080), "GET", "/a")
    head = prepared.head(0, (), Proxy("proxy", 3128, "Basic dTpw"))
    assert head.startswith(b"GET http://[::1]:8080/a HTTP/1.1\r\nhost: [::1]:8080\r\nproxy-authorization: Basic dTpw\r\n")
    assert b"proxy-authorization" not in prepared.head(0)


def test_proxy_url():
    assert Proxy.parse("http://u%40:p%3Aw@Proxy.example:3128") == Proxy("proxy.example", 3128, "Basic dUA6cDp3")
    assert Proxy.parse("proxy:8080/") == Proxy("proxy", 8080)
    assert Proxy.parse("http://[::1]") == Proxy("::1", 80)
    for url in ("https://proxy", "socks5://proxy", "http://", "http://proxy/path"):
        with pytest.raises(ValueError):
            Proxy.parse(url)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "api.example", 443, False),
        ("*", "api.example", 443, True),
        ("api.example", "api.example", 443, True),
        ("example", "api.example", 443, True),
        (".example", "api.example", 443, True),
        ("*.example", "api.example", 443, True),
        ("i.example", "api.example", 443, False),
        ("Other, API.Example", "api.example", 443, True),
        ("api.example:8443", "api.example", 443, False),
        ("api.example:8443", "api.example", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.1", "10.0.0.1", 443, True),
        ("10.0.0.1:80", "10.0.0.1", 443, False),
        ("::1", "::1", 443, True),
        ("[::1]:443", "::1", 443, True),
        ("[::1]:80", "::1", 443, False),
        ("2001:db8::/32", "2001:db8::5", 443, True),
        ("10.0.0.0/8", "ten.example", 443, False),
    ],
)
def test_no_proxy(no_proxy, host, port, direct):
    settings = ProxySettings.from_env({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy})
    assert (settings.proxy_for(Origin("https", host, port)) is None) == direct


def test_proxy_variables():
    http, https = Origin("http", "a", 80), Origin("https", "a", 443)
    settings = ProxySettings.from_env({"HTTP_PROXY": "upper:1", "http_proxy": "lower:1", "ALL_PROXY": "all:1"})
    assert settings.proxy_for(http) == Proxy("lower", 1)
    assert settings.proxy_for(https) == Proxy("all", 1)
    assert ProxySettings.from_env({}).proxy_for(http) is None
    cgi = ProxySettings.from_env({"HTTP_PROXY": "evil:1", "REQUEST_METHOD": "GET"})
    assert cgi.proxy_for(http) is None
    with pytest.raises(ValueError, match="`HTTPS_PROXY`"):
        ProxySettings.from_env({"HTTPS_PROXY": "socks5://x:1"})
    with pytest.raises(ValueError, match="10.0.0.0/99"):
        ProxySettings.from_env({"NO_PROXY": "10.0.0.0/99"})


def test_limits_are_positive():
    with pytest.raises(ValueError, match="headers_s"):
        Timeouts(headers_s=0)
    with pytest.raises(ValueError, match="connections_per_origin_max"):
        PoolLimits(connections_per_origin_max=0)
