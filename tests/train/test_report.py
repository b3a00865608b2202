import json

from rich.console import Console

from mmunify.train.learns import PartCount
from mmunify.train.report import learns_table, peak_memory, versions, write_report

RECORD = {
    "steps": 300,
    "dropped": 2,
    "first_loss": 5.25,
    "final_loss": 0.5,
    "last_metrics": {"loss": 0.4375, "lr": 1e-5},
    "seconds": 12.3,
    "peak_memory": {"cpu": 812.4},
    "learns": [{"part": "adapters.image", "total": 2000, "trained": 1500, "num_tensors": 4}],
    "proof": {
        "steps": 20,
        "num_learning": 4,
        "idle": ["adapters.image.gate"],
        "changed": {"adapters.image": True, "heads.image": False},
        "num_frozen": 81,
        "moved": [],
    },
    "bad_samples": {
        "num_read": 2000,
        "num_bad": 3,
        "listed": [{"number": 7, "id": "cat", "reason": "picture cat.png is empty (0 bytes)"}],
    },
}


def test_report_says_what_happened(tmp_path):
    path = write_report(tmp_path, {"name": "toy", "stages": [{"name": "perceive"}]}, {"perceive": RECORD})
    text = path.read_text()
    assert "| perceive | 300 | 2 | 5.2500 | 0.5000 | 12.3 | cpu 812 |" in text
    assert "| adapters.image | 1,500 | 500 | 4 |" in text
    assert "over 20 steps: 4 learning tensors, 3 of them" in text
    assert "allowed idle: adapters.image.gate; changed parts: adapters.image; 81 frozen tensors, 0 of them" in text
    assert "Samples: 2,000 read, 3 left out (0.15%).\n- cat: picture cat.png is empty (0 bytes)\n" in text
    assert "name: perceive" in text and f"torch {versions()['torch']}" in text


def test_the_picture_of_the_gates_is_in_the_report(tmp_path):
    (tmp_path / "mix_gates.png").touch()
    text = write_report(tmp_path, {}, {"perceive": RECORD, "mix": RECORD}).read_text()
    assert text.count("![") == 1
    assert "![Mean gate weights of stage mix: experts by tasks](mix_gates.png)" in text


def test_the_same_as_json(tmp_path):
    write_report(tmp_path, {"name": "toy"}, {"perceive": RECORD})
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["stages"] == {"perceive": RECORD} and facts["recipe"] == {"name": "toy"}
    assert {"python", "torch", "lightning"} <= set(facts["versions"])


def test_table_of_what_learns():
    console = Console(width=100)
    with console.capture() as capture:
        console.print(learns_table([PartCount("backbone", 1200, 200, 3)], "stage mix"))
    line = next(line for line in capture.get().splitlines() if "backbone" in line)
    assert [cell.strip() for cell in line.strip("│ ").split("│")] == ["backbone", "200", "1,000", "3"]


def test_memory_is_measured():
    assert peak_memory()["cpu"] > 50
