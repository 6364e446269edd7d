"""The URL rules: one canonical spelling, and everything that has none is refused with a reason."""

from __future__ import annotations

import ntpath
import os
import pickle
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtualchunks import urls
from virtualchunks.errors import LimitExceededError, URLError, VirtualChunksError
from virtualchunks.urls import (
    as_url,
    canonical_url,
    canonical_urls,
    is_prefix,
    join,
    local_path,
    quote_path,
    redact,
    split,
    url_key,
)

SAME = [
    "s3://bucket/a/b.nc",
    "s3://bucket/",
    "s3://my.bucket-1/a",
    "gs://bucket/a/b.nc",
    "az://container/a/b.nc",
    "https://host/a/b.nc",
    "https://host.example:8443/a",
    "http://127.0.0.1:9000/a",
    "http://[::1]:9000/a",
    "file:///data/a.nc",
    "file:///",
    "file:///data/",
    "file:///C:/data/a.nc",
    "memory:///a",
    "memory://store/a/b",
    "memory://",
    "s3://bucket/a%20b.nc",
    "s3://bucket/%C3%A4.nc",
    "s3://bucket/a%25b",
    "s3://bucket/%252e%252e/x",
    "s3://bucket/a%3Fb%23c",
    "s3://bucket/x=1/a,b;c+d@e!$&'()*",
    "s3://bucket/wrfout_2020-01-01_00:00:00",
    "s3://bucket/a::b.nc",
    "s3://bucket/.hidden/...",
    "file:///data/%FF.nc",
    "file:///data/%7Bx%7D",
]
CHANGED = {
    "S3://bucket/a": "s3://bucket/a",
    "HTTPS://Host.EXAMPLE/Path": "https://host.example/Path",
    "https://host:443/a": "https://host/a",
    "http://host:80/a": "http://host/a",
    "http://host:/a": "http://host/a",
    "http://host:0080/a": "http://host/a",
    "https://host:80/a": "https://host:80/a",
    "http://[0:0:0:0:0:0:0:1]/a": "http://[::1]/a",
    "https://host": "https://host/",
    "s3://bucket": "s3://bucket/",
    "file://": "file:///",
    "file://localhost/a": "file:///a",
    "file://LOCALHOST/a": "file:///a",
    "s3://bucket/a b.nc": "s3://bucket/a%20b.nc",
    "s3://bucket/ä": "s3://bucket/%C3%A4",
    "s3://bucket/%c3%a4": "s3://bucket/%C3%A4",
    "s3://bucket/%61": "s3://bucket/a",
    "s3://bucket/%7E%2B%3D": "s3://bucket/~+=",
    's3://bucket/{x}[1]|<>"^`': "s3://bucket/%7Bx%7D%5B1%5D%7C%3C%3E%22%5E%60",
    "memory:///ä": "memory:///%C3%A4",
}
REFUSED = {
    "s3://bucket/../a": "'..'",
    "s3://bucket/a/..": "'..'",
    "s3://bucket/./a": "'.'",
    "s3://bucket/%2e%2e/a": "'..'",
    "s3://bucket/%2E./a": "'..'",
    "s3://bucket/.%2e": "'..'",
    "s3://bucket/a%2fb": "%2F",
    "s3://bucket/..%2Fb": "%2F",
    "s3://bucket/a%5Cb": "%5C",
    "s3://bucket/a\\b": "backslash",
    "s3:\\\\bucket\\a": "backslash",
    "s3://bucket/a//b": "empty segment",
    "s3://bucket//a": "empty segment",
    "s3://bucket/a?versionId=7": "a query: leave it out, or write %3F",
    "https://host?x": "query",
    "s3://bucket/a#b": "a fragment: leave it out, or write %23",
    "s3://user@bucket/a": "user info",
    "https://user:password@host/a": "user info",
    "https://host%40evil/a": "host name",
    "https://host\u3002evil/a": "host name",
    "https://bücher.example/a": "punycode",
    "https://host./a": "host name",
    "https:///a": "host name",
    "https://host:99999/a": "port",
    "https://host:x/a": "port",
    "https://host:²/a": "port",
    "https://[::g]/a": "IPv6|host name",
    "s3://BUCKET/a": "lower case",
    "s3://bucket:80/a": "bucket",
    "s3:///a": "bucket",
    "s3://buc ket/a": "bucket",
    "file://host/a": "write file:///",
    "file://C:/a": "write file:///",
    "file:/a": "write file:///a",
    "s3:bucket/a": "write s3://bucket/a",
    "/data/a.nc": "not an absolute URL",
    "a.nc": "not an absolute URL",
    "": "not an absolute URL",
    "//host/a": "not an absolute URL",
    "C:/a": "'c' is not known",
    "ftp://host/a": "known are file, http",
    "s3a://bucket/a": "write s3://",
    "gcs://bucket/a": "write gs://",
    "abfs://container/a": "write az://",
    "local:///a": "write file:///",
    "data:text/plain;base64,AAAA": "not a URL",
    "simplecache::s3://bucket/a": "chain",
    "zip://a::s3://bucket/b.zip": "chain",
    "s3://bucket/a::https://evil/b": "chain",
    "a::b": "chain",
    "s3://bucket/a\nb": "control character",
    "s3://bucket/a\tb": "control character",
    "\ts3://bucket/a": "control character",
    "s3://bucket/a\x00": "control character",
    "s3://bucket/a\x7f": "control character",
    "s3://bucket/a\x85": "control character",
    "s3://bucket/a%0Ab": "control character",
    "s3://bucket/a%00": "control character",
    "s3://bucket/%C2%85": "control character",
    "s3://bucket/100%": "write %25",
    "s3://bucket/%zz": "write %25",
    "s3://bucket/%FF": "UTF-8",
    "s3://bucket/%C0%AE%C0%AE/a": "UTF-8",
    "s3://bucket/\ud800": "surrogate",
    "memory://a b/c": "memory store",
    " s3://bucket/a": "not an absolute URL",
}
NAMES = [
    "a b.nc",
    "ä.nc",
    "a+b.nc",
    "[1].nc",
    "a;b.nc",
    "a#b.nc",
    "a?b.nc",
    "50%.nc",
    "%20.nc",
    "{x}.nc",
    "*.nc",
    "a:b=c&d.nc",
    "日本.nc",
    "~x.nc",
]


