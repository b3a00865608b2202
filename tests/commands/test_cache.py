from mmunify.cli import main
from mmunify.data.cache.feature_cache import FeatureCache
from tests.data.cache.test_feature_cache import fill


def run(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_look_and_clear(tmp_path, capsys):
    cache = FeatureCache(tmp_path)
    fill(cache, "a" * 64, ["k", "l"], used=1000)
    fill(cache, "b" * 64, ["k"])
    assert run("cache", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "aaaaaaaaaaaa" in shown and "CLIPEncoder" in shown and "1970" in shown
    assert run("cache", tmp_path, "--clear", "--name", "aaa") == 0
    assert "MiB are free again" in capsys.readouterr().out
    assert [entry.name[:1] for entry in cache.entries()] == ["b"]
    assert run("cache", tmp_path, "--limit", "0") == 0
    assert "1 shards were deleted" in capsys.readouterr().out
    assert run("cache", tmp_path, "--clear") == 0
    assert cache.entries() == []


def test_mistakes(tmp_path, capsys):
    assert run("cache", tmp_path / "none") == 2
    assert "there is no folder" in capsys.readouterr().err
    assert run("cache", tmp_path, "--clear", "--name", "zzz") == 2
    assert "nothing whose name begins with 'zzz'" in capsys.readouterr().err
