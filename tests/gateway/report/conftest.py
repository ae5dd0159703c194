from __future__ import annotations

import pytest
from support.drift_answers import Answers
from support.drift_scenes import breast_cancer, few_rows, many, orders


@pytest.fixture(scope="session")
def cancer_answers() -> Answers:
    return breast_cancer()


@pytest.fixture(scope="session")
def orders_answers() -> Answers:
    return orders()


@pytest.fixture(scope="session")
def many_answers() -> Answers:
    return many()


@pytest.fixture(scope="session")
def few_answers() -> Answers:
    return few_rows()
