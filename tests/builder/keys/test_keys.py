from __future__ import annotations

import shutil
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgewright.errors import InputError, RefusedError
from edgewright.trust.keys import load_public_key
from edgewright_agent.runtime.tls import TlsFiles, server_credentials
from edgewright_builder.keys import certificates, trust_issuer
from edgewright_builder.keys.credentials import create_credentials, issue_certificate
from edgewright_builder.keys.key_files import load_signing_key


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder, ["board-7.local", "192.0.2.7"])
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def names_of(certificate: Path) -> x509.SubjectAlternativeName:
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    return loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_every_file_is_readable_by_its_owner_alone(credentials: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in credentials.iterdir()}
    assert sorted(modes) == [
        "agent.key", "agent.pem", "ca.key", "ca.pem", "deployer.key", "deployer.pem",
        "observer.key", "observer.pem", "release.key", "release.pub", "root.key", "root.pub", "trust-1.json",
    ]  # fmt: skip
    assert set(modes.values()) == {0o600}


def test_the_agents_certificate_names_loopback_and_the_hosts_given(credentials: Path) -> None:
    names = names_of(credentials / "agent.pem")
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "board-7.local"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "192.0.2.7"]


@pytest.mark.parametrize("role", ["deployer", "observer"])
def test_client_certificates_carry_their_role_as_a_uri(credentials: Path, role: str) -> None:
    names = names_of(credentials / f"{role}.pem")
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"edgewright:role:{role}"]


@pytest.mark.parametrize("name", ["agent", "deployer", "observer"])
def test_every_certificate_is_issued_by_the_authority_and_matches_its_key(
    credentials: Path, name: str
) -> None:
    authority = x509.load_pem_x509_certificate((credentials / "ca.pem").read_bytes())
    leaf = x509.load_pem_x509_certificate((credentials / f"{name}.pem").read_bytes())
    leaf.verify_directly_issued_by(authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials / f"{name}.pem", credentials / f"{name}.key")


def test_the_release_keys_belong_together(credentials: Path) -> None:
    private = load_signing_key(credentials / "release.key")
    public = load_public_key(credentials / "release.pub")
    public.verify(private.sign(b"x"), b"x")


def test_existing_keys_are_kept_unless_forced(tmp_path: Path) -> None:
    create_credentials(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RefusedError, match=r"already holds trust-1\.json and 12 more, .*--force"):
        create_credentials(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    create_credentials(tmp_path, force=True)
    assert (tmp_path / "release.key").read_bytes() != before["release.key"]


def test_keys_made_anew_leave_the_old_ones_aside(tmp_path: Path) -> None:
    create_credentials(tmp_path)
    trust_issuer.rotate_release_key(tmp_path, [])
    issue_certificate(tmp_path, "agent", ["board-7"])
    (tmp_path / "notes.txt").write_text("mine")
    before = files_of(tmp_path)
    written = create_credentials(tmp_path, force=True)
    assert written.aside is not None
    assert {**files_of(written.aside), "notes.txt": b"mine"} == before
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.txt", written.aside.name, *(path.name for path in written.files)
    }  # fmt: skip
    again = create_credentials(tmp_path, force=True)
    assert again.aside != written.aside
    assert len(list(tmp_path.glob("replaced-*/ca.key"))) == 2


def test_what_is_left_of_older_keys_is_not_mixed_with_new_ones_unasked(tmp_path: Path) -> None:
    (tmp_path / "trust-3.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"already holds trust-3\.json, which"):
        create_credentials(tmp_path)
    assert files_of(tmp_path) == {"trust-3.json": b"{}"}


def test_a_board_gets_a_certificate_of_its_own_and_no_key_changes(tmp_path: Path) -> None:
    create_credentials(tmp_path, ["board-7.local"])
    before = files_of(tmp_path)
    written = issue_certificate(tmp_path, "agent", ["board-8.local", "192.0.2.8"])
    assert [path.name for path in written.files] == ["agent-board-8.local.key", "agent-board-8.local.pem"]
    assert written.aside is None
    assert {path.name for path in tmp_path.iterdir()} == {*before, *(path.name for path in written.files)}
    assert before.items() <= files_of(tmp_path).items()
    key, certificate = written.files
    names = names_of(certificate)
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "board-8.local"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "192.0.2.8"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written.files} == {0o600}
    server_credentials(TlsFiles(certificate, key, tmp_path / "ca.pem"))
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    x509.load_pem_x509_certificate(certificate.read_bytes()).verify_directly_issued_by(authority)


