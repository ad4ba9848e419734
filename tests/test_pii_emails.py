"""Email addresses of the default detectors: where they are seen, and what only has an at sign."""

from __future__ import annotations

import pytest

from kringle.pii import findings


def emails(text: str) -> list[str]:
    data = text.encode()
    return [data[f.start : f.end].decode() for f in findings(data) if f.kind == "email"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[jane.doe@corp.org]", "jane.doe@corp.org"),
        ("{jane@corp.org}", "jane@corp.org"),
        ("Jane Doe <jane+ci@mail.corp.co.uk>", "jane+ci@mail.corp.co.uk"),
        ("a=jane@corp.org;", "jane@corp.org"),
        ('href="mailto:jane@corp.org?subject=x"', "jane@corp.org"),
        ("https://corp.org/leave?mail=jane@corp.org&list=x", "jane@corp.org"),
        (r'"bye\njane@corp.org\n"', "jane@corp.org"),
        (r"\u003cjane@corp.org\u003e", "jane@corp.org"),
        ("&lt;jane@corp.org&gt;", "jane@corp.org"),
        ("%3Cjane@corp.org%3E", "jane@corp.org"),
        ("写:jane@corp.org。", "jane@corp.org"),
        ("zoë@corp.org", "zoë@corp.org"),
        ("jane@xn--bcher-kva.de", "jane@xn--bcher-kva.de"),
        ("ask jane@corp.org.", "jane@corp.org"),
        ("jane@corp.org: please", "jane@corp.org"),
        ("serviceAccount:ci@shop-prod-1.iam.gserviceaccount.com", "ci@shop-prod-1.iam.gserviceaccount.com"),
    ],
)
def test_seen(text: str, value: str) -> None:
    assert emails(text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "icon@2x.png",
            "sprite@1.5x.jpg",
            "pkg@1.2.3.tgz",
            "lodash@4.17.21",
            "@angular/core",
            "node_modules/@babel/core.js",
        ),
        *("git@github.com:org/repo.git", "ssh://git@github.com/org/repo", "hg@host.org", "deploy@build.corp.org:~/app"),
        *("user@corp.org:releases/x.tar", "ssh deploy@build.corp.org", '["ssh", "deploy@build.corp.org"]'),
        *("https://user:pw1@host.com/x", "ftp://anonymous@ftp.gnu.org/pub", "https://jane@host.corp.org/x"),
        *("user@localhost", "root@10.0.0.5", "me@example.com", "me@mail.example.org", "me@foo.test", "me@corp.invalid"),
        *("admin@mirror.local", "you@your-domain.com", "foo@corp.org", "name@domain.com", "x@test.com"),
        *("original-envelope-id: 0GK500B4HD0888@mail.corp.edu", r"(?P<id>[^\.]+).corp.com@apps.corp.org"),
        *("@dataclass.field", "a@b.T", "WEIGHTS@bias.shape", "getty@tty1.service", "foo@-bar.com", "a..b@corp.org"),
        *("Message-ID: <20181104235183.N8PVN2VJM@mx3.corp.net>", "4FD05F05-F98B-44DC-8111-C6009C925F0C@gmail.com"),
        *("hmac-sha2-256-etm@openssh.com", "curve25519-sha256@libssh.org", "service-%s@corp.org", "u@www.python.org"),
        *("foo-bar@baz.py", "krbtgt/REALM.ORG@REALM.ORG", "142480.20800.1652638@host.org", "service-@agent.corp.org"),
        *(
            "SVC/host.corp.org@CORP.ORG",
            "{0}-compute@corp.org",
            "user@corp.org:80",
            "e.b-2B8B56.18091515092010@corp.org",
        ),
        *("com.foo.Bar@1a2b3c", "user@host.notatld", "%(user)s@corp.org"),
    ],
)
def test_not_seen(text: str) -> None:
    assert emails(text) == []


def test_an_address_longer_than_a_mailbox_may_be_is_none() -> None:
    assert emails("a" * 64 + "@corp.org") == ["a" * 64 + "@corp.org"]
    assert emails("a" * 65 + "@corp.org") == []
