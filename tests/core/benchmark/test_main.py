import json

import pytest

from core.benchmark import __main__ as command
from core.benchmark.harness import OutputsDiffer
from core.reports import Report


def report(limit: int | None) -> Report:
    return Report("benchmark x", ["m"], "d", "cpu", {"speedup": 1.5}, {"limit": limit})


def test_the_benchmarks_are_the_modules(monkeypatch):
    assert "sam" in command.names()
    assert not {"harness", "__init__", "__main__"} & set(command.names())


def test_a_report_is_written_and_printed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "run", lambda name, limit: report(limit))
    path = tmp_path / "new" / "sam.json"
    command.main(["sam", "--json", str(path), "--limit", "2"])
    written = json.loads(path.read_text())
    assert written["figures"] == {"speedup": 1.5}
    assert written["details"] == {"limit": 2}
    assert {"name", "models", "data", "commit", "device"} <= written.keys()
    assert "speedup" in capsys.readouterr().out


def test_a_module_is_run_by_its_name(monkeypatch):
    from core.benchmark import sam

    monkeypatch.setattr(sam, "run", report)
    assert command.run("sam", 3).details == {"limit": 3}


@pytest.mark.parametrize("arguments", [["no_such"], [], ["sam", "--limit", "0"]])
def test_wrong_arguments_end_the_command(arguments):
    with pytest.raises(SystemExit):
        command.main(arguments)


def test_wrong_outputs_end_the_command(monkeypatch, capsys):
    def differ(name: str, limit: int | None) -> Report:
        raise OutputsDiffer("logits differ by 2")

    monkeypatch.setattr(command, "run", differ)
    with pytest.raises(SystemExit) as ended:
        command.main(["sam"])
    assert ended.value.code == 1
    assert "logits differ" in capsys.readouterr().err
