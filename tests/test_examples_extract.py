"""The demo's job, run for real: every shipped page over loopback, and what must not be fetched or converted."""

import asyncio
import functools
import gzip
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradeskill.config import load_config
from tradeskill.contracts import Task
from tradeskill.model import Result
from tradeskill.money import format_amounts
from tradeskill.world import World
from tradeskill_plugins.process.backend import ProcessBackend

EXAMPLES = Path(__file__).parent.parent / "examples"
PAGES = EXAMPLES / "pages"
MAIN = [path.name for path in sorted(PAGES.glob("*.html"))]


class Server(http.server.BaseHTTPRequestHandler):
    """The shipped pages, and answers that no honest server gives."""

    protocol_version = "HTTP/1.1"
    odd: dict[str, tuple[int, dict[str, str], bytes]] = {  # noqa: RUF012  # read only
        "/missing": (404, {}, b"no"),
        "/loop": (302, {"Location": "/loop"}, b""),
        "/moved": (301, {"Location": "sensor-en.html#wiring"}, b""),
        "/to-file": (302, {"Location": "file:///etc/passwd"}, b""),
        "/to-private": (302, {"Location": "http://10.0.0.1/"}, b""),
        "/image": (200, {"Content-Type": "image/png"}, b"\x89PNG"),
        "/empty": (200, {"Content-Type": "text/html"}, b"<html><script>x</script></html>"),
        "/plain": (200, {"Content-Type": "text/plain; charset=utf-8"}, b"<b>kept as it is</b>"),
        "/gzip": (200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, gzip.compress(b"<h1>Unpacked</h1>")),
        "/bomb": (200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, gzip.compress(bytes(50 * 2**20))),
        "/brotli": (200, {"Content-Type": "text/html", "Content-Encoding": "br"}, b"x"),
        "/deep": (200, {"Content-Type": "text/html"}, b"<div>" * 30000 + b"x"),
        "/unclosed": (200, {"Content-Type": "text/html"}, b"".join(b"<p>line %d" % n for n in range(1000))),
        "/header-wins": (200, {"Content-Type": "text/html; charset=koi8-r"}, "<meta charset=utf-8><p>Привет".encode("koi8-r")),
        "/mark-wins": (200, {"Content-Type": "text/html; charset=latin1"}, b"\xef\xbb\xbf<p>\xc3\xa4\xc3\xb6"),
        "/no-charset": (200, {"Content-Type": "text/html; charset=no-such"}, b"<p>\x93quoted\x94 \x80"),
        "/euc": (200, {"Content-Type": "text/html"}, '<meta charset="EUC-JP"><p>温泉'.encode("euc-jp")),
        "/scripts": (200, {"Content-Type": "text/html"}, b"<p>a<a href='javascript:x()'>b</a><a href=' data:,x'>c</a><img src=x.png width=1>"),
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        status, headers, data = self.odd.get(path) or (200, {"Content-Type": "text/html"}, (PAGES / path[1:]).read_bytes())
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(data: bytes, *argv: str) -> "subprocess.CompletedProcess[bytes]":
    """As the process backend starts it: isolated, with an empty environment."""
    return subprocess.run([sys.executable, "-I", str(EXAMPLES / "extract.py"), *argv], input=data, capture_output=True, env={}, timeout=60, check=False)


@functools.cache
def page(url: str) -> str:
    done = run(json.dumps({"url": url}).encode(), "--allow-loopback")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode("utf-8")


def refused(data: bytes, *argv: str) -> tuple[int, str]:
    done = run(data, *argv)
    message = done.stderr.decode()
    assert done.stdout == b""
    assert message.count("\n") == 1, message
    return done.returncode, message


EXPECTED = {
    "bruecke-de.html": [
        "# Die alte Holzbrücke von Wendelau\n",
        "regelmäßig riss.[^1] Der Rat",
        "212 Stämme, von denen 38 als »wurmstichig« zurückgewiesen",
        "> — Bauamtsbuch, Blatt 44r",
        "| Jahr | Pegel (m) | Joche verloren | Kosten (Taler) |\n| --- | --- | --- | --- |\n| 1651 | 5,80 | alle sechs | 1.340 |\n| 1784 | 7,12 | alle sechs |",
        "![Die Brücke im Winter 1893, davor Eisschollen](BASE/bilder/bruecke-1893.jpg)",
        "die Folge:\n  - Der Zöllner verlor sein Haus.\n",
        "[Jobst Voß](BASE/personen/voss.html)",
        "`WL-II/7_Bruecke` liegt noch die Rechnung für 3 < 4 Balken",
        "\n[^2]: Bohrungen von 1976 bestätigen den Schwemmsand bis in 14 m Tiefe.\n",
    ],
    "hadiqa-ar.html": [
        "# حديقة على السطح: دليل السنة الأولى\n",
        "**النعناع** و**البقدونس**",
        "3. تأكّد من تصريف الماء: املأ دلوًا واسكبه وانظر أين يذهب.\n   - إن تجمّع فلا تزرع هناك.",
        "| بندورة كرزية | آذار | حزيران | ١٢ |",
        "[كتاب الفلاحة](BASE/books/filaha.html#jarra)",
        "~~البطّيخ~~",
    ],
    "recette-fr.html": [
        "# Soupe à l’ortie de Tante Odile\n",
        "Coût : 3 € environ",
        "- 1 oignon\n\n  (ou deux échalotes)\n- 1 L d’eau",
        "Laver\n:   Trois eaux, toujours avec les gants.",
        "***noisettes grillées***",
        "(http://images.example/soupe%20verte.jpg)",
    ],
    "samovar-ru.html": [
        "# Как чинили самовары\n",
        "«Самовар, — говорил он, — вещь простая: **огонь внутри",
        "на три стакана.[^1]",
        "лудить чистым оловом \\| не свинцом! | 60 |",
        "4. Бросить нашатырь и олово",
        "[сельском музее](BASE/muzej.html?zal=2&vitrina=5)",
        "```\n  Размеры (вершки):   высота   обхват\n",
        "[^1]: Такой же хранится в Туле",
    ],
    "sensor-en.html": [
        "# Reading a rain gauge over a serial line\n",
        "survives a restart.[^1]",
        "| Yellow | `PIN_7` | pulled up, `a\\|b` debounced |",
        "```text\n$RAIN,2023-05-02T06:00,0004*5A\n",
        '```python\ndef parse(line: bytes) -> int | None:\n    body, star, digits = line.strip().rpartition(b"*")\n',
        '    return int(body.split(b",")[2])\n\n\nif total',
        "````sh\nstty",
        "```not a fence```\n````\n",
        '\n4. Counting [brown-outs](https://boards.example/docs/power#brownout).\n\n   ```\n   for i in range(3):\n       print("tip", i)\n   ```\n5. Trusting',
        "*snake_case_name* with 2 \\* 3 \\* 4 asterisks and a \\<tag> in prose.",
        "[the manual](https://www.example.org/manual%20%28rev%202%29.pdf), our chat, and",
        "**Why not interrupts?**",
        "[^1]: Within reason. A flash page takes about 10,000 writes",
    ],
    "tides-en.html": [
        "## Notice to mariners no. 14\n",
        "```\n   54 12.345 N\n  003 01.987 W\n```",
        "between the ferry slip & the fuel berth",
        "| Time | Place | Height (m) | State |\n| --- | --- | --- | --- |\n| 02:14 | Alder Point | 1.2 | rising |",
        "- Over 12 m, or with a dog that barks: ask\n  - A dog that does not bark goes free.",
        "Signed,\\\nT. Ashgrove\\\nHarbour master",
    ],
    "yado-ja.html": [
        "# 湯守の一日\n",
        "小諸(こもろ)千鶴",
        "「湯気（ゆげ）の色は",
        "手の甲だという。\n\n「機械は昨日の湯を覚えている。",
        "| 十時 | 湯船の清掃（[当番表](BASE/jp/seiso.html)） | ― |",
        "4. 粉になったものを布でこす。",
        "> 湯は借りものだ。",
    ],
}
LEFT_OUT = {
    "bruecke-de.html": ["Cookies", "Sperrmüll", "Newsletter", "Teilen", "dataLayer", "schema.org", "Lesen Sie auch", "¶", "\u00ad", "Anmerkungen", "base64"],
    "hadiqa-ar.html": ["إعلان", "المشاتل", "تعليقات", "الأكثر قراءة", "جميع الحقوق"],
    "recette-fr.html": ["Réclame", "bocaux", "Aubrac", "Vous aimerez", "Jeannot", "Confitures"],
    "samovar-ru.html": ["Кроссворд", "counter.example", "Найти", "Баннеры"],
    "sensor-en.html": ["Decoy", "decoy", "not content", "Quill 3 is out", "Enclosures", "Copy page", "Edit this page", "Next: Soil", "#wiring)#", "↩"],
    "tides-en.html": ["Berths", "Guestbook", "SiteMaker"],
    "yado-ja.html": ["採用情報", "MM_preload", "spacer.gif", "line-height"],
}


def test_every_shipped_page_has_its_expectations() -> None:
    assert len(MAIN) >= 6
    assert MAIN == sorted(EXPECTED) == sorted(LEFT_OUT)


@pytest.mark.parametrize("name", MAIN)
def test_a_page_keeps_its_content_in_order_and_loses_what_surrounds_it(base: str, name: str) -> None:
    text = page(f"{base}/{name}")
    position = 0
    for part in EXPECTED[name]:
        part = part.replace("BASE", base)
        assert part in text, part
        if not part.startswith(("[the manual]", "**Why", "[Jobst")):
            assert text.index(part) >= position, f"{part!r} came too early"
            position = text.index(part)
    assert [noise for noise in LEFT_OUT[name] if noise in text] == []


@pytest.mark.parametrize("name", MAIN)
def test_no_page_leaves_html_broken_characters_or_untidy_space(base: str, name: str) -> None:
    text = page(f"{base}/{name}")
    prose = re.sub(r"^( *)(`{3,})[^\n]*\n.*?\n\1\2$", "listing", text, flags=re.DOTALL | re.MULTILINE)
    assert re.search(r"(?<!\\)</?[a-zA-Z]", prose) is None
    assert not any(character in text for character in "\ufffd\u00a0\ue000\ue001\ue002")
    assert "\n\n\n" not in prose
    assert not [line for line in text.split("\n") if line != line.rstrip()]
    assert re.search(r"\]\((?!https?:|mailto:)", prose) is None
    assert text.endswith("\n")


def test_a_redirect_is_followed_and_the_new_address_is_the_base(base: str) -> None:
    assert page(f"{base}/moved") == page(f"{base}/sensor-en.html")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/plain", "```\n<b>kept as it is</b>\n```\n"),
        ("/gzip", "# Unpacked\n"),
        ("/header-wins", "Привет\n"),
        ("/mark-wins", "äö\n"),
        ("/no-charset", "“quoted” €\n"),
        ("/euc", "温泉\n"),
        ("/scripts", "abc\n"),
        ("/unclosed", "\n\n".join(f"line {n}" for n in range(1000)) + "\n"),
    ],
)
def test_small_answers_are_read_as_a_browser_would(base: str, path: str, text: str) -> None:
    assert page(base + path) == text


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/missing", 3, "answered 404"),
        ("/loop", 3, "still a redirect"),
        ("/to-file", 2, "not an http or https address"),
        ("/to-private", 2, "not a public address"),
        ("/image", 4, "image/png"),
        ("/empty", 4, "holds no text"),
        ("/bomb", 4, "larger than"),
        ("/brotli", 3, "'br'"),
        ("/deep", 4, "nested too deeply"),
    ],
)
def test_a_page_that_cannot_be_had_is_one_line_and_its_own_exit_code(base: str, path: str, code: int, message: str) -> None:
    found, said = refused(json.dumps({"url": base + path}).encode(), "--allow-loopback")
    assert (found, message in said) == (code, True), said


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"url": 3}', b'"http://x"', b"\xff", b"[" * 50_000])
def test_an_input_that_is_no_request_is_refused(data: bytes) -> None:
    assert refused(data)[0] == 2


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://",
        "http://u:p@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://a b/",
        "http://[::1",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert refused(json.dumps({"url": url}).encode(), "--allow-loopback")[0] == 2


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "2130706433"],
)
def test_private_addresses_are_never_visited_without_leave(host: str) -> None:
    code, message = refused(json.dumps({"url": f"http://{host}:7076/"}).encode())
    assert (code, "not a public address" in message) == (2, True), message