@pytest.mark.parametrize("url", [url for url in SAME if url != "memory://"])
def test_canonical_urls_are_their_own_spelling(url):
    assert canonical_url(url) == url


@pytest.mark.parametrize(("url", "expected"), CHANGED.items())
def test_other_spellings_become_the_canonical_one(url, expected):
    assert canonical_url(url) == expected
    assert canonical_url(expected) == expected


@pytest.mark.parametrize(("url", "reason"), REFUSED.items())
def test_what_has_no_canonical_spelling_is_refused_with_a_reason(url, reason):
    with pytest.raises(URLError, match=reason) as caught:
        canonical_url(url)
    assert "password" not in str(caught.value)
    assert "versionId" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


def test_the_table_is_as_long_as_promised():
    assert len(SAME) + len(CHANGED) + len(REFUSED) >= 63


@pytest.mark.parametrize("url", [None, b"s3://bucket/a", 7, PurePosixPath("/a")])
def test_a_url_is_text(url):
    with pytest.raises(URLError, match="text"):
        canonical_url(url)
    with pytest.raises(URLError, match="text"):
        canonical_urls(["s3://bucket/a", url])


def test_long_keys_are_refused():
    assert canonical_url("s3://b/" + "a" * 4096) == "s3://b/" + "a" * 4096
    assert canonical_url("s3://b/" + "ä" * 2048) == "s3://b/" + "%C3%A4" * 2048
    for name in ("a" * 4097, "ä" * 2049, "a/" * 2049, "a" * 100_000):
        with pytest.raises(LimitExceededError, match=r"limit|more than"):
            canonical_url("s3://b/" + name)


pieces = st.sampled_from(
    [
        "/",
        "//",
        ".",
        "..",
        "%",
        "%2e",
        "%2F",
        "%41",
        "%c3%a4",
        "?",
        "#",
        "@",
        ":",
        "::",
        "\\",
        "\n",
        " ",
        "ä",
        "a",
        "B",
        "7",
        "[",
        "]",
        "%00",
        "~",
        "+",
        "\udcff",
    ]
)
hosts = st.sampled_from(
    [
        "s3://b",
        "S3://bucket/",
        "https://HOST",
        "http://h:80",
        "file://",
        "file:///",
        "gs://x_y.z",
        "memory://m",
        "https://h:8080/",
        "az://c/",
        "x",
        "",
    ]
)


