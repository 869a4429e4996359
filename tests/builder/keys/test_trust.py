"""Keys over the years: what `edgewright keys` writes, and that boards follow it."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from edgewright.dsse import key_id
from edgewright.errors import InputError, RefusedError
from edgewright.trust.document import Revocation
from edgewright.trust.keys import load_public_key, load_trust
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.server import run_agent
from edgewright_agent.trust import Trust
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.cli.main import app
from edgewright_builder.keys import trust_issuer
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key, private_pem, public_pem, write_new
from edgewright_builder.python_api.credentials import Credentials, tell_boards
from tests.agent.conftest import settings_for
from tests.support.built_artifacts import make_artifact
from tests.support.scripted_engine import Script, only_fake

LONG_AGO = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_credentials(tmp_path / "keys")
    return tmp_path / "keys"


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["keys", *map(str, arguments)])


def output(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return str(result.stdout)


def signed_by(folder: Path, name: str = "release.key") -> Artifact:
    key = load_signing_key(folder / name)
    return make_artifact(folder.parent / f"artifact-{name}", {"engine/model.bin": b"w"}, key)


def accepts(trust: Trust, artifact: Artifact) -> bool:
    try:
        trust.check_release(artifact.manifest_bytes, artifact.signature_bytes)
    except RefusedError as error:
        if error.reason in (Reason.REASON_REVOKED, Reason.REASON_KEY_UNTRUSTED):
            return False
        raise
    return True


def short_id(path: Path) -> str:
    return key_id(load_public_key(path))[:8]


@pytest.mark.parametrize("start", ["release.pub", "trust-1.json"])
def test_a_rotated_key_signs_and_the_old_one_does_until_it_is_revoked(folder: Path, start: str) -> None:
    (folder.parent / start).write_bytes((folder / start).read_bytes())
    board = Trust(load_trust([folder.parent / start]))
    old, old_id = signed_by(folder), short_id(folder / "release.pub")
    says = output("rotate", folder)
    assert f"release-{old_id}.key" in says
    new = signed_by(folder)
    assert not accepts(board, new)
    board.update(trust_issuer.documents(folder))
    assert accepts(board, new)
    assert accepts(board, old)
    assert "Revoked key" in output("revoke", folder, old_id, "--reason", "leaked")
    board.update(trust_issuer.documents(folder))
    assert accepts(board, new)
    assert not accepts(board, old)


def test_a_key_can_be_rotated_and_revoked_for_ever_and_what_the_first_one_signed_stays_revoked(
    folder: Path,
) -> None:
    board, first = Trust(load_trust([folder / "trust-1.json"])), signed_by(folder)
    for _ in range(20):
        old_id = short_id(folder / "release.pub")
        output("rotate", folder)
        output("revoke", folder, old_id)
    board.update(trust_issuer.documents(folder))
    assert accepts(board, signed_by(folder))
    with pytest.raises(RefusedError) as refused:
        board.check_release(first.manifest_bytes, first.signature_bytes)
    assert refused.value.reason == Reason.REASON_REVOKED
    first_id = key_id(load_signing_key(next(folder.glob("release-*.key"))).public_key())
    output("revoke", folder, first_id, "--stop")  # again, though it is no release key any more
    assert trust_issuer.newest(folder).revocations("key")[first_id].stop


def test_a_rotation_that_is_refused_leaves_no_key_file(folder: Path) -> None:
    for _ in range(15):
        output("rotate", folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refused = invoke("rotate", folder)
    assert isinstance(refused.exception, RefusedError)
    assert "There would be 17 release keys, and at most 16 can be; revoke one first" in str(refused.exception)
    strange = folder.parent / "strange.key"
    strange.write_bytes(private_pem(Ed25519PrivateKey.generate()))
    assert isinstance(invoke("rotate", folder, "--root", "--root-key", strange).exception, RefusedError)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@contextlib.asynccontextmanager
async def board_of(folder: Path, store: Path) -> AsyncIterator[tuple[Trust, str]]:
    """A board that started from the first document: its trust as it is on the disk, and its address."""
    trust = load_trust([folder / "trust-1.json"])
    settings = settings_for(store, trust=trust, trusted_keys=())
    async with run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent:
        yield Trust(trust, store / "trust"), str(agent.address)


@pytest.mark.parametrize("change", ["renewals", "root rotations"])
async def test_a_board_far_behind_is_brought_up_to_date_and_so_is_one_whose_document_was_damaged(
    folder: Path, change: str
) -> None:
    for number in range(70):
        if change == "renewals":
            trust_issuer.renew(folder, [], 30.0 + number)
        else:
            trust_issuer.rotate_root_key(folder, [])
    store = folder.parent / "store"
    async with board_of(folder, store) as (_, address):
        assert not (await tell_boards(folder, [address], insecure=True)).failed
    async with board_of(folder, store) as (trust, _):
        assert trust.document is not None
        assert (trust.document.version, trust.problem) == (71, "")
    if change == "root rotations":
        return
    (store / "trust" / "00000071.json").write_bytes(b"rot")
    async with board_of(folder, store) as (trust, address):
        assert "damaged" in trust.problem
        assert not (await tell_boards(folder, [address], insecure=True)).failed
    async with board_of(folder, store) as (trust, _):
        assert trust.problem == ""


async def test_a_board_whose_newest_document_expired_says_so_when_told_again(folder: Path) -> None:
    trust_issuer.change(folder, [], issued=LONG_AGO, expires=LONG_AGO + timedelta(days=1))
    async with board_of(folder, folder.parent / "store") as (_, address):
        assert not (await tell_boards(folder, [address], insecure=True)).failed
        (failed,) = (await tell_boards(folder, [address], insecure=True)).failed
    assert "Trust document 2 expired on" in str(failed.error)


def test_a_rotated_root_key_is_followed_and_the_old_one_signs_no_more(folder: Path) -> None:
    board = Trust(load_trust([folder / "trust-1.json"]))
    old_root = (folder / "root.key").read_bytes()
    output("rotate", folder, "--root")
    board.update(trust_issuer.documents(folder))
    assert board.document is not None
    assert board.document.version == 2
    (folder / "root.key").write_bytes(old_root)
    refused = invoke("trust", folder, "--expires", "30")
    assert isinstance(refused.exception, RefusedError)
    assert "1 must. Give them with --root-key." in str(refused.exception)


def test_all_files_of_a_rotation_are_private_and_nothing_is_lost(folder: Path) -> None:
    before = {path.read_bytes() for path in folder.iterdir()}
    output("rotate", folder)
    output("rotate", folder, "--root")
    after = {path.read_bytes() for path in folder.iterdir()}
    assert before <= after
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert load_public_key(folder / "release.pub").public_bytes_raw() in [
        key.public_bytes_raw() for key in trust_issuer.newest(folder).release.public_keys()
    ]
    assert load_signing_key(folder / "release.key").public_key() == load_public_key(folder / "release.pub")


def test_the_last_release_key_is_not_revoked(folder: Path) -> None:
    refused = invoke("revoke", folder, folder / "release.pub")
    assert isinstance(refused.exception, RefusedError)
    assert "add a key first" in str(refused.exception)
    assert len(trust_issuer.documents(folder)) == 1


@pytest.mark.parametrize("name", ["ca.pem", "agent.pem", "root.pub", "root.key"])
def test_what_no_revocation_would_change_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match="revoking it would change nothing"):
        Credentials(folder).revoke(folder / name)
    assert not (folder / "trust-2.json").exists()


def test_an_artifact_and_a_certificate_are_revoked_by_their_files(folder: Path) -> None:
    artifact = signed_by(folder)
    output("revoke", folder, artifact.folder, "--stop")
    output("revoke", folder, folder / "observer.pem")
    document = trust_issuer.newest(folder)
    assert [(each.kind, each.stop) for each in document.revoked] == [
        ("release", True),
        ("certificate", False),
    ]
    assert document.revoked[0].sha256 == artifact.digest
    assert not accepts(Trust(document), artifact)


@pytest.mark.parametrize("what", ["nonsense", "ab" * 4, "/nowhere/release.pub"])
def test_what_can_not_be_revoked_is_named(folder: Path, what: str) -> None:
    result = invoke("revoke", folder, what)
    assert isinstance(result.exception, InputError)
    assert what in str(result.exception)


@pytest.mark.parametrize("reason", ["x" * 201, "caf\udce9"])
def test_a_reason_that_no_document_holds_is_refused_before_one_is_written(folder: Path, reason: str) -> None:
    with pytest.raises(InputError, match=rf"The reason has {len(reason)} characters; give at most 200"):
        Credentials(folder).revoke("ab" * 32, reason=reason)
    assert not (folder / "trust-2.json").exists()


def test_revocations_that_no_board_would_take_are_not_signed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_issuer, "TRUST_BYTES_MAX", 4096)
    revocations = [
        Revocation(kind="release", sha256=f"{number:064x}", reason="y" * 200) for number in range(20)
    ]
    with pytest.raises(
        RefusedError, match=r"would have \d,\d+ bytes, and boards take at most 4,096: give shorter"
    ):
        trust_issuer.change(folder, (), revoked=revocations)
    assert not (folder / "trust-2.json").exists()


@pytest.mark.parametrize(
    "call",
    [
        lambda keys: keys.renew(0),
        lambda keys: keys.renew(1e12),
        lambda keys: keys.renew(float("nan")),
        lambda keys: keys.renew("90"),
        lambda keys: keys.add_keys("releases"),
        lambda keys: keys.add_keys("release", threshold=0),
        lambda keys: keys.add_keys("release", threshold="2"),
        lambda keys: keys.rotate("releases"),
    ],
)
def test_what_python_gives_wrongly_writes_no_document(
    folder: Path, call: Callable[[Credentials], object]
) -> None:
    with pytest.raises(InputError):
        call(Credentials(folder))
    assert not (folder / "trust-2.json").exists()


def test_two_keys_that_must_both_sign(folder: Path, tmp_path: Path) -> None:
    second = Ed25519PrivateKey.generate()
    write_new(tmp_path / "second.pub", public_pem(second))
    output("trust", folder, "--add", tmp_path / "second.pub", "--threshold", "2")
    board = Trust(trust_issuer.newest(folder))
    artifact = make_artifact(tmp_path / "two", {"engine/model.bin": b"w"}, second)
    assert not accepts(board, artifact)
    output("sign", artifact.folder, folder)
    both = Artifact(artifact.folder, artifact.manifest, artifact.manifest_bytes,
                    (artifact.folder / "manifest.sig").read_bytes())  # fmt: skip
    assert accepts(board, both)


def test_more_signatures_than_there_are_keys_are_bad_input(folder: Path) -> None:
    for option, role in (("--threshold", "release"), ("--root-threshold", "root")):
        refused = invoke("trust", folder, option, "2").exception
        assert isinstance(refused, InputError)
        assert f"2 {role} keys are to sign and 1 would be trusted; give at most 1" in str(refused)
    assert trust_issuer.newest(folder).version == 1


def test_expiry_is_days_or_never(folder: Path) -> None:
    assert "expires: never" in output("trust", folder)
    output("trust", folder, "--expires", "30")
    document = json.loads(output("trust", folder, "--json"))
    assert document["version"] == 2
    assert document["expires"] > document["issued"]
    output("trust", folder, "--expires", "never")
    assert trust_issuer.newest(folder).expires is None
    for text in ("soon", "0", "-1"):
        assert isinstance(invoke("trust", folder, f"--expires={text}").exception, InputError)


def test_a_folder_of_an_earlier_version_gets_its_first_document(folder: Path) -> None:
    for name in ("root.key", "root.pub", "trust-1.json"):
        (folder / name).unlink()
    board = Trust(load_trust([folder / "release.pub"]))
    output("rotate", folder)
    board.update(trust_issuer.documents(folder))
    assert accepts(board, signed_by(folder))


@pytest.mark.parametrize("offline", [False, True], ids=["with its root key", "with its root key elsewhere"])
def test_a_folder_that_lost_its_documents_gets_no_new_ones_that_no_board_would_follow(
    folder: Path, offline: bool
) -> None:
    (folder / "trust-1.json").unlink()
    if offline:
        (folder / "root.key").unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for command in (("trust", folder), ("rotate", folder), ("revoke", folder, "ab" * 32)):
        assert "get its trust-N.json back from a copy" in str(invoke(*command).exception)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("command", [("rotate",), ("rotate", "--root"), ("trust", "--expires", "5")])
def test_a_root_key_that_is_kept_elsewhere_is_asked_for_by_its_option(
    folder: Path, command: tuple[str, ...]
) -> None:
    (folder / "root.key").rename(folder.parent / "offline.key")
    refused = invoke(command[0], folder, *command[1:])
    assert isinstance(refused.exception, InputError)
    assert "name the file of yours by --root-key" in str(refused.exception)
    output(command[0], folder, *command[1:], "--root-key", folder.parent / "offline.key")


def test_whoever_revokes_the_key_that_builds_sign_with_is_told(folder: Path) -> None:
    output("rotate", folder)
    old = next(folder.glob("release-*.pub"))
    assert "boards will refuse that" in output("revoke", folder, folder / "release.pub")
    output("rotate", folder)
    assert "boards will refuse that" not in output("revoke", folder, old)


def test_an_id_may_be_written_in_capitals(folder: Path) -> None:
    output("revoke", folder, ("ab" * 32).upper())
    assert trust_issuer.newest(folder).revocations("release").keys() == {"ab" * 32}


def test_a_document_that_was_altered_is_named(folder: Path) -> None:
    data = (folder / "trust-1.json").read_bytes()
    (folder / "trust-1.json").write_bytes(data.replace(b'"sig": "', b'"sig": "A', 1))
    assert "trust-1.json is damaged" in str(invoke("trust", folder).exception)


def test_new_credentials_over_old_ones_begin_a_new_chain(folder: Path) -> None:
    output("rotate", folder)
    assert len(trust_issuer.documents(folder)) == 2
    create_credentials(folder, force=True)
    assert len(trust_issuer.documents(folder)) == 1


def test_after_a_rotation_the_host_leaves_it_to_the_board_whose_signature_is_good(folder: Path) -> None:
    assert trust_issuer.release_key(folder) is not None
    output("rotate", folder)
    assert trust_issuer.release_key(folder) is None
    output("revoke", folder, next(folder.glob("release-*.pub")))
    assert trust_issuer.release_key(folder) == load_public_key(folder / "release.pub")
