"""What a release needs: one owner, weights that are pushed as they are, versions of the site."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from extras import EXTRAS

from wic_layers.models import hub, packaged_weights

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "release"))
import check_tag  # noqa: E402
import owner  # noqa: E402
import push_weights  # noqa: E402
import site_versions  # noqa: E402


def test_one_owner_stands_in_all_addresses(tmp_path):
    named = owner.owners(ROOT)
    expected = {"pyproject.toml", "CITATION.cff", ".github/ISSUE_TEMPLATE/config.yml"}
    assert expected <= named.keys()
    (now,) = set().union(*named.values())
    assert (hub.OWNER is None) == (now == owner.PLACEHOLDER)
    for name in (*named, owner.HUB):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    owner.set_owner(tmp_path, "some-one", "someone")
    assert owner.owners(tmp_path) == {name: {"some-one"} for name in named}
    assert '\nOWNER: str | None = "someone"\n' in (tmp_path / owner.HUB).read_text()
    assert "OWNER/" not in (tmp_path / "pyproject.toml").read_text()


def test_a_tag_is_released_only_with_its_version(tmp_path):
    for name in ("pyproject.toml", "CHANGELOG.md", "CITATION.cff", "wic_layers/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def change(name, before, after):
        path = tmp_path / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))

    now = check_tag.version_of(tmp_path)
    assert "no version of a release" in " ".join(check_tag.wrong_with(f"v{now}", tmp_path))
    change("wic_layers/__init__.py", f'"{now}"', '"0.1.0"')
    assert len(check_tag.wrong_with("v0.1.0", tmp_path)) == 4
    change("CHANGELOG.md", "## [Unreleased]", "## 0.1.0 (2026-12-01)")
    change("CITATION.cff", f"version: {now}\n", "version: 0.1.0\ndate-released: 2024-12-01\n")
    path = tmp_path / "pyproject.toml"
    path.write_text(path.read_text().replace("OWNER", "some-one"))
    assert check_tag.wrong_with("v0.1.0", tmp_path) == []
    (wrong,) = check_tag.wrong_with("v0.1.1", tmp_path)
    assert wrong == "the tag is v0.1.1, and wic_layers/__init__.py says 0.1.0"


def test_every_extra_is_tried_from_the_wheel():
    text = (ROOT / "pyproject.toml").read_text()
    table = text.split("\n[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))
    assert extras - {"dev", "docs"} == EXTRAS.keys()


def test_weights_are_pushed_whole_or_not(tmp_path, monkeypatch, capsys):
    sent = []
    monkeypatch.setattr(push_weights, "upload", lambda *sending, **options: sent.append(sending))
    push_weights.main(["--owner", "some-one", "--dry-run"])
    printed = capsys.readouterr().out
    assert sent == []
    for name in packaged_weights():
        assert f"to some-one/wic-layers-{name}\n" in printed
    name = "clip-3-naive-tiny"
    folder = tmp_path / name
    shutil.copytree(packaged_weights()[name], folder)
    monkeypatch.setattr(push_weights, "described_weights", lambda: {name: folder})
    digest = json.loads((folder / "config.json").read_text())["sha256"]
    for there, options in ((None, []), (digest, []), ("other", ["--replace"])):
        monkeypatch.setattr(push_weights, "on_hub", lambda repository, there=there: there)
        push_weights.main(["--owner", "some-one", *options])
    assert sent == [(f"some-one/wic-layers-{name}", str(folder))] * 3
    refused = {
        "holds other weights": lambda: None,
        "of other weights than": lambda: (folder / "README.md").write_text("none"),
        "are missing": (folder / "config.json").unlink,
    }
    for message, break_it in refused.items():
        break_it()
        with pytest.raises(SystemExit, match="2"):
            push_weights.main(["--owner", "some-one"])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        push_weights.main([])
    assert "expected --owner" in capsys.readouterr().err
    assert len(sent) == 3


def test_the_site_keeps_every_version(tmp_path):
    built, pages = tmp_path / "built", tmp_path / "pages"
    built.mkdir()
    for version in ("dev", "0.9.0", "0.10.0", "0.9.1", "dev"):
        (built / "index.html").write_text(version)
        site_versions.publish(built, pages, version)
    assert json.loads((pages / "versions.json").read_text()) == ["0.10.0", "0.9.1", "0.9.0", "dev"]
    assert (pages / "stable" / "index.html").read_text() == "0.10.0"
    assert (pages / "0.9.0" / "index.html").read_text() == "0.9.0"
    assert 'url=stable/"' in (pages / "index.html").read_text()
    with pytest.raises(SystemExit, match="Expected a version"):
        site_versions.publish(built, pages, "../0.1.0")