@settings(max_examples=200)
@given(hosts, st.lists(pieces | st.text(max_size=3), max_size=8).map("".join))
def test_a_canonical_url_is_a_fixed_point_of_both_paths(host, rest):
    try:
        url = canonical_url(host + rest)
    except URLError:
        return
    assert canonical_url(url) == url
    assert urls._spell(url) == url
    assert canonical_urls([host + rest, url]) == [url, url]
    assert urlsplit(url).geturl() in (url, url.rstrip("/"))  # the standard library takes it apart the same way
    assert all(step not in (".", "..") for step in url_key(url).split("/"))


@settings(max_examples=200)
@given(hosts, st.lists(st.sampled_from(["/", "a", ".", "..", "-", ":", "B", "~", "=", "//"]), max_size=8).map("".join))
def test_the_fast_path_accepts_canonical_urls_only(host, rest):
    if urls._PLAIN.fullmatch(host + rest):
        assert urls._spell(host + rest) == host + rest


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\\"), min_size=1, max_size=20))
def test_any_name_goes_there_and_back_and_agrees_with_pathlib(name):
    if name in (".", ".."):
        return
    path = Path("/data") / name
    assert local_path(as_url(str(path))) == str(path)
    assert as_url(path) == canonical_url(path.as_uri())
    assert canonical_url(f"s3://bucket/{quote(name, safe='')}") == f"s3://bucket/{quote_path(name)}"
    assert url_key(f"s3://bucket/{quote(name, safe='')}") == name == unquote(quote_path(name))


@pytest.mark.parametrize("name", NAMES)
def test_harmless_names_are_one_name_in_both_spellings(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(name.encode())
    plain, quoted = as_url(str(path)), as_url(path.as_uri())
    assert plain == quoted == as_url(path) == as_url("file://" + quote(str(path)))
    assert Path(local_path(plain)).read_bytes() == name.encode()


def test_names_that_are_not_utf8_are_kept_for_local_files():
    name = os.fsdecode(b"/data/caf\xe9.nc")
    assert as_url(name) == "file:///data/caf%E9.nc"
    assert local_path("file:///data/caf%E9.nc") == name
    with pytest.raises(URLError, match="surrogate"):
        as_url("/data/\ud800.nc")


def test_relative_paths_are_taken_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_path(as_url("a.nc")) == f"{os.getcwd()}/a.nc"
    assert local_path(as_url("./x//a.nc")) == f"{os.getcwd()}/x/a.nc"
    assert local_path(as_url(Path("~/a.nc"))) == f"{os.getcwd()}/~/a.nc"
    assert local_path(as_url("a::b.nc")) == f"{os.getcwd()}/a::b.nc"


def test_dots_are_resolved_as_the_system_resolves_them(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "far" / "a").write_text("far")
    (tmp_path / "a").write_text("near")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    named = f"{tmp_path}/link/../a"
    assert Path(local_path(as_url(named))).read_text() == Path(named).read_text() == "far"
    (tmp_path / "far" / "b").symlink_to(tmp_path / "a")
    assert local_path(as_url(f"{tmp_path}/link/../b")).endswith("/far/b"), "the last step is a name, not resolved"


def test_users_may_write_the_aliases_of_schemes():
    assert as_url("s3a://bucket/a") == "s3://bucket/a"
    assert as_url("GCS://bucket/a") == "gs://bucket/a"
    assert as_url("https://Host/a b") == "https://host/a%20b"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("file:/a", "write file:///a"),
        ("https:/host/a", "write https://host/a"),
        ("abfss://c@account.dfs.core.windows.net/a", "write az://"),
        ("simplecache::s3://bucket/a", "chain"),
        (Path("s3://bucket/a"), "pass it as str"),
        (Path("/a\nb"), "control"),
        ("a\\b", "backslash"),
        (os.fspath(b"a"), "text|not bytes"),
        (None, "NoneType"),
        (7, "int"),
    ],
)
def test_what_a_user_names_wrongly_is_refused(path, reason):
    with pytest.raises(URLError, match=reason):
        as_url(path)


def test_a_path_of_bytes_is_refused():
    class BytesPath:
        def __fspath__(self):
            return b"/a"

    with pytest.raises(URLError, match="fsdecode"):
        as_url(BytesPath())


