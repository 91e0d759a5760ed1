"""The tables of a file: read in every spelling, and refused with the line and what to do."""

from __future__ import annotations

import ipaddress
import random
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastscp.config.contradictions import COMBINATIONS_MOST
from fastscp.config.file import check_file
from fastscp.config.layers import Loaded, load, load_one
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.config.values import AllowRule, read_certificate_rule
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def who(ae: str, network: str | None = None) -> AllowRule:
    return AllowRule(ae, None if network is None else ipaddress.ip_network(network))


WANTED = Tables(
    ae=(
        AeTable("CT1", {"layout": "ct/{SOPInstanceUID}.dcm", "durability": "buffered"}),
        AeTable("MR 1"),
        AeTable("A%C4", {"max_associations": 5}),
    ),
    senders=(
        FromTable("research", (who("*", "10.9.0.0/16"),), values={"sop_classes": ("storage",)}),
        FromTable("cloud", (who("GW"), who("GW2", "::1/128")), ("CT1", "MR 1")),
    ),
)

SPELLINGS = {
    "headers": """
        check-called-ae = true
        [ae.CT1]
        layout = "ct/{SOPInstanceUID}.dcm"
        durability = "buffered"
        [ae."MR 1"]
        [ ae . 'A%C4' ]  # a remark
        max-associations = 5
        [from.research]
        who = "*@10.9.0.0/16"
        sop-classes = ["storage"]
        [from.cloud]
        who = [
          "GW@*",  # [from.x]
          "GW2@::1",
        ]
        called = ["CT1", "MR 1"]
    """,
    "dotted keys": """
        ae.CT1.layout = "ct/{SOPInstanceUID}.dcm"
        ae.CT1.durability = "buffered"
        ae."MR 1" = {}
        ae."A%C4".max-associations = 5
        from.research.who = ["*@10.9.0.0/16"]
        from . research . sop-classes = "storage"
        from.cloud.who = "GW@*, GW2@::1"
        from.cloud.called = "CT1,MR 1"
        check-called-ae = true
    """,
    "inline tables": """
        check-called-ae = true
        ae = { CT1 = { layout = "ct/{SOPInstanceUID}.dcm", durability = "buffered" }, \
"MR 1" = {}, "A%C4" = { max-associations = 5 } }
        [from]
        research = { who = ["*@10.9.0.0/16"], sop-classes = ["storage"] }
        cloud = { who = ["GW@*", "GW2@::1"], called = ["CT1", "MR 1"] }
    """,
    "a table of tables": """
        check-called-ae = true
        [from.research]
        sop-classes = ["storage"]
        who = ["*@10.9.0.0/16"]
        [from.cloud]
        called = ["CT1", "%4DR 1"]
        who = ["GW@*", "GW2@::1"]
        [ae]
        CT1.layout = "ct/{SOPInstanceUID}.dcm"
        CT1.durability = "BUFFERED"
        ' MR 1 ' = {}
        "%41%c4" = { max-associations = "5" }
    """,
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_one_file_in_several_spellings(text: str, toml: Callable[[str], Path]) -> None:
    file = toml(text)
    assert check_file(file, "--check").mistakes == []
    loaded = load({}, {}, file)
    assert loaded.config.tables == WANTED
    # Every key has its place, and each table.
    tables: tuple[AeTable | FromTable, ...] = (*WANTED.ae, *WANTED.senders)
    for table in tables:
        for word in ("", *(name.replace("_", "-") for name in table.values)):
            path, _, line = loaded.table_sources[table.key, word].rpartition(":")
            assert path == str(file)
            assert word in text.split("\n")[int(line) - 1]


def test_where_each_value_comes_from(toml: Callable[[str], Path]) -> None:
    file = toml('port = 5\n[ae.A]\n\nstrict = true\n[from.x]\nwho = [\n"*@*",\n]\nmin-rate = 5\n')
    assert load({}, {}, file).table_sources == {
        ("ae.A", ""): f"{file}:2",
        ("ae.A", "strict"): f"{file}:4",
        ("from.x", ""): f"{file}:5",
        ("from.x", "who"): f"{file}:6",
        ("from.x", "min-rate"): f"{file}:9",
    }


# What stands in a file, and what is said of each mistake: line, key, the beginning of why.
FAULTS: list[tuple[str, list[tuple[int, str, str]]]] = [
    # Names of kinds and of tables.
    ("\n[aes.X]\n", [(2, "aes", "no such table; did you mean [ae.TITLE]?")]),
    ("[AE.X]\n", [(1, "AE", "no such table; did you mean [ae.TITLE]?")]),
    ("[form.x]\n", [(1, "form", "no such table; did you mean [from.NAME]?")]),
    ("[CT1]\n", [(1, "CT1", "no such table; settings stand at the top of the file, or in [ae.T")]),
    ("[ae]\n", [(1, "ae", "is a kind of table and needs a name; write [ae.TITLE], with the AE")]),
    ("ae = 5\n", [(1, "ae", "is a kind of table and needs a name; write [ae.TITLE]")]),
    ('from = "X"\n', [(1, "from", "is a kind of table and needs a name; write [from.NAME]")]),
    ("[[from]]\nx = 1\n", [(1, "from", "is a kind of table and needs a name")]),
    ('[ae]\nlayout = "x"\nCT1 = 5\n', [
        (2, "ae.layout", "stands in [ae], which needs a name; write [ae.TITLE]"),
        (3, "ae.CT1", "is no table; write [ae.CT1], and settings below it"),
    ]),
    ('[from]\nwho = "*@*"\n', [(2, "from.who", "stands in [from], which needs a name; write [fr")]),
    ("[[ae.X]]\n[[ae.X]]\n", [
        (1, "ae.X", "is a list of tables; write [ae.X] in single brackets, and once"),
    ]),
    ("port = 1\n[ae.CT.1]\nstrict = true\n", [
        (2, "ae.CT.1", 'is no setting but a table; a name with a dot in it stands in quotes: "CT.'),
    ]),
    ("[ae.X]\n[ae.Y]\n[ae.X]\n", [(3, "ae.X", "stands here again, after line 1; put both into")]),
    ("[ae.X]\n[ae.Y]\n[ae.'X']\n", [(3, "ae.X", "stands here again, after line 1; put both")]),
    ("[ae.X]\nstrict = true\nstrict = false\n", [
        (3, "ae.X.strict", "stands here again, after line 2; take one of them out"),
    ]),
    ("[ae.X.y]\nz = 1\n[ae.X]\nstrict = 1\n", [(1, "ae.X.y", "is no setting but a table")]),
    ("ae.X = 1\nae.X.strict = true\n", [
        (1, "ae.X", "is no table"), (2, "ae.X", "stands here again, after line 1"),
    ]),
    # Titles.
    ("[ae.SEVENTEEN-LETTERS]\n", [(1, "ae.SEVENTEEN-LETTERS", "'SEVENTEEN-LETTERS' has 17 char")]),
    ('[ae."MÜNCHEN"]\n', [(1, 'ae."MÜNCHEN"', "'MÜNCHEN' has a character outside ASCII in it")]),
    ('[ae.""]\n', [(1, 'ae.""', "'' is empty; give an AE title of 1 to 16 characters")]),
    ('[ae."50%"]\n', [(1, 'ae."50%"', "'50%' has a % that begins no %XX")]),
    ('[ae."*"]\n', [(1, 'ae."*"', "'*' has a * in it, which stands for nothing here")]),
    ("[ae.A]\n\n['ae'.'%41']\n", [
        (3, 'ae."%41"', "is the title of [ae.A] in line 1; put both into one table"),
    ]),
    ('[from."a b"]\nwho = "*@*"\n', [(1, 'from."a b"', "is no name of a table; write 1 to 64")]),
    # Keys.
    ("[ae.X]\nlayuot = 5\n", [(2, "ae.X.layuot", "no such setting; did you mean layout?")]),
    ("[ae.X]\nmin_rate = 5\n", [(2, "ae.X.min_rate", "no such setting; did you mean min-rate?")]),
    ("[ae.X]\nxyzzy = 5\n", [(2, "ae.X.xyzzy", "no such setting; take it out, or see the README")]),
    ('[from.x]\nwoh = "*@*"\n', [
        (1, "from.x", "says nothing of whom it is for and would take everyone; give who, such as"),
        (2, "from.x.woh", "no such setting; did you mean who?"),
    ]),
    ('[ae.X]\nwho = "*@*"\n', [(2, "ae.X.who", "stands in a [from] table only")]),
    ('[ae.X]\nport = 1\nallow = "*@*"\n', [
        (2, "ae.X.port", "stands at the top of the file only, above the first table; move it"),
        (3, "ae.X.allow", "stands at the top of the file only"),
    ]),
    ('[from.x]\nwho = "*@*"\ndigest = "none"\nae.Y = 5\n', [
        (3, "from.x.digest", "stands at the top of the file or in an [ae] table: who sends does"),
        (4, "from.x.ae", "is no setting but a table"),
    ]),
    ("[ae.X]\nlayout-change = true\n", [(2, "ae.X.layout-change", "is accepted as the flag")]),
    # Values.
    ('[ae.X]\ndurability = "fast"\nlayout = "{X}"\n', [
        (2, "ae.X.durability", "'fast' is not known; give stable or buffered"),
        (3, "ae.X.layout", "layout '{X}': its last name"),
    ]),
    ("[ae.X]\nlayout = fast\nmin-rate = -1\n", [
        (2, "layout", 'not TOML (a text stands in quotes); write layout = "fast"'),
        (3, "ae.X.min-rate", "-1 is negative"),
    ]),
    ('[from.x]\nwho = [\n  "CT1@10.0.0.0/8",\n  "BAD",\n]\ncalled = ["A", "B*"]\n', [
        (4, "from.x.who", "'BAD' has no @; give AE@NETWORK"),
        (6, "from.x.called", "'B*' has a * in it"),
    ]),
    ("[from.x]\nwho = []\n", [(2, "from.x.who", "'' names nothing (leave the setting out")]),
    ('[from.x]\nwho = "*@*"\nsop-classes = "CTImageStorag"\n', [
        (3, "from.x.sop-classes", "'CTImageStorag' is neither a UID nor a SOP class"),
    ]),
    ("[from.x]\nmin-rate = 5\n", [(1, "from.x", "says nothing of whom it is for")]),
    # Certificates.
    ('[from.x]\ncertificate = ["subject=CN=GW, O=Cloud", "san=gw.example.org"]\n', [
        (2, "from.x.certificate", "asks for a certificate, and there is no TLS to show"),
    ]),
    ('proxy-protocol-from = "::1"\n[from.y]\ncertificate = ["subject=GX", "san=gw.org"]\n', [
        (3, "from.y.certificate", "has 'san=gw.org' in it, and a proxy tells nothing of a"),
    ]),
    ('proxy-protocol-from = "::1"\n[from.y]\ncertificate = "subject=CN=GX, O=Cloud"\n', [
        (3, "from.y.certificate", "has 'subject=CN=GX, O=Cloud' in it, and a proxy tells nothing"),
    ]),
    ('[from.x]\ncertificate = ["GW, X",\n "sha256=12"]\n', [
        (2, "from.x.certificate", "'GW, X' says nothing of a certificate; give subject=NAME"),
        (3, "from.x.certificate", "'sha256=12' is no fingerprint of 64 hexadecimal digits"),
    ]),
    # What is sound by itself.
    ('check-called-ae = true\nae-title = "US"\n[ae.CT1]\n[from.x]\ncalled = ["US","CT2"]\n', [
        (5, "from.x.called", "names 'CT2', which check-called-ae rejects; did you mean CT1? Else"),
    ]),
    ('check-called-ae = true\n[from.x]\ncalled = ["XYZ"]\n', [
        (3, "from.x.called", "names 'XYZ', which check-called-ae rejects; give it a table [ae.\"X"),
    ]),
    ('[from.x]\ncalled = ["US","CT2"]\n', []),
    ('check-called-ae = true\n[ae.US]\n[from.x]\ncalled = ["US","FASTSCP"]\n', []),
    # Layouts that could give two instances one path.
    (('layout = "{Modality}/{SOPInstanceUID}.dcm"\n[ae.A]\n[ae."B ] layout"]\n'
     'layout = "x/{SOPInstanceUID}_{PatientID}.dcm"\n'), [
        (4, 'ae."B ] layout".layout', "'x/{SOPInstanceUID}_{PatientID}.dcm' can give an instance"),
    ]),
    (('layout = "{SOPInstanceUID}.dcm"\n[ae.A]\nlayout = "x{SOPInstanceUID}.dcm"\n[ae.B]\n'
     'layout = "+y{SOPInstanceUID}.dcm"\n[ae.C]\nlayout = "{SOPInstanceUID}z.dcm"\n'), [
        (3, "ae.A.layout", "'x{SOPInstanceUID}.dcm' can give an instance"),
        (7, "ae.C.layout", "'{SOPInstanceUID}z.dcm' can give an instance"),
    ]),
    (('[ae.A]\nlayout = "+a/{SOPInstanceUID}_{PatientID}.dcm"\n'
     '[ae.B]\nlayout = "+b/{SOPInstanceUID}.dcm"\ncompress = "zstd"\n'), []),
    # One path, compressed and not.
    ('[ae.A]\n[ae.B]\ncompress = "zstd"\n', [
        (3, "ae.B.compress", "'{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm' with"),
    ]),
    (('compress = "zstd"\nlayout = "+a/{SOPInstanceUID}.dcm"\n[ae.A]\ncompress = "none"\n'
     'layout = "{SOPInstanceUID}.dcm"\n[ae.B]\nlayout = "{SOPInstanceUID}.dcm"\n'), [
        (6, "ae.B", "'{SOPInstanceUID}.dcm' with .dcm.zst gives an instance the path that"),
    ]),
    # Tables that never match.
    ('[from.a]\nwho = "*@10.0.0.0/8"\n\n[from.b]\nwho = ["CT1@10.1.2.0/24", "X@10.0.0.0/8"]\n', [
        (4, "from.b", "can never match: [from.a] in line 1 takes all of its senders before; put"),
    ]),
    ('[from.b]\nwho = ["CT1@10.1.2.0/24", "X@10.0.0.0/8"]\n[from.a]\nwho = "*@10.0.0.0/8"\n', []),
    ('[from.a]\nwho = "*@10.0.0.0/8"\n[from.b]\nwho = ["CT1@10.1.2.0/24", "X@11.0.0.0/8"]\n', []),
    ('[from.a]\nwho = "CT1@*"\n[from.b]\nwho = "CT2@*"\n[from.c]\nwho = ["CT2@::1","CT1@*"]\n', [
        (5, "from.c", "can never match: [from.a] in line 1 and others takes all of its senders"),
    ]),
    ('[from.a]\ncalled = "A"\n[from.b]\nwho = "X@*"\ncalled = "A"\n[from.c]\nwho = "X@*"\n', [
        (3, "from.b", "can never match: [from.a] in line 1"),
    ]),
    ('[from.a]\nwho = "*@*"\n[from.b]\nwho = "X@*"\n[from.c]\ncalled = "A"\n', [
        (3, "from.b", "can never match"), (5, "from.c", "can never match"),
    ]),
    (('check-called-ae = true\n[from.a]\nwho = "*@*"\n[from.b]\ncalled = ["FASTSCP"]\n[from.c]\n'
     'called = ["Z"]\n'), [
        (4, "from.b", "can never match"), (6, "from.c", "can never match"),
        (7, "from.c.called", "names 'Z', which check-called-ae rejects"),
    ]),
    # Together they are all there is, but none of them by itself.
    ('[from.a]\nwho = "*@0.0.0.0/0, *@::/0"\n[from.b]\nwho = "X@*"\n', []),
    ('[from.a]\nwho = "*@0.0.0.0/0, *@::/0"\n[from.b]\nwho = "X@10.0.0.1, X@::1"\n', [
        (3, "from.b", "can never match"),
    ]),
    ('[from.a]\nwho = "*@10.0.0.0/8"\n[from.b]\nwho = "X@a00::/8"\n', []),
    # Of a file that is not TOML as a whole the rest is told all the same.
    ('[ae.X\nstrict = 5\n[from.y]\nwho = "X"\n', [
        (1, "", "not TOML: expected ']'"), (4, "from.y.who", "'X' has no @"),
    ]),
    # Nobody can match it, whoever comes before: whom it is for is not known.
    ('[from.a]\nwho = ["*@*", "X"]\n[from.b]\nwho = "X@*"\n', [(2, "from.a.who", "'X' has no @")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_all_mistakes_of_a_file(
    text: str, expected: list[tuple[int, str, str]], toml: Callable[[str], Path]
) -> None:
    file = toml(text)
    found = check_file(file, "--check").mistakes
    assert [(one.line, one.key) for one in found] == [(line, key) for line, key, _ in expected]
    for one, (_, _, why) in zip(found, expected, strict=True):
        assert one.why.startswith(why)
        assert one.why.isprintable()
    if not expected:
        load({}, {}, file)
        return
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert str(caught.value).startswith(f"{file}:{found[0].line}")
    assert found[0].why in caught.value.why
    # Whoever wants all of them has them.
    assert list(caught.value.mistakes) == [f"{one.at(file)}: {one.why}" for one in found]


def test_flags_decide_what_can_be_called(toml: Callable[[str], Path]) -> None:
    file = toml('[from.x]\ncalled = ["US"]\n')
    assert load({"check_called_ae": True, "ae_title": "US"}, {}, file)
    with pytest.raises(ConfigError, match=r"site\.toml:2: from\.x\.called: names 'US', which che"):
        load({}, {"FASTSCP_CHECK_CALLED_AE": "on"}, file)


def test_a_flag_decides_where_the_others_go(toml: Callable[[str], Path]) -> None:
    file = toml('[ae.X]\nlayout = "x/{SOPInstanceUID}_{PatientID}.dcm"\n')
    assert load({}, {}, file)
    with pytest.raises(ConfigError, match=r"site\.toml:2: ae\.X\.layout: .* can give an instance"):
        load({"layout": "{Modality}/{SOPInstanceUID}.dcm"}, {}, file)


def test_a_start_says_how_much_is_wrong_between_tables(toml: Callable[[str], Path]) -> None:
    layout = '"{Modality}/{SOPInstanceUID}.dcm"'
    file = toml(f'[ae.X]\nlayout = {layout}\n[ae.Y]\nlayout = {layout}\ncompress = "zstd"\n')
    with pytest.raises(ConfigError, match=r"\(the first of 2 mistakes in this file\)$") as caught:
        load({"layout": "{PatientID}/{SOPInstanceUID}.dcm"}, {}, file)
    assert len(caught.value.mistakes) == 2


def test_what_is_wrong_between_tables_is_told_beside_what_is_wrong_in_others(
    toml: Callable[[str], Path],
) -> None:
    text = (
        '[from.a]\nwho = ["CT@10.0.0.0/8"]\n[from.b]\nwho = ["@@"]\n'
        '[from.c]\nwho = ["CT@10.1.1.1"]\n[from.d]\ncertificate = ["subject=GW"]\n'
        # Nobody knows of this one whom it is for.
        '[from.e]\nwho = ["CT@10.1.1.1"]\ncertificate = 5\n'
    )
    found = check_file(toml(text), "--check").mistakes
    assert [(one.line, one.key, one.why[:17]) for one in found] == [
        (4, "from.b.who", "'@@' names no net"),
        (5, "from.c", "can never match: "),
        (8, "from.d.certificate", "asks for a certif"),
        (11, "from.e.certificate", "5 is not a text; "),
    ]


def test_certificates() -> None:
    plain = "AB" * 32
    colons = ":".join(["Ab"] * 32)
    assert read_certificate_rule(f"SHA256 = {plain}") == f"sha256={plain.lower()}"
    assert read_certificate_rule(f"sha256={colons}") == f"sha256={plain.lower()}"
    assert read_certificate_rule("subject= O = B, CN = A ") == "subject=CN=A, O=B"
    assert read_certificate_rule("subject=Smith, John") == "subject=Smith, John"
    assert read_certificate_rule("subject=CN=Smith, John") == "subject=Smith, John"
    assert read_certificate_rule("subject=CN=M\\C3\\BCller") == "subject=M\u00fcller"
    for wrong, why in (
        ("san=", "has nothing behind san="),
        ("san=DNS:", "has nothing behind san="),
        ("san=DNS:a.org, DNS:b.org", "has a blank in a name of san"),
        ("san=DirName:CN = A", "names what is no DNS name"),
        ("san=othername: 1.2.3::x", "names what is no DNS name"),
        ("san=IP Address:10.1.2", "names no address"),
        ("subject=CN=", "has an attribute of the subject without a value"),
        ("subject=CN=A, O=", "has an attribute of the subject without a value"),
    ):
        with pytest.raises(ValueError, match=why):
            read_certificate_rule(wrong)


def test_a_name_in_a_table_may_be_the_one_that_is_asked_for(toml: Callable[[str], Path]) -> None:
    """A key below a table belongs to it, also where somebody meant the whole receiver."""
    with pytest.raises(ConfigError, match=r"site\.toml:2: ae\.X\.store: stands at the top"):
        load_one("store", file=toml('[ae.X]\nstore = "/data"\n'), environ={})
    with pytest.raises(ConfigError, match=r"site\.toml:2: from\.x\.stor: no such setting"):
        load_one("store", file=toml('[from.x]\nstor = "/data"\n'), environ={})
    wrong = 'store = "/data"\n[ae."*"]\nmin-rate = "x"\n[from.y]\nwho = 5\n'
    assert load_one("store", file=toml(wrong), environ={}) == Path("/data")


def test_how_many_combinations(toml: Callable[[str], Path]) -> None:
    """An index of them is built in every worker."""
    titles = ",".join(f"T{n}" for n in range(256))
    senders = ",".join(f"S{n}@*" for n in range(255))
    text = f'[from.a]\nwho = "{senders}"\ncalled = "{titles}"\n[from.b]\nwho = "X@*"\ncalled = "A'
    assert load({}, {}, toml(text + ",B" * 255 + '"\n'))
    with pytest.raises(
        ConfigError, match=rf"site\.toml:4: from\.b: .*have {COMBINATIONS_MOST + 1}"
    ):
        load({}, {}, toml(text + ",B" * 256 + '"\n'))


def test_what_nests_too_deep_is_no_crash(toml: Callable[[str], Path]) -> None:
    """Dotted keys nest without an end, and whoever shows the value comes to one."""
    dots = ".".join(["a"] * 1200)
    for text in (f"port = [1, {{{dots} = 1}}]", f"ae.X.strict = [{{{dots} = 1}}]", f"{dots} = 1"):
        with pytest.raises(ConfigError, match="is nested too deeply; give a TOML file"):
            load({}, {}, toml(text))
        with pytest.raises(ConfigError, match="is nested too deeply; give a TOML file"):
            load({}, {}, toml(text + "\n[broken\n"))


def test_a_long_file_with_many_tables_is_read_soon(toml: Callable[[str], Path]) -> None:
    """Also where the last statement is wrong."""
    table = (
        '[from.site{0}]\nwho = ["CT{0}@10.{1}.0/24", "MR{0}@*"]\ncalled = ["CT1"]\n'
        'max-associations = 5\nidle-timeout = "5m"\n\n[ae.A{0}]\ndigest="sha256"\n\n'
    )
    text = "".join(table.format(n, f"{n >> 8}.{n & 255}") for n in range(1100))
    assert len(text) > 140_000
    began = time.process_time()
    loaded = load({}, {}, toml(text))
    assert len(loaded.config.tables.ae) == len(loaded.config.tables.senders) == 1100
    assert len(check_file(toml(text + "port = x\n"), "--check").mistakes) == 1
    # A fraction of a second; a minute, where each table looks at each of the others.
    assert time.process_time() - began < 10


def test_no_tables_are_none(toml: Callable[[str], Path]) -> None:
    assert load({}, {}) == Loaded(load({}, {}).config, load({}, {}).sources, {})
    assert not load({}, {}, toml("port = 1\n")).config.tables


# Of IPv4 and IPv6; each but the last is inside others.
NETWORKS = (None, "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "10.1.1.2/32", "::/0",
            "2001:db8::/32", "0.0.0.0/0")  # fmt: skip
ADDRESSES = ("10.1.1.1", "10.1.1.2", "10.1.9.9", "10.9.9.9", "11.0.0.1", "2001:db8::1", "::1")


def some_tables(random_: random.Random) -> list[FromTable]:
    def rule() -> AllowRule:
        return who(random_.choice("AB*"), random_.choice(NETWORKS))

    return [
        FromTable(
            f"t{number}",
            tuple(rule() for _ in range(random_.choice((0, 1, 1, 2)))),
            tuple(random_.sample("XY", random_.choice((0, 0, 1, 2)))),
        )
        for number in range(4)
    ]


def covers(one: FromTable, other: AllowRule, called: str | None) -> bool:
    """Whether a table takes everyone of an entry who calls this title, or any (None)."""

    def takes(rule: AllowRule) -> bool:
        if rule.ae not in ("*", other.ae):
            return False
        if rule.network is None or other.network is None:
            return rule.network is None
        a, b = rule.network, other.network
        return a.version == b.version and b.subnet_of(a)  # type: ignore[arg-type]

    return (not one.called or called in one.called) and (not one.who or any(map(takes, one.who)))


def test_a_table_that_is_never_reached_is_one(toml: Callable[[str], Path]) -> None:
    """Against everyone there is; and whatever one entry of another table takes is told."""
    random_ = random.Random(16)
    told = 0
    for _ in range(400):
        tables = [one for one in some_tables(random_) if one.who or one.called]
        text = "".join(
            f"[from.{one.name}]\n"
            + (f"who = {[str(rule) for rule in one.who]}\n" if one.who else "")
            + (f"called = {list(one.called)}\n" if one.called else "")
            for one in tables
        )
        never = {
            one.key.removeprefix("from.") for one in check_file(toml(text), "--check").mistakes
        }
        told += len(never)
        reached = set()
        for calling, called, address in product("ABC", "XYZ", ADDRESSES):
            for table in tables:
                fits = not table.who or any(one.matches(calling, address) for one in table.who)
                if fits and (not table.called or called in table.called):
                    reached.add(table.name)
                    break
        assert not never & reached
        for place, table in enumerate(tables):
            entries = product(table.who or (who("*"),), table.called or (None,))
            if all(any(covers(one, *entry) for one in tables[:place]) for entry in entries):
                assert table.name in never
    assert told > 100
