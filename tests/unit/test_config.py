"""Settings: declared once, layered, checked, and refused in words that help."""

from __future__ import annotations

import dataclasses
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from fastscp.config.file import check_file
from fastscp.config.layers import Loaded, load, load_one
from fastscp.config.settings import SETTINGS, ServeConfig, WorkerConfig, options_table
from fastscp.config.values import AllowRule, Switch, read_allow_rule
from fastscp.errors import ConfigError
from fastscp.rules.book import Peer, RuleBook
from fastscp.rules.build import build
from fastscp.rules.rule import Rule
from fastscp.users.identities import UserIdentities
from fastscp.users.passwords import make_entry
from tests.tokens import public, write_keys

if TYPE_CHECKING:
    from collections.abc import Callable

CONTRACT = {
    "host": ("0.0.0.0",),
    "port": 11112,
    "ae_title": "FASTSCP",
    "check_called_ae": False,
    "discard": False,
    "log_file": "",
    "fault": (),
    "store": Path("dicom-store"),
    "store_must_exist": False,
    "store_new_life": False,
    "compress": "none",
    "min_free_space": 1 << 30,
    "durability": "stable",
    "layout": "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm",
    "layout_change": False,
    "on_duplicate": "version",
    "digest": "crc32c",
    "max_pdu_length": 131072,
    "max_async_operations": 64,
    "user_identity": UserIdentities(),
    "redo": "auto",
    "log_instance_size": 64 << 10,
    "umask": "",
    "admin": {"host": "127.0.0.1", "port": 8112, "is_given": False},
    "admin_token_file": {"file": "", "token": b"", "warning": ""},
    "max_associations": 1000,
    "max_associations_per_host": 0,
    "max_associations_per_ae": 0,
    "max_association_rate": 0,
    "reload_linger": 3600.0,
    "max_bytes_in_flight": 1 << 30,
    "max_instance_size": 0,
    "artim_timeout": 30.0,
    "message_timeout": 60.0,
    "idle_timeout": 600.0,
    "min_rate": 1024,
    "allow": (),
    "proxy_protocol_from": (),
    "sop_classes": ("any",),
    "transfer_syntaxes": ("any",),
    "strict": False,
    "drain_timeout": 30.0,
    "log_format": "text",
    "log_level": "info",
    "no_plain": False,
    "tls": None,
    "tls_ca": (),
    "tls_cert": "",
    "tls_client_auth": "",
    "tls_crl": (),
    "tls_key": "",
    "tls_port": 2762,
    "tls_profile": "8996",
}


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def flag(name: str, value: object) -> Loaded:
    return load({name: value}, {})


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 5})
    loaded = load({}, {})
    tables: dict[str, object] = {"ae": (), "senders": (), "places": {}}
    assert dataclasses.asdict(loaded.config) == CONTRACT | {"workers": 3, "tables": tables}
    assert set(loaded.sources.values()) == {"default"}


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    proxies = ["10.1.2.5", "::1,2001:db8::/32"]
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    given = {"allow": ["CT1@10.1.2.0/24", "*@*"], "proxy_protocol_from": proxies, "umask": "27",
             "admin": "[::]:0", "admin_token_file": str(token)}  # fmt: skip
    given["log_file"] = "/var/log/fastscp.log"
    given["fault"] = ["every=2 status=A700 delay=1s"]
    config = dataclasses.replace(
        load(given, {}).config, tls_cert="c.pem", tls_key="k.pem", tls_ca=("a.pem", "b.pem"),
        tls_crl=("l.pem",), tls_client_auth="request",
    )  # fmt: skip
    assert config.proxy_protocol_from == ("10.1.2.5/32", "::1/128", "2001:db8::/32")
    for setting in SETTINGS:
        value = getattr(config, setting.field)
        shown = setting.kind.show(value)
        if isinstance(setting.kind, Switch):
            shown = {"on": "true", "off": "false"}[shown]
        assert setting.kind.read(shown) == value


def test_pickle() -> None:
    config = load({"allow": ["CT1@10.1.2.0/24,*@::/0", "PACS@*"]}, {}).config
    assert pickle.loads(pickle.dumps(config)) == config


def test_what_workers_are_told() -> None:
    config = load({"message_timeout": "5s", "compress": "zstd", "allow": ["CT1@*"]}, {}).config
    told = config.for_workers()
    assert type(told) is WorkerConfig
    assert (told.message_timeout, told.suffix, told.durability) == (5.0, ".dcm.zst", "stable")
    fields = {field.name for field in dataclasses.fields(WorkerConfig)}
    assert dataclasses.asdict(told) == {
        name: value for name, value in dataclasses.asdict(config).items() if name in fields
    }
    # Who may associate, and how many, is decided where the counts are.
    assert not fields & {"allow", "max_associations", "host", "store"}


def test_what_decides_over_a_request() -> None:
    flags = {"ae_title": "US", "strict": True, "check_called_ae": True, "max_pdu_length": "4096",
             "max_async_operations": "2", "sop_classes": ["CTImageStorage"],
             "transfer_syntaxes": ["1.2.840.10008.1.2.1"]}  # fmt: skip
    config = load(flags, {}).config
    rules = build(config, 0)
    policy = rules.top.policy(config.max_pdu_length, config.max_async_operations)
    assert rules.titles == frozenset({"US"})
    assert policy.strict
    assert (policy.max_pdu_length, policy.max_async_operations) == (4096, 2)
    assert policy.sop_classes.accepts("1.2.840.10008.5.1.4.1.1.2")
    assert not policy.sop_classes.accepts("1.2.840.10008.5.1.4.1.1.4")
    assert not policy.transfer_syntaxes.accepts("1.2.840.10008.1.2.4.70")


