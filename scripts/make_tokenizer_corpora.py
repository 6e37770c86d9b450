#!/usr/bin/env python3
"""Make the three corpora on which the tokenizer is measured, from packages of Debian's main archive.

    scripts/make_tokenizer_corpora.py OUTPUT_DIR [corpus ...]

english.txt (50 MB of prose), english_code.txt (the same and code, 300 MB) and multilingual.txt (20 MB in 20 languages
and ten scripts), documents each followed by a line <|endoftext|>, and corpora.json, which says what went in. Needs
Debian 12 or a system whose apt knows its archive, and Python; packages are kept in OUTPUT_DIR/packages.

The same packages give the same bytes: files are taken in the order of the SHA-256 of their names until a source's
share is reached, and no text is taken twice. Security updates change packages, hence the versions in corpora.json.
"""

import argparse
import gzip
import hashlib
import html
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

END_OF_DOCUMENT = "\n<|endoftext|>\n"
MB = 10**6
SMALLEST_DOCUMENT = 200  # characters; less is a table of contents or a redirection


@dataclass(frozen=True)
class Source:
    """Some files of a package, up to a number of bytes of text."""

    package: str
    path: str
    """Regular expression, searched in the path of a file."""
    share: float
    """Most text to take [MB]."""
    foreign: float = 0.0
    """Least part of the letters that is not ASCII: leaves out pages nobody has translated."""


PROSE = [
    Source("linux-doc-6.1", r"_sources/(?!translations).*\.rst\.txt$", 20),
    Source("python3.11-doc", r"/html/[^_].*\.html$", 9),
    Source("postgresql-doc-15", r"\.html$", 8),
    Source("perl-doc", r"\.pod$", 8),
    Source("rust-doc", r"html/(book|reference|nomicon|rust-by-example|edition-guide|rustc|embedded-book)/.*\.html$", 4),
    Source("sqlite3-doc", r"\.html$", 6),
    Source("git-doc", r"\.txt$", 4),
    Source("vim-doc", r"\.html$", 6),
    Source("python-django-doc", r"/html/.*\.html$", 6),
    Source("octave-doc", r"\.html$", 3),
    Source("maxima-doc", r"/html/[^/]*\.html$", 3),
    Source("r-doc-html", r"\.html$", 3),
    Source("apache2-doc", r"/manual/en/.*\.html$", 4),
    Source("libreoffice-help-en-us", r"\.html$", 4),
    Source("gimp-help-en", r"\.html$", 3),
    Source("debian-handbook", r"/en-US/.*\.html$", 2),
    Source("debian-reference-en", r"\.html$", 2),
    Source("installation-guide-amd64", r"/en/.*\.html$", 1),
    Source("manpages-dev", r"/man[1-8]/", 5),
    Source("manpages", r"/man[1-8]/", 2),
]
CODE = [
    Source("linux-source-6.1", r"\.c$", 95),
    Source("linux-source-6.1", r"/include/(?!.*amd).*\.h$", 15),
    Source("golang-1.19-src", r"\.go$", 50),
    Source("rust-src", r"\.rs$", 55),
    Source("libpython3.11-stdlib", r"\.py$", 20),
    Source("python3-sympy", r"\.py$", 30),
    Source("python3-django", r"\.py$", 15),
    Source("python3-scipy", r"\.py$", 15),
    Source("python3-numpy", r"\.(py|pyi|h|c)$", 15),
    Source("python3-pandas", r"\.py$", 18),
    Source("python3-matplotlib", r"\.py$", 10),
    Source("python3-networkx", r"\.py$", 10),
    Source("python3-sqlalchemy", r"\.py$", 8),
    Source("python3-twisted", r"\.py$", 10),
]
LANGUAGES = [
    *(Source(f"manpages-{language}", r"/man[1-8]/", 1, 0.3) for language in ("ja", "zh", "ru", "uk", "el", "mk", "sr")),
    *(Source(f"manpages-{language}", r"/man[1-8]/", 0.7, 0.02) for language in ("de", "fr", "pl", "tr", "vi")),
    *(
        Source(f"debian-reference-{language}", r"\.html$", 0.7, least)
        for language, least in [("ja", 0.3), ("zh-cn", 0.3), ("zh-tw", 0.3), ("es", 0.01), ("it", 0.005), ("pt", 0.01)]
    ),
    *(Source(f"debian-faq-{language}", r"\.html$", 0.4, 0.3) for language in ("ja", "ko", "ru", "zh-cn")),
    *(Source(f"maint-guide-{language}", r"\.html$", 0.4, 0.1) for language in ("ja", "ru", "vi", "zh-cn")),
    *(
        Source("installation-guide-amd64", rf"/{language}/.*\.html$", 0.6, 0.3)
        for language in ("ja", "ko", "ru", "el", "zh_CN")
    ),
    *(
        Source("debian-handbook", rf"/{language}/.*\.html$", 1.2, 0.3)
        for language in ("ar-MA", "fa-IR", "ja-JP", "ru-RU", "zh-CN", "zh-TW")
    ),
    *(
        Source(f"libreoffice-help-{language}", r"\.html$", 1, 0.3)
        for language in ("hi", "km", "dz", "ko", "ja", "ru", "zh-cn", "el")
    ),
    *(Source(f"gimp-help-{language}", r"\.html$", 0.8, 0.3) for language in ("ko", "ru", "zh-cn")),
]
CORPORA = {"english": (PROSE, 50), "english_code": (PROSE + CODE, 300), "multilingual": (LANGUAGES, 20)}


