"""The comparison of distillation: its plan holds together, and its runs can go side by side."""

import operator

import numpy as np
import pytest
import yaml

from at_once import run_jobs
from comparison.plan import chosen_jobs, compared_with, merged, read_expected, read_plan
from comparison.summary import Run, best_of
from draws import Rate
from parvox.errors import ParvoxError
from parvox.training.recipe import load_recipe


@pytest.mark.parametrize("budget", ["tuning", "full"])
def test_every_row_is_a_recipe(budget, tmp_path):
    for row in read_plan(budget):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(row.recipe))
        options = ["--corpus", "somewhere"]
        if "distillation" in row.recipe:
            options += ["--distillation.teacher", "somebody"]
        assert load_recipe(path, options).model.encoder is not None, row.full_name


def test_rows_of_a_group_differ_in_distillation_alone():
    groups = {}
    for row in read_plan("reduced"):
        if row.name != "teacher":
            training = {**row.recipe["training"]}
            training |= {key: training[key] / row.longer for key in ("epochs", "evaluate_every")}
            groups.setdefault(row.group, []).append({**row.recipe, "distillation": None, "training": training})
    assert all(all(each == rows[0] for each in rows) for rows in groups.values())


def test_every_row_has_its_teacher_and_its_student_alone():
    rows = {(row.group, row.name) for row in read_plan("reduced")}
    for relatives in compared_with().values():
        assert set(relatives.values()) <= rows


def test_methods_are_tuned_with_equal_effort():
    tried = {}
    for row in read_plan("tuning"):
        if row.name != "teacher":
            tried.setdefault((row.group, row.name.split()[0]), []).append(row.recipe["distillation"])
    assert {len(settings) for settings in tried.values()} == {3}
    assert all(len({str(each) for each in settings}) == 3 for settings in tried.values())


def test_jobs_are_each_row_once_before_any_twice_with_the_teachers_they_need():
    rows = read_plan("reduced")
    jobs = [(row.full_name, seed) for row, seed in chosen_jobs(rows, 1, 2, ["resnet34/label", "digits/none"])]
    assert jobs == [
        ("tiny/teacher", 1),
        ("resnet34/label", 1),
        ("digits/teacher", 1),
        ("digits/none", 1),
        ("digits/teacher", 2),
        ("digits/none", 2),
    ]
    jobs = [(row.full_name, seed) for row, seed in chosen_jobs(rows, 2, 2, ["resnet34/label"])]
    assert jobs == [("tiny/teacher", 1), ("resnet34/label", 1), ("tiny/teacher", 2), ("resnet34/label", 2)]
    with pytest.raises(ParvoxError, match="row 'tinny' given; expected one or more of tiny/teacher, "):
        chosen_jobs(rows, 1, 1, ["tinny"])


def test_a_row_that_is_tuned_brings_the_other_settings_that_are_tried():
    jobs = [row.full_name for row, _ in chosen_jobs(read_plan("tuning"), 1, 1, ["tiny/label"])]
    assert jobs == ["tiny/teacher", "tiny/label", "tiny/label weight=1.0 temperature=8.0", "tiny/label weight=1.0"]


@pytest.mark.parametrize("at_once", [1, 2])
def test_each_job_has_its_result(at_once):
    assert dict(run_jobs(operator.neg, range(5), at_once)) == {0: 0, 1: -1, 2: -2, 3: -3, 4: -4}


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_error_of_a_job_is_raised(at_once):
    with pytest.raises(TypeError):
        list(run_jobs(operator.neg, ["word"], at_once))


def test_later_settings_lie_on_top():
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}


def test_what_is_expected_is_of_rows_that_the_plan_has():
    rows = {(row.group, row.name) for row in read_plan("reduced")}
    expected = read_expected()
    assert expected
    assert all({each.row, *each.against} <= rows for each in expected)


def test_the_best_of_several_has_the_lowest_mean():
    def runs(eer):
        return {1: Run(Rate(eer, np.full(9, eer)), Rate(0.5, np.full(9, 0.5)))}

    there = {("tiny", "teacher", "clean"): runs(0.6), ("tiny", "none", "clean"): runs(0.3)}
    assert best_of([*there, ("tiny", "dkd", "clean")], there) == ("tiny", "none", "clean")
    assert best_of([], there) is None