def test_where_a_setting_may_stand() -> None:
    """Who calls does not decide how an instance is kept, and nobody who listens where."""
    kept = {"layout", "durability", "on-duplicate", "digest", "compress", "strict"}
    taken = {"sop-classes", "transfer-syntaxes", "max-instance-size", "idle-timeout",
             "message-timeout", "min-rate", "max-associations", "max-associations-per-host",
             "max-associations-per-ae", "max-association-rate"}  # fmt: skip
    assert {one.name for one in SETTINGS if one.tables == {"ae"}} == kept
    assert {one.name for one in SETTINGS if one.tables == {"ae", "from"}} == taken
    assert {one.name for one in SETTINGS if one.tables} == kept | taken


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServeConfig().port = 1  # type: ignore[misc]


def test_layers(toml: Callable[[str], Path]) -> None:
    file = toml('port = 1\nae-title = "FILE"\nartim-timeout = "5m"\nstrict = true\n')
    environ = {"FASTSCP_PORT": "2", "FASTSCP_AE_TITLE": "ENVIRONMENT", "FASTSCP_STRICT": "no"}
    loaded = load({"port": "3", "ae_title": None}, environ, file)
    config = loaded.config
    assert (config.port, config.ae_title, config.artim_timeout) == (3, "ENVIRONMENT", 300.0)
    assert config.strict is False
    assert loaded.sources["port"] == "flag --port"
    assert loaded.sources["ae_title"] == "FASTSCP_AE_TITLE"
    assert loaded.sources["strict"] == "FASTSCP_STRICT"
    assert loaded.sources["artim_timeout"] == str(file)
    assert loaded.sources["host"] == "default"


def test_rows(toml: Callable[[str], Path]) -> None:
    rows = {s.name: (value, source) for s, value, source in load({}, {}, toml("port=7")).rows()}
    assert list(rows) == [setting.name for setting in SETTINGS]
    assert rows["port"][0] == "7"
    assert rows["idle-timeout"] == ("600 s", "default")
    assert rows["min-rate"] == ("1 KiB", "default")
    assert rows["strict"] == ("off", "default")


def test_another_spelling_is_the_source() -> None:
    loaded = load({"log_level": "debug"}, {}, spelled={"log_level": "-v"})
    assert loaded.sources["log_level"] == "flag -v"


def test_file_from_the_environment(toml: Callable[[str], Path], tmp_path: Path) -> None:
    file = toml("port = 5")
    assert load({}, {"FASTSCP_CONFIG": str(file)}).config.port == 5
    other = tmp_path / "other.toml"
    other.write_text("port = 6")
    assert load({}, {"FASTSCP_CONFIG": str(file)}, other).config.port == 6


def test_build_switches_are_no_settings() -> None:
    load({}, {"FASTSCP_SANITIZE": "1", "FASTSCP_TRACE": "1", "PATH": "/bin"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('host = "::1, 127.0.0.1"', ("::1", "127.0.0.1")),
        ('host = ["[::1]", "receiver.example.org"]', ("::1", "receiver.example.org")),
    ],
)
def test_lists_in_a_file(toml: Callable[[str], Path], text: str, expected: object) -> None:
    assert load({}, {}, toml(text)).config.host == expected


def test_lists_elsewhere() -> None:
    assert load({}, {"FASTSCP_HOST": "::1,127.0.0.1"}).config.host == ("::1", "127.0.0.1")
    assert flag("host", ["::1", "a,b"]).config.host == ("::1", "a", "b")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("1 h", 3600.0),
        (" 2 ", 2.0),
        (7, 7.0),
        (0.25, 0.25),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert flag("message_timeout", value).config.message_timeout == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1KiB", 1024),
        ("64 MiB", 64 << 20),
        ("1GiB", 1 << 30),
        ("0.5GiB", 1 << 29),
        ("2TiB", 2 << 40),
        ("10K", 10 << 10),
        ("10G", 10 << 30),
        ("10 gib", 10 << 30),
        ("1KB", 1000),
        ("10GB", 10 * 1000**3),
        ("0.5 kB", 500),
        (4096, 4096),
    ],
)
def test_sizes(value: object, size: int) -> None:
    assert flag("max_instance_size", value).config.max_instance_size == size


def test_a_rate_may_say_per_second() -> None:
    assert flag("min_rate", "2KiB/s").config.min_rate == 2048
    assert flag("min_rate", "2 KB").config.min_rate == 2000


@pytest.mark.parametrize(
    ("word", "level"),
    [("WARN", "warning"), ("warn", "warning"), ("INFO", "info"), ("Warning", "warning")],
)
def test_levels_as_others_write_them(word: str, level: str) -> None:
    assert flag("log_level", word).config.log_level == level
    assert flag("durability", "STABLE").config.durability == "stable"


@pytest.mark.parametrize("word", ["true", "1", "yes", "TRUE", " Yes ", "on"])
def test_on(word: str) -> None:
    assert load({}, {"FASTSCP_STRICT": word}).config.strict is True


@pytest.mark.parametrize("word", ["false", "0", "no", "off"])
def test_off(word: str, toml: Callable[[str], Path]) -> None:
    file = toml("strict = true")
    assert load({}, {"FASTSCP_STRICT": word}, file).config.strict is False


@pytest.mark.parametrize("text", ["strict = 1", 'strict = "yes"', "strict = true"])
def test_on_in_a_file(toml: Callable[[str], Path], text: str) -> None:
    assert load({}, {}, toml(text)).config.strict is True


