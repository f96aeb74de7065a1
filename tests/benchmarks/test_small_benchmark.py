"""The accuracy benchmark: what is done is not done again, ratios have intervals, the picture is one."""

import shutil
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest

import picture
import ratios
import small
from draws import Draws
from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import ParvoxError
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.trials import TrialIndex
from rows import Rows


@pytest.fixture
def trained(tmp_path, monkeypatch, prepared_tiny):
    """Stands in for training: notes the jobs, and gives figures."""
    jobs = []

    def run_job(waiting, work, threads):
        job, _, overrides, settings = waiting
        jobs.append((job, overrides))
        figures = dict.fromkeys(
            ("eer", "eer_low", "eer_high", "min_dcf", "parameters", "macs_1s", "ms_3s", "train_s"), 0.25 * job.seed
        )
        row = {"recipe": job.name, "seed": job.seed, "settings": settings, **figures}
        return row, {ratios.ALL: np.zeros((1, ratios.REPLICATES))}

    monkeypatch.setattr(small, "run_job", run_job)
    monkeypatch.setattr(small, "prepare_corpus", lambda *_: PreparedCorpus.load(prepared_tiny))
    monkeypatch.setattr(ratios, "COMPARISONS", ())
    return jobs


def run(tmp_path, **options):
    small.benchmark(
        tmp_path,
        only=["xvector", "bc_cmt"],
        work=tmp_path,
        out=tmp_path / "small.csv",
        picture=tmp_path / "small.svg",
        **options,
    )


def test_what_is_done_is_not_done_again(trained, tmp_path, capsys):
    run(tmp_path, seeds=1)
    assert [job for job, _ in trained] == [small.Job("bc_cmt", 1), small.Job("xvector", 1)]
    run(tmp_path, seeds=2)
    assert [job for job, _ in trained[2:]] == [small.Job("bc_cmt", 2), small.Job("xvector", 2)]
    run(tmp_path, seeds=2)
    assert len(trained) == 4
    assert "| 37.50 % [37.5, 37.5] | 25.00, 50.00 |" in capsys.readouterr().out


def test_other_settings_and_lost_draws_are_done_again(trained, tmp_path):
    run(tmp_path, seeds=1)
    run(tmp_path, seeds=1, options=["training.epochs=2"])
    assert [overrides for _, overrides in trained[2:]] == [["--training.epochs=2"]] * 2
    (tmp_path / "small-draws.csv").unlink()
    run(tmp_path, seeds=1, options=["training.epochs=2"])
    assert [job.name for job, _ in trained[4:]] == ["bc_cmt", "xvector"]


def test_what_starts_from_another_run_comes_after_it(trained, tmp_path):
    names = ["large_margin", "resnet34"]
    small.benchmark(tmp_path, only=names, seeds=2, work=tmp_path, out=tmp_path / "s.csv", picture=tmp_path / "s.svg")
    order = [(job.name, job.seed) for job, _ in trained]
    assert order == [("resnet34", 1), ("resnet34", 2), ("large_margin", 1), ("large_margin", 2)]
    assert small.Job("large_margin", 2).start == small.Job("ecapa_mqmha_top_k", 2)
    assert {job.start.name for job, _ in trained if job.start} <= set(small.recipe_names())


def test_an_unknown_recipe_is_told_the_nearest(tmp_path):
    with pytest.raises(ParvoxError, match="unknown recipe 'xvectr': did you mean 'xvector'"):
        small.benchmark(tmp_path, only=["xvectr"])


def test_other_recipes_do_not_get_among_the_results(trained, tmp_path):
    for given in ({}, {"out": tmp_path / "small.csv"}, {"picture": tmp_path / "small.svg"}):
        with pytest.raises(ParvoxError, match="give --out and --picture"):
            small.benchmark(tmp_path, options=["training.epochs=1"], work=tmp_path, **given)
    assert not trained


def test_a_change_of_what_it_starts_from_is_a_change(trained, tmp_path, monkeypatch):
    recipes = tmp_path / "recipes"
    shutil.copytree(small.RECIPES, recipes)
    monkeypatch.setattr(small, "RECIPES", recipes)
    given = {"only": ["large_margin"], "seeds": 1, "work": tmp_path}
    given |= {"out": tmp_path / "s.csv", "picture": tmp_path / "s.svg"}
    small.benchmark(tmp_path, **given)
    small.benchmark(tmp_path, **given)
    assert len(trained) == 1
    start = recipes / "ecapa_mqmha_top_k.yaml"
    start.write_text(start.read_text().replace("epochs: ", "epochs: 1"))
    small.benchmark(tmp_path, **given)
    assert len(trained) == 2