def main() -> int:
    """Make the corpora that were asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("corpora", nargs="*", default=list(CORPORA), metavar="corpus", help=" ".join(CORPORA))
    options = parser.parse_args()
    unknown = set(options.corpora) - set(CORPORA)
    if unknown:
        parser.error(f"there is no corpus {sorted(unknown)[0]}; choose among {', '.join(CORPORA)}")
    packages = Packages(options.output_dir / "packages")
    report = {}
    for name in options.corpora:
        sources, megabytes = CORPORA[name]
        documents = cut(gather(packages, sources), int(megabytes * MB))
        report[name] = write_corpus(options.output_dir / f"{name}.txt", documents)
        print(f"{name}.txt: {json.dumps(report[name])}", flush=True)
    (options.output_dir / "corpora.json").write_text(
        json.dumps({"corpora": report, "packages": packages.versions()}, indent=2) + "\n", encoding="utf-8"
    )
    return 0


def write_corpus(path: Path, documents: Iterable[str]) -> dict[str, int | str]:
    """Write documents and their separators; returns the facts."""
    digest, size, count, lines, distinct = hashlib.sha256(), 0, 0, 0, set()
    with path.open("wb") as file:
        for document in documents:
            data = (document + END_OF_DOCUMENT).encode()
            file.write(data)
            digest.update(data)
            size, count = size + len(data), count + 1
            for line in document.splitlines():
                if line.strip():
                    distinct.add(hash(line))
                    lines += 1
    return {
        "bytes": size,
        "documents": count,
        "sha256": digest.hexdigest(),
        "lines": lines,
        "distinct_lines": len(distinct),
    }


def cut(documents: list[tuple[str, str]], size: int) -> Iterator[str]:
    """Yield texts in the order of their keys until there are `size` bytes."""
    taken = 0
    for _, text in sorted(documents):
        if taken >= size:
            return
        taken += len(text.encode()) + len(END_OF_DOCUMENT)
        yield text


def gather(packages: "Packages", sources: list[Source]) -> list[tuple[str, str]]:
    """Return (key, text) of every source's share, no text twice."""
    found, seen = [], set()
    for source in sources:
        taken, count = 0, 0
        for key, text in texts_of(packages, source):
            identity = hashlib.sha256(text.encode()).digest()
            if identity in seen:
                continue
            seen.add(identity)
            found.append((key, text))
            taken, count = taken + len(text.encode()), count + 1
            if taken >= source.share * MB:
                break
        print(f"  {source.package} {source.path}: {count} texts, {taken / MB:.1f} MB", file=sys.stderr, flush=True)
    return found


def texts_of(packages: "Packages", source: Source) -> Iterator[tuple[str, str]]:
    """Yield (key, text) of a source's files in the order of the hashes of their names."""
    pattern = re.compile(source.path)
    files = {path: data for path, data in packages.files(source.package) if pattern.search(path.removesuffix(".gz"))}
    keys = {hashlib.sha256(f"{source.package}:{path}".encode()).hexdigest(): path for path in files}
    for key, path in sorted(keys.items()):
        text = to_text(path, files[path])
        if text is not None and len(text) >= SMALLEST_DOCUMENT and is_foreign(text, source.foreign):
            yield key, text


def is_foreign(text: str, least: float) -> bool:
    """Tell whether enough of the letters are not ASCII."""
    letters = sum(map(str.isalpha, text))
    ascii_letters = len(re.findall("[A-Za-z]", text))
    return letters - ascii_letters >= least * letters


