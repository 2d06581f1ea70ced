"""The demo's job: one web page to Markdown. `{"url": ...}` as JSON on stdin, Markdown on stdout.

    echo '{"url": "https://example.org/"}' | python -I extract.py

One file on purpose: a job is started with an empty environment under `python -I`, where a script's neighbours cannot be imported.

Exit codes: 0 done · 2 the input is wrong or its address not allowed · 3 the page cannot be fetched · 4 it was fetched and is no page
that can be converted. Failures are one line on stderr. A stranger chooses the address, so only public ones are visited, the name is
looked up once, and each redirect is checked again; `--allow-loopback` also permits this machine's own servers, which is what the demo
needs and no seller on a real network should give.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import ssl
import sys
import time
import warnings
import zlib
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import quote, urldefrag, urljoin, urlsplit

# Optional parts of bs4 that this job does without: looking for them would take more than half of its start.
for _unused in ("soupsieve", "lxml", "html5lib", "cchardet", "chardet", "charset_normalizer"):
    sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]  # None makes an import fail at once
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses soupsieve
    from bs4 import BeautifulSoup, Comment, NavigableString, Tag
    from markdownify import MarkdownConverter

MOST_BYTES = 8 * 2**20
MOST_REDIRECTS = 5
_ACCEPT = {"Accept": "text/html, application/xhtml+xml, text/plain;q=0.5", "Connection": "close"}
SECONDS = 30.0


class ExtractError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def main(argv: list[str]) -> int:
    try:
        if unknown := [word for word in argv if word != "--allow-loopback"]:
            raise ExtractError(2, f"unknown argument {unknown[0]!r}: the only one is --allow-loopback")
        page, url = fetch(wanted(sys.stdin.buffer.read(65536)), "--allow-loopback" in argv)
        sys.stdout.buffer.write((convert(page, url) + "\n").encode("utf-8", "replace"))
    except ExtractError as failure:
        print(" ".join(str(failure).split())[:500], file=sys.stderr)
        return failure.code
    return 0


def wanted(data: bytes) -> str:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ExtractError(2, 'the input is not JSON: give {"url": "https://..."} on stdin') from None
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        raise ExtractError(2, 'the input has no url: give {"url": "https://..."} on stdin')
    return str(value["url"])


# Fetching


def fetch(url: str, loopback: bool) -> tuple[str, str]:
    """The page's text and the address it finally came from."""
    deadline = time.monotonic() + SECONDS
    for _ in range(MOST_REDIRECTS + 1):
        url = checked(url)
        try:
            with contextlib.closing(connected(url, loopback, deadline)) as connection:
                target = urlsplit(url)
                headers = {"Host": target.netloc, "User-Agent": "web-extract/1", "Accept-Encoding": "gzip, deflate", **_ACCEPT}
                connection.request("GET", (target.path or "/") + (f"?{target.query}" if target.query else ""), headers=headers)
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308) and answer.headers["Location"]:
                    url = urljoin(url, answer.headers["Location"])
                    continue
                if answer.status != 200:
                    raise ExtractError(3, f"{url} answered {answer.status} {answer.reason}")
                kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else "text/html"
                if kind not in ("text/html", "application/xhtml+xml", "text/plain"):
                    raise ExtractError(4, f"{url} is {kind}, not a page")
                text = decoded(body(answer, connection, deadline), answer.headers.get_content_charset())
                return (text if kind != "text/plain" else f"<pre>{text.replace('&', '&amp;').replace('<', '&lt;')}</pre>"), url
        except (OSError, HTTPException, zlib.error) as error:
            raise ExtractError(3, f"{url} cannot be fetched: {error or type(error).__name__}") from None
    raise ExtractError(3, f"{url} is still a redirect after {MOST_REDIRECTS}")


def checked(url: str) -> str:
    """`url` as it goes over the wire: ASCII, no fragment, no user name. Failure on any other scheme than http and https."""
    try:
        parts = urlsplit(urldefrag(url.strip()).url)
        host, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not host:
            raise ExtractError(2, f"{url!r} is not an http or https address")
        if parts.username is not None or any(character < "!" for character in url.strip()):
            raise ExtractError(2, f"{url!r} holds a user name, a blank or a control character")
        name = host.encode("ascii" if host.isascii() else "idna").decode()
    except (ValueError, UnicodeError):
        raise ExtractError(2, f"{url!r} is not a well-formed address") from None
    place = (f"[{name}]" if ":" in name else name) + (f":{port}" if port else "")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return f"{parts.scheme}://{place}{path}" + (f"?{query}" if query else "")