def test_windows_paths(monkeypatch):
    assert urls._windows_url("C:\\data\\a b.nc") == "file:///C:/data/a%20b.nc"
    with pytest.raises(URLError, match="device"):
        urls._windows_url("\\\\?\\C:\\a")
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "path", ntpath)
    assert urls._windows_url("\\\\server\\share\\a.nc") == "file://server/share/a.nc"
    assert local_path("file://server/share/a.nc") == "\\\\server\\share\\a.nc"
    assert as_url("C:\\data\\a#1.nc") == as_url("C:/data/a#1.nc") == "file:///C:/data/a%231.nc"
    assert local_path("file:///C:/data/a%20b.nc") == "C:\\data\\a b.nc"
    assert as_url("file:///C:/data/a.nc") == "file:///C:/data/a.nc"


@pytest.mark.parametrize(
    ("base", "relative", "expected"),
    [
        ("s3://b/x/index.json", "a.nc", "s3://b/x/a.nc"),
        ("s3://b/x/", "y/a.nc", "s3://b/x/y/a.nc"),
        ("s3://b", "a.nc", "s3://b/a.nc"),
        ("s3://b/x/", "./a%20b", "s3://b/x/a%20b"),
        ("s3://b/x/", quote_path("50%.nc"), "s3://b/x/50%25.nc"),
        ("s3://b/x/", "S3://c/a", "s3://c/a"),
        ("file:///d/a.h5", "side.bin", "file:///d/side.bin"),
        ("file:///d/a.h5", "2020-01-01T00:00.nc", "file:///d/2020-01-01T00:00.nc"),
    ],
)
def test_join(base, relative, expected):
    assert join(base, relative) == expected


@pytest.mark.parametrize(
    "relative",
    [
        "../a",
        "x/../../a",
        "%2e%2e/a",
        "/etc/passwd",
        "//host/a",
        "\\a",
        "a\\b",
        "",
        "a?x",
        "file:/etc/passwd",
        "data:,x",
        "local:a",
        None,
    ],
)
def test_join_refuses_what_leads_elsewhere(relative):
    with pytest.raises(URLError):
        join("file:///d/e/a.h5", relative)


@pytest.mark.parametrize(
    ("prefix", "url", "expected"),
    [
        ("s3://b/pub", "s3://b/pub/x", True),
        ("s3://b/pub/", "s3://b/pub/x", True),
        ("s3://b/pub", "s3://b/pub", True),
        ("s3://b/pub/", "s3://b/pub", True),
        ("s3://b/pub", "s3://b/public/x", False),
        ("s3://b/pub", "s3://b/public", False),
        ("s3://b", "s3://b/x", True),
        ("s3://b", "s3://b-evil/x", False),
        ("s3://b", "s3://b.evil/x", False),
        ("s3://b/Pub", "s3://b/pub/x", False),
        ("https://h", "https://h:8080/x", False),
        ("https://h", "http://h/x", False),
        ("file://", "file:///etc", True),
        ("file:///a b", "file:///a%20b/c", True),
        ("memory://", "memory://store/x", False),
    ],
)
def test_is_prefix_compares_whole_segments(prefix, url, expected):
    assert is_prefix(prefix, url) is expected


def test_split_gives_the_decoded_key():
    assert split("s3://bucket/a%20b/%25.nc") == ("s3", "bucket", "a b/%.nc")
    assert split("file:///data/ä") == ("file", "", "data/ä")
    assert split("https://h:81").authority == "h:81"


def test_local_path_takes_local_files_only():
    with pytest.raises(URLError, match="file://"):
        local_path("s3://b/a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://u:p@h/a?sig=1#x", "https://h/a?…"),
        ("https://u:p%40h/a", "https://h/a"),
        ("https://h/a#x", "https://h/a#…"),
        ("https://h/a", "https://h/a"),
        ("//u:p@h", "//h"),
        ("a\nb", "a\\nb"),
        ("/plain/what?.nc", "/plain/what?.nc"),
    ],
)
def test_redact(text, expected):
    assert redact(text) == expected
    assert redact(redact(text)) == expected


def test_redact_shortens():
    assert len(redact("s3://b/" + "a" * 9999)) < 400


def test_every_error_is_one_of_ours():
    assert issubclass(URLError, VirtualChunksError)
    assert issubclass(URLError, ValueError)
