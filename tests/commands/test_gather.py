"""`mmunify gather`: what it hands on."""

from typer.testing import CliRunner

from mmunify.cli import app


def test_folders_arrive(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("mmunify.train.gathering.gather", lambda run, out: calls.append((run, out)) or "made")
    done = CliRunner().invoke(app, ["gather", str(tmp_path), "--out", str(tmp_path / "x")])
    assert done.exit_code == 0 and "-> made" in done.output
    assert CliRunner().invoke(app, ["gather", str(tmp_path)]).exit_code == 0
    assert calls == [(tmp_path, tmp_path / "x"), (tmp_path, None)]