# Setting, value, what the message says beside the option and the value.
BAD: list[tuple[str, object, str]] = [
    ("port", "99999", "is more than 65535; give a whole number from 0 to 65535"),
    ("port", "-1", "is less than 0; give a whole number from 0 to 65535"),
    ("port", "--1", "is not a whole number"),
    ("compress", "gzip", "is no form of compression; give none, zstd or zstd:LEVEL"),
    ("compress", "zstd:20", "is no form of compression"),
    ("compress", "zstd:", "is no form of compression"),
    ("min_free_space", -1, "is negative"),
    ("port", "1_000", "is not a whole number"),
    ("port", "", "is not a whole number"),
    ("port", True, "is not a whole number"),
    ("port", 1.5, "is not a whole number"),
    ("host", "", "is empty; give an address or a host name"),
    ("host", "1.2.3", "is no address and no host name"),
    ("host", "a b", "is no address and no host name"),
    ("host", ["::1", "::x"], "has '::x' in it, which is no address"),
    ("host", "127.0.0.1,", "has '' in it, which is empty"),
    ("host", [], "names nothing (leave the setting out instead)"),
    ("workers", "0", "is less than 1"),
    ("ae_title", "SEVENTEEN-LETTERS", "has 17 characters; give 1 to 16 ASCII characters"),
    ("ae_title", "A\\B", "has a backslash"),
    ("ae_title", "MÜNCHEN", "outside ASCII"),
    ("ae_title", "  ", "is empty"),
    ("ae_title", "A\nB", "has control characters in it"),
    ("ae_title", 5, "is not a text"),
    ("check_called_ae", "maybe", "is neither true nor false; give true or false"),
    ("check_called_ae", 2, "is neither true nor false"),
    ("check_called_ae", [True], "is neither true nor false"),
    ("max_pdu_length", "4095", "is less than 4096"),
    ("max_pdu_length", "16777218", "is more than 16777216"),
    ("max_pdu_length", "65535", "is odd; give an even number from 4096 to 16777216"),
    ("user_identity", "on", "says of no file who may log in; give off, password:FILE or"),
    ("user_identity", "password:", "says of no file who may log in"),
    ("user_identity", "password?", "says of no file who may log in"),
    ("user_identity", "users", "says of no file who may log in"),
    ("user_identity", "jwt", "says of no file who may log in"),
    ("user_identity", "jwt: issuer=example", "says of no file who may log in"),
    ("user_identity", "jwt:keys.json issuer= audience=b", "has an empty issuer; give off,"),
    ("user_identity", "jwt?:keys.json audience=", "has an empty audience; give off,"),
    ("user_identity", "jwt??:keys.json", "says of no file who may log in"),
    ("user_identity", "jwt:/no/such/file issuer=a", "cannot read /no/such/file (No such file or"),
    ("user_identity", "password:~/users", "begins with ~, which only a shell knows"),
    ("user_identity", "password:/no/such/file", "cannot read /no/such/file (No such file or"),
    ("user_identity", True, "is not a text"),
    ("umask", "8", "is no octal number of up to 4 digits; give an octal number such as 0027"),
    ("umask", "0o27", "is no octal number"),
    ("umask", "00027", "is no octal number"),
    ("umask", "1000", "is more than 0777"),
    ("umask", "0100", "would keep the service from its own files; leave the owner's bits 0"),
    ("umask", "0400", "would keep the service from its own files"),
    ("umask", 27, "is not a text in quotes"),
    ("no_plain", "perhaps", "is neither true nor false"),
    ("tls_port", "65536", "is more than 65535; give a whole number from 0 to 65535"),
    ("tls_cert", "", "is empty; give a PEM file"),
    ("tls_cert", "~/c.pem", "begins with ~"),
    ("tls_key", "a\nb", "has control characters in it"),
    ("tls_ca", ["a", ""], "has '' in it, which is empty"),
    ("tls_crl", [], "names nothing"),
    ("tls_client_auth", "maybe", "is not known; give none, request or require"),
    ("tls_profile", "null", "is not known; give 8996, 8996-mod, "),
    ("umask", "", "is empty"),
    ("admin", "on", "'on' has no port; give HOST:PORT, an IPv6 address in brackets, or off"),
    ("admin", ":8112", "has no port"),
    ("admin", "::1:8112", "has an IPv6 address without brackets"),
    ("admin", "127.0.0.1:http", "has a port that is no number up to 65535"),
    ("admin", "127.0.0.1:65536", "has a port that is no number up to 65535"),
    ("admin", "metrics.example:8112", "has a host that is no address, such as 127.0.0.1"),
    ("admin", "0.0.0.0:8112", "is reached from other machines, and no --admin-token-file says"),
    ("admin", "[::]:8112", "is reached from other machines, and no --admin-token-file says"),
    ("admin", 8112, "is not a text"),
    ("admin_token_file", "/no/such/file", "cannot read /no/such/file (No such file or"),
    ("admin_token_file", "/", "cannot read / ("),
    ("admin_token_file", "~/token", "begins with ~, which only a shell knows"),
    ("admin_token_file", "/dev/null", "cannot read /dev/null (it is no file)"),
    ("max_async_operations", "0", "is less than 1; give a whole number from 1 to 65535"),
    ("fault", "every=2", "says nothing of what is to happen; give conditions"),
    ("log_file", "~/x.log", "begins with ~, which only a shell knows"),
    ("durability", "fast", "is not known; give stable or buffered"),
    ("on_duplicate", "skip", "is not known; give version, replace, keep or refuse"),
    ("digest", "md5", "is not known; give crc32c, sha256 or none"),
    ("layout", "{Nonsense}/{SOPInstanceUID}.dcm", "Nonsense"),
    ("layout", "{StudyInstanceUID}.dcm", "SOPInstanceUID"),
    ("artim_timeout", "0", "is less than allowed; give a time such as"),
    ("artim_timeout", "2h", "is more than allowed"),
    ("artim_timeout", "5 parsecs", "has the unknown unit 'parsecs'"),
    ("artim_timeout", "soon", "is not a number with a unit"),
    ("artim_timeout", float("inf"), "is not a finite number"),
    ("artim_timeout", float("nan"), "is not a finite number"),
    ("idle_timeout", -1, "is less than allowed"),
    ("idle_timeout", "-1s", "is less than allowed"),
    ("store", "~/dicom", "'~/dicom' begins with ~, which only a shell knows"),
    ("max_instance_size", "1KO", "has the unknown unit 'KO'; give a number of bytes such as"),
    ("max_instance_size", "-1G", "is negative; give a number of bytes"),
    ("max_instance_size", "1K/s", "is not a number with a unit"),
    ("max_instance_size", "0.3", "is not a whole number of bytes"),
    ("max_instance_size", -1, "is negative"),
    ("max_instance_size", "99999999 TiB", "is too large"),
    ("log_instance_size", "129 KiB", "is too large; give a number of bytes such as 512 or 64KiB"),
    ("log_instance_size", "-1", "is negative"),
    ("redo", "yes", "is not known; give auto, on or off"),
    ("max_bytes_in_flight", "2 floppies", "has the unknown unit 'floppies'"),
    ("max_association_rate", "1000001", "is more than 1000000; give a whole number"),
    ("min_rate", "quick", "is not a number with a unit"),
    ("allow", "CT1", "has no @; give AE@NETWORK"),
    ("allow", "CT*@*", "mixes * with other characters"),
    ("allow", "CT1@hospital", "names no network ('hospital')"),
    ("allow", "CT1@10.1.2.3/24", "(the network would be 10.1.2.0/24)"),
    ("allow", "@10.0.0.0/8", "is empty"),
    ("allow", "*@::fffe:0:0/95", "holds all IPv4 addresses in their IPv6 form (::ffff:0:0/96) and"),
    ("proxy_protocol_from", "::8000:0:0/81", "others; write 0.0.0.0/0 for all of IPv4"),
    ("allow", "*@::ffff:10.0.0.1/104", "has bits set behind the prefix"),
    ("allow", ["*@*", "X@Y"], "has 'X@Y' in it, which names no network"),
    ("proxy_protocol_from", "10.1.2.3/24", "(the network would be 10.1.2.0/24)"),
    ("proxy_protocol_from", ["::1", "*"], "has '*' in it, which names no network"),
    ("sop_classes", "CTImageStorag", "did you mean CTImageStorage"),
    ("sop_classes", "any,ModalityWorklistInformationModelFind", "no service of fastscp"),
    ("transfer_syntaxes", "JPEG2000Losless", "did you mean JPEG2000Lossless"),
    ("log_format", "xml", "is not known; give text or json"),
    ("log_level", "loud", "is not known; give trace, debug, info, warning or error"),
]