@pytest.mark.parametrize(
    ("role", "hosts", "stem"),
    [
        ("agent", ["h" * 60], "agent-" + "h" * 60),
        ("agent", [".".join(["h" * 60] * 4)], "agent-" + ".".join(["h" * 60] * 4)[:200]),
        ("deployer", [], "deployer"),
    ],
)
def test_a_renewed_certificate_leaves_the_old_one_aside(
    tmp_path: Path, role: str, hosts: list[str], stem: str
) -> None:
    create_credentials(tmp_path)
    issue_certificate(tmp_path, role, hosts)
    before = {name: data for name, data in files_of(tmp_path).items() if name.startswith(f"{stem}.")}
    written = issue_certificate(tmp_path, role, hosts)
    assert written.aside is not None
    assert files_of(written.aside) == before
    assert [path.name for path in written.files] == sorted(before)
    assert all(path.read_bytes() != before[path.name] for path in written.files)


def test_a_renewed_client_keeps_its_role(tmp_path: Path) -> None:
    create_credentials(tmp_path)
    issue_certificate(tmp_path, "observer")
    names = names_of(tmp_path / "observer.pem")
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["edgewright:role:observer"]


@pytest.mark.parametrize("host", ["h" * 64, "board:7443", "[::1]", "a_b", "-a", "a." * 130, ""])
def test_what_is_no_host_is_refused_before_a_file_is_written(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="is neither an IP address nor a host name; give it without a port"):
        create_credentials(tmp_path / "keys", [host])
    assert not (tmp_path / "keys").exists()


def test_hosts_that_do_not_fit_the_role_are_refused(credentials: Path) -> None:
    with pytest.raises(InputError, match="agent needs the --host"):
        issue_certificate(credentials, "agent")
    with pytest.raises(InputError, match="deployer takes no --host"):
        issue_certificate(credentials, "deployer", ["board-7"])


def test_without_the_authoritys_own_key_nothing_is_issued(tmp_path: Path) -> None:
    create_credentials(tmp_path / "keys")
    create_credentials(tmp_path / "others")
    shutil.copy(tmp_path / "others" / "ca.key", tmp_path / "keys" / "ca.key")
    with pytest.raises(InputError, match=r"ca\.key is not the key of ca\.pem"):
        issue_certificate(tmp_path / "keys", "deployer")
    (tmp_path / "keys" / "ca.key").write_text("no key")
    with pytest.raises(InputError, match="no unencrypted PEM"):
        issue_certificate(tmp_path / "keys", "deployer")
    (tmp_path / "keys" / "ca.key").unlink()
    with pytest.raises(InputError, match=r"ca\.key can't be read \(No such file"):
        issue_certificate(tmp_path / "keys", "deployer")


def test_an_authority_that_has_expired_issues_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CA_DAYS", 0)
    create_credentials(tmp_path)
    with pytest.raises(RefusedError, match=r"ca\.pem was valid until .* in another folder"):
        issue_certificate(tmp_path, "agent", ["board-7"])


def test_a_host_with_a_port_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"board:50051.*without a port"):
        create_credentials(tmp_path / "keys", ["board:50051"])
    assert not (tmp_path / "keys").exists()


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.key can't be read \(No such file"):
        load_signing_key(tmp_path / "no.key")


def test_a_file_that_is_no_key_is_named(credentials: Path) -> None:
    with pytest.raises(InputError, match=r"release\.pub holds no unencrypted PEM private key"):
        load_signing_key(credentials / "release.pub")
    with pytest.raises(InputError, match=r"release\.key holds no PEM public key"):
        load_public_key(credentials / "release.key")


def test_a_file_where_the_folder_is_to_be_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "credentials"):
        with pytest.raises(InputError, match=r"/file is a file; give a folder\.$"):
            create_credentials(folder)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ec.key"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InputError, match="no Ed25519 key"):
        load_signing_key(path)