def test_leave_for_loopback_is_no_leave_for_the_rest_of_the_private_network() -> None:
    assert refused(b'{"url": "http://10.1.2.3/"}', "--allow-loopback")[0] == 2


def test_the_sellers_configuration_runs_the_job_on_the_process_backend(base: str, tmp_path: Path) -> None:
    (offer,) = load_config(EXAMPLES / "seller.yaml").offers
    assert (offer.name, format_amounts(offer.price), offer.backend, offer.pure) == ("web-extract", "0.001 XNO", "process", True)

    async def scenario() -> Result:
        backend = ProcessBackend(tmp_path / "executions", World(), "seller")
        await backend.open()
        task = Task(offer.run, json.dumps({"url": f"{base}/yado-ja.html"}).encode(), offer.folder, offer.trusted)
        await backend.start("job-1", task, offer.limits)
        status = await backend.wait("job-1", 60)
        assert status.state == "finished", status
        return await backend.result("job-1")

    assert asyncio.run(scenario()) == Result(page(f"{base}/yado-ja.html").encode(), "text/plain; charset=utf-8")


def test_an_unknown_argument_is_refused() -> None:
    assert refused(b"{}", "--allow-all") == (2, "unknown argument '--allow-all': the only one is --allow-loopback\n")


def test_nobody_listening_is_exit_code_3(base: str) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as closed:
        port = closed.server_port
    assert refused(json.dumps({"url": f"http://127.0.0.1:{port}/"}).encode(), "--allow-loopback")[0] == 3