def connected(url: str, loopback: bool, deadline: float) -> HTTPConnection:
    """A connection to an address that was looked up once and is allowed."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ExtractError(3, f"{host} cannot be looked up: {error}") from None
    addresses = [str(entry[4][0]) for entry in found if allowed(str(entry[4][0]), loopback)]
    if not addresses:
        raise ExtractError(2, f"{host} is not a public address ({found[0][4][0]}): this job visits no private network")
    left = max(0.1, deadline - time.monotonic())
    opened = socket.create_connection((addresses[0], port), timeout=left)
    connection = HTTPConnection(host, port, timeout=left)
    connection.sock = ssl.create_default_context().wrap_socket(opened, server_hostname=host) if parts.scheme == "https" else opened
    return connection


def allowed(text: str, loopback: bool) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return allowed(str(address.ipv4_mapped), loopback)
        if address.sixtofour or address.teredo or address in ipaddress.ip_network("64:ff9b::/96"):
            return False  # an IPv4 address in disguise
    if address.is_loopback:
        return loopback
    return address.is_global and not address.is_multicast


def body(answer: HTTPResponse, connection: HTTPConnection, deadline: float) -> bytes:
    """All of it, within size and time, both counted after unpacking."""
    coding = (answer.headers["Content-Encoding"] or "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise ExtractError(3, f"the page is packed as {coding!r}, which was not asked for")
    unpacker = None if coding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    data = bytearray()
    while chunk := answer.read1(65536):
        data += chunk if unpacker is None else unpacker.decompress(chunk, MOST_BYTES + 1 - len(data))
        if len(data) > MOST_BYTES:
            raise ExtractError(4, f"the page is larger than {MOST_BYTES} bytes")
        left = deadline - time.monotonic()
        if left <= 0:
            raise ExtractError(3, f"the page did not arrive within {SECONDS:g} s")
        if connection.sock is not None:
            connection.sock.settimeout(left)
    return bytes(data)


# What browsers read under these names; they differ from what the names once meant
_CHARSETS = {
    "ascii": "cp1252", "us-ascii": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "iso-8859-1": "cp1252", "iso8859-1": "cp1252",
    "iso-8859-9": "cp1254", "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "windows-31j": "cp932",
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "tis-620": "cp874",
    "x-cp1251": "cp1251", "utf8": "utf-8", "utf-16": "utf-8", "utf-16le": "utf-8", "utf-16be": "utf-8",
}  # fmt: skip
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"))


def decoded(data: bytes, declared: str | None) -> str:
    """A byte order mark, else the header's charset, else the page's own, else UTF-8 if it is, else windows-1252."""
    for mark, charset in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(charset, "replace")
    inside = _META.search(data[:8192])
    for name in (declared, inside.group(1).decode() if inside else None):
        with contextlib.suppress(LookupError, ValueError):
            if name and not name.lower().startswith("utf-16"):
                return data.decode(_CHARSETS.get(name.strip().lower(), name.strip()), "replace")
            if name:
                return data.decode("utf-8", "replace")  # it cannot be: its own declaration was just read as ASCII
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


# Converting

_NEVER = ["script", "style", "noscript", "template", "iframe", "object", "embed", "svg", "canvas", "dialog", "button", "input", "select", "textarea", "link"]
_NOISE_TAGS = ("nav", "aside", "form", "menu")
_NOISE_ROLES = {"navigation", "banner", "contentinfo", "search", "dialog", "alertdialog", "complementary", "menu", "menubar", "toolbar"}
_NOISE = re.compile(
    r"(?:^|[-_ ])(?:nav|navi|navbar|navigation|menu|breadcrumbs?|cookies?|consent|gdpr|share|sharing|social|sidebar|newsletter|subscribe|related|recommended"
    r"|comments?|respond|adverts?|advertisement|ads?|sponsored|promo|popup|modal|overlay|skip|skip-link|pagination|pager|toolbar|footer|copyright|masthead|site-header|linenos|lineno|gutter"
    r"|sr-only|visually-hidden|screen-reader-text|print-only|no-print|editsection|headerlink)(?:$|[-_ ])"
)
_TITLES = ("h1", "h2", "h3", "h4", "h5", "h6", "hr")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLOCKS = ["p", "ul", "ol", "dl", "pre", "table", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6"]
_BLANK = "\ue002"  # holds an empty line of a listing open until the page's own are collapsed
_INVISIBLE = {ord(character): None for character in "\u00ad\u200b\u2060\ufeff"} | {0xA0: " ", 0x202F: " "}
# a start tag that ends an open element of these, if no border lies between
_TEXT_HOLDERS = {"td", "th", "li", "dd", "div", "blockquote", "article", "section", "main", "body", "figure"}
_ENDS = {
    **{name: ({"p"}, _TEXT_HOLDERS) for name in ("div", "section", "article", "figure", "hr", "center", "form", "footer", *_BLOCKS)},
    "li": ({"li"}, {"ul", "ol", "menu"}),
    "td": ({"td", "th"}, {"tr", "table"}),
    "th": ({"td", "th"}, {"tr", "table"}),
    "tr": ({"tr"}, {"table"}),
    "dt": ({"dt", "dd"}, {"dl"}),
    "dd": ({"dt", "dd"}, {"dl"}),
}


def convert(html: str, url: str) -> str:
    soup = BeautifulSoup(html.replace("\r\n", "\n").replace("\r", "\n"), "html.parser")
    base = soup.find("base", href=True)
    url = urljoin(url, str(base["href"])) if isinstance(base, Tag) else url
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    check_nesting(soup, url, 3000)  # end tags left out nest what should not be nested
    close_open_ends(soup)
    check_nesting(soup, url, 400)
    root = content_of(soup)
    for tables in (flatten_layout_tables, square_data_tables):
        tables(root)
    notes = footnotes(root)
    absolute(root, url)
    sys.setrecursionlimit(5000)  # the converter takes a few calls a level
    text = _Markdown(heading_style="atx", bullets="-", newline_style="backslash", table_infer_header=True).convert_soup(root)
    text = text.translate(_INVISIBLE)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text).strip().replace(_BLANK, "")
    if title and not re.search(r"^# ", text, re.MULTILINE):
        text = f"# {' '.join(title.translate(_INVISIBLE).split())}\n\n{text}"
    if notes:
        text += "\n\n" + "\n".join(f"[^{number}]: {note}" for number, note in notes)
    if not text:
        raise ExtractError(4, f"{url} holds no text")
    return text


def check_nesting(soup: BeautifulSoup, url: str, most: int) -> None:
    """Depth costs far more than length does, and is how a page would keep us busy."""
    level: list[Tag] = [soup]
    for _ in range(most):
        level = [child for tag in level for child in tag.children if isinstance(child, Tag)]
        if not level:
            return
    raise ExtractError(4, f"{url} is nested too deeply")


def close_open_ends(soup: BeautifulSoup) -> None:
    """`<li>one<li>two` was parsed as two inside one: it and all that follows it in there belong after."""
    for tag in soup.find_all(list(_ENDS)):
        ended, borders = _ENDS[tag.name]
        above = tag.parent
        while above is not None and above.name not in borders:
            upper = above.parent
            if above.name in ended:
                moved, step = [tag, *tag.next_siblings], tag.parent
                while step is not above:
                    moved, step = [*moved, *step.next_siblings], step.parent
                above.insert_after(*(part.extract() for part in moved))
            above = upper


def content_of(soup: BeautifulSoup) -> Tag:
    """The part of the page that is worth reading, without what surrounds it on every page of its site."""
    for dead in soup.find_all(_NEVER):
        dead.decompose()
    for comment in soup.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    whole = soup.body or soup
    size = length(whole)
    articles = soup.find_all("article")
    for choice in (soup.find("main"), soup.find(None, {"role": "main"}), articles[0] if len(articles) == 1 else None):
        if isinstance(choice, Tag) and length(choice) * 10 > size:
            whole, size = choice, length(choice)
            break
    for tag in whole.find_all(True):
        if not tag.decomposed and is_noise(tag) and length(tag) * 2 < size:
            tag.decompose()
    for tag in whole.find_all(["ul", "ol", "div", "td", "p", "table", "center", "font"]):
        if not tag.decomposed and length(tag) * 2 < size and is_link_list(tag):
            tag.decompose()
    return whole


def length(tag: Tag) -> int:
    return len(tag.get_text("", strip=True))


def is_noise(tag: Tag) -> bool:
    attributes = tag.attrs or {}
    if tag.name in _NOISE_TAGS or attributes.get("role") in _NOISE_ROLES or attributes.get("aria-hidden") == "true" or "hidden" in attributes:
        return True
    if tag.name in ("header", "footer") and tag.find_parent("blockquote") is None:
        return tag.find(["h1", "li", "sup"]) is None if tag.find_parent(["article", "main"]) else tag.find("h1") is None
    if tag.name in ("body", "main", "article", "h1", "h2", "h3", "code", "pre"):
        return False
    if _HIDDEN.search(str(attributes.get("style", ""))):
        return True
    names = [str(attributes.get("id", "")), *attributes.get("class", [])]
    return any(_NOISE.search(name.lower()) for name in names if name)


def is_link_list(tag: Tag) -> bool:
    """Five links and more with hardly a word between them, and nothing one would read inside."""
    links = tag.find_all("a", href=True)
    if len(links) < 5 or tag.find(["pre", "h1", "h2", "blockquote", "sup"]) is not None:
        return False
    return sum(length(link) for link in links) > 0.6 * length(tag)


def flatten_layout_tables(root: Tag) -> None:
    """A table that holds headings, other tables or code, or a single row, places things on a page; it says nothing."""
    for table in root.find_all("table"):
        single = table.find("th") is None and len(table.find_all("tr")) == 1
        inner = single or table.find(["table", "pre", "h1", "h2", "h3", "hr"]) is not None
        cells = [cell for cell in table.find_all(["td", "th"]) if cell.find_parent("table") is table]
        if inner or len(cells) <= 1 or any(len(cell.find_all("p")) > 1 for cell in cells) or table.get("role") in ("presentation", "none"):
            parts = [part for part in table.find_all(["thead", "tbody", "tfoot", "tr", "td", "th", "caption"]) if part.find_parent("table") is table]
            for part in (table, *parts):
                part.name = "div"


def square_data_tables(root: Tag) -> None:
    """Markdown's tables know no caption and no cell over several rows."""
    for table in root.find_all("table"):
        if caption := table.find("caption"):
            caption.name = "p"
            table.insert_before(caption.extract())
        if "right" in (table.get("dir"), table.get("align")) and table.find_parent("p"):
            table.insert_before(NavigableString("\n"))
        rows = table.find_all("tr")
        for number, row in enumerate(rows):
            for column, cell in enumerate(row.find_all(["td", "th"], recursive=False)):
                span = str(cell.attrs.pop("rowspan", "1"))
                for below in rows[number + 1 : number + min(int(span), 200)] if span.isdecimal() else ():
                    copy = BeautifulSoup("", "html.parser").new_tag(cell.name)
                    copy.string = cell.get_text(" ", strip=True)
                    below.insert(cell_position(below, column), copy)
        for empty in [row for row in rows if not row.find(["td", "th"])]:
            empty.decompose()