@pytest.mark.parametrize(("field", "value", "why"), BAD)
def test_bad_value(field: str, value: object, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flag(field, value)
    assert caught.value.option == "--" + field.replace("_", "-")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_setting_has_a_bad_value() -> None:
    free = {
        "store_must_exist", "store_new_life", "layout_change", "strict", "message_timeout",
        "discard",
    }  # fmt: skip
    limits = {"max_associations", "max_associations_per_host", "max_associations_per_ae"}
    tested = {field for field, _, _ in BAD} | free | limits | {"drain_timeout", "reload_linger"}
    assert {setting.field for setting in SETTINGS} <= tested


def test_the_file_of_passwords_is_read_with_the_setting(
    toml: Callable[[str], Path], tmp_path: Path
) -> None:
    """What is in it is a part of the configuration, so that a reload finds a difference in it."""
    users = tmp_path / "users"
    users.write_text(make_entry("jo", b"sesame") + "\n")
    users.chmod(0o600)
    file = toml(f'user-identity = "password:{users}"\numask = "0077"')
    config = load({}, {}, file).config
    one = config.user_identity
    assert (one.file, one.required, [entry.name for entry in one.entries]) == (
        str(users), True, ["jo"],
    )  # fmt: skip
    assert config.umask == "0077"
    assert load({}, {}, file).config == config
    assert config.for_workers().user_identity == one
    users.write_text(make_entry("jo", b"other") + "\n")
    changed = load({}, {}, file).config
    assert changed != config
    assert str(changed.user_identity) == f"password:{users}"
    users.write_text("jo:secret-4711\n")
    flags = {"user_identity": f"password?:{users}"}
    for given, from_file in (({}, file), (flags, None)):
        with pytest.raises(ConfigError, match=r"user-identity: .*users: line 1: ") as caught:
            load(given, {}, from_file)
        assert "secret-4711" not in str(caught.value)
    (mistake,) = check_file(file, "--check").mistakes
    assert (mistake.line, mistake.key) == (1, "user-identity")


def test_the_file_of_keys_is_read_with_the_setting(
    toml: Callable[[str], Path], tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys of a.json", public("P-256", "k1"))
    asked = f"jwt:{keys} issuer=https://example.com/a audience=a b issuer=c"
    file = toml(f'user-identity = "{asked}"')
    config = load({}, {}, file).config
    one = config.user_identity
    assert one.keys is not None
    assert [key.kid for key in one.keys.keys] == ["k1"]
    assert (one.keys.issuers, one.keys.audiences) == (("https://example.com/a", "c"), ("a b",))
    # As it can be written again: what belongs together stands together.
    written = f"jwt:{keys} issuer=https://example.com/a issuer=c audience=a b"
    assert str(one) == written
    assert load({"user_identity": written}, {}, None).config.user_identity == one
    assert load({}, {}, file).config == config
    optional = load({"user_identity": f"JWT?: {keys}"}, {}, None).config.user_identity
    assert (optional.required, str(optional)) == (False, f"jwt?:{keys}")
    # Workers get all of it.
    sent = msgspec.msgpack.encode(config.for_workers())
    assert msgspec.msgpack.decode(sent, type=WorkerConfig).user_identity == one
    write_keys(keys, public("P-256", "k1", number=1))
    assert load({}, {}, file).config != config
    write_keys(keys, {"kty": "oct", "k": "c2VjcmV0"})
    with pytest.raises(ConfigError, match=r"user-identity: .*: key 1 is symmetric") as caught:
        load({}, {}, file)
    assert "c2VjcmV0" not in str(caught.value)


def test_the_message_names_where_the_value_was(toml: Callable[[str], Path]) -> None:
    file = toml("port = 70000")
    with pytest.raises(ConfigError, match=r"site\.toml:1: port: 70000 is more than 65535; give"):
        load({}, {}, file)
    with pytest.raises(ConfigError, match=r"^FASTSCP_PORT: 'x' is not a whole number; give"):
        load({}, {"FASTSCP_PORT": "x"})


def test_an_overridden_mistake_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="FASTSCP_PORT"):
        load({"port": "1"}, {"FASTSCP_PORT": "x"})


@pytest.mark.parametrize("variable", ["FASTSCP_ALLOW", "FASTSCP_SOP_CLASSES"])
def test_an_unset_variable_in_a_script_opens_nothing(variable: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}: '' is empty"):
        load({}, {variable: ""})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot: no such setting; did you mean port?"),
        ("max_pdu_length = 16384", "max_pdu_length: no such setting; did you mean max-pdu-length"),
        ("[serve]\nport = 1", "serve: no such table; settings stand at the top of the file"),
        ("layout-change = true", "layout-change: is accepted as the flag --layout-change only"),
    ],
)
def test_unknown_key(toml: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {}, toml(text))
    assert str(caught.value).startswith(str(toml(text)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("FASTSCP_PROT", "no such variable; did you mean FASTSCP_PORT?"),
        ("FASTSCP_MAX-PDU-LENGTH", "no such variable; did you mean FASTSCP_MAX_PDU_LENGTH?"),
        ("FASTSCP_XYZZY", "no such variable; take it out, or see `fastscp serve --help`"),
        ("FASTSCP_STORE_NEW_LIFE", "is accepted as the flag --store-new-life only; take it out"),
        ("FASTSCP_LAYOUT_CHANGE", "is accepted as the flag --layout-change only; take it out"),
    ],
)
def test_unknown_variable(variable: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {variable: "1"})
    assert str(caught.value) == f"{variable}: {message}"


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config: cannot read .*nope.* \(No such file"):
        load({}, {}, tmp_path / "nope")
    with pytest.raises(ConfigError, match=r"FASTSCP_CONFIG: cannot read .*\(Is a directory\)"):
        load({}, {"FASTSCP_CONFIG": str(tmp_path)})


def test_file_that_is_no_toml(toml: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"site\.toml:2:6: port: not TOML .*; write port = 1"):
        load({}, {}, toml("\nport 1"))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load({}, {}, binary)
    with pytest.raises(ConfigError, match=r"--config: /dev/zero is longer than 1 MiB"):
        load({}, {}, Path("/dev/zero"))
    with pytest.raises(ConfigError, match="is nested too deeply"):
        load({}, {}, toml(f"port = {'[' * 100_000}"))


# All that is wrong with a file --------------------------------------------------------------------

# What stands in a file, and what is said of each mistake: line, column, key, the beginning of why.
FAULTS: list[tuple[str, list[tuple[int, int, str, str]]]] = [
    ("", []),
    ("# only a remark\r\nport = 1\r\n", []),
    ("\ufeffport = 1\n", []),
    ('host = [\n  "::1", # ]\n  "127.0.0.1",\n]\nport = 1\n', []),
    ("port = 70000\nprot = 1\n", [
        (1, 0, "port", "70000 is more than 65535; give a whole number from 0 to 65535"),
        (2, 0, "prot", "no such setting; did you mean port?"),
    ]),
    # Values of several lines do not move the lines behind them.
    ('layout = """{SOPInstanceUID}\n"""\nhost = [\n  "::1",\n  "::x",\n]\nport = true\n', [
        (1, 0, "layout", "'{SOPInstanceUID}\\n' has control characters in it"),
        (5, 0, "host", "'::x' is no address"),
        (7, 0, "port", "True is not a whole number"),
    ]),
    ("min-free-space = 5 GiB\nstore = /data # here\nstrict = True\nport: 1\nhost = 0.0.0.0;\n", [
        (1, 20, "min-free-space",
         'not TOML (a text stands in quotes); write min-free-space = "5 GiB"'),
        (2, 9, "store", 'not TOML (a text stands in quotes); write store = "/data"'),
        (3, 10, "strict", "not TOML (invalid value); write strict = true"),
        (4, 5, "port", "not TOML (expected '=' after a key in a key/value pair); write port = 1"),
        (5, 11, "host", 'not TOML (a text stands in quotes); write host = "0.0.0.0"'),
    ]),
    ('--port 5\nport =\nae-title = "A\nworkers = 0\n', [
        (1, 8, "port", "not TOML ("),
        (2, 6, "port", "not TOML (invalid value); write port = VALUE"),
        (3, 13, "ae-title", "not TOML: "),
        (4, 0, "workers", "0 is less than 1"),
    ]),
    ('allow = ["*@*"\nworkers = 0\nsop-classes = [\n"any", any\n]\nport = -1\n', [
        (1, 9, "allow", "the [ is never closed; write ] behind the value"),
        (2, 0, "workers", "0 is less than 1"),
        (4, 8, "sop-classes", "not TOML: "),
        (6, 0, "port", "-1 is less than 0"),
    ]),
    ('store = """/data\nport = 70000', [
        (1, 9, "store", 'the """ is never closed; write """ behind the value'),
        (2, 0, "port", "70000 is more than 65535"),
    ]),
    ('host = ["::1"] x\nport = 70000\nallow = ["*@*"]\n', [
        (1, 16, "host", "not TOML: expected newline"), (2, 0, "port", "70000 is more than 65535"),
    ]),
    ("port = 1\nport = 2\n", [(2, 0, "port", "stands here again, after line 1; take one")]),
    ("[ae.X]\nport = 1\nlayout-change = true\n", [
        (2, 0, "ae.X.port", "stands at the top of the file only, above the first table"),
        (3, 0, "ae.X.layout-change", "is accepted as the flag --layout-change only; take it out"),
    ]),
    ("[ae\nport = x\n", [
        (1, 3, "", "not TOML: expected ']' at the end of a table declaration"),
        (2, 8, "port", 'not TOML (a text stands in quotes); write port = "x"'),
    ]),
    ("a.b = 1\na = 2\n", [
        (1, 0, "a", "no such table"), (2, 0, "a", "stands here again, after line 1"),
    ]),
    ("[a]\n[a]\n", [
        (1, 0, "a", "no such table"),
        (2, 0, "a", "stands here again, after line 1; put both into one table"),
    ]),
    ("a.b = 1\n[a]\n", [(1, 0, "a", "no such table"), (2, 3, "", "not TOML: cannot declare")]),
    ("layout-change = true\n", [(1, 0, "layout-change", "is accepted as the flag")]),
    ('["my table"]\nport = 1\nprot = x\n', [
        (1, 0, '"my table"', "no such table"), (3, 8, "prot", "not TOML (a text stands in quotes)"),
    ]),
    # Of a list every entry is told, where it stands.
    ('allow = [\n "CT1@10.0.0.0/8",\n "BAD",\n "XX@10.0.0.0/40", # BAD\n "BAD, *@*",\n]\n', [
        (3, 0, "allow", "'BAD' has no @; give AE@NETWORK"),
        (4, 0, "allow", "'XX@10.0.0.0/40' names no network"),
        (5, 0, "allow", "'BAD' has no @; give AE@NETWORK"),
    ]),
    ("host = [1, true]\n", [(1, 0, "host", "1 is not"), (1, 0, "host", "True is not")]),
    ("allow = []\n", [(1, 0, "allow", "'' names nothing")]),
    ("port = [104]\n", [(1, 0, "port", "[104] is not a whole number; give")]),
    ('[store]\nstore = "/d"\n', [(1, 0, "store", "is no table; write store = VALUE at the top")]),
    ("[[host]]\na = 1\n", [(1, 0, "host", "is no table; write host = VALUE at the top")]),
    # An entry may look like a key and a value, and a text hold what ends one.
    ('allow = [\n "A=B@*", # ["]\n \'"@*\', "\\"]@*",\n]\nport = -1\n', [
        (5, 0, "port", "-1 is less than 0"),
    ]),
    ('layout = """\\\n  {SOPInstanceUID}"x".dcm"""\nport = -1\n', [(3, 0, "port", "-1 is less")]),
    # What to write instead is said where that is plain only.
    ("store = { a = 1,\nb = 2 }\n", [
        (1, 9, "store", "the { is never closed"), (2, 7, "b", "not TOML: expected newline"),
    ]),
    ("store = /d\u009b31m\u202e\n", [(1, 9, "store", "not TOML: invalid value")]),
    # What cannot be meant together.
    # What limits nothing harms nobody.
    ("max-associations = 5\nmax-associations-per-ae = 6\nmax-associations-per-host = 7\n", []),
    # With a port of its own each can listen.
    ('port = 0\nhost = ["127.0.0.1", "0.0.0.0", "::1", "::"]\n', []),
    ('port = 1\nhost = ["127.0.0.1", "0.0.0.0", "::1"]\n', [
        (2, 0, "host", "0.0.0.0 listens on 127.0.0.1, too; leave one of the two out"),
    ]),
    ('host = "::1, ::, 0.0.0.0, pacs"\n', [(1, 0, "host", ":: listens on ::1, too; leave one")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_all_mistakes_of_a_file(
    text: str, expected: list[tuple[int, int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes(text.encode())
    found = check_file(file, "--check").mistakes
    assert [(one.line, one.column, one.key) for one in found] == sorted(
        (line, column, key) for line, column, key, _why in expected
    )
    for one in found:
        assert any(
            one.why.startswith(why)
            for line, column, _key, why in expected
            if (line, column) == (one.line, one.column)
        ), one
        assert one.why.isprintable()
    # A start with the file says the first of them, and how many there are.
    if not expected:
        load({}, {}, file)
        return
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert str(caught.value).startswith(f"{file}:{found[0].line}")
    assert found[0].why in caught.value.why
    more = f"(the first of {len(found)} mistakes in this file; `fastscp config --check {file}`"
    assert (more in caught.value.why) == (len(found) > 1)


def test_the_lines_of_a_long_list_are_found_soon(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    rules = "".join(f'  "CT{n}@10.0.0.0/8",\n' for n in range(5000))
    file.write_text(f"allow = [\n{rules}]\nport = 70000\n", encoding="utf-8")
    (found,) = check_file(file, "--check").mistakes
    assert (found.line, found.key) == (5003, "port")


@pytest.mark.parametrize(
    ("line", "mistakes"),
    [
        ('"*@*", # room [7]', 0),
        ("a = [", 10000),
        ("]", 10000),
        ('a = """', 1),
        ("a = [ # ]", 10000),
    ],
)
def test_a_long_file_is_read_soon(tmp_path: Path, line: str, mistakes: int) -> None:
    file = tmp_path / "site.toml"
    file.write_text("allow = [\n" + f"{line}\n" * 10000 + "]\n", encoding="utf-8")
    began = time.process_time()
    found = check_file(file, "--check").mistakes
    assert len(found) >= mistakes
    assert bool(found) == bool(mistakes)
    # Some minutes, where each line is read once more for each of the others.
    assert time.process_time() - began < 20


def test_contradictions_between_layers(toml: Callable[[str], Path]) -> None:
    file = toml('host = "0.0.0.0, 127.0.0.1"')
    with pytest.raises(
        ConfigError, match=r"site\.toml:1: host: 0\.0\.0\.0 listens on 127\.0\.0\.1"
    ):
        load({"port": "5"}, {"FASTSCP_PORT": "0"}, file)
    with pytest.raises(ConfigError, match=r"^FASTSCP_HOST: :: listens on ::1, too; leave one"):
        load({}, {"FASTSCP_HOST": "::1,::"}, file)
    assert load({"port": "0"}, {}, file).config.host == ("0.0.0.0", "127.0.0.1")
    assert load({"max_associations": "20", "max_associations_per_host": "50"}, {}).config


# Rule, calling AE, address, whether it matches.
@pytest.mark.parametrize(
    ("rule", "ae", "address", "expected"),
    [
        ("CT1@10.1.2.0/24", "CT1", "10.1.2.99", True),
        ("CT1@10.1.2.0/24", "CT1", "10.1.3.99", False),
        ("CT1@10.1.2.0/24", "CT2", "10.1.2.99", False),
        ("CT1@10.1.2.0/24", "ct1", "10.1.2.99", False),
        ("*@192.168.0.0/16", "", "192.168.200.1", True),
        ("PACS@*", "PACS", "2001:db8::1", True),
        ("PACS@*", "OTHER", "2001:db8::1", False),
        ("*@10.0.0.1", "X", "10.0.0.1", True),
        ("*@10.0.0.1", "X", "10.0.0.2", False),
        ("*@10.0.0.0/8", "X", "::ffff:10.2.3.4", True),
        ("*@10.0.0.0/8", "X", "2001:db8::1", False),
        ("*@fe80::/10", "X", "fe80::1%eth0", True),
        ("A@B@10.0.0.0/8", "A@B", "10.0.0.1", True),
        # An IPv4 network in the form of IPv6.
        ("*@::ffff:10.0.0.0/104", "X", "10.2.3.4", True),
        ("*@::ffff:10.0.0.0/104", "X", "::ffff:10.2.3.4", True),
        ("*@::ffff:10.0.0.0/104", "X", "11.2.3.4", False),
        ("*@::ffff:10.0.0.1", "X", "10.0.0.1", True),
        ("*@::ffff:0:0/96", "X", "192.0.2.1", True),
        ("*@::/0", "X", "192.0.2.1", False),
        ("*@::/0", "X", "2001:db8::1", True),
        ("*@10.0.0.0/8", "X", "not an address", False),
    ],
)
def test_allow(rule: str, ae: str, address: str, expected: bool) -> None:
    assert read_allow_rule(rule).matches(ae, address) is expected


def test_no_rules_let_everyone_in() -> None:
    def allows(rules: tuple[AllowRule, ...], calling_ae: str, address: str) -> bool:
        book = RuleBook(build(ServeConfig(allow=rules), 0))
        return isinstance(book.choose(Peer(calling_ae, "FASTSCP", address)), Rule)

    assert allows((), "X", "10.0.0.1")
    rules = (AllowRule("A", None), AllowRule("B", None))
    assert allows(rules, "B", "10.0.0.1")
    assert not allows(rules, "C", "10.0.0.1")


def test_options_table() -> None:
    lines = options_table().splitlines()
    assert len(lines) == 2 + len(SETTINGS)
    port = "TCP port to listen on; 0 lets the system pick one. (0 to 65535)"
    assert f"| `--port PORT` | 11112 | {port} |" in lines
    assert all(line.replace("\\|", "").count("|") == 4 for line in lines)


# What Kubernetes puts beside a service -----------------------------------------------------------

# As `kubectl exec POD -- env` shows them, for services called fastscp and fastscp-tls.
PODS = {
    "FASTSCP_SERVICE_HOST": "10.0.0.1",
    "FASTSCP_SERVICE_PORT": "11112",
    "FASTSCP_SERVICE_PORT_DICOM": "11112",
    "FASTSCP_PORT": "tcp://10.0.0.1:11112",
    "FASTSCP_PORT_11112_TCP": "tcp://10.0.0.1:11112",
    "FASTSCP_PORT_11112_TCP_PROTO": "tcp",
    "FASTSCP_PORT_11112_TCP_PORT": "11112",
    "FASTSCP_PORT_11112_TCP_ADDR": "10.0.0.1",
    "FASTSCP_PORT_53_UDP": "udp://10.0.0.1:53",
    "FASTSCP_PORT_53_UDP_PROTO": "udp",
    "FASTSCP_PORT_9_SCTP_ADDR": "fd00::1",
    "FASTSCP_TLS_SERVICE_HOST": "fd00::1",
    "FASTSCP_TLS_SERVICE_PORT_DICOM_TLS": "2762",
    "FASTSCP_TLS_PORT": "tcp://[fd00::1]:2762",
    "FASTSCP_TLS_PORT_2762_TCP": "tcp://[fd00::1]:2762",
    "FASTSCP_TLS_PORT_2762_TCP_ADDR": "fd00::1",
}


def test_variables_of_kubernetes_are_no_settings() -> None:
    loaded = load({}, PODS)
    assert loaded.config.port == 11112
    assert set(loaded.sources.values()) == {"default"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FASTSCP_PORTS", "tcp://10.0.0.1:1"),
        ("FASTSCP_SERVICE", "10.0.0.1"),
        ("FASTSCP_SERVICE_HOST", "pacs"),
        ("FASTSCP_SERVICE_HOSTS", "10.0.0.1"),
        ("FASTSCP_SERVICE_PORT", "on"),
        ("FASTSCP_SERVICE_PORT_", "1"),
        ("FASTSCP_TLS_PORT", "2762"),
        ("FASTSCP_PORT", "ftp://10.0.0.1:1"),
        ("FASTSCP_STORE_PORT", "tcp:"),
        ("FASTSCP_PORT_1_TCP_PROTO", "http"),
        ("FASTSCP_PORT_1_TLS", "tcp://10.0.0.1:1"),
        ("FASTSCP_PORT_X_TCP", "tcp://10.0.0.1:1"),
        ("FASTSCP_TLS_CLIENT_AUHT", "require"),
        ("FASTSCP_ALOW", "tcp://10.0.0.1:1"),
    ],
)
def test_what_only_looks_like_kubernetes_is_an_error(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {**PODS, variable: value})
    assert caught.value.option == variable


def test_one_setting_alone_minds_names_that_may_be_its(tmp_path: Path) -> None:
    """A mistyped name may be the one that is asked for; what is wrong with others is theirs."""
    file = tmp_path / "settings.toml"
    file.write_text('stor = "/data"\n')
    with pytest.raises(ConfigError, match="stor"):
        load_one("store", file=file, environ={})
    with pytest.raises(ConfigError, match="FASTSCP_STOR"):
        load_one("store", environ={"FASTSCP_STOR": "/data"})
    for flag, environ in (("/a", {}), (None, {"FASTSCP_STORE": "/a"})):
        environ["FASTSCP_STOR"] = "/data"
        assert load_one("store", flag, environ=environ) == Path("/a")


@pytest.mark.parametrize(
    "wrong",
    [
        'port = "none"', "prot = 1", "port = on", "[aes.X]\nstrict = true", "[ae.X\nstrict = true",
        '[from.x]\ncaled = ["A"]\nwho = ["CT1@127.0.1.0/99"]', "[ae.X]\nstore = 5", "[from.y]",
        'stor = "/other"', "port = 1\nport = 2", "[[ae]]", "ae = 5", "[store-must-exist]",
        'host = ["0.0.0.0", "10.0.0.1"]', "layout-change = true",
    ],
)  # fmt: skip
def test_one_setting_alone_is_read_whatever_else_is_wrong(tmp_path: Path, wrong: str) -> None:
    """An operator who has to reach a running service may be at work on its file."""
    file = tmp_path / "settings.toml"
    file.write_text(f'store = "/data"\n{wrong}\n')
    with pytest.raises(ConfigError):
        load({}, {}, file)
    environ = {"FASTSCP_PORT": "x", "FASTSCP_PROT": "1"}
    assert load_one("store", file=file, environ=environ) == Path("/data")
    assert load_one("store", environ=environ | {"FASTSCP_CONFIG": str(file)}) == Path("/data")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("store = 5", "1: store: 5 is not"), ("store = /data", ":9: store: not TOML"),
        ('store = "/a"\nstore = "/b"', "2: store: stands here again"),
        ('store = "/a"\nstore = /b', ":9: store: not TOML"), ("[store]", "1: store: is no table"),
        ("[ae.X\nstore = '/a'", "not TOML"),
        ("[from.X]\nwho = 5\nSTORE = '/a'", "3: from.X.STORE: no such setting"),
    ],
)  # fmt: skip
def test_one_setting_alone_minds_what_may_be_its(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_one("store", file=file, environ={})
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("log_file", "is_inside"),
    [
        ("store/.fastscp/x.log", True),
        ("store/x.log", True),
        ("store/1.2/3.4/../../x.log", True),
        ("link/x.log", True),
        ("store-2/x.log", False),
        ("x.log", False),
    ],
)
def test_a_log_in_the_store_is_none(tmp_path: Path, log_file: str, *, is_inside: bool) -> None:
    """There it would be mistaken for a part, an index or an instance, or be taken away."""
    (tmp_path / "link").symlink_to("store/deep")
    flags = {"store": str(tmp_path / "store"), "log_file": str(tmp_path / log_file)}
    if not is_inside:
        assert load(flags, {}).config.log_file == str(tmp_path / log_file)
        return
    with pytest.raises(ConfigError) as caught:
        load(flags, {})
    assert caught.value.option == "--log-file"
    assert f"{log_file} is in the store {tmp_path}/store, where only" in str(caught.value)
    assert "name a file outside" in str(caught.value)
    # Also where each was given in another place.
    file = tmp_path / "c.toml"
    file.write_text(f'store = "{tmp_path}/store"\n')
    with pytest.raises(ConfigError, match="is in the store"):
        load({"log_file": str(tmp_path / log_file)}, {}, file)
