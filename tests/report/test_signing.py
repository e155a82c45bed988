"""A signed page: who has the public half of the key can tell whether it is as it was signed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from fairlayer.cli import main
from fairlayer.report import check_signature, sign_file
from fairlayer.trail import TrailKeyError

pytest.importorskip("cryptography")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
    )
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_every_file_that_is_written_is_signed(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys
    table, page, document = (tmp_path / name for name in ("t.csv", "page.html", "a.json"))
    pd.DataFrame({"sex": ["F", "M"] * 50, "p": [0.2, 0.7] * 50}).to_csv(table, index=False)
    told = ["audit", str(table), "--score", "p", "--sensitive", "sex", "--html", str(page), "--json", str(document)]
    assert main([*told, "--sign", str(private)]) == 4
    for path in (page, document):
        assert main(["report", str(path), "--verify", str(public)]) == 0
    if shutil.which("openssl"):
        check = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin", "-in", str(page)]
        subprocess.run([*check, "-sigfile", f"{page}.sig"], check=True, capture_output=True)
    page.write_text(page.read_text(encoding="utf-8").replace("NOT EVALUATED", "PASS", 1), encoding="utf-8")
    assert main(["report", str(page), "--verify", str(public)]) == 1
    assert "not what the owner of this key signed" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "none.html"), "--verify", str(public)]) == 2


def test_another_key_has_not_signed(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    page = tmp_path / "page.html"
    page.write_text("held")
    sign_file(page, bytes(range(32)))
    assert not check_signature(page, keys[1].read_bytes())
    with pytest.raises(TrailKeyError):
        sign_file(page, b"no key")
