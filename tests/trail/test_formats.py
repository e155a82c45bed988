"""Canonical JSON, Merkle trees, checkpoints and proofs, against the numbers of their specifications."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlayer.errors import ParameterError
from fairlayer.trail import Ed25519Verifier, TrailError, TrailKeyError, check_proof, prove, read_checkpoint, read_key
from fairlayer.trail.canonical import canonical
from fairlayer.trail.checkpoint import Checkpoint
from fairlayer.trail.keys import Keys
from fairlayer.trail.merkle import inclusion_path, root_from_path, root_of
from fairlayer.trail.proofs import Content
from fairlayer.trail.signatures import Ed25519Signer, SealSigner
from tests.trail.forging import KEY, OTHER_SIGNING, PUBLIC, SIGNING, decision, make_trail, open_trail

# RFC 8785, appendix B: the bits of a double, and how it is written.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}
# The reference tests of certificate transparency: eight leaves, and the roots over the first one, two, ... of them.
LEAVES = [bytes.fromhex(leaf) for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_are_written_as_ecmascript_does(bits: str, text: str) -> None:
    [number] = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number) == text.encode()


def test_keys_are_in_the_order_of_utf_16() -> None:
    # RFC 8785, section 3.2.3: the expected order of the values.
    values = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    expected = ["Carriage Return", "One", "Control", "Latin Small Letter O With Diaeresis", "Euro Sign"]
    expected += ["Emoji: Grinning Face", "Hebrew Letter Dalet With Dagesh"]
    assert list(json.loads(canonical(values)).values()) == expected


def test_the_example_of_the_specification() -> None:
    # RFC 8785, section 3.2.2 and 3.2.4.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(value) == expected.encode()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_reader_of_json_gets_the_value_back(value: object) -> None:
    def same(one: object, two: object) -> bool:
        if isinstance(one, dict) and isinstance(two, dict):
            return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
        if isinstance(one, list) and isinstance(two, list):
            return len(one) == len(two) and all(map(same, one, two))
        return one == two and isinstance(one, bool) is isinstance(two, bool)

    try:
        text = canonical(value)
    except ParameterError:  # keys may hold half a surrogate pair
        assert any(0xD800 <= ord(letter) < 0xE000 for letter in repr(value).encode().decode("unicode_escape"))
        return
    back = json.loads(text, parse_int=float)  # every number is a double, as the specification has it
    assert same(back, value)
    assert canonical(back) == text


def test_numbers_of_numpy_are_numbers() -> None:
    assert canonical([np.float64(0.5), np.float64(2.0), (1, 2)]) == b"[0.5,2,[1,2]]"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "Give a finite number"),
        (2**53 + 1, "Give it as text"),
        ({1: 2}, "keys that are not text"),
        ({1: 2, "a": 3}, "keys that are not text"),
        ("\ud800", "half a surrogate pair"),
        ({"at": object()}, "of type object"),
        ({"b": b"bytes"}, "of type bytes"),
    ],
)
def test_what_json_does_not_know_is_refused(value: object, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        canonical(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ParameterError, match="nested too deeply"):
        canonical(value)


def leaf(content: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + content).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_rfc(size: int) -> None:
    assert root_of(map(leaf, LEAVES[:size])).hex() == ROOTS[size - 1]


@given(st.integers(1, 70), st.data())
def test_every_leaf_leads_to_the_root_and_no_other_does(size: int, data: st.DataObject) -> None:
    leaves = [leaf(bytes([i])) for i in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path, root = inclusion_path(leaves, index), root_of(leaves)
    assert root_from_path(leaves[index], index, size, path) == root
    assert root_from_path(leaf(b"other"), index, size, path) != root
    assert root_from_path(leaves[index], index, size, [*path, leaf(b"")]) != root
    for wrong in {(index + 1) % size, index ^ 1, size - 1} - {index}:
        assert wrong >= size or root_from_path(leaves[index], wrong, size, path) != root
    if path:
        assert root_from_path(leaves[index], index, size, path[1:]) != root


@pytest.fixture
def held(tmp_path: Path) -> Checkpoint:
    return read_checkpoint(make_trail(tmp_path / "t.sqlite", tmp_path))


def test_a_checkpoint_is_a_signed_note(held: Checkpoint) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    body, _, signatures = held.text.partition("\n\n")
    origin, size, root, *extension = body.split("\n")
    assert origin == f"bank.example/loans/{held.trail}/5"
    assert (size, extension[0]) == ("4", "rows 33-36")
    assert len(base64.b64decode(root)) == 32
    [seal, signature] = [line.split(" ") for line in signatures.splitlines()]
    assert seal[:2] == signature[:2] == ["—", "bank.example/loans"]
    # https://c2sp.org/signed-note: key ID = SHA-256(key name || 0x0A || 0x01 || 32-byte Ed25519 public key)[:4]
    signed = base64.b64decode(signature[2])
    assert signed[:4] == hashlib.sha256(b"bank.example/loans\n\x01" + PUBLIC).digest()[:4]
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(signed[4:], f"{body}\n".encode())
    derived = hmac.digest(KEY, b"fairlayer-trail/1 seal", "sha256")
    assert base64.b64decode(seal[2])[4:] == hmac.digest(derived, f"checkpoint\n{body}\n".encode(), "sha256")


def test_a_checkpoint_is_checked_by_known_keys_only(held: Checkpoint) -> None:
    assert held.check(Ed25519Verifier(PUBLIC)) is True
    assert held.check(SealSigner(Keys(KEY))) is True
    assert held.check(Ed25519Signer(OTHER_SIGNING)) is None
    changed = read_checkpoint(held.text.replace("\n4\n", "\n5\n").replace("rows 33-36", "rows 33-37"))
    assert changed.check(Ed25519Verifier(PUBLIC)) is False
    witnessed = read_checkpoint(held.text + "— witness.example " + base64.b64encode(b"1234signed").decode() + "\n")
    assert (witnessed.body, witnessed.check(Ed25519Verifier(PUBLIC))) == (held.body, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text.replace("rows 33-36", "rows 33-35"),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("—", "-"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "x\n",
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused(held: Checkpoint, change: object) -> None:
    with pytest.raises(TrailError, match="is not a checkpoint of a trail"):
        read_checkpoint(change(held.text))  # type: ignore[operator]


def test_keys_are_read_from_pem_as_openssl_writes_it() -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(SIGNING)
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    assert Ed25519Verifier(public).signed(b"text", Ed25519Signer(pem).sign(b"text"))
    name, identity, raw = Ed25519Verifier(public).note_key("bank.example/loans").split("+")
    assert (name, base64.b64decode(raw)) == ("bank.example/loans", b"\x01" + PUBLIC)
    assert bytes.fromhex(identity) == hashlib.sha256(b"bank.example/loans\n\x01" + PUBLIC).digest()[:4]
    other = X25519PrivateKey.generate().public_key()
    pem = other.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    for wrong in (pem, b"short", b"-----BEGIN PUBLIC KEY-----\n"):
        with pytest.raises(TrailKeyError, match="an Ed25519 public key is 32 bytes or PEM"):
            Ed25519Verifier(wrong)


def test_a_key_file_holds_hexadecimal_digits(tmp_path: Path) -> None:
    (tmp_path / "key.hex").write_text(KEY.hex() + "\n")
    assert read_key(tmp_path / "key.hex") == KEY
    (tmp_path / "key.hex").write_text("not a key")
    for path in ("key.hex", "absent"):
        with pytest.raises(TrailKeyError, match="openssl rand -hex 32"):
            read_key(tmp_path / path)


def test_a_proof_shows_a_row_without_the_trail(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    make_trail(path, tmp_path)
    proof = prove(path, 20)
    shown = check_proof(proof.text)
    assert (shown.row, shown.time, shown.kind, shown.checkpoint.number) == (20, 1020.0, "decision", 3)
    assert shown.checkpoint.check(Ed25519Verifier(PUBLIC))
    assert proof.content is not None
    assert shown.holds(proof.content)
    assert json.loads(proof.content.payload)["raw"] == decision(20).raw
    assert not shown.holds(Content(proof.content.salt, proof.content.subject, proof.content.payload + b" "))
    # https://c2sp.org/tlog-proof, by hand: eight leaves, so three hashes beside the way
    lines = proof.text.partition("\n\n")[0].split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[2] == "index 3"
    node = leaf(base64.b64decode(lines[1].removeprefix("extra ")))
    one, two, three = map(base64.b64decode, lines[3:])
    for left, right in ((one, None), (two, None), (None, three)):  # 3 is right, right, left
        node = hashlib.sha256(b"\x01" + (left or node) + (right or node)).digest()
    assert node == shown.checkpoint.root


def test_a_proof_outlives_the_erasure_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    make_trail(path, tmp_path)
    assert prove(path, 3).content is None
    assert check_proof(prove(path, 3).text).row == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "is not a proof"),
        (lambda text: text.replace("index 3", "index 2"), "does not lead to the root"),
        (lambda text: text.replace("index 3", "index 300"), "does not lead to the root"),
        (lambda text: text.replace("extra AQ", "extra AA"), "cannot be read"),
        (lambda text: text.replace("extra AQAAAAAAAAAU", "extra AQAAAAAAAAAV"), "does not lead to the root"),
        (lambda text: re.sub("(extra .{60})..", r"\1++", text), "does not lead to the root"),
        (lambda text: re.sub("(index 3\n)(.*\n)(.*\n)", r"\1\3\2", text), "does not lead to the root"),
    ],
)
def test_a_false_proof_is_refused(tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "t.sqlite"
    make_trail(path, tmp_path)
    text = prove(path, 20).text
    assert change(text) != text  # type: ignore[operator]
    with pytest.raises(TrailError, match=said):
        check_proof(change(text))  # type: ignore[operator]


def test_a_row_of_no_closed_segment_has_no_proof(tmp_path: Path) -> None:
    with open_trail(tmp_path / "t.sqlite") as trail:
        trail.append(decision(1))
    for row in (1, 2, 0):
        with pytest.raises(TrailError, match="no closed segment holds row"):
            prove(tmp_path / "t.sqlite", row)
