"""The tables of the pages are those that the benchmarks print of the results in the repository."""

from pathlib import Path

import pytest

import distillation
import small
from comparison.conditions import RATES
from draws import Draws
from rows import Rows

PAGES = Path(__file__).parents[2] / "docs"


def comparison() -> str:
    results = Rows(distillation.RESULTS, distillation.KEY)
    return distillation.summary(results, Draws(distillation.RESULTS, distillation.KEY, RATES), "reduced")[1]


def accuracy() -> str:
    results = Rows(small.RESULTS, small.KEY)
    return small.summary(small.by_recipe(results), results, Draws(small.RESULTS, small.DRAWS_KEY, ("eer",)))


@pytest.mark.parametrize(("page", "printed"), [("comparison.md", comparison), ("models.md", accuracy)])
def test_a_page_shows_the_results(page, printed):
    lines = [line for line in printed().splitlines() if line.startswith("| ")]
    assert len(lines) > 10
    text = (PAGES / page).read_text()
    assert [line for line in lines if line not in text] == []
