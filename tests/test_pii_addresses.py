"""IP addresses of the default detectors: where they are seen, and what is written alike."""

from __future__ import annotations

import pytest

from kringle.pii import findings


def addresses(text: str) -> list[str]:
    data = text.encode()
    return [data[f.start : f.end].decode() for f in findings(data) if f.kind == "ip"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("http://54.12.33.9/", "54.12.33.9"),
        ("54.12.33.0/24", "54.12.33.0"),
        ("host=54.12.133.9", "54.12.133.9"),
        ("[54.12.133.9]", "54.12.133.9"),
        ("(154.12.33.109)", "154.12.33.109"),
        ("54.12.33.9:8080", "54.12.33.9"),
        ("root@54.12.133.9", "54.12.133.9"),
        ("seen on 154.12.33.109.", "154.12.33.109"),
        (r'"\n154.12.33.109\t"', "154.12.33.109"),
        ("154.12.33.109-x", None),
        ("client ip 23.1.20.29", "23.1.20.29"),
        ('54.12.33.9 - - [16/Feb/2004:04:09:49 -0800] "GET / HTTP/1.1"', "54.12.33.9"),
        ("::ffff:154.12.33.109", "154.12.33.109"),
        ("http://[2a04:4976::1]:80/", "2a04:4976::1"),
        ("2a04:8cba::9a8:3d08", "2a04:8cba::9a8:3d08"),
        ("2A04:ADAB:F02B:7A2B:B313:24B4:A7C7:CACA", "2A04:ADAB:F02B:7A2B:B313:24B4:A7C7:CACA"),
        ("2a04:4976::/48", "2a04:4976::"),
        ("from 2607:db01::b14:", "2607:db01::b14"),
    ],
)
def test_seen(text: str, value: str | None) -> None:
    assert addresses(text) == ([value] if value else [])


@pytest.mark.parametrize(
    "text",
    [
        # belong to nobody
        *("host 10.1.2.3", "127.0.0.1:80", "192.168.1.7", "169.254.169.254", "172.16.0.9", "100.64.1.1", "0.0.0.0"),
        *(
            "ip 203.0.113.9",
            "198.51.100.7",
            "192.0.2.1",
            "224.0.0.251",
            "mask 255.255.255.0",
            "128.0.0.0",
            "198.18.0.1",
        ),
        *("dns 8.8.8.8", "dns 1.1.1.1", "208.67.222.222", "ip 1.2.3.4", "ip 11.22.33.44", "ip 12.34.56.78"),
        *("::1", "fe80::1%eth0", "2001:db8::1", "ff02::1", "fd00::7", "2606:4700:4700::1111", "3ffe::1", "2620:fe::fe"),
        # are no addresses
        *("version 4.12.33.9", "== 54.12.33.9", "v10.200.3.4", "Chrome/53.12.33.109", "lib-1.2.3.4.jar", "1.2.3.4.5"),
        *(
            "section 3.2.1.4",
            "RFC 5424, section 6.2.3.1",
            'ObjectIdentifier("1.3.101.112")',
            "2.5.29.17",
            "1.3.6.1.4.1",
        ),
        *("192.168.001.1", "300.1.1.1", "54.12.33", "54.12.33.256", "a54.12.33.9", "54.12.33.9x", "54.12.33.9-beta.2"),
        *(
            "std::vector",
            "a::b",
            "de::ad",
            "12:34:56",
            "00:1a:2b:3c:4d:5e",
            "2019-05-05T09:36:17Z",
            "2021:10:11",
            "x[2000:30:4]",
        ),
    ],
)
def test_not_seen(text: str) -> None:
    assert addresses(text) == []
