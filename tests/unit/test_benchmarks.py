"""The benchmark runs and its records are whole, on a tiny case. The times themselves are not judged here."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

from heedmap.methods import OURS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def test_a_run_writes_every_contestant_with_its_ratio(tmp_path, capsys):
    options = ["--cases", "tiny-vit", "tiny-lm", "--device", "cpu", "--repeats", "2", "--memory-repeats", "0"]
    page = import_module("benchmarks.__main__").main([*options, "--out", str(tmp_path)])
    record = json.loads(page.with_suffix(".json").read_text())

    assert {"cpu", "cores", "torch"} <= record["machine"].keys()
    assert record["run"]["rounds"] == 2
    assert max(record["run"]["dense_against_heedmap"].values()) <= 1e-4
    contestants = [c.name for c in import_module("benchmarks.contestants").CONTESTANTS.values() if "vit" in c.kinds]
    assert [(f["case"], f["contestant"]) for f in record["figures"]] == [
        (case, name) for case in ("tiny-vit", "tiny-lm") for name in contestants
    ]
    for figure in record["figures"]:
        assert figure["fits"]
        assert len(figure["all_seconds"]) == 2
        limit = next(f for f in record["figures"] if f["case"] == figure["case"])
        assert figure["time_ratio"] == pytest.approx(figure["seconds"] / limit["seconds"])
        assert figure["peak_mb"] is None
    assert page.read_text().count("| tiny-lm |") == len(contestants)
    assert "heedmap absolute" in capsys.readouterr().out


def test_ten_detections_are_held_against_one(tmp_path):
    options = ["--cases", "zoo-detr", "--device", "cpu", "--repeats", "1", "--memory-repeats", "0"]
    names = ["heedmap complete", "heedmap ten detections", "dense batched"]
    page = import_module("benchmarks.__main__").main([*options, "--contestants", *names, "--out", str(tmp_path)])
    _, one, ten = json.loads(page.with_suffix(".json").read_text())["figures"]
    assert ten["beside"] == pytest.approx(ten["seconds"] / one["seconds"])
    assert f"{ten['beside']:.2f} x heedmap complete, at most 3.00: " in page.read_text()


def test_every_method_has_a_row(tmp_path):
    options = ["--cases", "tiny-methods", "--device", "cpu", "--repeats", "2", "--memory-repeats", "0"]
    names = ["method heed", "method gradcam", "method inputxgradient", "method flow"]
    page = import_module("benchmarks.__main__").main([*options, "--contestants", *names, "--out", str(tmp_path)])
    rounds = {
        f["contestant"]: len(f["all_seconds"]) for f in json.loads(page.with_suffix(".json").read_text())["figures"]
    }
    assert rounds == {"limit": 2, **dict.fromkeys(names, 2), "method flow": 1}
    contestants = import_module("benchmarks.contestants").CONTESTANTS
    assert {name for name in contestants if name.startswith("method ")} == {f"method {name}" for name in OURS}


def test_memory_is_measured_in_a_process_of_its_own():
    cases, contestants = import_module("benchmarks.cases"), import_module("benchmarks.contestants")
    measure = import_module("benchmarks.memory").measure_memory
    count = measure(cases.ALL["tiny-vit"], contestants.CONTESTANTS["limit"], "cpu", torch.float32)
    assert 0 < count < 2e9


def test_what_cannot_fit_is_not_started(monkeypatch):
    cases, contestants = import_module("benchmarks.cases"), import_module("benchmarks.contestants")
    memory = import_module("benchmarks.memory")
    monkeypatch.setattr(memory, "available", lambda device: 10**9)
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: pytest.fail("A process was started."))
    dense = contestants.CONTESTANTS["dense batched"]
    assert memory.measure_memory(cases.ALL["lm-8192"], dense, "cpu", torch.float32) is None


def test_long_cases_run_where_they_are_named():
    read = import_module("benchmarks.__main__").read_options
    goals = import_module("benchmarks.report").GOALS
    long = {name for name, case in import_module("benchmarks.cases").CASES.items() if case.long}
    assert long == {"vit-9217", "lm-16384"}
    assert not long & {*read([]).cases, *read(["--quick"]).cases}
    assert set(read(["--cases", *sorted(long)]).cases) == long
    assert {goals[name, "heedmap complete"] for name in long} == {(None, 1.30)}


def test_what_meets_the_ceiling_does_not_fit(monkeypatch):
    machine = import_module("benchmarks.machine")
    timing = import_module("benchmarks.timing")
    monkeypatch.setattr(machine, "available", lambda device: 10**9)
    with machine.ceiling("cpu"):
        assert not timing._warm_up(lambda: torch.empty(2 * 10**9, dtype=torch.uint8), "cpu")
        assert timing._warm_up(lambda: torch.empty(10), "cpu")
    assert len(torch.empty(2 * 10**9, dtype=torch.uint8)) == 2 * 10**9


def test_a_difference_between_the_maps_stops_the_run(monkeypatch):
    main = import_module("benchmarks.__main__")
    monkeypatch.setattr(main, "disagreement", lambda case, device: 0.01)
    with pytest.raises(SystemExit, match=r"differ by 1\.0e-02 on tiny-vit, expected 1e-04 at most"):
        main.main(["--cases", "tiny-vit"])


def test_figures_that_do_not_fit_say_so():
    report = import_module("benchmarks.report")
    seconds = {"limit": [1.0, 2.0, 3.0], "heedmap complete": [1.1, 2.4, 3.0], "dense batched": None}
    peaks = {"limit": [100, 200, 300], "heedmap complete": [220, 240, 230], "dense batched": None}
    limit, complete, dense = report.figures("vit-4097", "float32", seconds, peaks)
    assert (limit.time_ratio, limit.memory_ratio) == (1, 1)
    assert (complete.seconds, complete.time_ratio, complete.time_range) == (2.4, 1.2, (1.0, 1.2))
    assert complete.memory_ratio == pytest.approx(1.15)
    assert report.cells(complete)[-1] == "memory 1.15: reached"
    assert report.cells(dense)[3] == "does not fit"