def cell_position(row: Tag, column: int) -> int:
    cells = row.find_all(["td", "th"], recursive=False)
    return row.index(cells[column]) if column < len(cells) else len(row.contents)


def footnotes(root: Tag) -> list[tuple[str, str]]:
    """Turn notes that the text points at into Markdown's own; gives them in the order of the text, for the end of the page."""
    notes: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for link in root.find_all("a", href=re.compile(r"^#.")):
        if link.decomposed or (link.parent is not None and link.parent.name != "sup" and link.find("sup") is None):
            continue
        name = str(link["href"])[1:]
        if name not in seen:
            note = root.find(["li", "p", "div", "dd", "td", "span"], id=name) or root.find("a", {"name": name})
            note = note.find_parent(["li", "p", "div", "dd", "td"]) if note is not None and note.name == "a" else note
            if note is None or note in link.parents:
                continue
            for back in note.find_all("a", href=re.compile(r"^#")):
                back.decompose()
            seen[name] = re.sub(r"\W", "", link.get_text()) or str(len(seen) + 1)
            notes.append((seen[name], re.sub(r"^[\s\d.^↩↑\[\]]+", "", " ".join(note.get_text().split())).rstrip(" ↩↑")))
            note.decompose()
        whole = link.parent if link.parent is not None and link.parent.name == "sup" else link
        whole.replace_with(NavigableString(f"\ue000{seen[name]}\ue001"))
    for empty in [holder for holder in root.find_all(["ol", "ul"]) if not holder.get_text(strip=True)]:
        title = empty.find_previous_sibling()
        if title is not None and title.name in _TITLES and not any(str(part).strip() for part in empty.next_siblings):
            title.decompose()
        empty.decompose()
    return [(number, note.translate(_INVISIBLE)) for number, note in notes]