class Packages:
    """Packages of the archive that apt knows, fetched once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[str, list[tuple[str, bytes]]] = ("", [])

    def files(self, package: str) -> list[tuple[str, bytes]]:
        """Return the path and the content of every file; of a source package, those of the tree inside."""
        if self._last[0] != package:
            command = ["dpkg-deb", "--fsys-tarfile", self._fetch(package)]
            members = list(unpack(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            trees = [data for path, data in members if path.endswith(".tar.xz")]
            self._last = package, [pair for tree in trees for pair in unpack(tree)] or members
        return self._last[1]

    def versions(self) -> dict[str, str]:
        """Name the packages used, with their versions."""
        return dict(sorted(path.name.split("_")[:2] for path in self.folder.glob("*.deb")))

    def _fetch(self, package: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not list(self.folder.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", package], cwd=self.folder, check=True, stdout=sys.stderr)
        return next(self.folder.glob(f"{package}_*.deb"))


def unpack(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files of a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|*") as tar:
        for member in tar:
            if member.isfile():
                yield member.name, tar.extractfile(member).read()


def to_text(path: str, data: bytes) -> str | None:
    """Return the text of a file, or None if it is not UTF-8 text."""
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if "\0" in text or "<|endoftext|>" in text:
        return None
    if path.endswith(".html"):
        text = from_html(text)
    elif re.search(r"/man[1-8]/", path):
        text = from_man(text)
    return re.sub(r"\n{3,}", "\n\n", text.replace("\r\n", "\n")).strip()


PAGE_START = re.compile(r'<main\b|<[^>]*role="main"|<[^>]*id="DisplayArea"|<body\b', re.I)
PAGE_END = re.compile(
    r'<[^>]*(class="(sphinxsidebar|navfooter|relatedtopics)|id="(DEBUG|DonationFrame))|<footer\b', re.I
)
UNSEEN = re.compile(r"<(script|style|nav|head|header|button|select)\b.*?</\1\s*>|<!--.*?-->", re.I | re.S)
NAVIGATION = re.compile(r'<div class="navheader">.*?</table>', re.I | re.S)
BLOCK = re.compile(r"</?(p|div|br|h[1-6]|li|ul|ol|dl|dt|dd|tr|table|pre|section|blockquote|hr|title)\b[^>]*>", re.I)
CELL = re.compile(r"</t[dh]>", re.I)
PREFORMATTED = re.compile(r"(<pre\b.*?</pre>)", re.I | re.S)
TAG = re.compile(r"<[^>]*>")


def from_html(page: str) -> str:
    """Keep what a reader of the page reads: its main part, lines where blocks are, preformatted text as it is."""
    page = NAVIGATION.sub("", UNSEEN.sub("", page))
    starts = {match[0].split()[0].lower(): match.start() for match in PAGE_START.finditer(page)}
    page = page[max(starts.values(), default=0) :]
    end = PAGE_END.search(page, 1)
    page = page[: end.start()] if end else page
    parts = PREFORMATTED.split(page)
    parts[::2] = [re.sub(r"\s+", " ", part) for part in parts[::2]]
    text = TAG.sub("", CELL.sub("  ", BLOCK.sub("\n", "".join(parts))))
    lines = [line.rstrip() for line in html.unescape(text).replace("\xa0", " ").split("\n")]
    return "\n".join(line if line.startswith("  ") else line.strip() for line in lines)


ESCAPES = {
    r"\-": "-",
    r"\(aq": "'",
    r"\(dq": '"',
    r"\(bu": "*",
    r"\(co": "©",
    r"\e": "\\",
    r"\&": "",
    r"\c": "",
    r"\ ": " ",
}


def from_man(page: str) -> str:
    """Drop comments, requests and fonts from a manual page, and keep the words that requests print."""
    lines = []
    for line in page.split("\n"):
        if line.startswith(
            ("'\\\"", '.\\"', ".TH", ".ds", ".nr", ".if", ".ie", ".el", ".de", "..", ".so", ".RS", ".in")
        ):
            continue
        if re.match(r"[.'] *[A-Za-z]", line):
            name, _, rest = line.partition(" ")
            line = "" if name in (".TP", ".PP", ".P", ".sp") else rest.replace('"', "")
            line = "\n" + line if name in (".SH", ".SS") else line
        line = re.sub(r"\\f(\(..|\[[^]]*\]|.)|\\s[-+]?\d", "", line)
        line = re.sub("|".join(map(re.escape, ESCAPES)), lambda match: ESCAPES[match[0]], line)
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