def test_seeds_are_in_order_however_their_runs_ended(trained, tmp_path, capsys):
    run(tmp_path, seeds=3)
    rows = Rows(tmp_path / "small.csv", small.KEY)
    rows.rows.reverse()
    rows.put(rows.rows[0])  # writes the file
    capsys.readouterr()
    run(tmp_path, seeds=3)
    assert "| 25.00, 50.00, 75.00 |" in capsys.readouterr().out


def test_a_row_that_was_not_timed_has_no_time(trained, tmp_path, capsys):
    """As one that another machine left when it was stopped."""
    run(tmp_path, seeds=1)
    rows = Rows(tmp_path / "small.csv", small.KEY)
    rows.put({**rows.find(recipe="xvector", seed=1), "ms_3s": None, "hardware": "another", "file": "x.onnx"})
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "x.onnx").touch()
    capsys.readouterr()
    run(tmp_path, seeds=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    times = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[3] for line in lines}
    assert times == {"`bc_cmt`": "0.2 ms", "`xvector`": "–"}


def test_every_comparison_is_of_recipes_that_exist():
    names = {str(path.relative_to(small.RECIPES).with_suffix("")) for path in small.recipe_files()}
    assert {name for each in ratios.COMPARISONS for name in (each.recipe, each.baseline)} <= names


def test_ratios_of_known_error_rates(tmp_path, monkeypatch):
    speaker_of = {f"s{speaker}/{number}": f"s{speaker}" for speaker in range(12) for number in range(4)}
    trials = TrialIndex.cross(list(speaker_of), list(speaker_of), speaker_of)
    questions = SimpleNamespace(trials=trials, speakers=trials.speakers(speaker_of))
    monkeypatch.setattr(ratios, "load_questions", lambda corpus: questions)
    draw = np.random.default_rng(0)
    same = (trials.target + draw.normal(0, 0.8, len(trials))).astype(np.float32)
    chance = draw.normal(0, 1, len(trials)).astype(np.float32)
    key = ("recipe", "seed", "trials")
    rows, draws = Rows(tmp_path / "r.csv", key[:2]), Draws(tmp_path / "r.csv", key, ("eer",))
    for name, scores in (("same", same), ("shifted", 3 * same + 7), ("chance", chance)):
        rows.put({"recipe": name, "seed": 1, "eer": ScoreSet.from_labels(scores, trials.target).eer()})
        for which, each in ratios.draws_of(None, scores).items():
            draws.put({"recipe": name, "seed": 1, "trials": which}, each)
    pairs = (("same", "shifted"), ("same", "chance"), ("same", "missing"))
    comparisons = tuple(ratios.Comparison(f"{a} / {b}", a, b, "?") for a, b in pairs)
    monkeypatch.setattr(ratios, "COMPARISONS", comparisons)
    lines = ratios.format_ratios(rows, draws).splitlines()
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[2] for line in lines if " / " in line}
    assert cells["same / shifted"] == "1.00 [1.00, 1.00]"  # EER knows no scale
    assert float(cells["same / chance"].split()[0]) < 0.9
    assert "same / missing" not in cells


def test_the_picture_shows_every_model_within_its_frame(tmp_path):
    points = [picture.Point(f"model{n}", 20 * 1.5**n, 10 + n, 9 + n, 12 + n) for n in range(12)]
    path = tmp_path / "new" / "p.svg"
    picture.draw(points, path)
    root = ElementTree.fromstring(path.read_text())
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{space}circle")
    assert len(circles) == 12
    across = [float(circle.get("cx")) for circle in circles]
    steps = np.diff(across)
    np.testing.assert_allclose(steps, steps[0], atol=0.15)  # equal ratios are equal steps
    texts = [(text.text, float(text.get("x")), float(text.get("y"))) for text in root.findall(f"{space}text")]
    assert {point.name for point in points} <= {text for text, _, _ in texts}
    assert all(0 <= x <= picture.WIDTH and 0 <= y <= picture.HEIGHT for _, x, y in texts)
    before = path.read_text()
    picture.draw(points, path)
    assert path.read_text() == before