def absolute(root: Tag, url: str) -> None:
    """Every link as a full address; what is no address (scripts, inline data, tracking pixels) goes."""
    for link in root.find_all("a"):
        target = full_address(url, str(link.get("href", "")))
        link.attrs = {"href": target} if target else {}
    for image in root.find_all("img"):
        source = str(image.get("src") or "")
        if not source or source.startswith("data:"):
            source = str(image.get("data-src") or image.get("data-original") or "")
        target = full_address(url, source)
        if not target or {str(image.get("width")), str(image.get("height"))} & {"0", "1"}:
            image.decompose()
        else:
            image.attrs = {"src": target, "alt": " ".join(str(image.get("alt") or "").split())}


def full_address(base: str, href: str) -> str:
    try:
        target = urljoin(base, "".join(href.split("\n")).strip())
        known = urlsplit(target).scheme in ("http", "https", "mailto", "tel", "ftp")
    except ValueError:
        return ""
    return quote(target, safe="/%:@!$&'*+,;=~-._?#[]").replace("(", "%28").replace(")", "%29") if href and known else ""


class _Markdown(MarkdownConverter):  # type: ignore[misc]  # ships no types
    def escape(self, text: str, parent_tags: set[str]) -> str:
        """Only what would really be read as markup."""
        text = re.sub(r"([\\*`])", r"\\\1", text)
        text = re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)
        text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
        text = text.replace("](", "]\\(")
        return re.sub(r"\ue000(\w+)\ue001", r"[^\1]", text)

    def convert_td(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return str(super().convert_td(el, re.sub(r"(?<!\\)\|", r"\\|", text), parent_tags))

    convert_th = convert_td

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        text = re.sub(r"^(?:[ \t]*\n)+|\s+$", "", el.get_text())
        if not text:
            return ""
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        text = re.sub(r"^(?=\n)", _BLANK, text, flags=re.MULTILINE)
        return f"\n\n{fence}{language_of(el)}\n{text}\n{fence}\n\n"

    def convert_br(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        following, before = el.next_sibling, el.previous_sibling
        if isinstance(before, Tag) and before.name == "br":
            return ""
        if following is None or (isinstance(following, Tag) and following.name in _BLOCKS):
            return "\n"  # nothing follows that it could break
        if isinstance(following, Tag) and following.name == "br":
            return "\n\n"  # two in a row were meant as a paragraph
        return str(super().convert_br(el, text, parent_tags))

    def convert_rt(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return text if el.parent is not None and el.parent.find("rp") else f"({text})"

    def convert_summary(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return f"\n\n**{text.strip()}**\n\n" if text.strip() else ""

    def convert_center(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return str(self.convert_div(el, text, parent_tags))

    convert_figure = convert_center
    convert_details = convert_center


def language_of(pre: Tag) -> str:
    """From the classes that highlighters put on a listing, its `code`, or the box around it."""
    for tag in (pre, pre.find("code"), pre.parent):
        for name in tag.get("class") or () if tag is not None else ():
            if found := re.fullmatch(r"(?:language|lang|highlight|highlight-source|brush:)-?([a-z0-9+#]+)", name.lower()):
                return found.group(1)
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
