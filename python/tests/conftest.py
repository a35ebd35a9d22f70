"""What several tests use."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture
def torch():
    return pytest.importorskip("torch")
