"""`fastsse proxy-config` prints a file for the server's options, and refuses what makes none."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastsse.cli import fastsse, main
from tests.cli.commandline import forget_options

PROXIES = ("nginx", "haproxy", "caddy")
NODE = ("--node", "127.0.0.1:9001")
SITE = ("--domain", "sse.example.com")
TOKEN = ("--publish-token", "x")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_options(monkeypatch)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(fastsse, ["proxy-config", *arguments], standalone_mode=True)


def printed(*arguments: str) -> str:
    ran = run(*arguments)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def refused(*arguments: str) -> str:
    ran = run(*arguments)
    assert ran.exit_code == 2, ran.output
    assert ran.stdout == ""
    return " ".join(ran.stderr.split())


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_file_has_the_address_of_the_configured_server(proxy: str, tmp_path: Path) -> None:
    assert "127.0.0.1:8080" in printed(proxy, *SITE)
    assert "127.0.0.1:9090" in printed(proxy, *SITE, "--port", "9090")
    assert "127.0.0.1:9090" in printed(proxy, *SITE, "--port", "9090", "--host", "0.0.0.0", *TOKEN)
    assert "[::1]:9090" in printed(proxy, *SITE, "--port", "9090", "--host", "::", *TOKEN)
    assert "10.0.0.5:8080" in printed(proxy, *SITE, "--host", "10.0.0.5", *TOKEN)
    both = ("--host", "10.0.0.5", "--host", "127.0.0.2", *TOKEN)
    assert "127.0.0.2:8080" in printed(proxy, *SITE, *both)
    file = tmp_path / "fastsse.toml"
    file.write_text('uds = "/run/fastsse/sse.sock"\nheartbeat = "40s"\n')
    text = printed(proxy, *SITE, "--config", str(file))
    assert {
        "nginx": "server unix:/run/fastsse/sse.sock ",
        "haproxy": "server node1 unix@/run/fastsse/sse.sock",
        "caddy": "reverse_proxy unix//run/fastsse/sse.sock {",
    }[proxy] in text
    assert re.search(r"\b160s", text)


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_file_names_every_node_once(proxy: str) -> None:
    nodes = ("10.0.0.1:8080", "[::1]:8081", "unix:/run/two.sock", "one.internal:80")
    flags = [flag for node in (*nodes, nodes[0]) for flag in ("--node", node)]
    text = printed(proxy, *SITE, *flags)
    of_streams = text.partition("\nbackend streams")[2] or text
    for node in nodes:
        assert of_streams.count(node.removeprefix("unix:")) == 1


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_file_knows_the_server_s_limits_of_time_and_size(proxy: str) -> None:
    limits = ("--heartbeat", "1h", "--idle-timeout", "30s")
    text = printed(proxy, *SITE, *limits, "--max-body", "3MiB", "--max-head", "32KiB")
    assert re.search(r"\b14400s", text)
    if proxy == "nginx":
        assert "keepalive_timeout 20s;" in text
        assert "client_max_body_size 3145728;" in text
        assert "large_client_header_buffers 4 32768;" in text
        assert "worker_connections 201024;" in printed(proxy, *SITE, "--max-connections", "100000")
    elif proxy == "caddy":
        assert "keepalive 20s\n" in text
    else:
        assert "tune.bufsize 33792\n" in text
    # However short the heartbeat: a subscriber may ask for one of 30 s.
    assert re.search(r"\b60s", printed(proxy, *SITE, "--heartbeat", "10ms"))
    assert re.search(
        r"keepalive(_timeout)? 1s|haproxy", printed(proxy, *SITE, "--idle-timeout", "1s")
    )


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_file_has_the_certificate(proxy: str) -> None:
    pem = "/etc/ssl/own.pem"
    text = printed(proxy, *SITE, "--cert", pem)
    assert {
        "nginx": f"ssl_certificate {pem};\n        ssl_certificate_key {pem};",
        "haproxy": f" ssl crt {pem} alpn h2,http/1.1",
        "caddy": f"tls {pem} {pem}\n",
    }[proxy] in text
    key = ("--key", f"{pem}.key")
    text = printed(proxy, *SITE, "--cert", pem, *key)
    assert {
        "nginx": f"ssl_certificate_key {pem}.key;",
        "haproxy": f" ssl crt {pem} alpn h2,http/1.1",
        "caddy": f"tls {pem} {pem}.key\n",
    }[proxy] in text
    assert "--cert" in refused(proxy, *SITE, *key)
    assert "--cert" in refused(proxy, "--plain", "--cert", pem)
    if proxy == "haproxy":
        assert "/etc/ssl/own.pem.key" in refused(proxy, *SITE, "--cert", pem, "--key", "/other")


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_plain_file_has_no_tls_and_needs_no_name(proxy: str) -> None:
    text = printed(proxy, "--plain", "--listen", "127.0.0.1:8000", *NODE)
    assert not re.search(r"\bssl\b|h2|tls", text)
    assert "8000" in text
    assert "--domain" in refused(proxy, *NODE)


@pytest.mark.parametrize("proxy", PROXIES)
def test_port_80_redirects_only_if_the_site_is_on_443(proxy: str) -> None:
    usual, other = printed(proxy, *SITE), printed(proxy, *SITE, "--listen", ":8443")
    if proxy == "caddy":
        assert "disable_redirects" not in usual
        assert "disable_redirects" in other
    else:
        assert re.search(r"(listen |bind :)80\b", usual)
        assert not re.search(r"(listen |bind :)80\b", other)


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_path_is_taken_off_requests_and_known_to_error_pages(proxy: str) -> None:
    for given in ("/live/sse", "/live/sse/"):
        text = printed(proxy, *SITE, "--path", given)
        assert {
            "nginx": "location /live/sse/ {\n            proxy_pass http://nodes/;",
            "haproxy": r"http-request replace-path /live/sse(/.*) \1",
            "caddy": "handle_path /live/sse/* {",
        }[proxy] in text
        assert "/live/sse/events" in text
    assert printed(proxy, *SITE, "--path", "/") == printed(proxy, *SITE)


@pytest.mark.parametrize("proxy", PROXIES)
def test_health_is_asked_where_the_nodes_answer_it(proxy: str) -> None:
    text = printed(proxy, *SITE, *NODE, "--admin-port", "9100")
    if proxy == "haproxy":
        assert "server node1 127.0.0.1:9001 port 9100\n" in text
        unix = printed(proxy, *SITE, "--node", "unix:/run/one.sock", "--admin-port", "9100")
        assert "unix@/run/one.sock addr 127.0.0.1 port 9100\n" in unix
    elif proxy == "caddy":
        assert "health_port 9100\n" in text
        unix = printed(proxy, *SITE, "--node", "unix:/run/one.sock", "--admin-port", "9100")
        assert "health_uri" not in unix


def test_nodes_with_the_proxy_protocol_get_it_or_the_proxy_is_refused() -> None:
    flags = (*SITE, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
    assert " send-proxy-v2 check-send-proxy" in printed("haproxy", *flags)
    assert "proxy_protocol v2\n" in printed("caddy", *flags)
    assert "proxy_protocol off" in refused("nginx", *flags)


def test_haproxy_sends_events_without_delay() -> None:
    assert "    option http-no-delay\n" in printed("haproxy", "--plain", *NODE)


def test_haproxy_alone_takes_a_resolver() -> None:
    flags = (*SITE, "--node", "one:80", "--resolver", "127.0.0.11:53")
    text = printed("haproxy", *flags)
    assert "nameserver dns 127.0.0.11:53\n" in text
    assert text.count("resolvers dns init-addr none") == 2
    assert "when it starts" in refused("nginx", *flags)
    assert "at each connection" in refused("caddy", *flags)


def test_haproxy_s_other_file_ends_an_event_of_a_stream() -> None:
    head, _, body = printed("haproxy", "--errorfile").partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert "text/event-stream" in head
    assert body == "retry: 5000\n\n"
    assert "HAProxy" in refused("nginx", "--errorfile")


@pytest.mark.parametrize("proxy", PROXIES)
def test_what_the_server_needs_is_named(proxy: str) -> None:
    ran = run(proxy, *SITE)
    assert 'allowed_hosts = ["sse.example.com"]' in ran.stderr
    assert "trusted_proxies" in ran.stderr
    assert "publish_token" in ran.stderr
    done = ("--allowed-hosts", "sse.example.com", "--trusted-proxies", "127.0.0.1")
    assert run(proxy, *SITE, *done, "--publish-token", "x").stderr == ""
    assert run(proxy, *SITE, *done, "--jwt-key", "k" * 32).stderr == ""
    # Secrets stay where they are.
    assert "s3cret" not in run(proxy, *SITE, "--publish-token", "s3cret").output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--domain", "a b"], "'--domain': must be a host name"),
        (["--domain", "a;b"], "'--domain': must be a host name"),
        (["--domain", "sse.example.com:443"], "'--domain': must be a host name"),
        (["--domain", "x" * 64], "'--domain': must be a host name"),
        (["--domain", ".".join(["abc"] * 64)], "'--domain': must be a host name"),
        (["--domain", ""], "'--domain': must be a host name"),
        (["--node", "10.0.0.1"], "'--node': must be host:port or unix:/path"),
        (["--node", ":80"], "'--node': must begin with a host"),
        (["--node", "10.0.0.1:0"], "'--node': must end with a port from 1 to 65535"),
        (["--node", "10.0.0.1:65536"], "'--node': must end with a port from 1 to 65535"),
        (["--node", "10.0.0.1:\uff18\uff10"], "'--node': must end with a port from 1 to 65535"),
        (["--node", "::1:80"], "'--node': an IPv6 address stands in brackets"),
        (["--node", "[::1:80"], "'--node': an IPv6 address stands in brackets"),
        (["--node", "a{b}:80"], "'--node': must begin with an IP address or a host name"),
        (["--node", "unix:relative"], "'--node': must be an absolute path"),
        (["--node", "unix:/a;b"], "'--node': must be an absolute path"),
        (["--listen", "any"], "'--listen': must end with a port from 1 to 65535"),
        (["--cert", "own.pem"], "'--cert': must be an absolute path"),
        (["--cert", "/a b"], "'--cert': must be an absolute path"),
        (["--cert", "/a\nb"], "'--cert': must be an absolute path"),
        (["--cert", '/a"b'], "'--cert': must be an absolute path"),
        (["--cert", "/" + "a" * 1024], "'--cert': must be an absolute path"),
        (["--path", "sse"], "'--path': must be a path such as /sse"),
        (["--path", "/a//b"], "'--path': must be a path such as /sse"),
        (["--path", "/a/../b"], "'--path': must not contain the segments . or .."),
        (["--path", "/a%2fb"], "'--path': must be a path such as /sse"),
        (["--resolver", "127.0.0.11"], "'--resolver': must be host:port"),
        (["--run-folder", "here"], "'--run-folder': must be an absolute path"),
        (["--port", "0"], "With port = 0 the server's address is not known: give --node."),
        (["--fd", "3"], "With fd the server's address is not known: give --node."),
        (["--uds", "/run/a b"], "uds must be an absolute path"),
        (["--node", "10.0.0.1:1"] + [f"--node=10.0.0.1:{n}" for n in range(2, 1002)], "more than"),
    ],
)
def test_bad_input_is_refused_with_the_flag_and_what_it_takes(
    arguments: list[str], why: str
) -> None:
    assert why in refused("nginx", *SITE, *arguments)


def test_bad_options_of_the_server_are_refused_as_serve_refuses_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["proxy-config", "nginx", *SITE, "--heartbeat", "soon"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert 'heartbeat = "soon" (from --heartbeat) must be a duration' in err


def test_caddy_refuses_listeners_that_it_has_no_words_for() -> None:
    two = ("--listen", "127.0.0.1:8443", "--listen", "127.0.0.2:9443")
    assert "one port" in refused("caddy", *SITE, *two)
    assert "unix:" in refused("caddy", *SITE, "--listen", "unix:/run/front.sock")
    assert "bind 127.0.0.1 127.0.0.2\n" in printed(
        "caddy", *SITE, "--listen", "127.0.0.1:8443", "--listen", "127.0.0.2:8443"
    )


def test_an_unknown_proxy_is_refused_with_the_known_ones() -> None:
    assert "'nginx', 'haproxy', 'caddy'" in refused("apache", *SITE)
